"""From the tokens held to the tokens wanted, at the least cost. Pure arithmetic on two lists."""

from collections.abc import Sequence
from dataclasses import dataclass

from lcp.common_prefix import common_prefix

# A run shorter than this is read again: moving costs tens of milliseconds whatever its length.
MIN_RUN = 32


@dataclass(frozen=True)
class Plan:
    """Drop the ranges `drops` of the tokens held (in their own counting, ascending) and all from
    `end` on; what is left is the first `keep` tokens of `wanted`, of which `moved` changed their
    place. Then `read` more."""

    drops: tuple[tuple[int, int], ...]
    end: int
    keep: int
    moved: int
    read: int


def plan(held: Sequence[int], wanted: Sequence[int], move: bool = False) -> Plan:
    """The longest common prefix is kept; with `move` also runs of `held` that go on with `wanted`
    after a dropped middle. The last token is always read: its logits are due.

    Example: held [1, 2, 3, 9], wanted [1, 2, 3, 4, 5] -> keep 3, read 2.
    Example, a slide: held s+a+b, wanted s+b+c -> drop a, move b, read c.
    """
    if not wanted:
        raise ValueError("a prompt has at least one token")
    usable = wanted[:-1]
    keep = end = common_prefix(held, usable)
    drops: list[tuple[int, int]] = []
    prefix = keep
    while move and keep < len(usable):
        start, run = _longest_run(held, end, usable, keep)
        if run < MIN_RUN:
            break
        drops.append((end, start))
        keep, end = keep + run, start + run
    return Plan(tuple(drops), end, keep, keep - prefix, len(wanted) - keep)


def _longest_run(
    held: Sequence[int], after: int, wanted: Sequence[int], at: int
) -> tuple[int, int]:
    """Where behind `after` the longest stretch of `held` equal to wanted[at:...] begins, and how
    long it is."""
    best = (after, 0)
    start = after
    while True:
        try:
            start = held.index(wanted[at], start + 1)
        except ValueError:
            return best
        if len(held) - start <= best[1]:
            return best
        # most candidates differ within a few tokens: look at the end of the best run first
        if held[start : start + best[1] + 1] == wanted[at : at + best[1] + 1]:
            best = (start, _run(held, start, wanted, at))


def _run(held: Sequence[int], start: int, wanted: Sequence[int], at: int) -> int:
    return common_prefix(held[start:], wanted[at:])
