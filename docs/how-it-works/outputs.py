"""Runs the commands of the book again, and writes what they print into its pages.

    python docs/how-it-works/outputs.py [PAGE...]     # needs the demo model (make chat)

A block that begins with "$ lcp" is a command and its output. The commands of a page run one after
another in an empty folder; pictures that they save there (--svg) are put beside the page. Seconds
are left out, and so is what a command says on stderr.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BOOK = Path(__file__).parent
BLOCK = re.compile(r"(```text\n\$ (lcp [^\n]*)\n)(.*?)(```\n)", re.DOTALL)
_SECONDS = re.compile(r"^ *([^\n]* runs in )?[\d.]+ s\.( [^\n]*)?\n", re.MULTILINE)


def commands(page: Path) -> list[tuple[str, str]]:
    """The commands of a page, each with the output that is written there."""
    return [(m[2], m[3]) for m in BLOCK.finditer(page.read_text("utf-8"))]


def run(command: str, folder: Path) -> str:
    """What a command prints in 80 columns."""
    done = subprocess.run(
        [sys.executable, "-m", "lcp", *shlex.split(command)[1:]],
        cwd=folder,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("LCP_", "HF_", "OLLAMA"))},
            "COLUMNS": "80", "LCP_HOME": str(folder / "home"), "HOME": str(folder),
            "PYTHONPATH": str(BOOK.parents[1]),
        },
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return _SECONDS.sub("", done.stdout).replace(str(folder), "~")


def write(page: Path) -> None:
    """Run the commands of a page and write their outputs into it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = BLOCK.sub(lambda m: m[1] + run(m[2], folder) + m[4], page.read_text("utf-8"))
        page.write_text(text, "utf-8")
        for picture in folder.glob("*.svg"):
            shutil.copy(picture, BOOK)


if __name__ == "__main__":
    for given in [Path(word) for word in sys.argv[1:]] or sorted(BOOK.glob("[0-9]*.md")):
        print(given)
        write(given)
