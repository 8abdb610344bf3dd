"""Keyboard: lines of text from a person.

A line editor with history while it is the person's turn; during an answer keys are kept quiet,
and what is typed then stands in the next line. Knows no models and no commands.
"""

import json
import os
import signal
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
from prompt_toolkit.styles import Style

from lcp.errors import LcpError
from lcp.terminal.signals import LEAVING, handling

PROMPT = "> "
_STYLE = Style.from_dict({"bottom-toolbar": "noreverse ansibrightblack"})


class Keyboard:
    """The line editor; `read` gives one message, which may have many lines."""

    def __init__(
        self,
        history: Path,
        *,
        on_text: Callable[[str], None] = lambda text: None,
        state: Callable[[], str] = lambda: "",
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        """`on_text` is told what is typed so far. `state` is asked for the line below the
        prompt; an LcpError of its is raised by `read`."""
        self._state = state
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation="  ",
            history=FileOfLines(history),
            key_bindings=_bindings(),
            enable_suspend=True,
            bottom_toolbar=self._toolbar,
            refresh_interval=0.25,
            style=_STYLE,
            input=input,
            output=output or create_output(always_prefer_tty=True),  # not into `| tee answers`
        )

        self._session.default_buffer.on_text_changed += lambda buffer: on_text(buffer.text)

    def read(self, text: str = "") -> str:
        """The next message, beginning with `text`. Ctrl-C raises KeyboardInterrupt, Ctrl-D on an
        empty line EOFError, SIGTERM and SIGHUP SystemExit with the terminal in order."""
        with self._signals():
            return self._session.prompt(default=text)

    def _toolbar(self) -> str | None:
        try:
            return self._state() or None
        except LcpError as error:
            app = self._session.app
            if app.is_running and not app.is_done:
                app.exit(exception=error)
            return None

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
