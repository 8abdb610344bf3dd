"""Logits in, one token out."""

from contextlib import contextmanager

import numpy as np
import pytest

from lcp.engine.context import Context
from lcp.engine.llama_library import StopByte, library
from lcp.engine.model import Model
from lcp.engine.sampler import Sampler
from lcp.settings import Sampling

GREEDY = Sampling(temp=0)
FREE = Sampling(temp=2, top_k=0, top_p=1, min_p=0)


@pytest.fixture(scope="module")
def context(tiny):
    """A context with the logits of a few tokens, from which every test samples."""
    model = Model.load(tiny("dense"))
    one = Context(model, 256, StopByte(), threads=1)
    list(one.feed([5, 50, 150]))
    one.model = model
    yield one
    one.close()
    model.close()


@contextmanager
def sampler(context, sampling, seed=1, said=()):
    one = Sampler(context.model, sampling, seed, said)
    yield one
    one.close()


def draw(context, sampling, n=1, seed=1, said=()):
    with sampler(context, sampling, seed, said) as one:
        return [one.sample(context) for _ in range(n)]


def ranked(context):
    """All tokens, the most likely first."""
    scores = library().llama_get_logits_ith(context.handle, -1)
    return np.argsort(np.ctypeslib.as_array(scores, (context.model.n_vocab,)))[::-1].tolist()


def test_temperature_zero_selects_the_most_likely_token(context):
    assert draw(context, GREEDY, 3, seed=1) == [ranked(context)[0]] * 3
    assert draw(context, GREEDY, 3, seed=2) == [ranked(context)[0]] * 3


@pytest.mark.parametrize(
    "narrow", [Sampling(temp=10, top_k=1), Sampling(top_p=0), Sampling(min_p=1)], ids=str
)
def test_the_narrowest_filters_leave_the_most_likely_token(context, narrow):
    assert draw(context, narrow, 20) == [ranked(context)[0]] * 20


def test_top_k_leaves_the_k_most_likely_tokens(context):
    wide = Sampling(temp=10, top_k=5, top_p=1, min_p=0)
    assert set(draw(context, wide, 300)) == set(ranked(context)[:5])


def test_top_k_of_zero_is_off(context):
    assert len(set(draw(context, Sampling(temp=10, top_k=0, top_p=1, min_p=0), 300))) > 100


def test_the_same_seed_samples_the_same_tokens(context):
    assert draw(context, FREE, 20, seed=7) == draw(context, FREE, 20, seed=7)


def test_different_seeds_sample_different_tokens(context):
    assert len({tuple(draw(context, FREE, 20, seed=seed)) for seed in range(9)}) == 9


def test_a_higher_temperature_samples_less_likely_tokens(context):
    likely = ranked(context)[:5]

    def share(temp):
        drawn = draw(context, Sampling(temp=temp, top_k=0, top_p=1, min_p=0), 300)
        return sum(token in likely for token in drawn)

    assert share(0.2) > share(1) > share(5)


@pytest.mark.parametrize(
    "penalty",
    [{"repeat_penalty": 10}, {"frequency_penalty": 10}, {"presence_penalty": 10}],
    ids=str,
)
def test_a_penalty_makes_earlier_tokens_less_likely(context, penalty):
    first, second, *_ = ranked(context)
    assert draw(context, Sampling(temp=0, **penalty)) == [first]
    assert draw(context, Sampling(temp=0, **penalty), said=[first]) == [second]


@pytest.mark.parametrize(
    "penalty", [{"frequency_penalty": -10}, {"presence_penalty": -10}], ids=str
)
def test_a_negative_penalty_makes_earlier_tokens_more_likely(context, penalty):
    third = ranked(context)[2]
    assert draw(context, Sampling(temp=0, **penalty), said=[third]) == [third]


def test_the_frequency_penalty_depends_on_the_frequency(context):
    first, second, third, *_ = ranked(context)
    often = [first, second, second, second, first, first, third]
    assert draw(context, Sampling(temp=0, frequency_penalty=5), said=often)[0] not in (
        first,
        second,
    )
    assert draw(context, Sampling(temp=0, presence_penalty=5), said=often)[0] not in often


def test_sampled_tokens_count_for_penalties(context):
    assert draw(context, Sampling(temp=0, presence_penalty=10), 4) == ranked(context)[:4]


def test_penalties_count_only_the_last_tokens(context):
    first, second, *others = ranked(context)
    long_ago = [first, *others[-5:]]
    assert draw(context, Sampling(temp=0, presence_penalty=10, repeat_last_n=5), said=long_ago) == [
        first
    ]
    assert draw(context, Sampling(temp=0, presence_penalty=10, repeat_last_n=6), said=long_ago) == [
        second
    ]
    off = Sampling(temp=0, presence_penalty=10, repeat_last_n=0)
    assert draw(context, off, 3, said=[first]) == [first] * 3


@pytest.mark.parametrize(
    "sampling, names",
    [
        (Sampling(), ["penalties", "top-k", "top-p", "min-p", "temp", "dist"]),
        (Sampling(top_k=0), ["penalties", "top-p", "min-p", "temp", "dist"]),
        (GREEDY, ["penalties", "greedy"]),
    ],
)
def test_the_chain_has_llama_cpps_order(context, sampling, names):
    c = library()
    with sampler(context, sampling) as one:
        chain = one._chain
        stages = [
            c.llama_sampler_chain_get(chain, i) for i in range(c.llama_sampler_chain_n(chain))
        ]
        found = [c.llama_sampler_name(stage).decode() for stage in stages]
    # a sampler that is off is named "?min-p"
    assert [name.lstrip("?") for name in found] == names
