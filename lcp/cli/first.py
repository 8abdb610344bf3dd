"""The first run: no model is here yet, so a table of those that fit, and the best one offered."""

import sys
from typing import TYPE_CHECKING

import typer

from lcp import words
from lcp.errors import ModelNotFound, UsageError

if TYPE_CHECKING:
    from lcp.downloads.catalog import Entry

SHOWN = 12
# Without a GPU, every token reads all weights from memory: larger ones answer slower than a
# person reads. With one, its memory is the bound.
QUICK = 3_000_000_000


def model() -> str:
    """The name of the model to talk with when none is named; a person without any is offered
    those of the catalogue."""
    from lcp.downloads import library

    try:
        return library.default().name
    except ModelNotFound:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        return _offer()


def _offer() -> str:
    """Ask which one, and bring it."""
    from lcp.cli.pull import bring
    from lcp.downloads.catalog import catalog
    from lcp.terminal.screen import Screen

    names = catalog()
    offered, best = choose(list(names.values()))
    rows: list[tuple[str, ...]] = [("", "name", "size", "memory", "licence", "good for")]
    for entry in offered:
        mark = "→" if entry is best else ""
        size = entry.size or 0
        needs = f"~{words.size(needed(size))}"
        shown = f"{'~' if entry.about else ''}{words.size(size)}"
        rows.append((mark, entry.name, shown, needs, entry.licence, entry.good_for))
    screen = Screen()
    screen.notice("No model is here yet. These fit this machine:")
    screen.table([row[: _columns(screen.width)] for row in rows])
    screen.notice(
        "lcp pull lists all. Any GGUF of the Hugging Face Hub will do: owner/repo:QUANT. "
        "Ctrl-C leaves."
    )
    while True:
        name = str(typer.prompt("Which one? Enter takes", default=best.name, err=True)).strip()
        try:
            bring(name)
        except (ModelNotFound, UsageError) as error:  # mistyped, or it has several files
            screen.error(str(error))
        else:
            return name


def choose(entries: "list[Entry]") -> "tuple[list[Entry], Entry]":
    """Those of the catalogue that fit here, the smallest first, and the best of them: the largest
    that answers quickly."""
    from lcp.cli.pull import fits

    fit = fits()
    able = sorted((e for e in entries if e.size and fit(e.size) == "fits"), key=_size)
    if not able:
        raise ModelNotFound(
            "No model is here yet, and none of the catalogue fits the free memory. Close other "
            "programs, or lcp chat path/to/model.gguf."
        )
    room = _room()
    quick = [e for e in able if _size(e) <= room]
    best = (quick or able[:1])[-1]
    at = able.index(best)
    begin = max(0, min(at - SHOWN // 2, len(able) - SHOWN))
    return able[begin : begin + SHOWN], best


def _columns(width: int) -> int:
    """Those of the table that fit beside each other; the licence is told before the pull, too."""
    return 6 if width >= 80 else 5 if width >= 50 else 4


def needed(size: int) -> int:
    """About the bytes of memory that a model with so many bytes of weights needs for a chat."""
    return size + size // 16 + 650_000_000


def _room() -> int:
    """Bytes of weights up to which answers come quickly."""
    from lcp.cli import reach

    return max([QUICK, *(card.free * 3 // 4 for card in reach.cards())])


def _size(entry: "Entry") -> int:
    return entry.size or 0
