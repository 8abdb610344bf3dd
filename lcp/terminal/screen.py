"""Screen: the only writer. Answers go to stdout, everything else to stderr.

In a terminal, text of strangers is cleaned first, and an answer is drawn as Markdown; into a pipe
it goes as it is.
"""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from lcp.terminal import table
from lcp.terminal.clean import Cleaner, clean
from lcp.terminal.signals import handling

if TYPE_CHECKING:
    from lcp.terminal.painter import AnswerPainter, ThinkingPainter

_ERASE_LINE = Control((ControlType.CURSOR_MOVE_TO_COLUMN, 0), (ControlType.ERASE_IN_LINE, 2))
# Parts differ in sign as well as in colour: colours may be off, or look alike to a person.
_BAR_STYLES = ("magenta", "yellow", "cyan", "green", "dim")
_BAR_SIGNS = ("█", "▓", "▒", "·", "░")


class Screen:
    """Writes text, notices and one transient line that says what is going on."""

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        *,
        answers: bool = True,
        plain: bool = False,
        show_thinking: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`answers` off: they are printed elsewhere, as JSON. `plain`: no Markdown, in a terminal
        either. With `show_thinking` all of the thinking stays, else one line says it was there."""
        self._out = console_on(out or sys.stdout)
        self._err = console_on(err or sys.stderr)
        self._answers = answers
        self._plain = plain
        self.show_thinking = show_thinking
        self.verbatim = False  # what is written is no Markdown: text that a model goes on with
        self._clock = clock
        self._closed = False
        self._transient = False
        self._part: AnswerPainter | ThinkingPainter | _Plain | None = None
        self._part_thinks = False
        self._fence = ""

    def prepare(self) -> None:
        """Import what draws answers, before there is one; in any thread."""
        if self._draws(self._out):
            import lcp.terminal.painter  # noqa: F401
            from lcp.terminal.code_block import CodeBlock

            CodeBlock("python").close()  # the lexers of the first block of code

    @contextmanager
    def answer(self, fence: str = "") -> Iterator[None]:
        """Around one answer: afterwards the cursor is at the beginning of a line. `fence`: the
        line that opened the block of code in which the answer goes on."""
        self._fence = fence

        def displaced(number: int, frame: Any) -> None:
            if self._part:
                self._part.displaced()

        # back from a stop by Ctrl-Z, the shell's lines stand below ours
        with handling({signal.SIGCONT: displaced} if hasattr(signal, "SIGCONT") else {}):
            try:
                yield
            finally:
                self.clear_progress()
                self._finish_part()

    def write(self, text: str, thinking: bool = False, tokens: int = 0) -> None:
        """A piece of the answer, or of the thinking before it; `tokens` are those of a piece of
        thinking, where they are known."""
        if self._closed or not (thinking or self._answers):
            return
        self.clear_progress()
        if self._part is None or thinking != self._part_thinks:
            if isinstance(self._finish_part(), _Plain) and not thinking:
                self._err.print()
            self._part, self._part_thinks = self._begin_part(thinking), thinking
        try:
            self._part.feed(text, tokens)
        except OSError:
            self._closed = True  # said once; the rest goes nowhere
            self._part = None
            raise

    def _begin_part(self, thinking: bool) -> "AnswerPainter | ThinkingPainter | _Plain":
        console = self._err if thinking else self._out
        if self._draws(console):
            if not thinking:
                from lcp.terminal.painter import AnswerPainter

                begun, self._fence = self._fence, ""
                return AnswerPainter(console, clock=self._clock, begun=begun)
            if not (self.show_thinking or console.is_dumb_terminal):
                from lcp.terminal.painter import ThinkingPainter

                return ThinkingPainter(console, clock=self._clock)
        return _Plain(console, thinking)

    def _draws(self, console: Console) -> bool:
        """Whether what is written there is Markdown that is painted."""
        return console.is_terminal and not (self._plain or self.verbatim or console.legacy_windows)

    def _finish_part(self) -> "AnswerPainter | ThinkingPainter | _Plain | None":
        part, self._part = self._part, None
        if part:
            part.finish()
        return part

    def progress(self, text: str) -> None:
        """Show what is going on, until something else is written; only in a terminal."""
        if self._err.is_terminal and not self._err.is_dumb_terminal:
            if self._part:
                self._part.paint()
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
        self._make_way()
        say(self._err, text, "dim")

    def error(self, text: str) -> None:
        """A sentence about what went wrong."""
        self._make_way()
        say(self._err, text, "red")

    def table(
        self, rows: Sequence[Sequence[str]], *, head: bool = False, cut: Collection[int] = ()
    ) -> None:
        """Rows in columns, or below each other where these do not fit; see table.py."""
        width = self._err.width if self._err.is_terminal else None
        for line in table.lines(rows, width, head=head, cut=cut):
            self._err.print(Text(line), soft_wrap=True)

    def bar(self, shares: list[tuple[str, int]], total: int) -> None:
        """A bar of parts of a whole, and under it their names and numbers."""
        width = max(20, min(72, self._err.width - 2))
        bar, legend = Text(), Text()
        for (name, share), style, sign in zip(shares, _BAR_STYLES, _BAR_SIGNS, strict=False):
            cells = round(width * share / total) if total else 0
            bar.append(sign * cells, style)
            legend.append(f"{sign} {name} {share:,}  ", style)
        self._err.print(bar)
        self._err.print(legend)

    def show(self, drawing: Text) -> None:
        """Something drawn (see charts.py)."""
        self.clear_progress()
        self._err.print(drawing, soft_wrap=True, end="")

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._err.width

    def blank(self) -> None:
        self._err.print()

    def send(self, sequence: str) -> bool:
        """Write a control sequence of lcp's own to the terminal; False when there is none."""
        for console in (self._err, self._out):
            if console.is_terminal and not console.is_dumb_terminal:
                console.file.write(sequence)
                console.file.flush()
                return True
        return False

    def _make_way(self) -> None:
        """For a line of lcp's own in the middle of an answer."""
        self.clear_progress()
        if self._part:
            self._part.clear()


class _Plain:
    """Text that is written as it comes."""

    def __init__(self, console: Console, thinking: bool) -> None:
        self._console = console
        self._style = "dim" if thinking else ""
        self._cleaner = Cleaner()
        self._last = ""

    def feed(self, text: str, tokens: int = 0) -> None:
        console = self._console
        if console.is_terminal:
            text = self._cleaner.feed(text)
        if console.is_terminal and self._style:
            console.print(Text(text, self._style), end="", soft_wrap=True)
        else:  # a tenth of rich's time, while every core is wanted for the next token
            console.file.write(text)
        console.file.flush()
        self._last = text or self._last

    def finish(self) -> None:
        """A line end, if the last piece had none."""
        if self._last and not self._last.endswith("\n"):
            self._console.file.write("\n")
            self._console.file.flush()

    def paint(self) -> None:
        """It is there already."""

    clear = displaced = paint


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


def say(console: Console, text: str, style: str = "") -> None:
    """A sentence of lcp's own: on one line in a pipe, wrapped at words in a terminal. A word that
    is longer than a row is left to the terminal, which copies it whole."""
    for line in clean(text).split("\n"):
        row = ""
        for word in re.findall(r"\s*\S+(?: %\S*)?", line.rstrip()):
            if row and console.is_terminal and cell_len(row + word) >= console.width:
                console.print(Text(row, style), soft_wrap=True)
                row = word.lstrip()
            else:
                row += word
        console.print(Text(row, style), soft_wrap=True)


def console_on(file: TextIO) -> Console:
    """What prints to a file: text as it is, in a terminal in its width."""
    # A pipe may have an encoding that cannot spell everything; better a "?" than no answer.
    if isinstance(file, type(sys.__stdout__)) and hasattr(file, "reconfigure"):
        file.reconfigure(errors="replace")
    size: tuple[int, int] | tuple[None, None] = (None, None)
    if os.environ.get("TERM") in ("dumb", "unknown"):  # rich takes any for one of 80 columns
        size = shutil.get_terminal_size()
    return Console(
        file=cast(TextIO, _Terminal(file)) if file.isatty() else file,
        width=size[0], height=size[1], highlight=False, markup=False, emoji=False,
    )  # fmt: skip
