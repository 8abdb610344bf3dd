"""Draws an answer, and the thinking before it, in a terminal while the text arrives.

`Canvas` prints finished rows once; it repaints the open rows below them from the first one that
differs. `AnswerPainter` draws Markdown on a Canvas, `ThinkingPainter` the last rows of thinking.
They have no thread: they paint when text arrives.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from lcp.terminal.clean import Cleaner
from lcp.terminal.code_block import CodeBlock, ScreenRow
from lcp.terminal.markdown import Splitter
from lcp.terminal.markdown_rows import Renderer, row_text

SOONEST_S = 1 / 15  # after a paint
_LATEST_S = 0.5  # after a paint, whatever it costs
_SHARE = 0.02  # of the time since the answer began may go into painting
ROWS = 3  # of thinking
_DIM = Style(dim=True)
_UP, _ERASE_TO_END = "\x1b[{}A\r", "\x1b[K"


class Canvas:
    """Finished rows, which never change, and below them rows that may still change."""

    def __init__(self, console: Console, reflows: bool | None = None) -> None:
        """`reflows`: whether the terminal rewraps its rows when it gets narrower."""
        self._console = console
        self._reflows = _reflows() if reflows is None else reflows
        self._painted: list[tuple[str, int]] = []  # the open rows: (text, cells)
        self._columns = console.width
        self._displaced = False

    @property
    def moves(self) -> bool:
        """Whether the cursor can move up; if not, rows are only added."""
        return not self._console.is_dumb_terminal

    @property
    def width(self) -> int:
        """Cells of a row. One stays free: terminals disagree about the width of emoji."""
        return max(2, self._console.width - 1)

    @property
    def height(self) -> int:
        """Rows that can change: all of the screen but the cursor's, and one to spare."""
        return max(1, self._console.height - 2)

    def show(self, done: Iterable[ScreenRow], rest: Iterable[ScreenRow] = ()) -> None:
        """Print finished rows, and below them as many open rows as the screen has room for."""
        finished = [row_text(self._console, row) for row in done]
        rest = list(rest)[-self.height :] if self.moves else []
        rows = [row_text(self._console, row) for row in rest]
        before = self._before()
        new = finished + rows
        same = 0
        while same < min(len(before), len(new)) and before[same] == new[same]:
            same += 1
        # A row at a time is erased. ESC [ J at the top of the screen would make tmux push all of
        # it into the scrollback.
        end = f"{_ERASE_TO_END}\n" if self.moves else "\n"
        written = _UP.format(len(before) - same) if len(before) > same else ""
        written += "".join(text + end for text, _ in new[same:])
        if (gone := len(before) - len(new)) > 0:
            written += end * gone + _UP.format(gone)
        self._painted = rows
        if written:
            self._console.file.write(written)
            self._console.file.flush()

    def displaced(self) -> None:
        """Something else was printed below the open rows: paint them again below it."""
        self._displaced = True

    def _before(self) -> list[tuple[str, int]]:
        """The rows on the screen that can be painted over."""
        before, columns = self._painted, self._console.width
        if self._displaced:
            before, self._displaced = [], False
        if columns != self._columns and before:
            # a terminal that got narrower has wrapped what is too wide for it
            wrapped = sum(max(1, math.ceil(cells / columns)) for _, cells in before)
            before = [("", -1)] * (wrapped if self._reflows else len(before))
        self._columns = columns
        return before[-self.height :]


class AnswerPainter:
    """Markdown in pieces, painted as it comes."""

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        reflows: bool | None = None,
        begun: str = "",
    ) -> None:
        """`begun`: Markdown before the first piece."""
        self._console = console
        self._clock = clock
        self._canvas = Canvas(console, reflows)
        self._cleaner = Cleaner()
        self._splitter = Splitter()
        self._splitter.feed(begun)
        self._code: CodeBlock | None = None  # the fence that was open last
        self._new = False  # text that is not painted
        self._began: float | None = None
        self._last = -math.inf
        self.spent = 0.0  # seconds of painting

    def feed(self, text: str, tokens: int = 0) -> None:
        """Add a piece of the answer; it is painted now or with a later one."""
        self._splitter.feed(self._cleaner.feed(text))
        self._new = self._new or bool(text)
        now = self._clock()
        if self._began is None:
            self._began = now
        waited = now - self._last
        cheap = self.spent <= _SHARE * (now - self._began)
        if self._new and waited >= (SOONEST_S if cheap else _LATEST_S):
            self.paint()

    def paint(self) -> None:
        """Paint what has come so far."""
        if self._new:
            self._paint(final=False)

    def clear(self) -> None:
        """Remove the open rows from the screen until the next piece."""
        self._canvas.show([])
        self._new = True

    def finish(self) -> None:
        """Print the rest; the cursor is then below the answer."""
        self._paint(final=True)

    def displaced(self) -> None:
        """See Canvas."""
        self._canvas.displaced()

    def _paint(self, final: bool) -> None:
        begun = self._clock()
        drawing, width = Renderer(self._console), self._canvas.width
        found = self._splitter.take(final)
        done = self._code.take(width) if self._code else []
        for block in found:
            done += drawing.rows([block], width)
            self._code = block.code or self._code
        rest: list[ScreenRow] = []
        if self._splitter.code:
            rest = self._splitter.code.rest(width, self._splitter.open_line())
        elif not final and self._canvas.moves:
            height = self._canvas.height
            found = self._splitter.open_blocks(height)
            rest = Renderer(self._console, height).rows(found, width)
        self._canvas.show(done, rest)
        self._new = False
        self._last = self._clock()
        self.spent += self._last - begun


class ThinkingPainter:
    """Shows the last rows of the thinking; at its end, one line replaces them."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._canvas = Canvas(console)
        self._cleaner = Cleaner()
        self._began = clock()
        self._painted = -math.inf
        self._tokens = 0
        self._thought = False  # anything but blanks
        self._above: deque[str] = deque(maxlen=ROWS - 1)  # whole rows
        self._line = ""  # the row that grows

    def feed(self, text: str, tokens: int = 0) -> None:
        """A piece of the thinking, and how many tokens it has, where that is known."""
        self._line += self._cleaner.feed(text).expandtabs()
        self._tokens += tokens
        self._thought = self._thought or bool(text.strip())
        if self._clock() - self._painted >= SOONEST_S:
            self.paint()

    def paint(self) -> None:
        """Show the rows that are the last ones now."""
        self._painted = self._clock()
        self._wrap()
        rows = [row for row in (*self._above, self._line) if row.strip()]
        self._canvas.show([], [[Segment(row, _DIM)] for row in rows])

    def clear(self) -> None:
        """Remove the rows from the screen until the next piece."""
        self._canvas.show([])
        self._painted = -math.inf

    def finish(self) -> None:
        """Replace the rows by one line."""
        told = f"thought for {self._clock() - self._began:.0f} s"
        if self._tokens:
            told += f", {self._tokens:,} tokens"
        self._canvas.show([[Segment(told, _DIM)]] if self._thought else [])

    def displaced(self) -> None:
        """See Canvas."""
        self._canvas.displaced()

    def _wrap(self) -> None:
        """Move full rows out of the line. Blank rows are skipped: there are only three."""
        *whole, line = self._line.split("\n")
        for text in whole:
            self._above.extend(row for row in self._rows(text) if row)
        *full, last = self._rows(line)
        self._above.extend(full)
        self._line = line[len(line.rstrip()) - len(last) :]

    def _rows(self, text: str) -> list[str]:
        rows = Text(text, overflow="fold").wrap(self._console, self._canvas.width)
        return [row.plain.rstrip() for row in rows] or [""]


def _reflows() -> bool:
    """Whether this terminal rewraps, as most do. A wrong guess may overwrite finished rows."""
    old = {"XTERM_VERSION", "STY"} & set(os.environ)  # xterm; GNU screen
    return not old and os.environ.get("TERM", "") not in ("linux", "vt100", "vt220", "ansi")
