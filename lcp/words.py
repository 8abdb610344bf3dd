"""Words: sizes, numbers of things and lists, as sentences for people have them."""

from collections.abc import Iterable


def size(n: float, digits: int = 0) -> str:
    """Bytes: "4.6 GiB", "183 MiB"; with so many `digits` more."""
    return f"{n / 2**30:.{digits + 1}f} GiB" if n >= 2**30 else f"{n / 2**20:.{digits}f} MiB"


def count(n: int, thing: str) -> str:
    """ "1 turn", "3 turns"."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def either(words: Iterable[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def short(text: str, longest: int) -> str:
    """The text on one line, its end cut off where it has more characters than that."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"
