"""Ranges: whole numbers from here to there, as a rule of a grammar that spells them digit by digit.

Pure. It knows no schema.
"""

import math
from collections.abc import Mapping
from typing import Any

LONGEST = 16  # digits of a number without a limit, as in the converter's own integers
BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")  # of JSON Schema


def held(schema: Mapping[str, Any]) -> set[str]:
    """The bounds of a schema of integers that a rule holds. (In old drafts the exclusive ones are
    true or false.)"""
    if schema.get("type") != "integer":
        return set()
    return {b for b in BOUNDS if isinstance(schema.get(b), int | float) and schema[b] is not True}


def of_schema(schema: Mapping[str, Any]) -> str | None:
    """The rule for a schema of integers with bounds; None for any other schema."""
    bounds = {name: schema[name] for name in held(schema)}
    if not bounds:
        return None
    low = [math.ceil(bounds["minimum"])] if "minimum" in bounds else []
    high = [math.floor(bounds["maximum"])] if "maximum" in bounds else []
    if "exclusiveMinimum" in bounds:
        low.append(math.floor(bounds["exclusiveMinimum"]) + 1)
    if "exclusiveMaximum" in bounds:
        high.append(math.ceil(bounds["exclusiveMaximum"]) - 1)
    return integers(max(low, default=None), min(high, default=None))


def integers(low: int | None, high: int | None) -> str:
    """The integers from `low` to `high`, both included; None is no limit. ValueError for none."""
    if low is not None and high is not None and low > high:
        raise ValueError(f"no integer is from {low} to {high}")
    parts = []
    if low is None or low < 0:
        least = 1 if high is None or high >= 0 else -high
        parts.append(f'"-" ({_naturals(least, None if low is None else -low)})')
    if high is None or high >= 0:
        parts.append(_naturals(max(low or 0, 0), high))
    return " | ".join(parts)


def _naturals(low: int, high: int | None) -> str:
    """By their number of digits: of each as many as there are, none with a zero in front."""
    shortest = len(str(low))
    if high is None:
        longer = f" | [1-9] [0-9]{{{shortest},{LONGEST - 1}}}" if shortest < LONGEST else ""
        return _digits(str(low), "9" * shortest) + longer
    return " | ".join(
        _digits(str(max(low, 10 ** (n - 1) if n > 1 else 0)), str(min(high, 10**n - 1)))
        for n in range(shortest, len(str(high)) + 1)
    )


def _digits(low: str, high: str) -> str:
    """The numbers between two with the same number of digits."""
    if low == high:
        return f'"{low}"' if low else ""
    first, last, rest = low[0], high[0], len(low) - 1
    if first == last:
        return f'"{first}" ({_digits(low[1:], high[1:])})'
    # What begins with the first digit of `low` or `high` may be cut off; all between are whole.
    below, above = [], []
    if int(low[1:] or 0):
        below, first = [f'"{first}" ({_digits(low[1:], "9" * rest)})'], chr(ord(first) + 1)
    if high[1:] != "9" * rest:
        above, last = [f'"{last}" ({_digits("0" * rest, high[1:])})'], chr(ord(last) - 1)
    whole = f"[{first}-{last}]" + (f" [0-9]{{{rest}}}" if rest else "")
    return " | ".join([*below, *([whole] if first <= last else []), *above])
