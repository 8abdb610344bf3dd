"""The slash commands about the last prompt and answer, with a real engine."""

import io
import re
from dataclasses import replace
from datetime import datetime

import pytest
from fakes import does, gbnf, new_chat
from rich.console import Console

from lcp.commands.why import prompt_parts
from lcp.engine.engine import LlamaEngine
from lcp.engine_interface import PromptMessage
from lcp.errors import LcpError, NotEnoughMemory
from lcp.settings import Layers, Settings
from lcp.terminal import token_charts

FORCED = "root ::= [a-z ]{40} [.]"


@pytest.fixture(scope="module")
def engine(tiny):
    with LlamaEngine(tiny(), Settings(ctx_size=1024, threads=1), now=datetime.now()) as one:
        one.load().result()
        yield one


@pytest.fixture
def chat(engine):
    return chat_with(engine)


def chat_with(engine):
    """A chat; `says` runs a command and returns what it prints."""
    layers = Layers(flags={"seed": "1", "temp": "2"})
    chat = new_chat(engine, layers, "tiny", read_ahead=False, constraint=gbnf(FORCED))
    chat.says = lambda line: does(chat, line)
    return chat


def answers(chat):
    return [m for m in chat.conversation.nodes.values() if m.role == "assistant"]


def test_tokens_shows_the_last_prompt(chat):
    chat.ask("Hi, you\tthere.")
    told = chat.says("/tokens")
    ids = [int(id) for id in re.findall(r"\[(\d+)\]", told)]
    assert ids == [id for id, _ in chat.engine.prompt([PromptMessage("user", "Hi, you\tthere.")])]
    assert told.endswith(f"{len(ids)} tokens\n")
    assert "⇥[" in told and "⏎[" in told and "␣[" in told


def test_a_long_prompt_is_shortened_in_the_middle(chat):
    chat.ask("x" * 500)
    told = chat.says("/tokens")
    shown = len(re.findall(r"\[\d+\]", told))
    total = len(chat.engine.prompt([PromptMessage("user", "x" * 500)]))
    assert shown == 300
    assert f"… {total - 300} tokens …" in told


def test_probs_shows_the_probabilities_of_the_last_answer(chat):
    answer = chat.ask("Hi.").text
    told = chat.says("/probs")
    assert answer in told
    numbered = re.findall(r"^ *(\d+) (\S+) +([\d.]+)% █+$", told, re.MULTILINE)
    assert len(numbered) == 8
    for n, piece, _ in numbered:
        assert piece.replace("␣", " ") == answer[int(n) - 1]
    assert "The least likely of 41 tokens" in told


def test_probs_n_shows_the_alternatives_of_a_token(chat):
    answer = chat.ask("Hi.").text
    told = chat.says("/probs 5")
    assert told.startswith(f"…{answer[:4]}\n")
    assert len(re.findall(r"^ *\*?\d* \S+ +[\d.]+% █+$", told, re.MULTILINE)) in (10, 11)
    assert told.count("*") >= 1  # the sampled one
    assert "/fork 5 K " in told


def test_a_fork_continues_with_the_alternative(chat):
    first = chat.ask("Hi.")
    rows = chat.engine.probs(
        [PromptMessage("user", "Hi.")], PromptMessage("", "", tokens=tuple(first.sampled))
    ).result()
    others = [other.text for other in rows[9].others]
    k = next(
        i
        for i, text in enumerate(others, 1)
        if re.fullmatch("[a-z ]", text) and text != first.text[9]
    )
    held = list(chat.engine._loaded.context.tokens)
    told = chat.says(f"/fork 10 {k}")
    old, new = answers(chat)
    assert old.content == first.text
    assert new.parent == old.parent
    assert new.content[:10] == first.text[:9] + others[k - 1]
    assert re.fullmatch("[a-z ]{40}[.]", new.content)
    assert chat.conversation.turns()[-1].answer == new
    assert told.startswith(f"…{new.content[:10]}\n")
    # the tokens before it were not read again
    assert chat.stats.reused >= held.index(first.sampled[8]) - 1 > 0
    assert chat.stats.read <= 2


def test_an_impossible_fork_keeps_the_answer(chat):
    answer = chat.ask("Hi.")
    rows = chat.engine.probs(
        [PromptMessage("user", "Hi.")], PromptMessage("", "", tokens=tuple(answer.sampled))
    ).result()
    k = next(i for i, o in enumerate(rows[3].others, 1) if not re.fullmatch("[a-z ]", o.text))
    for line in (f"/fork 4 {k}", "/fork", "/fork 4", "/fork 99 1", "/fork 1 99", "/fork a b"):
        with pytest.raises(LcpError):
            chat.says(line)
        assert chat.conversation.turns()[-1].answer.content == answer.text


@pytest.mark.parametrize("line", ["/tokens", "/probs", "/probs 1", "/fork 1 1"])
def test_commands_before_the_first_question(chat, line):
    with pytest.raises(LcpError, match="Ask something first"):
        chat.says(line)


@pytest.mark.parametrize("number", ["0", "42", "x", "-1"])
def test_a_token_number_that_does_not_exist(chat, number):
    chat.ask("Hi.")
    with pytest.raises(LcpError, match="is not a token of the last answer"):
        chat.says(f"/probs {number}")


def test_an_answer_of_another_model_is_refused(chat):
    chat.ask("Hi.")
    event = chat.conversation.ask("And now?")
    chat.conversation.answer("Well.", "end", "other", tokens=[1, 2], fingerprint="other")
    assert event
    with pytest.raises(LcpError, match="did not generate this answer"):
        chat.says("/probs")


def test_output_does_not_rely_on_colour_and_does_not_move_the_cursor():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=60)
    console.print(token_charts.coloured([("a\x1b[2J", 1.0), ("b", 0.01)]))
    console.print(token_charts.bars([("1", "\x1b[2J\n", 0.5), ("2", " ", 0.0)]))
    console.print(token_charts.tokens([(1, "\x1b[2J"), (2, "\u202e")]))
    assert "\x1b[2J" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
    assert "50.00%" in out.getvalue() and "␣" in out.getvalue()


def test_why_shows_what_an_answer_needed(chat, engine):
    chat.ask("The cat is red. The dog is blue.")
    chat.ask("Which is red? Say it.")
    held = engine.cached
    told = chat.says("/why")
    rows = [line for line in told.splitlines() if re.search(r"[+-]\d+\.\d", line)]
    assert "The cat is red. The dog is blue." in rows[0]  # the turn
    assert any("Say it." in row for row in rows)
    assert all("%" in row for row in rows[:3])
    assert engine.cached == held
    chat.ask("And now?")  # the chat continues


def test_a_prompt_without_a_sentence_may_have_more_tokens(tiny):
    """A template may write more when it sees less, so each context is sized for its prompts."""
    template = (
        "{% for m in messages %}{{ m.role }} {{ m.content }}\n"
        "{% if 'red' in m.content and 'blue' not in m.content %}{{ 'x' * 600 }}{% endif %}"
        "{% endfor %}"
    )
    settings = Settings(ctx_size=1024, threads=1)
    with LlamaEngine(tiny(template=template), settings, now=datetime.now()) as one:
        one.load().result()
        chat = chat_with(one)
        chat.ask("The cat is red. The dog is blue.")
        chat.ask("Which?")
        told = chat.says("/why")
    assert len(re.findall(r"(?m)^ *[+-]\d+\.\d", told)) == 4  # the turn, and its three sentences


@pytest.mark.slow
def test_leaving_out_the_system_text_adds_no_default_system_text(smollm2):
    said = [("system", "Be kind."), ("user", " "), ("assistant", "Yes."), ("user", "A. B.")]
    parts = list(prompt_parts([PromptMessage(role, text) for role, text in said]))
    assert [part.text for part in parts] == ["Be kind.", "A. ", "B."]
    with LlamaEngine(smollm2, Settings(ctx_size=512, threads=1), now=datetime.now()) as one:
        one.load().result()
        prompt = "".join(text for _, text in one.prompt(parts[0].rest))
    assert "A. B." in prompt and "Be kind." not in prompt
    assert "assistant named" not in prompt  # of the template


@pytest.mark.parametrize("line", ["/why", "/probs", "/fork 1 2", "/tokens"])
def test_an_answer_whose_turn_is_hidden_has_no_prompt(chat, line):
    for turn in (1, 2):  # alone, and after another turn
        chat.ask("The cat is red. The dog is blue.")
        chat.says(f"/forget {turn}")
        with pytest.raises(LcpError, match=f"/pin {turn} brings it back"):
            chat.says(line)
        chat.says(f"/pin {turn}")
        chat.says("/probs")


def test_why_refuses_a_single_sentence(chat):
    chat.ask("Hello")
    with pytest.raises(LcpError, match="single sentence"):
        chat.says("/why")


def test_too_little_memory_is_reported_in_bytes(chat):
    chat.ask("One. Two.")
    chat.services = replace(chat.services, free_memory=lambda: 1000)
    with pytest.raises(NotEnoughMemory, match="MB"):
        chat.says("/why")
