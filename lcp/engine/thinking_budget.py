"""Ends the thinking of an answer after a number of tokens, so that the answer begins.

A model that thinks although thinking is off has a budget of 0.
"""

from lcp.answers.output_parser import OutputParser
from lcp.engine.model import Model
from lcp.engine.reply import ReplyBuilder
from lcp.engine_notices import ThinkingEnded

# Appended to the thinking. Without it, a model continues to think in the answer.
LAST_WORDS = "\n\nThat is all the time I have to think. I answer now.\n"


class ThinkingBudget:
    """The tokens that end the thinking of one answer once it reaches its limit."""

    def __init__(
        self, limit: int | None, model: Model, parser: OutputParser, builder: ReplyBuilder
    ) -> None:
        """`limit` in tokens; None leaves it to the model."""
        self._limit = limit
        self._model = model
        self._parser = parser
        self._builder = builder
        self._due: list[int] = []

    def due(self) -> list[int]:
        """The tokens that must come next: take them from this list; [] if the model may choose."""
        if not self._due and self._is_spent():
            self._due = self._model.tokenize(self._ending())
        return self._due

    def _is_spent(self) -> bool:
        parser, limit = self._parser, self._limit
        thinks = bool(parser.closer) and parser.whole  # no character is cut in half
        return thinks and limit is not None and self._builder.thinking_tokens >= limit

    def _ending(self) -> str:
        closer, words = self._parser.closer, ""
        if self._limit:
            words = LAST_WORDS
            self._builder.notice(ThinkingEnded(self._limit))
        return words + closer + self._parser.tags.then.get(closer, "")
