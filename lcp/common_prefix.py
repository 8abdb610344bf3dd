"""The common prefix of two sequences: tokens of two prompts, or characters of two lines."""

from collections.abc import Sequence


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many leading items a and b share. Example: [1, 2, 3], [1, 2, 4, 5] -> 2."""
    n = min(len(a), len(b))
    # Comparing slices runs in C. In a conversation that only grew, it is enough.
    if a[:n] == b[:n]:
        return n
    return next((i for i in range(n) if a[i] != b[i]), n)
