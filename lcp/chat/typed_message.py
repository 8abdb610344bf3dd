"""TypedMessage: the message being typed: its files, its tokens, and what sending it would do.

All of it is found on other threads: a file may be on a slow disk, and a long text takes time to
tokenise, but every key must be echoed at once. Only the newest text counts.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lcp.chat.attachments import Attached, attach
from lcp.chat.overflow import Overflow
from lcp.engine_interface import Engine
from lcp.errors import LcpError, TooLong
from lcp.session.message import Turn
from lcp.settings import Settings

# After the last key, before a text is looked at: for a long text that holds Python's global lock
# for tens of milliseconds, in which no key is echoed.
PAUSE_S = 0.15
SLOW_S = 0.5  # of reading files, before the line below the prompt says so
EXACT = 1 << 18  # characters; the tokens of a longer message are estimated
SAMPLE = 1 << 14  # characters of it that are counted for the estimate
NOTHING = Attached()
PER_TOKEN = 4  # characters in a token, roughly, until they are counted


@dataclass(frozen=True)
class TypedMessage:
    """A message with its files, and what is known about it so far.

    `files`: tokens of its files. `prompt`: tokens of the prompt if it were sent; 0 while unknown.
    `about`: these two are estimates. `refused`: why it cannot be sent. `leaving`: the turns that
    would leave the context window.
    """

    attached: Attached = NOTHING
    files: int = 0
    prompt: int = 0
    about: bool = False
    refused: TooLong | None = None
    leaving: tuple[Turn, ...] = ()


class TypedMessages:
    """Keeps the newest message, with a thread that reads its files and ends when they are read."""

    def __init__(
        self,
        count: Callable[[Callable[[], None]], object],
        weigh: Callable[[Attached], TypedMessage],
        weighed: Callable[[TypedMessage], None],
    ) -> None:
        """`count` calls a function on the thread that counts tokens. There `weigh` counts those of
        a message, and `weighed` gets the result."""
        self.newest = TypedMessage()
        self._count, self._weigh, self._weighed = count, weigh, weighed
        self._lock = threading.Lock()
        self._wish: list[str] | None = None  # a list, so that the same text twice is two wishes
        self._running = False
        self._looking = 0.0  # when reading the files began; 0: nothing is read

    def look(self, typed: str) -> None:
        """Read the files and count the tokens of this text next; returns at once."""
        with self._lock:
            self._wish = [typed]
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="lcp typed", daemon=True).start()

    def drop(self) -> None:
        """Forget the message; `weighed` is not called for it any more."""
        with self._lock:
            self._wish, self.newest = None, TypedMessage()

    @property
    def slow(self) -> bool:
        """Whether reading its files takes long."""
        return bool(self._looking) and time.monotonic() - self._looking > SLOW_S

    def _run(self) -> None:
        begun: list[str] | None = None
        while True:
            with self._lock:
                wish = self._wish
                if wish is None or wish is begun:
                    self._running = False
                    return
            time.sleep(PAUSE_S)
            if wish is self._wish:
                begun = wish
                self._attach(wish)

    def _attach(self, wish: list[str]) -> None:
        self._looking = time.monotonic()
        attached = attach(wish[0], Path(), self.newest.attached)
        self._looking = 0.0
        with self._lock:
            if wish is not self._wish:
                return
            if attached != self.newest.attached:
                about = sum(len(file.block) for file in attached.files) // PER_TOKEN
                self.newest = TypedMessage(attached, about, about=True)
        with suppress(RuntimeError):  # the engine is closed
            self._count(lambda: self._finish(wish, attached))

    def _finish(self, wish: list[str], attached: Attached) -> None:
        if wish is not self._wish:
            return
        found = TypedMessage(attached)
        with suppress(LcpError):  # an error of the model or template; sending raises it again
            found = self._weigh(attached)
        with self._lock:
            if wish is self._wish:
                self.newest = found
                self._weighed(found)


def weigh(
    attached: Attached, engine: Engine, overflow: Overflow, settings: Settings
) -> TypedMessage:
    """What can be known about a message before it is sent; estimated for a very long one."""
    text, blocks = attached.text, [file.block for file in attached.files]
    if about := len(text) > EXACT:
        tokens = _estimate(text, engine.tokens)
        files = tokens * sum(map(len, blocks)) // len(text)
    else:
        tokens, files = 0, sum(map(engine.tokens, blocks))
    if attached.problems:
        return TypedMessage(attached, files, about=about)
    try:
        if about:
            return TypedMessage(attached, files, overflow.check_size(tokens, settings), about)
        window = overflow.foresee(text, settings)
    except TooLong as error:
        return TypedMessage(attached, files, error.tokens, about, refused=error)
    leaving = tuple(t for t in overflow.turns() if t.user.id in window.newly_out)
    return TypedMessage(attached, files, window.tokens, leaving=leaving)


def _estimate(text: str, count: Callable[[str], int]) -> int:
    """Roughly how many tokens a long text has, from its beginning."""
    part = text[:SAMPLE]
    return count(part) * len(text) // len(part)
