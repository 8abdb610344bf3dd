"""The plan from the cached tokens to the wanted ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcp.common_prefix import common_prefix
from lcp.engine.cache_plan import Plan, plan

tokens = st.lists(st.integers(0, 2), max_size=12)  # few different ones: many common prefixes
wanted = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@pytest.mark.slow
@given(tokens, wanted)
def test_the_plan_results_in_the_wanted_tokens(cached, wanted):
    steps = plan(cached, wanted)
    assert cached[: steps.keep] + wanted[len(wanted) - steps.read :] == wanted


@pytest.mark.slow
@given(tokens, wanted)
def test_at_least_one_token_is_read_for_its_logits(cached, wanted):
    steps = plan(cached, wanted)
    assert steps.read >= 1
    assert steps.keep + steps.read == len(wanted)


@pytest.mark.slow
@given(tokens, wanted)
def test_no_token_is_read_that_could_be_kept(cached, wanted):
    keep = plan(cached, wanted).keep
    assert keep == len(wanted) - 1 or cached[keep : keep + 1] != wanted[keep : keep + 1]


def test_examples():
    assert plan([1, 2, 3, 9], [1, 2, 3, 4, 5]) == Plan((), 3, 3, 0, 2)
    assert plan([], [1]) == Plan((), 0, 0, 0, 1)
    assert plan([1, 2, 3], [1, 2, 3]) == Plan((), 2, 2, 0, 1)
    assert plan([1, 2, 3], [1, 2]) == Plan((), 1, 1, 0, 1)


def test_a_prompt_has_at_least_one_token():
    with pytest.raises(ValueError, match="at least one token"):
        plan([1], [])


@pytest.mark.slow
@given(tokens, tokens)
def test_the_common_prefix_is_the_longest(a, b):
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n in (len(a), len(b)) or a[n] != b[n]


@pytest.mark.slow
@given(tokens)
def test_a_prefix_does_not_depend_on_the_kind_of_sequence(a):
    assert common_prefix(a, tuple(a)) == len(a)
