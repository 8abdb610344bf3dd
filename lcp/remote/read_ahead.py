"""Reading ahead on a llama-server: the chat and what is typed go into its cache, in small steps.

A step that was sent cannot be taken back, so it is small. It only adds to what the server holds.
"""

from collections.abc import Callable, Sequence

from lcp.common_prefix import common_prefix
from lcp.engine_interface import PromptMessage, room_in
from lcp.errors import LcpError
from lcp.remote.http_client import Cut
from lcp.remote.llama_server import LlamaServer

STEP = 128  # tokens: an answer waits for one of them at most
LEAST = 16  # tokens for which a request is worth it
HELD_BACK = 4  # tokens at the end of what is typed that the next letters may still change

Wish = tuple[Sequence[PromptMessage], str, int | None]


class ServerReadAhead:
    """What is worth reading while a person types; the worker calls `step` when it is idle."""

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
        """What will probably be asked; from any thread."""
        self._wish = (messages, typed, max_tokens)

    def rest(self) -> None:
        """Nothing more is worth reading; from any thread."""
        self._wish = None

    @property
    def progress(self) -> tuple[int, int]:
        """How many tokens of how many are read; from any thread."""
        wish = self._wish
        return (self._done, len(self._target)) if wish and wish is self._planned else (0, 0)

    def step(self, held: Callable[[Sequence[PromptMessage]], int]) -> bool:
        """Read a little; whether there may be more to do. `held`: about the tokens at the beginning
        of messages that the server has."""
        wish, server = self._wish, self._server
        if wish is None or server is None:
            return False

        def stopped() -> bool:
            return self._wish is None

        try:
            if wish is not self._planned:
                target = self._plan(server, *wish)
                self._done = max(held(wish[0]), common_prefix(self._target[: self._done], target))
                self._target, self._planned = target, wish
            if len(self._target) - self._done < LEAST:
                self._done = len(self._target)
                return self._wish is not wish
            self.read_for = wish[0]
            server.read(self._target[: self._done + STEP], stopped)
            self._done = min(len(self._target), self._done + STEP)
        except (Cut, LcpError):
            if self._wish is wish:  # whoever asks for the answer will be told
                self._wish = None
            return self._wish is not None
        return True

    def forget(self) -> None:
        """The server's cache holds something else now."""
        self._target, self._planned, self._done, self.read_for = [], None, 0, ()

    def _plan(
        self,
        server: LlamaServer,
        messages: Sequence[PromptMessage],
        typed: str,
        max_tokens: int | None,
    ) -> list[int]:
        """The tokens that every continuation of `typed` begins with."""

        def asked(more: str) -> str:
            return server.prompt([*messages, PromptMessage("user", typed + more)])

        a, b = asked("a"), asked(" 1" if typed.strip() else "1")
        text = a[: common_prefix(a, b)]
        tokens = [id for id, _ in server.tokenize(text, whole=True)]
        del tokens[max(0, len(tokens) - (HELD_BACK if typed.strip() else 1)) :]
        del tokens[room_in(self._size, max_tokens) :]
        return tokens
