"""An answer on its way into a terminal: what is finished is printed once and never touched.

`Canvas` knows which rows at the bottom of the terminal may still change, and paints them anew from
the first that differs. `Painter` feeds it Markdown. There is no thread: it paints when text comes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable

from rich.console import Console

from lcp.terminal.clean import Cleaner
from lcp.terminal.code import Code, Row
from lcp.terminal.markdown import Splitter
from lcp.terminal.rows import Drawing, printed

SOONEST_S = 1 / 15  # after a paint
_LATEST_S = 0.5  # after a paint, whatever it costs
_SHARE = 0.02  # of the time since the answer began may go into painting
_UP, _ERASE_TO_END = "\x1b[{}A\r", "\x1b[K"


class Canvas:
    """Rows that are printed for good, and below them rows that may still change."""

    def __init__(self, console: Console, reflows: bool | None = None) -> None:
        """`reflows`: whether the terminal wraps rows anew when it gets narrower."""
        self._console = console
        self._reflows = _reflows() if reflows is None else reflows
        self._painted: list[tuple[str, int]] = []  # the open rows: (text, cells)
        self._columns = console.width
        self._displaced = False

    @property
    def moves(self) -> bool:
        """Whether the terminal can go back up; where not, rows are only ever added."""
        return not self._console.is_dumb_terminal

    @property
    def width(self) -> int:
        """Cells a row may take. One stays free: terminals differ about the width of emoji."""
        return max(2, self._console.width - 1)

    @property
    def height(self) -> int:
        """Rows that can change: all of the screen but the cursor's, and one to spare."""
        return max(1, self._console.height - 2)

    def show(self, done: Iterable[Row], rest: Iterable[Row] = ()) -> None:
        """Print rows for good, and below them the open ones, as many as the screen has room for."""
        finished = [printed(self._console, row) for row in done]
        rest = list(rest)[-self.height :] if self.moves else []
        rows = [printed(self._console, row) for row in rest]
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
        """Something else was written below the open rows: they stay, and are painted again."""
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


class Painter:
    """Markdown in pieces, painted as it comes."""

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        reflows: bool | None = None,
        begun: str = "",
    ) -> None:
        """`begun`: Markdown that stands before the first piece."""
        self._console = console
        self._clock = clock
        self._canvas = Canvas(console, reflows)
        self._cleaner = Cleaner()
        self._splitter = Splitter()
        self._splitter.feed(begun)
        self._code: Code | None = None  # the fence that was open last
        self._new = False  # text that is not painted
        self._began: float | None = None
        self._last = -math.inf
        self.spent = 0.0  # seconds of painting

    def feed(self, text: str, tokens: int = 0) -> None:
        """A piece of the answer; it is painted now, or with one of the next."""
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
        """Take the open rows off the screen, until the next piece."""
        self._canvas.show([])
        self._new = True

    def finish(self) -> None:
        """The answer is over: all of it stands there once, the cursor below it."""
        self._paint(final=True)

    def displaced(self) -> None:
        """See Canvas."""
        self._canvas.displaced()

    def _paint(self, final: bool) -> None:
        begun = self._clock()
        drawing, width = Drawing(self._console), self._canvas.width
        found = self._splitter.take(final)
        done = self._code.take(width) if self._code else []
        for block in found:
            done += drawing.rows([block], width)
            self._code = block.code or self._code
        rest: list[Row] = []
        if self._splitter.code:
            rest = self._splitter.code.rest(width, self._splitter.open_line())
        elif not final and self._canvas.moves:
            height = self._canvas.height
            found = self._splitter.open_blocks(height)
            rest = Drawing(self._console, height).rows(found, width)
        self._canvas.show(done, rest)
        self._new = False
        self._last = self._clock()
        self.spent += self._last - begun


def _reflows() -> bool:
    """Most terminals do. Going up too far would paint over what is finished."""
    old = {"XTERM_VERSION", "STY"} & set(os.environ)  # xterm; GNU screen
    return not old and os.environ.get("TERM", "") not in ("linux", "vt100", "vt220", "ansi")
