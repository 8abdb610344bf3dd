"""Loops: whether an answer has begun to say the same thing for ever.

Pure. It sees exact repetition of tokens only: a list whose numbers go up is none.
"""

from collections.abc import Sequence

from lcp.engine_notices import Repetition

# A cycle counts when it filled so many tokens and came round so many times: long enough for
# tables, repeated lines of code and "ha ha ha", which end by themselves.
TOKENS = 200
TIMES = 4
PERIOD = 512  # tokens of the longest cycle that is looked for
EVERY = 16  # tokens between two looks


def period(tokens: Sequence[object]) -> int:
    """The tokens of the shortest cycle that the end of `tokens` consists of; 0 when none does."""
    n = len(tokens)
    for size in range(1, min(PERIOD, n // TIMES) + 1):
        need = max(TOKENS, TIMES * size)
        if n >= need and all(tokens[-i] == tokens[-i - size] for i in range(1, need - size + 1)):
            return size
    return 0


def repetition(tokens: Sequence[object], size: int) -> Repetition:
    """How often the cycle of `size` tokens at the end came."""
    filled = size
    while filled < len(tokens) and tokens[-filled - 1] == tokens[-filled - 1 + size]:
        filled += 1
    return Repetition(size, filled // size)
