"""Chat: the corridor: keyboard -> conversation -> window -> engine -> screen -> disk.

The only place where the rooms meet; two visible loops, `talk` for a person and `answer` for one
turn. It parses no command line and owns none of the rooms' work.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from lcp.engine.context import Progress
from lcp.engine.engine import Engine
from lcp.engine.reply import Reply, Request, Stats
from lcp.errors import LcpError
from lcp.session.conversation import Conversation, Event
from lcp.session.log import Log
from lcp.session.window import Window, fit
from lcp.settings import Settings, resolve
from lcp.terminal.keyboard import LEAVING, Keyboard, handling, quiet
from lcp.terminal.screen import Screen

SIGPIPE = 13  # signal has no name for it on Windows
# What /set can change while a model is loaded; the rest is fixed with its context.
LIVE = ("max_tokens", "stop", "think")


@dataclass
class Chat:
    """One conversation with one model."""

    engine: Engine
    conversation: Conversation
    log: Log
    screen: Screen
    model: str  # the name it was asked for by
    layers: dict[str, dict[str, Any]]  # see lcp.settings.ORDER
    settings: Settings = field(init=False)
    stats: Stats | None = None  # of the last answer
    _start: str | None = None  # the first message in the window
    _complained: bool = False

    def __post_init__(self) -> None:
        self.settings = resolve(self.layers)

    # the two loops

    def talk(self, keyboard: Keyboard, command: Callable[["Chat", str], bool]) -> None:
        """Lines of a person until Ctrl-D; `command` runs one that begins with a slash and
        answers whether to go on."""
        text = ""
        with quiet():  # between two prompts, too
            while True:
                line = ""
                try:
                    line, text = keyboard.read(text), ""
                    if line.startswith("/"):
                        if not command(self, line):
                            return
                    elif line.strip():
                        self.ask(line)
                        self.say_status()
                except EOFError:
                    return
                except KeyboardInterrupt:
                    text = ""
                    self.screen.notice("Ctrl-D or /exit leaves.")
                except LcpError as error:
                    self.screen.error(str(error))
                    # what could not be answered is offered again, to be shortened or sent later
                    text = "" if line.startswith("/") else line

    def answer(self) -> Reply:
        """Answer the question at the head of the conversation; its answer is then on disk."""
        with self.screen.answer(), _stopping(self.engine) as asked:
            window = self._fit()
            reply = self.engine.reply(
                Request(
                    window.messages,
                    self.settings.sampling,
                    max_tokens=self.settings.max_tokens,
                    stop=self.settings.stop,
                    think=self.settings.think != "off",
                )
            )
            if asked:  # while the window was fitted
                self.engine.stop()
            for item in reply:
                if isinstance(item, Progress):
                    self._say_progress(item)
                    continue
                if item.kind == "thinking" and self.settings.think == "hide":
                    continue
                try:
                    self.screen.write(item.text, thinking=item.kind == "thinking")
                except BrokenPipeError:  # the reader of our output has left
                    asked.append(SIGPIPE)
                    self.engine.stop()
        self.stats = reply.stats = reply.stats.dropping(window.dropped)
        self.keep(
            self.conversation.answer(
                reply.text,
                thinking=reply.thinking,
                tokens=reply.tokens,
                fingerprint=self.engine.model.fingerprint,
                ended=reply.ended,
                model=self.model,
                sampling=vars(self.settings.sampling),
                seed=reply.seed,
                stats=reply.stats.as_dict(),
            ),
            sync=True,
        )
        for number in asked:
            if number != signal.SIGINT:
                raise SystemExit(128 + number)
        return reply

    # steps

    def ask(self, text: str) -> Reply:
        """One turn: the question is on disk before the model reads it."""
        before = self.conversation.head
        self.keep(self.conversation.ask(text), sync=True)
        try:
            return self.answer()
        except LcpError:
            # It stays in the log, but the next question does not stand behind it.
            self.keep(self.conversation.go(before))
            raise

    def retry(self) -> Reply:
        """Answer the last question once more; the answer before stays in the log."""
        event = self.conversation.retry()
        if event is None:
            raise LcpError("There is no question to answer again. Ask one first.")
        self.keep(event)
        return self.answer()

    def keep(self, event: Event, sync: bool = False) -> None:
        """Write an event to the log; when that fails, say so once and go on."""
        self.log.append(event, sync)
        if self.log.problem and not self._complained:
            self._complained = True
            self.screen.error(self.log.problem)

    def set(self, name: str, value: str) -> None:
        """Change a setting from the next answer on; SettingsError when it cannot be."""
        changed = {**self.layers, "/set": {**self.layers.get("/set", {}), name: value}}
        self.settings = resolve(changed)
        self.layers = changed
        self.keep(self.conversation.set(**{name: self.settings.value(name)}))

    def _fit(self) -> Window:
        size = self.engine.size
        answer_room = min(self.settings.max_tokens or size // 4, size // 2)
        window = fit(
            self.conversation.system,
            self.conversation.turns(),
            self.engine.count,
            size - answer_room,
            start=self._start,
            slack=size // 8,  # so that turns fall out every few turns, not at each
        )
        self._start = window.start
        if n := window.newly_dropped:
            turns = "1 turn" if n == 1 else f"{n} turns"
            self.screen.notice(
                f"The window is full: the oldest {turns} left it ({window.dropped} in all). "
                f"{window.tokens} of {size} tokens are used; the log keeps everything."
            )
        return window

    def _say_progress(self, progress: Progress) -> None:
        if progress.total > 64:  # less is read before a person could see it
            share = 100 * progress.done // progress.total
            self.screen.progress(f"reading {progress.done}/{progress.total} tokens ({share} %)")

    def say_status(self) -> None:
        """The line after an answer."""
        if self.stats:
            self.screen.notice(self.stats.line())
            self.screen.blank()


@contextmanager
def _stopping(engine: Engine) -> Iterator[list[int]]:
    """During an answer: Ctrl-C stops it, SIGTERM and SIGHUP stop it and then leave.

    Yields the list of the signals that came.
    """
    asked: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        engine.stop()

    with quiet(), handling(dict.fromkeys((signal.SIGINT, *LEAVING), stop)):
        yield asked
