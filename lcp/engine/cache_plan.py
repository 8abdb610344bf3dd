"""Plans which cached tokens a new prompt keeps, moves and drops at the least cost. It is pure
arithmetic on two lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lcp.common_prefix import common_prefix

# Runs of fewer tokens are read again: moving takes tens of milliseconds, whatever their length.
MIN_RUN = 32


@dataclass(frozen=True)
class Plan:
    """Drop the ranges `drops` of the cached tokens (ascending indexes into them) and all from index
    `end` on. The rest are the first `keep` tokens of `wanted`; `moved` of them change their
    position. Then read `read` more."""

    drops: tuple[tuple[int, int], ...]
    end: int
    keep: int
    moved: int
    read: int


def plan(cached: Sequence[int], wanted: Sequence[int], move: bool = False) -> Plan:
    """Keep the longest common prefix and, with `move`, also runs of `cached` that continue `wanted`
    after a dropped middle. The last token is always read, because its logits are needed.

    Example: cached [1, 2, 3, 9], wanted [1, 2, 3, 4, 5] -> keep 3, read 2.
    Example of a slide: cached s+a+b, wanted s+b+c -> drop a, move b, read c.
    """
    if not wanted:
        raise ValueError("a prompt has at least one token")
    usable = wanted[:-1]
    keep = end = common_prefix(cached, usable)
    drops: list[tuple[int, int]] = []
    prefix = keep
    while move and keep < len(usable):
        start, run = _longest_run(cached, end, usable, keep)
        if run < MIN_RUN:
            break
        drops.append((end, start))
        keep, end = keep + run, start + run
    return Plan(tuple(drops), end, keep, keep - prefix, len(wanted) - keep)


def _longest_run(
    cached: Sequence[int], after: int, wanted: Sequence[int], at: int
) -> tuple[int, int]:
    """The longest run of `cached` after index `after` that equals wanted[at:...]: its first index
    and its length."""
    best = (after, 0)
    start = after
    while True:
        try:
            start = cached.index(wanted[at], start + 1)
        except ValueError:
            return best
        if len(cached) - start <= best[1]:
            return best
        # Most runs are short: first check whether this one is longer than the best.
        if cached[start : start + best[1] + 1] == wanted[at : at + best[1] + 1]:
            best = (start, common_prefix(cached[start:], wanted[at:]))
