"""Screen: the only writer. Answers go to stdout, everything else to stderr.

In a terminal, text of strangers is cleaned first; into a pipe it goes as it is.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from lcp.terminal.clean import Cleaner, clean

_ERASE_LINE = Control((ControlType.CURSOR_MOVE_TO_COLUMN, 0), (ControlType.ERASE_IN_LINE, 2))


class Screen:
    """Writes text, notices and one transient line that says what is going on."""

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        answers: bool = True,
    ) -> None:
        """`answers` off: they are printed elsewhere, as JSON."""
        self._out = _console(out or sys.stdout)
        self._err = _console(err or sys.stderr)
        self._answers = answers
        self._closed = False
        self._transient = False
        self._last = ""

    @contextmanager
    def answer(self) -> Iterator[None]:
        """Around one answer: afterwards the cursor is at the beginning of a line."""
        self._cleaner = Cleaner()
        self._kind = ""
        try:
            yield
        finally:
            self.clear_progress()
            self._end_line()

    def write(self, text: str, thinking: bool = False) -> None:
        """A piece of the answer, or (dim) of the thinking before it."""
        if self._closed or not (thinking or self._answers):
            return
        self.clear_progress()
        kind = "thinking" if thinking else "answer"
        if self._kind == "thinking" and kind == "answer":
            self._end_line()
            self._err.print()
        self._kind = kind
        self._print(self._err if thinking else self._out, text, "dim" if thinking else "")

    def progress(self, text: str) -> None:
        """Show what is going on, until something else is written; only in a terminal."""
        if self._err.is_terminal and not self._err.is_dumb_terminal:
            self._err.control(_ERASE_LINE)
            line = Text(clean(text), "dim", no_wrap=True)
            line.truncate(self._err.width - 1, overflow="ellipsis")
            self._err.print(line, end="")
            self._transient = True

    def clear_progress(self) -> None:
        if self._transient:
            self._err.control(_ERASE_LINE)
            self._transient = False

    def notice(self, text: str) -> None:
        """A line of lcp's own, beside the conversation."""
        self.clear_progress()
        self._err.print(Text(clean(text), "dim"), soft_wrap=True)

    def error(self, text: str) -> None:
        """A sentence about what went wrong."""
        self.clear_progress()
        self._err.print(Text(clean(text), "red"), soft_wrap=True)

    def table(self, rows: list[tuple[str, ...]]) -> None:
        """Rows in aligned columns; the last column wraps."""
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        with self._err.capture() as drawn:
            self._err.print(table)
        # no blanks at line ends: a window that gets narrower would wrap them
        lines = drawn.get().splitlines()
        self._err.file.write("".join(f"{line.rstrip()}\n" for line in lines))

    def blank(self) -> None:
        self._err.print()

    def _print(self, console: Console, text: str, style: str) -> None:
        try:
            if console.is_terminal:
                text = self._cleaner.feed(text)
                console.print(Text(text, style), end="", soft_wrap=True)
            else:
                console.file.write(text)
            console.file.flush()
        except BrokenPipeError:
            self._closed = True  # said once; the rest goes nowhere
            self._last = ""
            raise
        self._last = text or self._last
        self._open = console

    def _end_line(self) -> None:
        """A line end, if the last piece had none; into the stream it went to."""
        if self._last and not self._last.endswith("\n"):
            self._open.file.write("\n")
            self._open.file.flush()
        self._last = ""


class _Terminal:
    """A terminal that may be closed in the middle of an answer, which is to be kept all the same;
    a pipe that is closed ends the program."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _console(file: TextIO) -> Console:
    # A pipe may have an encoding that cannot spell everything; better a "?" than no answer.
    if isinstance(file, type(sys.__stdout__)) and hasattr(file, "reconfigure"):
        file.reconfigure(errors="replace")
    return Console(
        file=cast(TextIO, _Terminal(file)) if file.isatty() else file,
        highlight=False, markup=False, emoji=False,
        no_color="NO_COLOR" in os.environ or None,
    )  # fmt: skip
