"""Reads the chat and the message that a person is typing into the KV cache, before Enter.

The engine thread calls `step` when it has nothing more urgent to do. ReadAhead only fills free
cells: it never drops, moves or summarizes tokens, and does not read text that may still change.
"""

import time
from collections.abc import Sequence

from lcp.common_prefix import common_prefix
from lcp.engine.context import SHORT, Context, Stopped
from lcp.engine.prompt import PromptWriter
from lcp.engine_interface import HELD_BACK, PromptMessage
from lcp.errors import ContextFull, LcpError

# Tokens that a step reads: after Enter, the answer waits for one step at most.
STEP = SHORT


class ReadAhead:
    """Reads the messages so far, and the beginning of the one that is being typed."""

    def __init__(self) -> None:
        self._context: Context | None = None
        self._wish: tuple[Sequence[PromptMessage], str, int | None] | None = None
        self._planned: object = None  # the wish that `_target` was made from
        self._target: list[int] = []
        self._history = 0  # tokens before the typed text
        self._progress = (0, 0)
        self._read, self._seconds = 0, 0.0  # so far: tokens, and the time for them

    def begin(self, context: Context, writer: PromptWriter) -> None:
        """Begin to read, now that the model is loaded."""
        self._writer = writer
        self._context = context

    def look(self, messages: Sequence[PromptMessage], typed: str, max_tokens: int | None) -> None:
        """Set what a person will probably ask. Any thread may call it."""
        self._wish = (messages, typed, max_tokens)

    def rest(self) -> None:
        """Stop reading. Any thread may call it."""
        self._wish = None

    @property
    def progress(self) -> tuple[int, int]:
        """How many tokens are read, of how many. Any thread may call it."""
        return self._progress if self._wish else (0, 0)

    @property
    def speed(self) -> float:
        """Tokens per second of reading; 0 if nothing was read."""
        return self._read / self._seconds if self._seconds else 0.0

    def step(self) -> bool:
        """Read a few tokens on the engine thread. Returns whether there may be more to do."""
        wish, context = self._wish, self._context
        if wish is None or context is None:
            return False
        try:
            if wish is not self._planned:
                self._plan(context, *wish)
                self._planned = wish
            done = common_prefix(context.tokens, self._target)
            self._progress = (done, len(self._target))
            if done >= len(self._target):
                return self._wish is not wish
            goal, begun = self._target[: done + STEP], time.perf_counter()
            for _ in context.feed(goal, min(self._history, len(goal))):
                pass
            self._read += len(goal) - done
            self._seconds += time.perf_counter() - begun
        except (Stopped, ContextFull):
            return False  # something more urgent came, or the context is full
        except LcpError:
            self.rest()  # the request for the answer will raise the same error
            return False
        return True

    def _plan(
        self,
        context: Context,
        messages: Sequence[PromptMessage],
        typed: str,
        max_tokens: int | None,
    ) -> None:
        """Find the tokens with which every continuation of `typed` begins."""

        def with_question(text: str) -> list[int]:
            question = PromptMessage("user", text)
            return self._writer.write([*messages, question]).tokens

        a, b = with_question("a"), with_question("1")
        self._history = common_prefix(a, b)
        self._target = a[: self._history]
        if typed.strip():
            a, b, c = (with_question(typed + more) for more in ("", "a", " 1"))
            same = common_prefix(a[: common_prefix(a, b)], c)
            self._target = a[: max(self._history, same - HELD_BACK)]
        del self._target[context.room(max_tokens) :]
