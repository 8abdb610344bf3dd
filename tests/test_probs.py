"""Probabilities of an answer's tokens: the engine's, and a softmax in this file."""

from datetime import datetime

import numpy as np
import pytest
from fakes import gbnf
from tiny import KINDS

from lcp.engine import observer, probs
from lcp.engine.context import Context
from lcp.engine.engine import LlamaEngine
from lcp.engine.llama_library import StopByte, library
from lcp.engine_interface import Progress, PromptMessage, Request
from lcp.errors import LcpError, NotEnoughMemory
from lcp.settings import Sampling, Settings

STORY = [PromptMessage("user", "Tell me a story of a cat and a mouse.")]


def drawn(ids):
    """An answer of these tokens."""
    return PromptMessage("assistant", "", "", tuple(ids))


@pytest.fixture
def engine(tiny):
    engines = []

    def loaded(kind="dense", path=None, size=1024):
        engines.append(
            LlamaEngine(path or tiny(kind), Settings(ctx_size=size, threads=2), now=datetime.now())
        )
        engines[-1].load().result()
        return engines[-1]

    yield loaded
    for one in engines:
        one.close()


def said(one, n=70, messages=STORY, seed=3):
    forced = f"root ::= [ -~]{{{n}}}"
    reply = one.reply(Request(messages, Sampling(temp=1.5, seed=seed), constraint=gbnf(forced)))
    list(reply)
    return reply.sampled


def expected(one, answer):
    """Rows of probabilities, one for each token of the answer, evaluated one by one."""
    model, stop = one.model, StopByte()
    prompt = [token for token, _ in one.prompt(STORY)]
    context = Context(model, 1024, stop, threads=2)
    list(context.feed(prompt))
    rows = []
    for token in answer:
        logits = library().llama_get_logits_ith(context.handle, -1)
        scores = np.ctypeslib.as_array(logits, (model.n_vocab,)).astype(float)
        rows.append(np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum())
        context.append(token)
    context.close()
    return np.array(rows)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_the_softmax_of_the_logits(engine, kind):
    one = engine(kind)
    answer = said(one)
    assert len(answer) > 2 * observer.ROWS
    rows = one.probs(STORY, drawn(answer)).result()
    right = expected(one, answer)
    assert [row.token for row in rows] == answer
    for i, (row, token) in enumerate(zip(rows, answer, strict=True)):
        assert row.p == pytest.approx(right[i, token], rel=1e-2, abs=1e-5)
        assert row.text == one.model.text([token])
        assert len(row.others) == probs.OTHERS
        best = [other.p for other in row.others]
        assert best == sorted(best, reverse=True)
        assert best == pytest.approx(np.sort(right[i])[::-1][: probs.OTHERS], rel=1e-2, abs=1e-5)
        assert all(other.text == one.token_text(other.token) for other in row.others)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "swa", "recurrent"])
def test_the_cache_of_the_chat_does_not_change(engine, kind):
    one, untouched = engine(kind), engine(kind)
    for each in (one, untouched):
        answer = said(each, 20)
    held = list(one._loaded.context.tokens)
    one.probs(STORY, drawn(answer)).result()
    assert one._loaded.context.tokens == held
    assert said(one, 20, seed=4) == said(untouched, 20, seed=4)


@pytest.mark.slow
def test_the_last_result_is_cached(engine):
    one = engine()
    answer = said(one)
    first = one.probs(STORY, drawn(answer))
    steps = [step for step in first if isinstance(step, Progress)]
    assert steps[-1].done == steps[-1].total > 0
    again = one.probs(STORY, drawn(answer))
    assert list(again) == []
    assert again.result() == first.result()


def test_probabilities_of_an_answer_of_one_token(engine):
    one = engine()
    answer = said(one, 1)
    (row,) = one.probs(STORY, drawn(answer)).result()
    assert row.p == pytest.approx(expected(one, answer)[0, answer[0]], rel=1e-2)


@pytest.mark.slow
def test_a_stopped_measurement_can_be_repeated(engine):
    one = engine(size=4096)
    long = [PromptMessage("user", "x" * 3000)]
    answer = said(one, 70, long)
    task = one.probs(long, drawn(answer))
    with pytest.raises(LcpError):
        for step in task:
            if step.done:
                one.stop()
    with pytest.raises(LcpError):
        task.result()
    assert len(one.probs(long, drawn(answer)).result()) == 70


def test_a_context_that_does_not_fit_is_refused_with_its_bytes(engine):
    one = engine()
    answer = said(one)
    with pytest.raises(NotEnoughMemory, match=r"about [0-9.]+ MB.* 1 byte"):
        one.probs(STORY, drawn(answer), lambda: 1).result()
    assert one.probs(STORY, drawn(answer), lambda: 10 << 20).result()


@pytest.mark.slow
def test_the_real_model_is_sure_of_tokyo(engine, smollm2):
    one = engine(path=smollm2)
    question = [
        PromptMessage("system", "You are a helpful assistant."),
        PromptMessage("user", "What is the capital of Japan?"),
    ]
    reply = one.reply(Request(question, Sampling(temp=0), 20))
    list(reply)
    rows = one.probs(question, drawn(reply.sampled)).result()
    (tokyo,) = (row for row in rows if row.text == " Tokyo")
    assert tokyo.p > 0.5
    assert tokyo.others[0].text == " Tokyo"
