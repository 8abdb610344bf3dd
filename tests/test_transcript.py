"""One whole chat: every line on stdout and stderr and every event in the log."""

import re

import pytest
from fakes import Said
from terminal import CTRL_C, ENTER, InProcess, Scene, ScriptedPty

from lcp.settings import Sampling

ANSWERS = [
    "The capital of France is Paris.",
    Said("Rome.", thinking="France was Paris. So Italy is"),
    "Roma.",
    Said("It was a dark and stormy night", forever=True),
]

SCREEN = """\
> What is the capital of France?
The capital of France is Paris.
20.0 tokens/s · first token 0.25 s · context 12/4,096 (0 %)

> /system Be brief.
System text: Be brief.
> /set temp 0.5
temp  0.5  /set  default 0.8  Sampling temperature; 0 means no randomness.
> And of Italy?
thought for 0 s
Rome.
20.0 tokens/s · first token 0.25 s · context 18/4,096 (0 %)

> /retry
Variant 2 of this answer; /branches lists the others.
Roma.
20.0 tokens/s · first token 0.25 s · context 18/4,096 (0 %)

> /stats
prompt_tokens      17
reused             0
moved              0
read               17
reply_tokens       1
dropped_turns      0
ttft_s             0.25
read_s             0.2
decode_s           1.0
tokens_per_second  20.0
drafted            0
accepted           0
ctx_used           18
ctx_size           4,096
In this chat: 3 answers of 8 tokens, 40 tokens read, 3.6 s.
> Tell me a story.
It was a dark and stormy night
20.0 tokens/s · first token 0.25 s · context 29/4,096 (1 %) · stopped
(/continue)

> /exit"""

STDOUT = """\
The capital of France is Paris.
Rome.
Roma.
It was a dark and stormy night
"""

STDERR = """\
20.0 tokens/s · first token 0.25 s · context 12/4,096 (0 %)

System text: Be brief.
temp  0.5  /set  default 0.8  Sampling temperature; 0 means no randomness.
France was Paris. So Italy is

20.0 tokens/s · first token 0.25 s · context 18/4,096 (0 %)

Variant 2 of this answer; /branches lists the others.
20.0 tokens/s · first token 0.25 s · context 18/4,096 (0 %)

prompt_tokens      17
reused             0
moved              0
read               17
reply_tokens       1
dropped_turns      0
ttft_s             0.25
read_s             0.2
decode_s           1.0
tokens_per_second  20.0
drafted            0
accepted           0
ctx_used           18
ctx_size           4,096
In this chat: 3 answers of 8 tokens, 40 tokens read, 3.6 s.
20.0 tokens/s · first token 0.25 s · context 29/4,096 (1 %) · stopped (/continue)

"""


def event(n, type, parent=None, **facts):
    at = "2026-11-22T09:31:00.000+00:00"
    return {"v": 1, "id": f"id{n}", "parent": parent, "at": at, "type": type, **facts}


def answer(n, parent, text, read, temp, ended="end", thinking=""):
    words = len(text.split())
    return event(
        n,
        "answer",
        parent,
        text=text,
        **({"thinking": thinking} if thinking else {}),
        tokens=list(range(words)),
        fingerprint="scripted",
        made_with={"llama.cpp": "scripted"},
        ended=ended,
        model="scripted",
        sampling=vars(Sampling(temp=temp)),
        seed=7,
        stats={
            "prompt_tokens": read,
            "reused": 0,
            "moved": 0,
            "read": read,
            "reply_tokens": words,
            "dropped_turns": 0,
            "drafted": 0,
            "accepted": 0,
            "ttft_s": 0.25,
            "read_s": 0.2,
            "decode_s": 1.0,
            "tokens_per_second": 20.0,
            "ctx_used": read + words,
            "ctx_size": 4096,
        },
    )


LOG = [
    event(0, "begin", created="2026-11-22T09:31:00.000+00:00", model="scripted"),
    event(1, "user", text="What is the capital of France?"),
    answer(2, "id1", "The capital of France is Paris.", 6, 0.8),
    event(3, "system", text="Be brief."),
    event(4, "set", temp=0.5),
    event(5, "user", "id2", text="And of Italy?"),
    answer(6, "id5", "Rome.", 17, 0.5, thinking="France was Paris. So Italy is"),
    event(7, "head", to="id5"),
    answer(8, "id5", "Roma.", 17, 0.5),
    event(9, "user", "id8", text="Tell me a story."),
    answer(10, "id9", "It was a dark and stormy night", 22, 0.5, ended="interrupted"),
]


def the_chat(terminal):
    for line, answer in (
        ("What is the capital of France?", "Paris."),
        ("/system Be brief.", "System text:"),
        ("/set temp 0.5", "temperature"),
        ("And of Italy?", "Rome."),
        ("/retry", "Roma."),
        ("/stats", "ctx_size"),
        ("Tell me a story.", "stormy night"),
    ):
        terminal.type(line + ENTER)
        terminal.sees(answer)
    terminal.type(CTRL_C)
    terminal.type("/exit" + ENTER)
    assert terminal.leaves() == 0
    assert terminal.events() == LOG


@pytest.mark.parametrize("place", [InProcess, pytest.param(ScriptedPty, marks=pytest.mark.slow)])
def test_a_chat_in_a_terminal(place, tmp_path):
    def body(terminal):
        the_chat(terminal)
        assert re.sub(r"(thought for) \d+ s", r"\1 0 s", terminal.screen()) == SCREEN

    place(Scene(ANSWERS), tmp_path).live(body)


def test_a_chat_whose_answers_and_notices_go_into_pipes(tmp_path):
    chat = InProcess(Scene(ANSWERS), tmp_path, piped=True)
    chat.live(the_chat)
    assert chat.out.written == STDOUT
    assert chat.err.written == STDERR
