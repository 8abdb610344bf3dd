"""`lcp list`, `lcp rm` and `lcp verify`: the models on this computer."""

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcp import formatting
from lcp.cli import shell_completion
from lcp.errors import ModelError
from lcp.split_names import size_here

if TYPE_CHECKING:
    from lcp.downloads.library import Installed

NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Model name, as lcp list shows it.",
        autocompletion=shell_completion.installed,
    ),
]


def list_(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
) -> None:
    """List the models on this computer, last used first."""
    from lcp.downloads.library import installed
    from lcp.terminal.printout import Printout

    rows = sorted((_row(one) for one in installed().values()), key=lambda row: row["name"])
    rows.sort(key=lambda row: row["last_used"] or "", reverse=True)
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
        return
    if not rows:
        sys.stderr.write("No model is here yet. lcp pull lists models to download.\n")
        return
    Printout().listing(
        [
            (
                row["name"], row["quant"] or "", formatting.size(row["size"]),
                f"used {row['last_used'][:10]}" if row["last_used"] else "not used yet",
                row["place"] or "",
            )
            for row in rows
        ]
    )  # fmt: skip


def rm(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Remove a model and the files that only it uses."""
    from lcp.downloads import library
    from lcp.terminal.clean import clean
    from lcp.terminal.questions import confirm

    model = library.find(name)
    stored = library.check_removable(model)
    also = [f" and {p.name} ({formatting.size(p.stat().st_size)})" for p in library.orphans(stored)]
    named = f"{model.name} ({formatting.size(stored.size)}, {stored.place}){''.join(also)}"
    question = clean(f"Remove {named}?")
    if not yes and not confirm(question):
        return
    freed = library.remove(model)
    kept = "" if freed >= stored.size else "; another snapshot of the repository uses the rest"
    sys.stderr.write(clean(f"Removed {model.name}: {formatting.size(freed)} freed{kept}.\n"))


def verify(name: NameArgument) -> None:
    """Read a model again and check its sha256."""
    from lcp.downloads import library
    from lcp.terminal.progress_bar import ProgressBar

    model = library.find(name)
    total = model.stored.size if model.stored else size_here(model.path)
    done = 0
    with ProgressBar(model.name) as bar:

        def on_bytes(n: int) -> None:
            nonlocal done
            done += n
            bar("checking", done, total)

        try:
            sums = library.verify(model, on_bytes)
        except library.DamagedModel as error:
            again = f"lcp rm {model.name}, then lcp pull {model.name}"
            raise ModelError(f"{error} Download it again: {again}") from None
    bar.notice(f"{model.name} is intact: sha256 {' '.join(sums)}")


def _row(one: "Installed") -> dict[str, Any]:
    """One row of `lcp list --json`: sizes in bytes, times in UTC."""
    from lcp.downloads import pulls_and_uses

    used, stored = pulls_and_uses.last_use(one.name), one.stored
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(used)) if used else None
    return {
        "name": one.name,
        "quant": stored.quant if stored else None,
        "size": stored.size if stored else None,
        "last_used": when,
        "place": stored.place if stored else None,
        "repo": stored.repo or None if stored else None,
        "commit": stored.commit if stored else None,
        "path": str(one.path),
    }
