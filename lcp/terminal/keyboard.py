"""Keyboard: lines of text from a person.

A line editor with history while it is the person's turn; during an answer keys are kept quiet,
and what is typed then stands in the next line. Knows no models and no commands.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output

if sys.platform == "win32":
    termios = None
else:
    import termios

PROMPT = "> "
LEAVING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Keyboard:
    """The line editor; `read` gives one message, which may have many lines."""

    def __init__(
        self, history: Path, *, input: Input | None = None, output: Output | None = None
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation="  ",
            history=FileOfLines(history),
            key_bindings=_bindings(),
            enable_suspend=True,
            input=input,
            output=output or create_output(always_prefer_tty=True),  # not into `| tee answers`
        )

    def read(self, text: str = "") -> str:
        """The next message, beginning with `text`. Ctrl-C raises KeyboardInterrupt, Ctrl-D on an
        empty line EOFError, SIGTERM and SIGHUP SystemExit with the terminal in order."""
        with self._signals():
            return self._session.prompt(default=text)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        app = self._session.app

        def leave(number: int, frame: FrameType | None) -> None:
            def exit_app() -> None:
                if app.is_running:
                    app.exit(exception=SystemExit(128 + number))

            if app.is_running and app.loop:
                app.loop.call_soon_threadsafe(exit_app)
            else:
                raise SystemExit(128 + number)

        def repaint(number: int, frame: FrameType | None) -> None:
            # Back from fg; after a stop that did not come from the Ctrl-Z key, in its modes.
            if app.is_running:
                app.input.raw_mode().__enter__()
                app.renderer.reset()
                app.invalidate()

        handlers: dict[int, Any] = dict.fromkeys(LEAVING, leave)
        if hasattr(signal, "SIGCONT"):
            handlers[signal.SIGCONT] = repaint
        with handling(handlers):
            yield


@contextmanager
def handling(handlers: dict[int, Callable[[int, FrameType | None], Any]]) -> Iterator[None]:
    """Signal handlers for a while; the old ones come back."""
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def quiet() -> Iterator[None]:
    """Between two prompts: no echo, no line buffering, Ctrl-C and Ctrl-Z work; keys wait.

    NOFLSH, or a Ctrl-C would throw away what was typed ahead; restored with TCSADRAIN, which
    keeps it. A stop and fg in between leaves the shell's modes: set again on SIGCONT.
    """
    if termios is None or not sys.stdin.isatty():
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    during = termios.tcgetattr(fd)
    during[0] &= ~termios.ICRNL  # Enter stays Enter for the line editor; Ctrl-J is a new line
    during[3] &= ~(termios.ECHO | termios.ICANON)
    during[3] |= termios.ISIG | termios.NOFLSH

    def put(modes: list[Any]) -> None:
        with suppress(OSError, termios.error):  # the terminal may be gone
            if os.tcgetpgrp(fd) == os.getpgrp():  # in the background it is not ours: SIGTTOU
                termios.tcsetattr(fd, termios.TCSADRAIN, modes)

    put(during)
    try:
        with handling({signal.SIGCONT: lambda number, frame: put(during)}):
            yield
    finally:
        put(before)


class FileOfLines(History):
    """What was typed, a JSON string a line, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """Newest first. A line that is no JSON string is passed over."""
        try:
            lines = self._path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return
        for line in reversed(lines):
            with suppress(ValueError):
                text = json.loads(line)
                if isinstance(text, str):
                    yield text

    def store_string(self, string: str) -> None:
        """Append; a disk that fails costs the history, not the chat."""
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(json.dumps(string) + "\n")


def _bindings() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        """Send the message."""
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def new_line(event: KeyPressEvent) -> None:
        """Begin a new line."""
        event.current_buffer.insert_text("\n")

    return keys
