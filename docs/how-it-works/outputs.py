"""Runs the commands of the book again, and writes what they print into its pages.

    python docs/how-it-works/outputs.py [PAGE...]     # needs the demo model (make chat)

A block that begins with "$ lcp" is a command and its output. The commands of a page run one after
another in an empty folder; pictures that they save there (--svg) are put beside the page. Seconds
are left out, and so is what a command says on stderr. Then pictures.py measures what the page shows
besides: a picture called NAME.svg, and a table between <!-- NAME --> and <!-- end -->.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOOK = Path(__file__).parent
sys.path.append(str(BOOK))
from pictures import FIGURES  # noqa: E402

BLOCK = re.compile(r"(```text\n\$ (lcp [^\n]*)\n)(.*?)(```\n)", re.DOTALL)
_SECONDS = re.compile(r"^ *([^\n]* runs in )?[\d.]+ s\.\n", re.MULTILINE)


def commands(page: Path) -> list[tuple[str, str]]:
    """The commands of a page, each with the output that is written there."""
    return [(m[2], m[3]) for m in BLOCK.finditer(page.read_text("utf-8"))]


def figures(text: str) -> list[str]:
    """The names of the measured pictures and tables of a page."""
    return [name for name in FIGURES if f"({name}.svg)" in text or f"<!-- {name} -->" in text]


def run(command: str, folder: Path, **environment: str) -> str:
    """What a command prints in 80 columns."""
    printed = _printed(shlex.split(command)[1:], folder, **environment)
    return _SECONDS.sub("", printed).replace(str(folder), "~")


def _printed(words: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lcp", *words],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("LCP_", "HF_", "OLLAMA"))},
            "COLUMNS": "80", "LCP_HOME": str(folder / "home"), "HOME": str(folder),
            "PYTHONPATH": str(BOOK.parents[1]),
            **environment,
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Measuring:
    """Runs lcp for pictures.py, in a folder."""

    folder: Path

    def __call__(self, *words: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(_printed([*words, "--json"], self.folder))

    def path(self, *words: str) -> str:
        """The file that a command makes."""
        return _printed([*words], self.folder).strip()


def write(page: Path) -> None:
    """Run the commands of a page and write their outputs into it; measure its pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = BLOCK.sub(lambda m: m[1] + run(m[2], folder) + m[4], page.read_text("utf-8"))
        for picture in folder.glob("*.svg"):
            shutil.copy(picture, BOOK)
        for figure in figures(text):
            found = FIGURES[figure](Measuring(folder))
            if found.picture:
                (BOOK / f"{figure}.svg").write_text(found.picture, "utf-8")
            table = re.compile(rf"(<!-- {figure} -->\n).*?(<!-- end -->)", re.DOTALL)
            text = table.sub(lambda m, f=found: f"{m[1]}\n{f.table}\n\n{m[2]}", text)
        page.write_text(text, "utf-8")


if __name__ == "__main__":
    for given in [Path(word) for word in sys.argv[1:]] or sorted(BOOK.glob("[0-9]*.md")):
        print(given)
        write(given)
