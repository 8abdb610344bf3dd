"""How long two sequences are the same: tokens of two prompts, characters of two lines."""

from collections.abc import Sequence


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many leading tokens a and b share. Example: [1, 2, 3], [1, 2, 4, 5] -> 2."""
    n = min(len(a), len(b))
    # whole-slice comparison runs in C: the common case, a conversation that only grew
    if a[:n] == b[:n]:
        return n
    return next((i for i in range(n) if a[i] != b[i]), n)
