"""Tells whether an answer has begun to repeat itself for ever.

It sees only exact repetition of tokens: a list whose numbers count up is not repetition.
"""

from collections.abc import Sequence

from lcp.engine_notices import Repetition

# The least tokens and repetitions of a cycle: more than in tables, repeated lines of code and
# "ha ha ha", which end by themselves.
TOKENS = 200
TIMES = 4
PERIOD = 512  # tokens of the longest cycle
EVERY = 16  # tokens between two checks


def period(tokens: Sequence[object]) -> int:
    """The length of the shortest cycle that repeats at the end of `tokens`; 0 if none does."""
    n = len(tokens)
    for size in range(1, min(PERIOD, n // TIMES) + 1):
        need = max(TOKENS, TIMES * size)
        if n < need or tokens[-1] != tokens[-1 - size]:  # nearly always, and quickly said
            continue
        if all(tokens[-i] == tokens[-i - size] for i in range(2, need - size + 1)):
            return size
    return 0


def repetition(tokens: Sequence[object], size: int) -> Repetition:
    """How many times the cycle of `size` tokens at the end repeats."""
    filled = size
    while filled < len(tokens) and tokens[-filled - 1] == tokens[-filled - 1 + size]:
        filled += 1
    return Repetition(size, filled // size)
