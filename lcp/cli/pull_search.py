"""Models that can be downloaded: the catalogue, and what a search of the Hub finds."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from lcp import formatting
from lcp.cli import free_memory
from lcp.cli.info_page import VERDICTS
from lcp.errors import ModelNotFound, UsageError

if TYPE_CHECKING:
    from lcp.downloads.catalog import Entry

MAX_RESULTS = 20


def show_catalogue() -> None:
    """Print every name, its size, whether it fits, its purpose and its licence."""
    from lcp.downloads.catalog import catalog
    from lcp.downloads.library import installed
    from lcp.terminal.printout import Printout

    room, here = free_memory.room(), installed()
    rows = []
    for entry in catalog().values():
        stored = here[entry.name].stored if entry.name in here else None
        fits = VERDICTS[free_memory.verdict(entry.size, room)] if entry.size else ""
        size = formatting.size(stored.size) if stored else size_of(entry)
        state = "here" if entry.name in here else fits
        rows.append((entry.name, f"{size:>9}", state, entry.good_for, entry.licence))
    Printout().listing(rows, drop=(4,))
    sys.stderr.write(
        "Download one: lcp pull NAME. Search the Hugging Face Hub: lcp pull --search WORDS. "
        "Download from it: lcp pull owner/repo[:QUANT].\n"
    )


def show_search(text: str, as_json: bool) -> None:
    """Print the repositories that match, most downloaded first; ModelNotFound if there are none."""
    from lcp.downloads import hub
    from lcp.terminal.clean import clean
    from lcp.terminal.printout import Printout

    text = " ".join(text.split())
    if not text:
        raise UsageError("--search needs words, for example: lcp pull --search qwen3")
    found = hub.search(text, MAX_RESULTS)
    if not found:
        raise ModelNotFound(
            f"The Hugging Face Hub has no GGUF repository that matches {text}. "
            "Try fewer words, or see the catalogue: lcp pull"
        )
    if as_json:
        for one in found:
            sys.stdout.write(json.dumps(asdict(one)) + "\n")
        return
    head = ("repository", "parameters", "downloads", "")
    rows = [
        (one.name, _short(one.parameters), f"{one.downloads:,}", "gated" if one.gated else "")
        for one in found
    ]
    Printout().listing([head, *rows])
    name = clean(found[0].name)
    sys.stderr.write(
        f"List the files of one: lcp info {name}. Download the best that fits: lcp pull {name}\n"
    )


def size_of(entry: "Entry") -> str:
    """The size of a model of the catalogue; "~" if it is not exact."""
    return f"{'~' if entry.about else ''}{formatting.size(entry.size)}" if entry.size else ""


def _short(n: int | None) -> str:
    """Parameters as in the names of models: 135M, 3.2B."""
    if n is None:
        return ""
    return f"{n / 1e9:.3g}B" if n >= 1e9 else f"{n / 1e6:.3g}M"
