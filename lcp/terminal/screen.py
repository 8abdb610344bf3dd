"""Screen: prints what a chat says: answers to stdout; notices, errors and progress to stderr.

In a terminal the text is cleaned first and an answer is drawn as Markdown; a pipe gets the text
unchanged. The line editor (keyboard.py) draws the prompt, printout.py and progress_bar.py print for
the commands outside a chat.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

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
# Parts differ in sign as well as in colour: colours may be off, or look alike.
_BAR_STYLES = ("magenta", "yellow", "cyan", "green", "dim")
_BAR_SIGNS = ("█", "▓", "▒", "·", "░")


class Screen:
    """Prints answers, notices, errors and one line of progress that the next text replaces."""

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
        """`answers` is off where they are printed elsewhere, as JSON. `plain`: no Markdown, even in
        a terminal. `show_thinking`: all of the thinking stays; else one line sums it up."""
        self._out = console_on(out or sys.stdout)
        self._err = console_on(err or sys.stderr)
        self._answers = answers
        self._plain = plain
        self.show_thinking = show_thinking
        self.verbatim = False  # the text is not Markdown (raw mode)
        self._clock = clock
        self._closed = False
        self._transient = False
        self._part: AnswerPainter | ThinkingPainter | _Plain | None = None
        self._part_thinks = False
        self._fence = ""

    def prepare(self) -> None:
        """Import the modules that draw answers ahead of the first one; in any thread."""
        if self._draws(self._out):
            import lcp.terminal.painter  # noqa: F401
            from lcp.terminal.code_block import CodeBlock

            CodeBlock("python").close()  # the lexers of the first block of code

    @contextmanager
    def answer(self, fence: str = "") -> Iterator[None]:
        """Around one answer: afterwards the cursor is at the beginning of a line. `fence`: if the
        answer continues inside a code block, the line that opened it."""
        self._fence = fence

        def displaced(number: int, frame: Any) -> None:
            if self._part:
                self._part.displaced()

        # after Ctrl-Z and fg, lines of the shell are below ours
        with handling({signal.SIGCONT: displaced} if hasattr(signal, "SIGCONT") else {}):
            try:
                yield
            finally:
                self.clear_progress()
                self._finish_part()

    def write(self, text: str, thinking: bool = False, tokens: int = 0) -> None:
        """Print a piece of the answer, or of the thinking before it. `tokens`: how many tokens a
        piece of thinking has, if known."""
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
            self._closed = True  # raised once; the rest is dropped
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
        """Whether answers on this console are drawn as Markdown."""
        return console.is_terminal and not (self._plain or self.verbatim or console.legacy_windows)

    def _finish_part(self) -> "AnswerPainter | ThinkingPainter | _Plain | None":
        part, self._part = self._part, None
        if part:
            part.finish()
        return part

    def progress(self, text: str) -> None:
        """Show a line of progress until something else is printed; only in a terminal."""
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
        """Print a notice of lcp's own."""
        self._make_way()
        say(self._err, text, "dim")

    def error(self, text: str) -> None:
        """Print an error."""
        self._make_way()
        say(self._err, text, "red")

    def table(self, rows: Sequence[Sequence[str]], **fitting: Any) -> None:
        """Print rows in columns, or as a list if they do not fit; see table.lines."""
        width = self._err.width if self._err.is_terminal else None
        for line in table.lines(rows, width, **fitting):
            self._err.print(Text(line), soft_wrap=True)

    def bar(self, shares: list[tuple[str, int]], total: int) -> None:
        """Print a bar of the parts of a whole, and below it their names and numbers."""
        width = max(20, min(72, self._err.width - 2))
        bar, legend = Text(), Text()
        for (name, share), style, sign in zip(shares, _BAR_STYLES, _BAR_SIGNS, strict=False):
            cells = round(width * share / total) if total else 0
            bar.append(sign * cells, style)
            legend.append(f"{sign} {name} {share:,}  ", style)
        self._err.print(bar)
        self._err.print(legend)

    def show(self, drawing: Text) -> None:
        """Print a chart (see token_charts.py)."""
        self.clear_progress()
        self._err.print(drawing, soft_wrap=True, end="")

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self._err.width

    def blank(self) -> None:
        self._err.print()

    def send(self, sequence: str) -> bool:
        """Write a control sequence to the terminal; False if there is none."""
        for console in (self._err, self._out):
            if console.is_terminal and not console.is_dumb_terminal:
                console.file.write(sequence)
                console.file.flush()
                return True
        return False

    def _make_way(self) -> None:
        """Clear the open rows for a line of lcp's own in the middle of an answer."""
        self.clear_progress()
        if self._part:
            self._part.clear()


class _Plain:
    """Prints text as it arrives."""

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
        else:  # takes a tenth of rich's time; the next token needs the cores
            console.file.write(text)
        console.file.flush()
        self._last = text or self._last

    def finish(self) -> None:
        """End the line, unless the last piece did."""
        if self._last and not self._last.endswith("\n"):
            self._console.file.write("\n")
            self._console.file.flush()

    def paint(self) -> None:
        """Nothing to do: the text is printed already."""

    clear = displaced = paint


class _Terminal:
    """A terminal whose errors are ignored: it may be closed in the middle of an answer, which is
    still saved. A closed pipe ends the program."""

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
    """Print a sentence: on one line in a pipe, wrapped at words in a terminal."""
    for line in clean(text).split("\n"):
        rows = table.wrapped(line, console.width - 1) if console.is_terminal else [line.rstrip()]
        for row in rows:
            console.print(Text(row, style), soft_wrap=True)


def console_on(file: TextIO) -> Console:
    """A rich Console that prints text to a file without changing it."""
    # A pipe may have an encoding without some characters: "?" is better than no answer.
    if isinstance(file, type(sys.__stdout__)) and hasattr(file, "reconfigure"):
        file.reconfigure(errors="replace")
    size: tuple[int, int] | tuple[None, None] = (None, None)
    if os.environ.get("TERM") in ("dumb", "unknown"):  # rich assumes 80 columns
        size = shutil.get_terminal_size()
    return Console(
        file=cast(TextIO, _Terminal(file)) if file.isatty() else file,
        width=size[0], height=size[1], highlight=False, markup=False, emoji=False,
    )  # fmt: skip
