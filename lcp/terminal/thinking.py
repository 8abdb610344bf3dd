"""The thinking before an answer: while it comes its last rows, dim; afterwards one line."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from lcp.terminal.clean import Cleaner
from lcp.terminal.painter import SOONEST_S, Canvas

ROWS = 3
_DIM = Style(dim=True)


class Thinking:
    """A window on text that is not kept on the screen."""

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
        """Take the window off the screen, until the next piece."""
        self._canvas.show([])
        self._painted = -math.inf

    def finish(self) -> None:
        """Fold: one line in place of the window."""
        told = f"thought for {self._clock() - self._began:.0f} s"
        if self._tokens:
            told += f", {self._tokens:,} tokens"
        self._canvas.show([[Segment(told, _DIM)]] if self._thought else [])

    def displaced(self) -> None:
        """See Canvas."""
        self._canvas.displaced()

    def _wrap(self) -> None:
        """Move what fills a row out of the line. Blank rows are not worth one of three."""
        *whole, line = self._line.split("\n")
        for text in whole:
            self._above.extend(row for row in self._rows(text) if row)
        *full, last = self._rows(line)
        self._above.extend(full)
        self._line = line[len(line.rstrip()) - len(last) :]

    def _rows(self, text: str) -> list[str]:
        rows = Text(text, overflow="fold").wrap(self._console, self._canvas.width)
        return [row.plain.rstrip() for row in rows] or [""]
