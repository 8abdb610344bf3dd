"""Replaying: the answers of a saved chat, generated again in a new engine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import does, gbnf, new_chat
from terminal import NOW, PATIENCE_S, ROOT, terminal_environment

from lcp import commands
from lcp.chat.replay import Replay
from lcp.chat.services_interface import FoundModel, Services
from lcp.engine.engine import LlamaEngine
from lcp.session.store import Store, load
from lcp.settings import Layers

# room for two short turns
SETTINGS = {"ctx_size": 256, "max_tokens": 24, "threads": 1, "temp": 0.8, "seed": 5}
ASKS = "[assistant] {% if reasoning_effort %}<think>{% elif not enable_thinking %}- {% endif %}"
LONG = "{}? What is it like at sea, where the wind is?"


@pytest.fixture
def chat(tiny, home):
    """A function that begins a saved chat with a tiny model."""
    begun = []

    def begin(form=None, **flags):
        template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}" + ASKS
        path = tiny("dense", quant="Q8_0", template=template)
        layers, store = Layers(flags=SETTINGS | flags), Store(home / "data" / "sessions")
        engine = LlamaEngine(path, layers.resolve(), now=NOW)
        more = {"store": store, "now": lambda: NOW, "constraint": form}
        begun.append(new_chat(engine, layers, str(path), **more))
        begun[-1].load()
        begun[-1].ready()
        return begun[-1]

    yield begin
    for chat in begun:
        chat.engine.close()
        chat.log.close()


def replay(chat, moved=None):
    """The result for each answer of the log; `moved`: a model's name -> its file now."""
    chat.engine.close()
    services = Services(find=lambda name: FoundModel(name, (moved or {}).get(name, Path(name))))
    here = Layers(config={"threads": 1, "temp": 2, "think": "off"})  # only one of them counts
    drawn = Replay(services, here, load(chat.log.path)[0], lambda _: None)
    return [answer.line() for answer in drawn]


def change(chat, type, **facts):
    """Change the facts of the last event of a type in the log; None removes one."""
    lines = chat.log.path.read_text("utf-8").splitlines()
    at = max(i for i, line in enumerate(lines) if f'"type":"{type}"' in line)
    event = json.loads(lines[at]) | facts
    kept = {name: value for name, value in event.items() if value is not None}
    lines[at] = json.dumps(kept, separators=(",", ":"))
    chat.log.path.write_text("\n".join(lines) + "\n", "utf-8")


def answers(chat):
    events, _ = load(chat.log.path)
    return [event for event in events if event["type"] == "answer"]


@pytest.mark.slow
def test_the_same_tokens_also_after_a_slide(chat, lcp_main, capsys):
    one = chat()
    for word in ("sea", "salt", "fog"):
        one.ask(LONG.format(word))
    assert answers(one)[-1]["stats"]["moved"] > 0
    one.log.close()
    assert lcp_main("sessions", "replay", one.log.id) == 0
    out, err = capsys.readouterr()
    assert out == "".join(f"turn {n}: the same 24 tokens\n" for n in (1, 2, 3))
    assert err == "3 of 3 answers came out the same.\n"


@pytest.mark.slow
def test_a_different_answer_is_shown_where_it_differs_with_exit_code_1(chat, lcp_main, capsys):
    one = chat()
    one.ask("Hi.")
    one.ask("And?")
    one.log.close()
    change(one, "answer", seed=6)
    assert lcp_main("sessions", "replay", one.log.id, "--json") == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    told = {"at": None, "was": None, "came": None, "why": ""}
    assert first == told | {
        "id": answers(one)[0]["id"], "turn": 1, "answer": 1, "tokens": 24, "result": "same"
    }  # fmt: skip
    assert (second["turn"], second["result"]) == (2, "parts")
    assert second["at"] <= second["tokens"] == 24
    line = replay(one)[1]
    assert line.startswith(f"turn 2: differs from token {second['at']} of 24: ")
    assert line.endswith(f"{second['was']!r} in the chat, {second['came']!r} now")


@pytest.mark.slow
@pytest.mark.parametrize("forked", [True, False])
def test_a_slide_after_different_tokens_uses_the_saved_answer(chat, forked):
    one = chat(seed=1)
    one.ask(LONG.format("sea"))
    one.ask(LONG.format("salt"))
    if forked:
        does(one, "/fork 2 2")
    else:
        change(one, "answer", seed=2)
    for word in ("fog", "rope"):
        one.ask(LONG.format(word))
        assert answers(one)[-1]["stats"]["moved"] > 80
    *_, other, third, fourth = replay(one)
    assert " not replayed: " in other if forked else " differs from token " in other
    assert third.startswith("turn 3: the same ") and fourth.startswith("turn 4: the same ")


def test_each_answer_is_replayed_with_its_own_settings(chat):
    """The system text, the settings, forgotten turns, the variables of the template."""
    one = chat()
    one.keep(one.conversation.set_system("Be brief."))
    one.ask("Hi.")
    does(one, "/set temp 1.5")
    does(one, "/set repeat_penalty 1.3")
    does(one, "/think off")
    one.ask("And?")
    does(one, "/retry")
    does(one, "/forget 1")
    one.keep(one.conversation.set_system("Be long."))
    does(one, "/think low")
    does(one, "/think 5")
    one.ask("So?")
    does(one, "/undo 2")
    one.ask("What?")
    made_with = [a["made_with"] for a in answers(one)]
    assert [facts.get("think") for facts in made_with] == [None, "off", "off", None, None]
    assert (made_with[3]["reasoning_budget"], made_with[3]["reasoning_effort"]) == (5, "low")
    assert answers(one)[3]["thinking"]
    turns = ["turn 1", "turn 2", "turn 2, answer 2", "turn 3", "turn 2"]
    tokens = [len(a.get("sampled") or a["tokens"]) for a in answers(one)]
    assert replay(one) == [
        f"{turn}: the same {n} tokens" for turn, n in zip(turns, tokens, strict=True)
    ]


def test_an_answer_must_end_where_it_ended(chat):
    one = chat()
    one.ask("Hi.")
    change(one, "answer", ended="end")
    assert replay(one)[0].startswith("turn 1: differs from token 25 of 24: the end in the chat, '")


def test_an_answer_generated_in_several_parts_is_not_replayed(chat):
    one = chat(max_tokens=20)
    one.ask("Hi?" * 20)
    does(one, "/continue")
    does(one, "/fork 3 2")
    assert replay(one) == [
        "turn 1: the same 20 tokens",
        "turn 1, answer 2: not replayed: it continues another answer",
        "turn 1, answer 3: not replayed: it continues another answer",
    ]


def test_an_answer_that_a_person_wrote_is_not_replayed(chat):
    one = chat()
    one.ask("What is the sea?")
    one.go(one.conversation.turns()[-1].user.id)
    one.keep(one.conversation.answer("It is wide.", "edited", one.model))
    one.ask("And deep?")
    assert replay(one)[1:] == [
        "turn 1, answer 2: not replayed: a person wrote it",
        "turn 2: the same 24 tokens",
    ]


def test_an_answer_in_which_the_window_slid_is_not_replayed(chat):
    one = chat(max_tokens=20, loop_guard="off")
    one.ask("Hi?" * 20)
    does(one, "/set max_tokens auto")
    does(one, "/set temp 0")
    one.ask("And?" * 12)
    assert answers(one)[-1]["made_with"]["before"] > 60
    assert replay(one)[1] == "turn 2: not replayed: it continues another answer"


def test_replay_uses_the_saved_context_size_and_the_local_threads(chat):
    one = chat(ctx_size=512, flash_attn="on", threads=2)
    one.ask("Hi.")
    one.engine.close()
    seen = []

    def engine(found, settings, now):
        seen.append((settings.ctx_size, settings.flash_attn, settings.threads, now))
        return LlamaEngine(found.path, settings, now=now)

    services = Services(find=lambda name: FoundModel(name, Path(name)), engine=engine)
    here = Layers(config={"ctx_size": 64, "flash_attn": "off", "threads": 1})
    (answer,) = Replay(services, here, load(one.log.path)[0], lambda _: None)
    assert (answer.result, seen) == ("same", [(512, "on", 1, NOW)])


def test_an_answer_with_a_constraint_is_not_replayed(chat):
    one = chat(form=gbnf('root ::= "yes" | "no"'))
    one.ask("Hi.")
    assert replay(one) == ["turn 1: not replayed: it had to match a schema, regex or grammar"]


def test_an_older_log_is_replayed_if_it_has_enough_facts(chat):
    one = chat()
    one.ask("Hi.")
    change(one, "answer", made_with=None)
    one.ask("And?")
    change(one, "answer", made_with=[], sampling=None)
    assert replay(one) == [
        "turn 1: the same 24 tokens",
        "turn 2: not replayed: its sampling is not in the log",
    ]


def test_a_different_prompt_is_reported(chat):
    one = chat()
    one.keep(one.conversation.set_system("Be brief."))
    one.ask("Hi.")
    had = answers(one)[0]["stats"]["prompt_tokens"]
    change(one, "system", text="Be")
    assert replay(one) == [
        f"turn 1: not replayed: its prompt had {had} tokens, and here it has {had - 7}"
    ]


def test_a_different_version_of_llama_cpp_is_reported(chat):
    one = chat()
    one.ask("Hi.")
    made_with = answers(one)[0]["made_with"] | {"llama.cpp": "0.2.1"}
    change(one, "answer", made_with=made_with)
    assert replay(one) == ["turn 1: the same 24 tokens"]
    change(one, "answer", seed=6)
    assert "llama-cpp-python 0.2.1" in replay(one)[0]


def test_a_different_model_is_refused_and_both_are_named(chat, tiny, lcp_main, capsys):
    one = chat()
    one.ask("Hi.")
    other = tiny("dense", seed=1)
    name, was = one.engine.model.path.stem, one.engine.identity
    (line,) = replay(one, {one.model: other})
    assert line.startswith(f"turn 1: not replayed: {name} ({was}) gave it, and {other.name} is ")
    one.log.close()
    change(one, "answer", model="/nowhere/lost.gguf")
    assert lcp_main("sessions", "replay", one.log.id) == 1
    out, err = capsys.readouterr()
    assert out.startswith("turn 1: not replayed: There is no ")
    assert err.startswith("lcp: ") and err.count("\n") == 1


def test_each_model_generates_its_own_answers(chat, tiny):
    one, other = chat(), tiny("swa", quant="Q8_0")
    one.services = Services(find=lambda name: FoundModel(name, Path(name)))
    first = one.model
    for model in ("", str(other), first):
        if model:
            one = commands.run(one, f"/model {model}")
        one.ask("Hi.")
    tokens = [len(a.get("sampled") or a["tokens"]) for a in answers(one)]
    same = [f"turn {n}: the same {length} tokens" for n, length in enumerate(tokens, 1)]
    assert replay(one) == same
    broken = other.with_name("broken.gguf")
    broken.write_bytes(b"GGUF")
    lost = replay(one, moved={str(other): broken})
    assert [lost[0], lost[2]] == [same[0], same[2]]
    assert lost[1].startswith("turn 2: not replayed: ")


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_reports_the_progress(chat, home):
    one = chat()
    one.ask("Hi.")
    one.ask("And?")
    stats = answers(one)[1]["stats"] | {"ctx_size": 32_768}
    change(one, "answer", tokens=[9] * 30_000, stats=stats)
    one.log.close()
    command = [sys.executable, "-m", "lcp", "sessions", "replay", one.log.id]
    environment = terminal_environment(home) | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "turn 1: the same 24 tokens\n"
    os.kill(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 130
    assert err == "Stopped after 1 answer.\n"
