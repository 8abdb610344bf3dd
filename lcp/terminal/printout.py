"""Printout: what a command prints at once: titles, lines and tables in the terminal's width.

All text is cleaned: names and values come from files that lcp does not trust.
"""

import html
import io
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lcp.terminal.clean import clean
from lcp.terminal.table import cut_to, lines, one_line
from lcp.terminal.token_charts import levels

_TEXT = re.compile(
    r'(?P<begin><text [^>]*?)x="(?P<x>[\d.]+)"(?P<y>[^>]*?)textLength="(?P<length>[\d.]+)"'
    r"(?P<end>[^>]*>)(?P<blanks>(?:&#160;)+)(?P<rest>[^<]+)<"
)
PICTURE = 88  # columns of a picture
_GAP = 2  # between columns, and before lines that belong to a title


class Printout:
    """Prints to stdout from top to bottom. Colours only in a terminal; elsewhere 80 columns. A
    `picture` is printed nowhere, and given by `svg`."""

    def __init__(self, out: TextIO | None = None, *, picture: bool = False) -> None:
        out = io.StringIO() if picture else out or sys.stdout
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="replace")  # better a "?" than no page
        self._console = Console(
            file=out, highlight=False, markup=False, emoji=False, record=picture,
            force_terminal=picture or None, color_system="truecolor" if picture else "auto",
            width=PICTURE if picture else None, legacy_windows=False if picture else None,
        )  # fmt: skip

    @property
    def width(self) -> int:
        """Columns of the page."""
        return self._console.width

    def svg(self, title: str) -> str:
        """What was printed, as a picture."""
        from rich.terminal_theme import SVG_EXPORT_THEME

        return _without_blanks(self._console.export_svg(title=title, theme=SVG_EXPORT_THEME))

    def title(self, left: str, right: str = "") -> None:
        """A name, and a text at the right margin, or below the name if both do not fit."""
        left, right = one_line(left), one_line(right)
        room = self._console.width - cell_len(left) - cell_len(right)
        if right and room < _GAP:
            self.line(left, style="bold", indent=0)
            self.line(right, style="dim", indent=_GAP)
            return
        self._console.print(
            Text(left, "bold"),
            Text(" " * room * bool(right) + right, "dim"),
            sep="",
            soft_wrap=True,
        )

    def items(self, items: Sequence[str]) -> None:
        """Short texts in a line with dots between them, wrapped between two of them."""
        row = ""
        for item in (one_line(item) for item in items if item):
            joined = f"{row} · {item}" if row else item
            if row and cell_len(joined) > self._console.width - _GAP:
                self.line(row)
                joined = item
            row = joined
        if row:
            self.line(row)

    def line(self, text: str, *, style: str = "", indent: int = _GAP) -> None:
        """A sentence, wrapped at words."""
        width = max(10, self._console.width - indent)
        for row in Text(clean(text), style).wrap(self._console, width):
            row.rstrip()
            self._console.print(Text(" " * indent) + row, soft_wrap=True)

    def note(self, text: str) -> None:
        """A sentence that explains what is above it."""
        self.line(text, style="dim")

    def of_this_run(self, text: str) -> None:
        """A line on how long this run took: a picture leaves it out."""
        if not self._console.record:
            self.note(text)

    def blank(self) -> None:
        self._console.print()

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], *, drop: Iterable[int] = (),
        marked: int | None = None, cut: bool = False, left: bool = False,
    ) -> None:  # fmt: skip
        """Columns of numbers, right-aligned; the last column is text, and with `left` the first.

        If they do not fit, the columns `drop` are left out, one after another; then the last one
        is cut or wrapped, or the rows are printed as a list. The row `marked` is bold.
        """
        last = len(head) - 1
        found = lines(
            [head, *rows], self._console.width - _GAP, head=True, cut=(last,) if cut else (),
            drop=drop, right=range(left, last),
        )  # fmt: skip
        columns = len(found) == 1 + len(rows)  # else a list, or a column is wrapped
        for number, line in enumerate(found):
            style = "dim" if number == 0 else "bold" if number - 1 == marked else ""
            self._print(" " * _GAP + line, style * columns)

    def grid(
        self,
        labels: Sequence[str],
        rows: Sequence[Sequence[float]],
        columns: str,
        notes: Sequence[str] = (),
    ) -> None:
        """Shares of 0..1 as heights, a row for each label, a character for each column. The
        columns are numbered from 0 and called `columns`; of too many, every nth is shown. `notes`
        follow the rows and are cut at the margin."""
        left = min(24, max(cell_len(one_line(text)) for text in (*labels, columns)))
        right = min(24, max((_GAP + cell_len(one_line(note)) for note in notes), default=0))
        room = max(10, self._console.width - left - right - 2 * _GAP)
        step = -(-len(rows[0]) // room)
        count = -(-len(rows[0]) // step)
        ruler = "".join(f"{i * step:<10}" for i in range(0, count, 10))[: count + 3].rstrip()
        self._print(f"{' ' * _GAP}{columns:>{left}}  {ruler}", "dim")
        for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
            label = cut_to(one_line(label), left)
            pad = " " * (_GAP + left - cell_len(label))
            note = cut_to(one_line(notes[i]), right - _GAP) if notes else ""
            self._print(f"{pad}{label}  {levels(row[::step])}  {note}", "")

    def listing(self, rows: Sequence[Sequence[str]], *, drop: Iterable[int] = ()) -> None:
        """Rows of text in left-aligned columns. In a terminal, the columns `drop` are left out if
        they do not fit, and the last one is cut at the margin; a pipe gets all of it."""
        last = len(rows[0]) - 1 if rows else 0
        width = self._console.width if self._console.is_terminal else None
        for line in lines(rows, width, cut=(last,), drop=drop):
            self._print(line, "")

    def flow(self, drawing: Text) -> None:
        """Words in colours, wrapped between them."""
        drawing.rstrip()
        for row in drawing.wrap(self._console, max(10, self._console.width - _GAP)):
            row.rstrip()
            self._console.print(Text(" " * _GAP) + row, soft_wrap=True)

    def text(self, text: str) -> None:
        """A longer text, not wrapped."""
        self._console.file.write(clean(text) if self._console.is_terminal else text)
        if not text.endswith("\n"):
            self._console.file.write("\n")

    def _print(self, line: str, style: str) -> None:
        self._console.print(Text(line.rstrip(), style), soft_wrap=True)


def _without_blanks(svg: str) -> str:
    """The picture with its texts moved right by their leading blanks, which librsvg drops."""

    def moved(text: re.Match[str]) -> str:
        blanks = text["blanks"].count(";")
        width = float(text["length"]) / cell_len(html.unescape(text["blanks"] + text["rest"]))
        x, length = float(text["x"]) + blanks * width, float(text["length"]) - blanks * width
        place = f'x="{x:g}"{text["y"]}textLength="{length:g}"'
        return f"{text['begin']}{place}{text['end']}{text['rest']}<"

    return _TEXT.sub(moved, svg)
