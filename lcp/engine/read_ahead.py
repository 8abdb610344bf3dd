"""Evaluates a prompt while the person still types it.

The engine thread calls `ReadAhead.step` when it has nothing more urgent to do. Reading ahead only
uses free room: it drops, moves and summarizes nothing, and leaves out what may still change.
"""

from collections.abc import Sequence
from typing import Any

from lcp.engine.cache_plan import common_prefix
from lcp.engine.context import SHORT, Context, Stopped
from lcp.engine.prompt import PromptWriter
from lcp.errors import ContextFull, LcpError

# Tokens that one step evaluates. After Enter, at most one step is waited for.
STEP = SHORT
# Tokens at the end of what is typed that the next letters may still change.
HELD_BACK = 4


class ReadAhead:
    """Evaluates the messages so far and the beginning of the message that is being typed."""

    def __init__(self) -> None:
        self._context: Context | None = None
        self._wish: tuple[Sequence[dict[str, Any]], str, int | None] | None = None
        self._planned: object = None  # the wish that `_target` was made of
        self._target: list[int] = []
        self._history = 0  # tokens before what is typed
        self._progress = (0, 0)

    def begin(self, context: Context, writer: PromptWriter) -> None:
        """Start, once the model is loaded; a call of `look` may have come before."""
        self._writer = writer
        self._context = context

    def look(self, messages: Sequence[dict[str, Any]], typed: str, max_tokens: int | None) -> None:
        """Set what to read: `messages`, then `typed` text. From any thread."""
        self._wish = (messages, typed, max_tokens)

    def rest(self) -> None:
        """Read nothing more. From any thread."""
        self._wish = None

    @property
    def progress(self) -> tuple[int, int]:
        """Tokens that are read, and how many there are to read. From any thread, for display."""
        return self._progress if self._wish else (0, 0)

    def step(self) -> bool:
        """Evaluate a few tokens, on the engine thread. Returns whether there may be more to do."""
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
            goal = self._target[: done + STEP]
            for _ in context.feed(goal, min(self._history, len(goal))):
                pass
        except (Stopped, ContextFull):
            return False  # an answer was asked for, or the context is full
        except LcpError:
            self.rest()  # the same error comes again when the answer is asked for
            return False
        return True

    def _plan(
        self,
        context: Context,
        messages: Sequence[dict[str, Any]],
        typed: str,
        max_tokens: int | None,
    ) -> None:
        """Find the tokens with which every continuation of `typed` begins."""

        def with_question(text: str) -> list[int]:
            question = {"role": "user", "content": text}
            return self._writer.write([*messages, question]).tokens

        a, b = with_question("a"), with_question("1")
        self._history = common_prefix(a, b)
        self._target = a[: self._history]
        if typed.strip():
            a, b, c = (with_question(typed + more) for more in ("", "a", " 1"))
            same = common_prefix(a[: common_prefix(a, b)], c)
            self._target = a[: max(self._history, same - HELD_BACK)]
        del self._target[context.room(max_tokens) :]
