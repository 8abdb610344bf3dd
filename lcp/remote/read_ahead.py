"""Reads the chat and the message that a person is typing into the cache of a llama-server.

A step cannot be cancelled once it is sent, so each step is small. It only adds to the cache.
"""

from collections.abc import Callable, Sequence

from lcp.common_prefix import common_prefix
from lcp.engine_interface import HELD_BACK, PromptMessage, room_in
from lcp.errors import LcpError
from lcp.remote.http_client import Cut
from lcp.remote.llama_server import LlamaServer

STEP = 128  # tokens of a step; an answer waits for one step at most
LEAST = 16  # the fewest tokens that are worth a request

Wish = tuple[Sequence[PromptMessage], str, int | None]


class ServerReadAhead:
    """Reads while a person types. The worker calls `step` when it is idle."""

    def __init__(self) -> None:
        self._server: LlamaServer | None = None
        self._wish: Wish | None = None
        self._planned: Wish | None = None
        self._target: list[int] = []
        self._done = 0
        self.read_for: Sequence[PromptMessage] = ()  # the messages of the last step

    def begin(self, server: LlamaServer, size: int) -> None:
        self._server, self._size = server, size

    def look(self, messages: Sequence[PromptMessage], typed: str, max_tokens: int | None) -> None:
        """Set what a person will probably ask. Any thread may call it."""
        self._wish = (messages, typed, max_tokens)

    def rest(self) -> None:
        """Stop reading. Any thread may call it."""
        self._wish = None

    @property
    def progress(self) -> tuple[int, int]:
        """How many tokens are read, of how many. Any thread may call it."""
        wish = self._wish
        return (self._done, len(self._target)) if wish and wish is self._planned else (0, 0)

    def step(self, kept: Callable[[Sequence[PromptMessage]], int]) -> bool:
        """Read a few tokens. Returns whether there may be more to do. `kept`: about how many tokens
        at the beginning of messages are in the server's cache."""
        wish, server = self._wish, self._server
        if wish is None or server is None:
            return False

        def stopped() -> bool:
            return self._wish is None

        try:
            if wish is not self._planned:
                target = self._plan(server, *wish)
                self._done = max(kept(wish[0]), common_prefix(self._target[: self._done], target))
                self._target, self._planned = target, wish
            if len(self._target) - self._done < LEAST:
                self._done = len(self._target)
                return self._wish is not wish
            self.read_for = wish[0]
            server.read(self._target[: self._done + STEP], stopped)
            self._done = min(len(self._target), self._done + STEP)
        except (Cut, LcpError):
            if self._wish is wish:  # the request for the answer will raise the same error
                self._wish = None
            return self._wish is not None
        return True

    def forget(self) -> None:
        """Forget what was read: the server's cache has changed."""
        self._target, self._planned, self._done, self.read_for = [], None, 0, ()

    def _plan(
        self,
        server: LlamaServer,
        messages: Sequence[PromptMessage],
        typed: str,
        max_tokens: int | None,
    ) -> list[int]:
        """The tokens with which every continuation of `typed` begins."""

        def asked(more: str) -> str:
            return server.prompt([*messages, PromptMessage("user", typed + more)])

        a, b = asked("a"), asked(" 1" if typed.strip() else "1")
        text = a[: common_prefix(a, b)]
        tokens = [id for id, _ in server.tokenize(text, whole=True)]
        del tokens[max(0, len(tokens) - (HELD_BACK if typed.strip() else 1)) :]
        del tokens[room_in(self._size, max_tokens) :]
        return tokens
