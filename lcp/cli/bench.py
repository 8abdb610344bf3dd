"""`lcp bench`: measures what is fastest for a model here, and keeps it for its chats."""

import json
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lcp import formatting
from lcp.cli import free_memory, shell_completion
from lcp.cli.chat_services import find, local_engine
from lcp.errors import NotSupported
from lcp.settings import Settings


def bench(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Model name or file.",
            show_default=False,
            autocompletion=shell_completion.models,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure flash attention and threads for a model; its later chats use the fastest."""
    from lcp.downloads import library

    found = find(model or library.default().name)
    settings = Settings(ctx_size=512)  # the measurement has contexts of its own
    with closing(local_engine(found, settings, datetime.now().astimezone())) as engine:
        engine.load().result()
        try:
            speeds = engine.speeds(free_memory.free()).result().as_dict()
        except NotSupported as error:
            way = "lcp chat --flash-attn on|off --threads N"
            raise NotSupported(f"{error} Choose for yourself with {way}.") from None
    if as_json:
        sys.stdout.write(json.dumps({"model": found.name, **speeds}) + "\n")
    else:
        _show(Path(found.name).name, speeds)


def _show(name: str, speeds: dict[str, Any]) -> None:
    from lcp.terminal.printout import Printout

    page = Printout()
    page.title(name, f"{speeds['depth']:,} tokens of context")
    rows = [
        (
            t["flash_attn"],
            str(t["threads"]),
            f"{1000 * t['seconds']:.1f}",
            f"{1 / t['seconds']:.1f}",
        )
        for t in speeds["times"]
    ]
    chosen = (speeds["flash_attn"], str(speeds["threads"]))
    marked = next(i for i, row in enumerate(rows) if row[:2] == chosen)
    page.table(("flash attention", "threads", "ms per token", "tokens/s"), rows, marked=marked)
    page.blank()
    if speeds["busy"]:
        page.line("Not kept: other programs were using the CPU. Close them, and run it again.")
    elif not speeds["kept"]:
        page.line(f"Not kept: lcp cannot write to {free_memory.figures_folder()}.")
    else:
        threads = formatting.count(speeds["threads"], "thread")
        page.line(
            f"New chats use flash attention {chosen[0]} and {threads}. "
            "--flash-attn and --threads override it."
        )
