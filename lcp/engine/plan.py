"""From the tokens held to the tokens wanted, at the least cost. Pure arithmetic on two lists."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Keep the first `keep` tokens of the cache, drop what follows, read the rest of `wanted`."""

    keep: int
    read: int


def plan(held: Sequence[int], wanted: Sequence[int]) -> Plan:
    """The longest common prefix is kept, but the last token is always read: its logits are due.

    Example: held [1, 2, 3, 9], wanted [1, 2, 3, 4, 5] -> keep 3, read 2.
    """
    if not wanted:
        raise ValueError("a prompt has at least one token")
    keep = common_prefix(held, wanted[:-1])
    return Plan(keep, len(wanted) - keep)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens a and b share. Example: [1, 2, 3], [1, 2, 4, 5] -> 2."""
    n = min(len(a), len(b))
    # whole-slice comparison runs in C: the common case, a conversation that only grew
    if a[:n] == b[:n]:
        return n
    return next((i for i in range(n) if a[i] != b[i]), n)
