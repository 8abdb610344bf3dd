"""Questions to the person: asked on stderr, answered with a line and Enter."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lcp.terminal.signals import handling

_LOOK_UP_S = 0.1  # how long a Ctrl-C may go unnoticed


def ask(question: str, default: str) -> str:
    """Ask for a line; `default` if it is blank. Ctrl-C and Ctrl-D raise KeyboardInterrupt."""
    return _line(f"{question} [{default}]: ").strip() or default


def confirm(question: str, default: bool = False) -> bool:
    """Ask yes or no, again until it is one of them; else as `ask`."""
    answers = {"y": True, "yes": True, "n": False, "no": False, "": default}
    while True:
        answer = _line(f"{question} [{'Y/n' if default else 'y/N'}]: ").strip().lower()
        if answer in answers:
            return answers[answer]
        sys.stderr.write("Please type y or n.\n")


def _line(prompt: str) -> str:
    try:
        with _repeated(prompt):
            sys.stderr.write(prompt)
            sys.stderr.flush()
            _wait()
            line = sys.stdin.readline()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise
    if not line:
        sys.stderr.write("\n")
        raise KeyboardInterrupt
    return line


@contextmanager
def _repeated(prompt: str) -> Iterator[None]:
    """Show the prompt again after Ctrl-Z and fg: the shell has written below it."""
    if not hasattr(signal, "SIGCONT"):
        yield
        return
    outer = signal.getsignal(signal.SIGCONT)

    def show(number: int, frame: FrameType | None) -> None:
        if callable(outer):
            outer(number, frame)
        sys.stderr.write(prompt)
        sys.stderr.flush()

    with handling({signal.SIGCONT: show}):
        yield


def _wait() -> None:
    """Wait until a line was typed. Not in one long `read`: Python acts on a signal between two of
    its own steps, and one that comes just before such a call would wait for it to end."""
    if os.name == "posix" and sys.stdin.isatty():
        while not select.select([sys.stdin], [], [], _LOOK_UP_S)[0]:
            pass
