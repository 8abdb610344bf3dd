"""Plans how the KV cache gets from the tokens it holds to the tokens of a new prompt.

Pure functions of two lists of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# A shorter run is evaluated again: moving takes tens of milliseconds, whatever the length.
MIN_RUN = 32


@dataclass(frozen=True)
class Plan:
    """What to do with the tokens held: drop the ranges `drops` (ascending indices) and everything
    from `end` on. Then the first `keep` tokens of the prompt are left, `moved` of them at another
    position, and `read` tokens are to be evaluated."""

    drops: tuple[tuple[int, int], ...]
    end: int
    keep: int
    moved: int
    read: int


def plan(held: Sequence[int], wanted: Sequence[int], move: bool = False) -> Plan:
    """Keep the longest common prefix; with `move`, also runs of `held` that continue `wanted` after
    a dropped middle. The last token is always evaluated, because its logits are needed.

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


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many leading tokens a and b share. Example: [1, 2, 3], [1, 2, 4, 5] -> 2."""
    n = min(len(a), len(b))
    # whole-slice comparison runs in C: the common case, a conversation that only grew
    if a[:n] == b[:n]:
        return n
    return next((i for i in range(n) if a[i] != b[i]), n)


def _longest_run(
    held: Sequence[int], after: int, wanted: Sequence[int], at: int
) -> tuple[int, int]:
    """The start and length of the longest run in `held`, beginning after index `after`, that is
    equal to wanted[at:...]."""
    best = (after, 0)
    start = after
    while True:
        try:
            start = held.index(wanted[at], start + 1)
        except ValueError:
            return best
        if len(held) - start <= best[1]:
            return best
        # most candidates differ within a few tokens: compare as many as the best run has first
        if held[start : start + best[1] + 1] == wanted[at : at + best[1] + 1]:
            best = (start, _run(held, start, wanted, at))


def _run(held: Sequence[int], start: int, wanted: Sequence[int], at: int) -> int:
    return common_prefix(held[start:], wanted[at:])
