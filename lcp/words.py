"""Words: sizes, numbers of things and lists, as sentences for people have them; and a number as a
person gives it.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from lcp.errors import LcpError


def size(n: float, digits: int = 0) -> str:
    """Bytes: "4.6 GiB", "183 MiB"; with so many `digits` more."""
    return f"{n / 2**30:.{digits + 1}f} GiB" if n >= 2**30 else f"{n / 2**20:.{digits}f} MiB"


def count(n: int, thing: str) -> str:
    """ "1 turn", "3 turns"."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def number(text: str, high: int, what: str) -> int:
    """The number that was given, from 1 to `high`; LcpError says that it is not `what`."""
    with suppress(ValueError):  # int takes no more than 4,300 digits
        if text.isdecimal() and 1 <= int(text) <= high:
            return int(text)
    raise LcpError(f"{text} is not {what}. Give a number from 1 to {high}.")


def either(words: Iterable[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def listed(names: Sequence[str], most: int) -> str:
    """ "a", "a and b", "a, b, c and 2 more"."""
    *first, last = [*names[:most], *([f"{len(names) - most} more"] if names[most:] else [])]
    return f"{', '.join(first)} and {last}" if first else last


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in order, neighbours together: "2, 4-6"."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"{run[0]}-{run[-1]}" if run[1:] else str(run[0]) for run in runs)


def short(text: str, longest: int) -> str:
    """The text on one line, its end cut off where it has more characters than that."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
