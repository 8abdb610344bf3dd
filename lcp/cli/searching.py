"""`lcp pull --search`: repositories of the Hub, by words in their names."""

import json
import sys
from dataclasses import asdict

from lcp.errors import ModelNotFound, UsageError

MOST = 20  # repositories that are shown


def show(words: str, as_json: bool) -> None:
    """List what the Hub finds, the most downloaded first; ModelNotFound where that is nothing."""
    from lcp.downloads import hub
    from lcp.terminal.clean import clean
    from lcp.terminal.printout import Printout

    words = " ".join(words.split())
    if not words:
        raise UsageError("--search needs words. Give some: lcp pull --search qwen3")
    found = hub.search(words, MOST)
    if as_json:
        for hit in found:
            sys.stdout.write(json.dumps(asdict(hit)) + "\n")
    elif found:
        head = ("repository", "parameters", "downloads", "")
        rows = [
            (hit.name, _short(hit.parameters), f"{hit.downloads:,}", "gated" if hit.gated else "")
            for hit in found
        ]
        Printout().listing([head, *rows])
    if not found:
        raise ModelNotFound(
            f"The Hugging Face Hub has no GGUF repository that matches {words}. "
            "Try fewer words, or lcp pull for the catalogue."
        )
    if not as_json:
        name = clean(found[0].name)
        sys.stderr.write(
            f"See the files of one: lcp info {name}. Get its best fit: lcp pull {name}\n"
        )


def _short(n: int | None) -> str:
    """Parameters as names have them: 135M, 3.2B."""
    if n is None:
        return ""
    return f"{n / 1e9:.3g}B" if n >= 1e9 else f"{n / 1e6:.3g}M"
