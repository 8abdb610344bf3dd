"""Progress bar of a download or a check, on stderr: bytes, speed and time left.

If stderr is not a terminal, a plain line for each tenth.
"""

import sys
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lcp.terminal.clean import clean
from lcp.terminal.screen import say

_COLUMNS = 52  # cells that the bar itself and its numbers need


class ProgressBar:
    """The progress of one file; a context manager that restores the terminal at its end."""

    def __init__(self, title: str, err: TextIO | None = None) -> None:
        self._title = clean(title)
        self._console = Console(
            file=err or sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True
        )
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._doing = ""
        self._tenth = 0

    def __call__(self, doing: str, done: int, total: int) -> None:
        """Show what is being done, and `done` of `total` bytes."""
        if not self._console.is_terminal:
            self._line(doing, done, total)
            return
        if doing != self._doing or self._task is None:
            self._begin(doing, done, total)
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=done)

    def notice(self, sentence: str) -> None:
        """A line above the bar."""
        console = self._progress.console if self._progress else self._console
        say(console, sentence, "dim")

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def _begin(self, doing: str, done: int, total: int) -> None:
        """Begin a bar for each kind of work, so that earlier bytes do not count as speed."""
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(12, "dim", "magenta", "green", "magenta"),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._progress.start()
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._doing = doing
        room = max(12, self._console.width - _COLUMNS)
        text = f"{doing} {self._title}"
        if cell_len(text) > room:
            text = self._title
        if cell_len(text) > room:  # names differ at their end
            text = f"…{text[-room + 1 :]}"
        self._task = self._progress.add_task(text, total=total, completed=done)

    def _line(self, doing: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 10
        if (doing, tenth) != (self._doing, self._tenth):
            self._doing, self._tenth = doing, tenth
            self._console.print(f"{doing} {self._title}: {10 * tenth} %", soft_wrap=True)
