"""Integers between bounds: the rule spells each and nothing else, and llama.cpp reads it."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcp.engine.grammar import check, from_schema
from lcp.engine.ranges import LONGEST, integers, of_schema
from lcp.errors import SettingsError

numbers = st.one_of(st.integers(-130, 130), st.integers(-(10**9), 10**9))
limits = st.none() | numbers


def spelled(rule):
    """The language of a rule as a pattern: its literals are digits and a minus."""
    return re.compile(rule.replace('"', "").replace(" ", ""))


@given(low=limits, high=limits, near=st.integers(-20, 20), number=numbers)
def test_a_rule_spells_the_integers_between_its_bounds_and_no_others(low, high, near, number):
    if low is not None and high is not None and low > high:
        low, high = high, low
    pattern = spelled(integers(low, high))
    for n in {number, near, near + (low or 0), near + (high or 0)}:
        inside = (low is None or low <= n) and (high is None or n <= high)
        assert bool(pattern.fullmatch(str(n))) == inside
        assert not pattern.fullmatch(f"0{abs(n)}")
    assert not pattern.fullmatch("")


@pytest.mark.parametrize(("low", "high"), [(-12, 105), (0, 0), (7, 7), (99, 1000), (-30, -9)])
def test_all_of_a_short_range(low, high):
    pattern = spelled(integers(low, high))
    assert [n for n in range(-2000, 2000) if pattern.fullmatch(str(n))] == [*range(low, high + 1)]


def test_a_number_without_a_limit_ends_all_the_same():
    pattern = spelled(integers(None, None))
    assert pattern.fullmatch("9" * LONGEST)
    assert not pattern.fullmatch("9" * (LONGEST + 1))


@pytest.mark.parametrize(
    ("schema", "low", "high"),
    [
        ({"minimum": 1, "maximum": 10}, 1, 10),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 10}, 2, 9),
        ({"minimum": 0.5, "maximum": 9.5}, 1, 9),
        ({"exclusiveMinimum": 0.5, "exclusiveMaximum": 9.5}, 1, 9),
        ({"minimum": 5, "exclusiveMinimum": 2, "maximum": 9, "exclusiveMaximum": 9}, 5, 8),
        ({"minimum": -3}, -3, None),
        ({"maximum": -3}, None, -3),
        ({"minimum": 3, "exclusiveMinimum": True}, 3, None),  # an old draft's: it is said
    ],
)
def test_the_bounds_of_a_schema(schema, low, high):
    assert of_schema({"type": "integer"} | schema) == integers(low, high)


@pytest.mark.parametrize("schema", [{"type": "integer"}, {"type": "number", "minimum": 3}, {}])
def test_other_schemas_have_no_rule_here(schema):
    assert of_schema(schema) is None


@given(low=limits, high=limits)
def test_llama_cpp_reads_the_grammar_and_nothing_is_left_to_say(low, high):
    bounds = {"minimum": low, "maximum": high}
    schema = {"type": "integer"} | {k: v for k, v in bounds.items() if v is not None}
    if low is not None and high is not None and low > high:
        with pytest.raises(SettingsError, match="no integer is from"):
            from_schema(json.dumps(schema), "it")
        return
    text, not_held = from_schema(json.dumps({"properties": {"integer": schema}}), "it")
    check(text, "it")
    assert not_held == []
