"""Whether an answer repeats itself for ever: properties of cycles, and counterexamples."""

import re
from datetime import datetime

import pytest
from fakes import gbnf, new_chat
from hypothesis import given
from hypothesis import strategies as st

from lcp import commands
from lcp.answers import repetition
from lcp.engine.engine import LlamaEngine
from lcp.engine_interface import PromptMessage, Request
from lcp.engine_notices import Repetition
from lcp.settings import Layers, Sampling, Settings

ids = st.integers(0, 5)


@given(st.lists(ids, max_size=300), st.lists(ids, min_size=1, max_size=100))
def test_a_cycle_is_found_after_any_text(before, cycle):
    tokens = before + cycle * max(repetition.TIMES, -(-repetition.TOKENS // len(cycle)))
    size = repetition.period(tokens)
    assert size and len(cycle) % size == 0
    assert tokens[-size:] * repetition.TIMES == tokens[-size * repetition.TIMES :]


@given(st.lists(ids, max_size=900))
def test_a_found_cycle_repeats(tokens):
    if size := repetition.period(tokens):
        filled = max(repetition.TOKENS, repetition.TIMES * size)
        assert all(a == b for a, b in zip(tokens[-filled:], tokens[-filled + size :], strict=False))


@given(st.lists(ids, min_size=1, max_size=200), st.integers(1, 1000))
def test_short_repetition_is_not_a_loop(cycle, n):
    assert repetition.period((cycle * n)[: repetition.TOKENS - 1]) == 0


@pytest.mark.slow
@given(st.lists(ids, min_size=1, max_size=40), ids, st.integers(0, repetition.TOKENS - 1))
def test_one_token_that_differs_breaks_a_loop(cycle, other, where):
    tokens = (cycle * repetition.TOKENS)[: repetition.TOKENS]
    if tokens[where] != other and where < repetition.TOKENS - len(cycle):
        tokens[where] = other
        assert repetition.period(tokens) == 0


def test_the_longest_cycle():
    longest = list(range(repetition.PERIOD))
    assert repetition.period(longest * repetition.TIMES) == repetition.PERIOD
    assert repetition.period([*longest, 9999] * repetition.TIMES) == 0


# typical answers, and typical loops


def words(text):
    """About what a tokenizer does: words with a space, white space, punctuation."""
    return re.findall(r" ?\w+|\s+|[^\w\s]", text)


HARMLESS = {
    "a table": "| name | age |\n|---|---|\n" + "".join(f"| {i} | 0 |\n" for i in range(60)),
    "an empty table": "|   |   |   |\n" * 12,
    "laughter": "ha " * 60,
    "a rule": "-" * 80,
    "code": "def f():\n" + "    x = x + 1\n" * 20 + "    return x\n",
    "a zero matrix": "[0, 0, 0, 0, 0],\n" * 10,
    "a poem": ("Row, row, row your boat,\nGently down the stream.\nMerrily, " * 3) * 3,
    "a long refrain": "".join(f" word{i}" for i in range(100)) * 3,
    "a list": "".join(f"{i}. An item of the list.\n" for i in range(100)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HARMLESS)
def test_ordinary_answers_are_not_loops(name):
    tokens = words(HARMLESS[name])
    assert not any(repetition.period(tokens[:n]) for n in range(len(tokens) + 1))


@pytest.mark.parametrize(
    "text", [" and so on" * 100, "The same line again.\n" * 60, "no" + " no" * 300]
)
def test_endless_answers_are_loops(text):
    assert repetition.period(words(text))


def test_the_repetitions_of_a_cycle_are_counted():
    assert repetition.repetition([7, 8, 9] + [1, 2] * 110, 2) == Repetition(2, 110)
    assert repetition.repetition([1] * 200, 1) == Repetition(1, 200)


# in an answer


@pytest.mark.slow
def test_an_answer_that_repeats_itself_is_stopped_and_can_continue(tiny):
    def ask(**request):
        reply = one.reply(
            Request(
                [question],
                Sampling(seed=1),
                900,
                constraint=gbnf(forced),
                loop_guard=True,
                **request,
            )
        )
        list(reply)
        return reply

    question = PromptMessage("user", "Tell me a story.")
    forced = 'root ::= [a-z]{20} ("la"){900}'
    with LlamaEngine(tiny(), Settings(ctx_size=2048), now=datetime.now()) as one:
        one.load().result()
        cut = ask()
        assert (cut.ended, repetition.period(cut.tokens)) == ("length", 2)
        assert repetition.TOKENS <= len(cut.tokens) <= 20 + repetition.TOKENS + repetition.EVERY
        assert cut.notice == repetition.repetition(cut.tokens, 2)
        begun = PromptMessage("assistant", cut.text, "", tuple(cut.tokens), one.identity)
        more = ask(begun=begun)
        assert more.text.startswith(cut.text)
        assert len(more.tokens) >= len(cut.tokens) + repetition.TOKENS


@pytest.mark.slow
def test_in_a_chat_a_loop_is_reported_and_can_be_allowed(tiny):
    with LlamaEngine(tiny(), Settings(ctx_size=2048), now=datetime.now()) as one:
        one.load().result()
        layers = Layers(flags={"seed": 1, "max_tokens": 500})
        forced = gbnf('root ::= ("la"){900}')
        chat = new_chat(one, layers, "tiny", read_ahead=False, constraint=forced)
        first = chat.ask("Sing.")
        assert first.ended == "length" and len(first.tokens) < 300
        notice = chat.screen._err.file.getvalue()
        assert "2 tokens" in notice and "/set loop_guard off" in notice
        commands.run(chat, "/continue")
        second = chat.conversation.turns()[-1].answer
        assert second.content.startswith(first.text) and len(second.tokens) > len(first.tokens)
        commands.run(chat, "/set loop_guard off")
        assert len(chat.ask("Sing.").tokens) == 500
