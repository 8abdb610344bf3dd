"""Finds out whether an answer repeats itself without end.

Only exact repetition of tokens counts: a list with increasing numbers does not.
"""

from collections.abc import Sequence

# A cycle counts if it fills this many tokens and comes this many times. Tables, repeated lines of
# code and "ha ha ha" are shorter and end by themselves.
TOKENS = 200
TIMES = 4
PERIOD = 512  # tokens of the longest cycle
EVERY = 16  # tokens between two checks


def period(tokens: Sequence[int]) -> int:
    """The length of the shortest cycle at the end of `tokens`; 0 if there is none."""
    n = len(tokens)
    for size in range(1, min(PERIOD, n // TIMES) + 1):
        need = max(TOKENS, TIMES * size)
        if n >= need and all(tokens[-i] == tokens[-i - size] for i in range(1, need - size + 1)):
            return size
    return 0


def told(tokens: Sequence[int], size: int) -> str:
    """A sentence on the cycle of `size` tokens at the end."""
    filled = size
    while filled < len(tokens) and tokens[-filled - 1] == tokens[-filled - 1 + size]:
        filled += 1
    what = "token" if size == 1 else f"{size} tokens"
    return (
        f"The answer repeats itself (its last {what} {filled // size} times) and was stopped. "
        "/set repeat_penalty 1.1, then /retry; /set loop_guard off lets it."
    )
