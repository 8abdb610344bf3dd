"""Keyboard: reads messages and command lines from a person.

At the prompt it is a line editor with history and completion. During an answer it reads keys
without echo and puts them into the next line. It knows that a line which begins with a slash is a
command; which commands there are it is told.
"""

import asyncio
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application, get_app_or_none, run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.document import Document
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import vi_navigation_mode
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyPress, KeyPressEvent
from prompt_toolkit.layout.screen import Char
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import is_dumb_terminal

from lcp.errors import LcpError
from lcp.terminal import toolbar
from lcp.terminal.clean import SIGNS
from lcp.terminal.editor import edit
from lcp.terminal.graphemes import SideBySide
from lcp.terminal.history import HistoryFile
from lcp.terminal.key_bindings import bindings
from lcp.terminal.long_pastes import LongPastes
from lcp.terminal.signals import LEAVING, TerminalGone, handling
from lcp.terminal.tab_completion import CompletionWords, LineCompleter

PROMPT = "> "
PAUSE_S = 0.05  # after the last key, before `on_text` is called: nothing delays an echo
REFRESH_S = 0.25  # how often the line below the prompt is checked for changes
_REST_S = 1.0  # the same after a while without any
_ESCAPE_S = 0.1  # after this, an Esc is the Esc key, not the start of a sequence
_BACKGROUND_S = 0.5  # how often to check whether lcp is in the foreground again
_COMMAND = re.compile(r"/(?:[^\s/]+(?:[^\S\n][^\n]*)?|[^\S\n]*)")  # "/etc/hosts is" is a question
# Readable on white as on black: bright black is the background itself in a well-known theme.
_OWN = "fg:default bg:default"  # the colours of the terminal
_STYLE = Style.from_dict(
    {
        "state": "dim",
        "state.warn": "nodim ansiyellow",
        "state.bad": "nodim ansired",
        "auto-suggestion": f"{_OWN} dim italic",
        "search": f"{_OWN} underline",
        "exiting": f"{_OWN} dim",
        "aborting": f"{_OWN} dim",
        "completion-menu": f"{_OWN} reverse",
        "completion-menu.completion.current": f"{_OWN} noreverse bold",
        "completion-menu.meta.completion": f"{_OWN} reverse",
        "completion-menu.meta.completion.current": f"{_OWN} noreverse",
        "scrollbar.background": f"{_OWN} reverse",
        "scrollbar.button": f"{_OWN} noreverse",
    }
)


@dataclass(frozen=True)
class TypedLine:
    """What a person sent: a message, or one line that was typed as a command."""

    text: str
    is_command: bool = False


@dataclass(frozen=True)
class KeyboardOptions:
    """What the chat gives the line editor.

    `on_text` is called with the message typed so far, soon after the last key. `state` gives the
    parts of the line below the prompt.
    `commands` and `paths` are what Tab completes (see tab_completion.py). `keys` gives "emacs" or
    "vi". `meanwhile` is called once, in another thread, soon after the first prompt is drawn.
    """

    on_text: Callable[[str], None] = lambda text: None
    state: Callable[[], Sequence[toolbar.ToolbarPart]] = lambda: ()
    commands: Mapping[str, tuple[str, CompletionWords]] = field(default_factory=dict)
    paths: Callable[[str], Iterable[str]] = lambda begun: ()
    keys: Callable[[], str] = lambda: "emacs"
    meanwhile: Callable[[], None] = lambda: None


class Keyboard:
    """The line editor; `read` returns one message, which may have many lines."""

    def __init__(
        self,
        history: Path,
        options: KeyboardOptions = KeyboardOptions(),
        *,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        """`history`: the file of earlier messages."""
        self._options = options
        self._meanwhile = [options.meanwhile]
        self._pastes = LongPastes()
        self._telling: asyncio.TimerHandle | None = None
        self._check: asyncio.TimerHandle | None = None  # of the line below the prompt
        self._shown: Sequence[toolbar.ToolbarPart] = ()
        self._lent = False  # the terminal: to the editor, or to the shell after Ctrl-Z
        self._kept: list[KeyPress] = []  # typed during an answer
        self._given = False  # whether the line began with a text that was not typed
        self._app: Application[Any] | None = None  # of the open prompt
        self._error: BaseException | None = None  # raised by `read`
        self._signal = 0  # the signal that arrived during this prompt
        self._complaint = ""  # an error of the external editor, until the next change
        # Control characters in pastes and file names look as they do in answers.
        Char.display_mappings |= {chr(c): sign for c, sign in SIGNS.items() if c >= 0xA0}
        earlier = HistoryFile(history, self._pastes.unfold)
        self._dumb = output is None and is_dumb_terminal()
        if output is None and not self._dumb:  # prompt_toolkit has a plain line for it
            output = create_output(always_prefer_tty=True)  # not into `| tee answers`
        if isinstance(output, Vt100_Output):
            output.enable_cpr = False  # asking for the cursor would delay the prompt
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation="  ",
            history=earlier,
            auto_suggest=AutoSuggestFromHistory(),
            completer=LineCompleter(options.commands, options.paths),
            complete_while_typing=False,
            key_bindings=bindings(self._pastes, self._edit, self._suspend, lambda: self._given),
            input_processors=[SideBySide()],
            style=_STYLE,
            input=input,
            output=output,
        )
        self._session.app.ttimeoutlen = _ESCAPE_S  # Esc alone is a key of vi's
        if hasattr(signal, "SIGWINCH"):
            self._session.app.terminal_size_polling_interval = None  # the signal is enough
        toolbar.place(self._session, self._parts)
        self._session.default_buffer.on_text_changed += lambda buffer: self._changed()

    def read(self, text: str = "") -> TypedLine:
        """Wait for the next line; `text` is already in it. Ctrl-C raises KeyboardInterrupt on an
        empty line and on one that began with `text`; Ctrl-D raises EOFError on an empty one.
        SIGTERM and SIGHUP raise SystemExit after the terminal is restored."""
        vi = self._options.keys() == "vi"
        self._session.editing_mode = EditingMode.VI if vi else EditingMode.EMACS
        text = self._pastes.refold(text)
        self._given = bool(text)
        with self._signals():
            text = " " + text if text.startswith("/") else text
            try:
                line = self._session.prompt(default=text, pre_run=self._begin, handle_sigint=False)
            except TerminalGone as error:
                raise EOFError from error
            finally:
                self._check = None  # its event loop has ended
        if self._signal or self._error:
            raise self._end()
        return self._line(line)

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Around an answer or a command: a paste that arrives meanwhile is one paste in the next
        line, and its line ends do not send it."""
        if self._dumb:
            yield
            return
        output = self._session.app.output
        output.enable_bracketed_paste()
        output.flush()
        try:
            yield
        finally:
            output.disable_bracketed_paste()
            output.flush()

    def kept(self) -> AbstractContextManager[None]:
        """Around an answer: what is typed goes into the next line."""
        return nullcontext() if self._dumb else _kept(self._session.app.input, self._kept)

    def _line(self, line: str) -> TypedLine:
        """The message or command in the editor. A space before a slash makes it a message."""
        text = self._pastes.unfold(line)
        if _COMMAND.fullmatch(line):
            return TypedLine(text, is_command=True)
        return TypedLine(text[1:] if text.startswith(" /") else text)

    def _changed(self) -> None:
        self._complaint = ""
        if self._telling:
            self._telling.cancel()
        if loop := self._session.app.loop:
            self._telling = loop.call_later(PAUSE_S, self._tell)
            self._check_in(loop, REFRESH_S)

    def _tell(self) -> None:
        line = self._line(self._session.default_buffer.text)
        self._options.on_text("" if line.is_command else line.text)

    def _parts(self) -> Sequence[toolbar.ToolbarPart]:
        if self._complaint:
            return [(self._complaint, "bad")]
        parts = self._options.state()
        return [("vi: normal", ""), *parts] if vi_navigation_mode() else parts

    def _begin(self) -> None:
        self._app = get_app_or_none()
        self._leave()
        # The keys typed during the answer may be Up or Ctrl-R, which need the history.
        self._session.default_buffer.load_history_if_not_yet_loaded()
        self._session.app.create_background_task(self._press())
        self._shown = self._parts()
        self._check_in(asyncio.get_running_loop(), REFRESH_S)

    async def _press(self) -> None:
        keys = self._session.app.key_processor
        keys.feed_multiple(self._kept)
        self._kept.clear()
        keys.process_keys()

    def _check_in(self, loop: asyncio.AbstractEventLoop, pause: float) -> None:
        if self._check:
            self._check.cancel()
        self._check = loop.call_later(pause, self._draw_changes, loop, pause)

    def _draw_changes(self, loop: asyncio.AbstractEventLoop, pause: float) -> None:
        """Draw the line below the prompt again when it has changed; else write nothing."""
        if self._meanwhile:
            loop.run_in_executor(None, self._meanwhile.pop())
        changed = (parts := self._parts()) != self._shown
        if changed:
            self._shown = parts
            self._session.app.invalidate()
        self._check_in(loop, REFRESH_S if changed else min(2 * pause, _REST_S))

    async def _edit(self, event: KeyPressEvent) -> None:
        """Open the line in an external editor; afterwards it is in the prompt again, not sent."""
        buffer = event.current_buffer
        self._lent = True
        try:
            whole = self._pastes.unfold(buffer.text)
            text = await run_in_terminal(lambda: edit(whole), in_executor=True)
        except LcpError as error:
            self._complaint = str(error)
        else:
            text = self._pastes.refold(text)
            buffer.document = Document(text, len(text))
        finally:
            self._lent = False

    async def _suspend(self, event: KeyPressEvent) -> None:
        """Stop lcp and all programs that run with it, until fg."""
        self._lent = True
        try:
            await run_in_terminal(lambda: os.kill(0, signal.SIGTSTP))
        finally:
            self._lent = False

    def fail(self, error: BaseException | None) -> None:
        """Let `read` raise this error, now or when it is called next; from any thread."""
        self._error = error
        self._leave_soon()

    def _leave_soon(self) -> None:
        if self._app and self._app.loop:
            with suppress(RuntimeError):  # it has ended meanwhile
                self._app.loop.call_soon_threadsafe(self._leave)

    def _end(self) -> BaseException:
        """The exception for the signal that arrived, or the error."""
        number = self._signal
        if self._error and not number:
            return self._error
        return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)

    def _leave(self) -> None:
        """End the prompt if a signal or an error arrived and the prompt is still open."""
        app = self._app
        if (self._signal or self._error) and app and app.future and not app.future.done():
            app.exit(exception=self._end())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signal handlers around the prompt. They only take note: an exception in the middle of
        prompt_toolkit or asyncio starting or ending would leave them half done."""
        app = self._session.app
        self._signal = 0

        def note(number: int, frame: FrameType | None) -> None:
            self._signal = number
            self._leave_soon()

        def repaint() -> None:
            # After a SIGSTOP, which left the terminal in the shell's modes.
            if app.is_running:
                app.input.raw_mode().__enter__()
                app.renderer.reset()
                app.invalidate()

        def repaint_soon(number: int, frame: FrameType | None) -> None:
            if app.loop and not self._lent:  # then run_in_terminal draws the prompt again
                with suppress(RuntimeError):  # it has ended meanwhile
                    app.loop.call_soon_threadsafe(repaint)

        handlers: dict[int, Any] = dict.fromkeys((signal.SIGINT, *LEAVING), note)
        if hasattr(signal, "SIGCONT"):
            handlers[signal.SIGCONT] = repaint_soon
        with handling(handlers):
            yield


@contextmanager
def _kept(input: Input, keys: list[KeyPress]) -> Iterator[None]:
    """Read the keys of `input` in a thread and append them to `keys`.

    A terminal holds about 4,000 unread characters: after a longer paste, a Ctrl-C would not arrive
    before the end of the answer.
    """
    if os.name != "posix":  # Windows keeps them itself
        yield
        return
    ending, end = os.pipe()
    last = 0.0

    def read() -> None:
        nonlocal last
        with suppress(OSError, ValueError):  # the terminal may be gone
            while not input.closed:
                ready, _, _ = select.select([input.fileno(), ending], [], [])
                if ending in ready:
                    return
                if _ours(input.fileno()):
                    keys.extend(input.read_keys())
                    last = time.monotonic()
                else:
                    select.select([ending], [], [], _BACKGROUND_S)

    thread = threading.Thread(target=read, name="lcp keys", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(end, b".")
        thread.join()
        os.close(ending)
        os.close(end)
        if time.monotonic() - last > _ESCAPE_S:
            keys += input.flush_keys()


def _ours(fd: int) -> bool:
    """Whether it may be read: reading in the background would stop lcp. A pipe always may."""
    return not os.isatty(fd) or os.tcgetpgrp(fd) == os.getpgrp()
