"""`lcp list`, `lcp rm` and `lcp verify`: the model files that are here."""

import json
import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcp import paths, words
from lcp.cli import completion

if TYPE_CHECKING:
    from lcp.downloads.library import Installed

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Model name, as lcp list shows it.",
        autocompletion=completion.installed,
    ),
]


def list_(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
) -> None:
    """List the models that are here, the one last used first."""
    from lcp.downloads.library import installed

    rows = sorted((_row(one) for one in installed().values()), key=lambda row: row["name"])
    rows.sort(key=lambda row: row["last_used"] or "", reverse=True)
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps(row) + "\n")
        return
    if not rows:
        sys.stderr.write("No model is here yet; lcp pull lists some and what fits this machine.\n")
        return
    _table(rows)


def rm(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Remove a model, and what only it needs."""
    from lcp.downloads import library, upkeep
    from lcp.terminal.clean import clean

    model = library.find(name)
    found = upkeep.check_removable(model)
    question = clean(f"Remove {model.name} ({words.size(found.size)}, {found.place})?")
    if not yes and not typer.confirm(question, err=True):
        return
    freed = upkeep.remove(model)
    kept = "" if freed >= found.size else "; another snapshot of the repository uses the rest"
    sys.stderr.write(clean(f"Removed {model.name}: {words.size(freed)} freed{kept}.\n"))


def verify(name: Name) -> None:
    """Read a model anew and compare its sha256 with what it should be."""
    from lcp.downloads import library, upkeep
    from lcp.terminal.progress_bar import ProgressBar

    model = library.find(name)
    total = model.found.size if model.found else paths.model_size(model.path)
    done = 0
    with ProgressBar(model.name) as bar:

        def on_bytes(n: int) -> None:
            nonlocal done
            done += n
            bar("checking", done, total)

        sums = upkeep.verify(model, on_bytes)
    bar.notice(f"{model.name} is as it should be: sha256 {' '.join(sums)}")


def _row(one: "Installed") -> dict[str, Any]:
    """What `--json` prints of a model: bytes as integers, times in UTC."""
    from lcp.downloads import records

    used, found = records.last_use(one.name), one.found
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(used)) if used else None
    return {
        "name": one.name,
        "quant": found.quant if found else None,
        "size": found.size if found else None,
        "last_used": when,
        "place": found.place if found else None,
        "repo": found.repo or None if found else None,
        "commit": found.commit if found else None,
        "path": str(one.path),
    }


def _table(rows: list[dict[str, Any]]) -> None:
    """Rows for people: in a terminal by its width, elsewhere one on each line."""
    from lcp.terminal.table import lines

    cells = []
    for row in rows:
        used = f"used {row['last_used'][:10]}" if row["last_used"] else "not used yet"
        size = words.size(row["size"])
        cells.append((row["name"], row["quant"] or "", size, used, row["place"] or ""))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines(cells, width):
        sys.stdout.write(f"{line}\n")
