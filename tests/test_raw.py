"""--raw continues text without a chat template."""

import json
import subprocess
import sys
from datetime import datetime

import pytest
from fakes import ScriptedEngine, does, gbnf, new_chat
from terminal import ENTER, Pty, terminal_environment

from lcp.engine.engine import LlamaEngine
from lcp.engine_interface import PromptMessage, Request
from lcp.errors import TemplateError
from lcp.settings import Layers, Sampling, Settings

NOW = datetime(2026, 11, 29, 9, 0)
COMMAND = [sys.executable, "-m", "lcp"]


def chat_with(engine, **flags):
    layers = Layers(flags={"raw": "on", "max_tokens": 12, "seed": 1, **flags})
    return new_chat(engine, layers, "tiny")


@pytest.fixture
def engine(tiny):
    with LlamaEngine(tiny(template=None), Settings(ctx_size=512, threads=1), now=NOW) as one:
        one.load().result()
        one.raw = True
        yield one


def spelled(engine, messages):
    return "".join(text for _, text in engine.prompt(messages))


def test_the_prompt_is_the_text_and_nothing_else(engine):
    talk = [
        PromptMessage("system", "Be brief."),
        PromptMessage("user", " Once\n"),
        PromptMessage("assistant", " upon "),
        PromptMessage("user", "a  time "),
    ]
    assert spelled(engine, talk) == "<s> Once\n upon a  time "
    with pytest.raises(TemplateError):  # a model without BOS would have nothing to continue
        engine.model.adds_bos = False
        engine.count([PromptMessage("user", "")])


@pytest.mark.parametrize("kind", ["dense", "recurrent", "hybrid", "swa"])
def test_a_chat_continues_its_text_and_reads_nothing_twice(tiny, kind):
    with LlamaEngine(tiny(kind, template=None), Settings(ctx_size=512, threads=1), now=NOW) as one:
        chat = chat_with(one)
        chat.load()
        first = chat.ask("Once upon")
        chat.ask(" a time")
        turns = chat.conversation.turns()
        ids = [one.model.bos]
        for turn in turns:
            ids += [*one.model.tokenize(turn.user.content), *turn.answer.tokens]
        assert [token for token, _ in one.prompt(chat.overflow.visible())] == ids
        assert chat.stats.reused >= 1 + len("Once upon") + len(first.sampled) - 1
        # a new engine with the same text
        chat.go(turns[-1].user.id)
        again = chat.answer()
        assert again.text == turns[-1].answer.content


def test_undo_retry_and_continue_work_with_raw_text(engine):
    chat = chat_with(engine)
    chat.ask("Once upon")
    chat.ask(" a time")
    does(chat, "/undo")
    assert len(chat.conversation.turns()) == 1
    before = chat.conversation.turns()[0].answer.content
    assert chat.conversation.turns()[0].answer.ended == "length"
    does(chat, "/continue")
    assert chat.conversation.turns()[0].answer.content.startswith(before)
    does(chat, "/retry")
    assert spelled(engine, chat.overflow.visible()).startswith("<s>Once upon")


def test_thinking_tags_and_end_marks_are_text(engine):
    grammar = 'root ::= "<think>a</think>b<|im_end|>c"'
    asked = Request([PromptMessage("user", "x")], Sampling(seed=1), 99, constraint=gbnf(grammar))
    reply = engine.reply(asked)
    list(reply)
    assert (reply.text, reply.thinking) == ("<think>a</think>b<|im_end|>c", "")


def test_a_text_larger_than_the_window_slides(engine):
    chat = chat_with(engine, overflow="summarize", max_tokens=60)
    for _ in range(8):
        chat.ask("word " * 20)
    assert len(chat.overflow.unseen()) and not chat.conversation.summaries


def test_raw_can_be_set_in_the_chat_without_a_notice_about_chatml(tiny):
    with LlamaEngine(tiny(template=None), Settings(ctx_size=512, threads=1), now=NOW) as one:
        chat = chat_with(one, raw="off")
        chat.load()
        chat.ready()
        assert "--raw" in chat.screen._err.file.getvalue()
        one.raw = True
        assert not one.notices()
        does(chat, "/system Be brief.")
        assert "not used" in does(chat, "/set raw on")
        assert one.raw and chat.screen.verbatim
        chat.ask("Once")
        assert spelled(one, chat.overflow.visible()).startswith("<s>Once")
        does(chat, "/set raw off")
        assert not one.raw


# the command line


def run(home, model, *words, stdin=""):
    return subprocess.run(
        [*COMMAND, "chat", str(model), "-n", "5", "--seed", "1", *words],
        input=stdin.encode(),
        capture_output=True,
        env=terminal_environment(home),
        check=False,
    )


def stats(done):
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["stats"] for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_pipes_lines_and_resumed_chats_continue_the_text(home, tiny):
    model = tiny()  # its template is not used
    (one,) = stats(run(home, model, "--raw", "--json", "Once"))
    assert one["prompt_tokens"] == len("<Once")  # a token is a byte, and one begins the text
    (piped,) = stats(run(home, model, "--raw", "--json", "--no-save", stdin="Once\n"))
    assert piped["prompt_tokens"] == one["prompt_tokens"]
    first, second = stats(run(home, model, "--raw", "--json", "--lines", "--no-save", stdin="a\nb"))
    assert second["prompt_tokens"] == first["prompt_tokens"] + first["reply_tokens"] + 1
    (on,) = stats(run(home, model, "--resume", "20", "--json", "!"))  # raw, as before
    assert on["prompt_tokens"] == one["prompt_tokens"] + one["reply_tokens"] + 1


@pytest.mark.slow
def test_a_person_continues_a_text(home, tiny):
    home.mkdir()
    with Pty(*COMMAND, "chat", str(tiny(template=None)), "--raw", "-n", "4", home=home) as chat:
        chat.sees("context 0/")
        chat.type("Once upon" + ENTER)
        chat.sees("first token")
        chat.type("/set raw" + ENTER)
        chat.sees("without a chat template")
        assert "ChatML" not in chat.raw


# settings without effect are reported once


@pytest.mark.parametrize("name", ["reasoning_effort", "reasoning_budget"])
def test_settings_without_effect_are_reported_when_set_but_not_on_resume(name):
    value = "low" if name == "reasoning_effort" else 500
    for layer, says in (("flags", True), ("environment", True), ("conversation", False)):
        engine = ScriptedEngine()
        engine.template.thinks, engine.template.uses = False, lambda *_: False
        chat = chat_with(engine, raw="off")
        chat.use(Layers(**{layer: {name: value}}))
        chat.load()
        chat.ready()
        assert ("chat template" in chat.screen._err.file.getvalue()) is says, layer
        assert "chat template" in does(chat, f"/set {name} {value}")
        word = "low" if name == "reasoning_effort" else "500"
        assert "model" in does(chat, f"/think {word}")
