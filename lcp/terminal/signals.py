"""Signal handlers, and the terminal's modes between two prompts."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

if sys.platform == "win32":
    termios = None
else:
    import termios

# What prompt_toolkit raises when the terminal's modes cannot be set: lcp has no terminal any more,
# for example after Ctrl-C has ended the program that started lcp.
TerminalGone = OSError if termios is None else termios.error
LEAVING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def handling(handlers: dict[int, Callable[[int, FrameType | None], Any]]) -> Iterator[None]:
    """Set signal handlers for a while. A signal that the parent process ignored, as nohup does,
    stays ignored."""
    heard = {n: h for n, h in handlers.items() if signal.getsignal(n) is not signal.SIG_IGN}
    old = {number: signal.signal(number, handler) for number, handler in heard.items()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def quiet() -> Iterator[None]:
    """Between two prompts: no echo, no line buffering; Ctrl-C and Ctrl-Z work.

    NOFLSH, or a Ctrl-C would throw away what was typed ahead; restored with TCSADRAIN, which
    keeps it. A stop and fg in between leaves the shell's modes: set again on SIGCONT.
    """
    if (modes := _modes()) is None:
        yield
        return
    before, during = modes
    during[0] &= ~termios.ICRNL  # Enter stays Enter for the line editor; Ctrl-J is a new line
    during[3] &= ~(termios.ECHO | termios.ICANON)
    during[3] |= termios.ISIG | termios.NOFLSH
    outer = signal.getsignal(signal.SIGCONT)

    def put(modes: list[Any]) -> None:
        fd = sys.stdin.fileno()
        with suppress(OSError, termios.error):  # the terminal may be gone
            if os.tcgetpgrp(fd) == os.getpgrp():  # in the background it is not ours: SIGTTOU
                termios.tcsetattr(fd, termios.TCSADRAIN, modes)

    def back(number: int, frame: FrameType | None) -> None:
        put(during)
        if callable(outer):
            outer(number, frame)

    put(during)
    try:
        with handling({signal.SIGCONT: back}):
            yield
    finally:
        put(before)


@contextmanager
def echoing() -> Iterator[None]:
    """Inside `quiet`, for a question to the person: keys are echoed and Enter ends the line. Keys
    typed before the question are dropped."""
    if (modes := _modes()) is None:
        yield
        return
    before, during = modes
    during[0] |= termios.ICRNL
    during[3] |= termios.ECHO | termios.ICANON

    def back(number: int, frame: FrameType | None) -> None:
        """After fg, instead of the modes of `quiet`."""
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, during)

    termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, during)
    try:
        with handling({signal.SIGCONT: back}):
            yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _modes() -> tuple[list[Any], list[Any]] | None:
    """The modes of the terminal, twice: to restore, and to change; None without a terminal."""
    if termios is None or not sys.stdin.isatty():
        return None
    return termios.tcgetattr(sys.stdin), termios.tcgetattr(sys.stdin)


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[list[int]]:
    """During slow work: Ctrl-C, SIGTERM and SIGHUP call `stop` and do nothing else.

    Yields the list of the signals that arrived, for `leave`.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        stop()

    with quiet(), handling(dict.fromkeys((signal.SIGINT, *LEAVING), note)):
        yield asked


def leave(asked: Sequence[int]) -> None:
    """Exit if one of these signals was not Ctrl-C."""
    for number in asked:
        if number != signal.SIGINT:
            raise SystemExit(128 + number)


def pressed(key: bytes, seconds: float) -> bool:
    """Wait up to so many seconds for a key; whether it was pressed."""
    if termios is None or not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    ready, _, _ = select.select([sys.stdin.fileno()], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) == key
