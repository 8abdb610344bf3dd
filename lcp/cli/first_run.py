"""The first run: if no model is here, lcp shows those that fit and offers to download the best."""

import sys
from typing import TYPE_CHECKING

from lcp import formatting
from lcp.cli import free_memory
from lcp.cli.pull import pull_model
from lcp.cli.pull_search import size_of
from lcp.errors import ModelNotFound, UsageError

if TYPE_CHECKING:
    from lcp.downloads.catalog import Entry

SHOWN = 12
# Without a GPU, every token reads all weights from memory: larger models answer more slowly than a
# person reads. With one, its memory is the limit.
QUICK = 3_000_000_000  # bytes


def default_name() -> str:
    """The name of the model to use if none is named; if none is here, ask which to download."""
    from lcp.downloads import library

    try:
        return library.default().name
    except ModelNotFound:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        return _offer()


def _offer() -> str:
    """Ask which model to download, and download it; its name."""
    from lcp.chat.error_advice import with_advice
    from lcp.downloads.catalog import catalog
    from lcp.modelfile.context_and_gpu_layers import overhead
    from lcp.terminal.questions import ask
    from lcp.terminal.screen import Screen

    quick = max([QUICK, *(gpu.free * 3 // 4 for gpu in free_memory.gpus())])
    offered, best = choose(list(catalog().values()), free_memory.room(), quick)
    rows: list[tuple[str, ...]] = [("", "name", "size", "memory", "good for", "licence")]
    for entry in offered:
        size = entry.size or 0
        needs = f"~{formatting.size(size + overhead(size))}"
        mark = "→" if entry is best else ""
        rows.append((mark, entry.name, size_of(entry), needs, entry.good_for, entry.licence))
    screen = Screen()
    screen.notice("No model is here yet. These fit this machine:")
    screen.table(rows, head=True, drop=(5, 4))  # the licence is also shown before the download
    screen.notice(
        "lcp pull lists more. You can also give any GGUF repository of the Hugging Face Hub: "
        "owner/repo[:QUANT]. Ctrl-C quits."
    )
    while True:
        name = ask("Which one? Enter takes", best.name)
        try:
            pull_model(name)
        except (ModelNotFound, UsageError) as error:  # misspelled, or several files
            screen.error(with_advice(error))
        else:
            return name


def choose(entries: "list[Entry]", room: int | None, quick: int) -> "tuple[list[Entry], Entry]":
    """Up to 12 entries that fit in `room`, smallest first, and the best: the largest one with at
    most `quick` bytes."""

    def size(entry: "Entry") -> int:
        return entry.size or 0

    fitting = sorted(
        (e for e in entries if e.size and free_memory.verdict(e.size, room) == "fits"), key=size
    )
    if not fitting:
        raise ModelNotFound(
            "No model is here yet, and no model of the catalogue fits in free memory. Close other "
            "programs and try again, or use a file: lcp chat path/to/model.gguf"
        )
    best = ([e for e in fitting if size(e) <= quick] or fitting[:1])[-1]
    begin = max(0, min(fitting.index(best) - SHOWN // 2, len(fitting) - SHOWN))
    return fitting[begin : begin + SHOWN], best
