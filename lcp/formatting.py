"""Formatting: sizes, counts and lists as text for people; and the way back: numbers and sizes from
what a person typed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from lcp.errors import LcpError

# 24GB is in powers of ten; 24G and 24GiB are in powers of two, as the memory of a 24 GB card.
BYTES = {"B": 1} | {
    letter + end: base**power
    for power, letter in enumerate("KMGT", 1)
    for end, base in (("", 1024), ("IB", 1024), ("B", 1000))
}
SECONDS = {"S": 1, "MIN": 60, "H": 3600, "D": 86400, "W": 7 * 86400, "Y": 365 * 86400}


def size(n: float) -> str:
    """Bytes with three digits, in powers of ten as on the Hub and in Ollama: "4.92 GB", "98.4 MB".
    lcp shows files, memory and caches with it, so that they can be compared."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= unit * 0.9995:  # 999,600 bytes are 1.00 MB
            digits = 2 if n < 9.995 * unit else 1 if n < 99.95 * unit else 0
            return f"{n / unit:.{digits}f} {name}"
    return count(round(n), "byte")


def count(n: int, thing: str) -> str:
    """ "1 turn", "3 turns"."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def number(text: str, high: int, what: str) -> int:
    """Parse a number from 1 to `high`. Otherwise, LcpError says that the text is not `what`."""
    with suppress(ValueError):  # int() accepts at most 4,300 digits
        if text.isdecimal() and 1 <= int(text) <= high:
            return int(text)
    raise LcpError(f"{text} is not {what}. Give a number from 1 to {high}.")


def quantity(text: str, units: Mapping[str, int]) -> int | None:
    """ "24G", "1.5 MB" or "30d" in bytes or seconds, by a table of units; None for other texts."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]*)", text.strip())
    unit = units.get(match[2].upper()) if match else None
    return int(float(match[1]) * unit) if match and unit else None


def either(words: Iterable[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def listed(names: Sequence[str], most: int) -> str:
    """ "a", "a and b", "a, b, c and 2 more"."""
    *first, last = [*names[:most], *([f"{len(names) - most} more"] if names[most:] else [])]
    return f"{', '.join(first)} and {last}" if first else last


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers with consecutive ones joined: "2, 4-6"."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"{run[0]}-{run[-1]}" if run[1:] else str(run[0]) for run in runs)


def short(text: str, longest: int) -> str:
    """The text on one line, cut to `longest` characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
