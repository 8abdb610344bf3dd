"""Ends the thinking of an answer after a number of tokens, so that the answer begins.

A model that thinks although it was told not to has a budget of 0.
"""

from lcp.answers.text_decoder import Decoder
from lcp.engine.model import Model
from lcp.engine.reply import Speech
from lcp.engine_notices import ThinkingEnded

# Read by the model as its own words: cut without any, a model goes on thinking in the answer.
LAST_WORDS = "\n\nThat is all the time I have to think. I answer now.\n"


class ThinkingBudget:
    """The tokens that end the thinking of one answer, when its time has come."""

    def __init__(self, limit: int | None, model: Model, decoder: Decoder, speech: Speech) -> None:
        """`limit` in tokens; None leaves it to the model."""
        self._limit = limit
        self._model = model
        self._decoder = decoder
        self._speech = speech
        self._due: list[int] = []

    def due(self) -> list[int]:
        """The tokens that must come next: take them from this list; [] if the model may choose."""
        if not self._due and self._is_spent():
            self._due = self._model.tokenize(self._ending())
        return self._due

    def _is_spent(self) -> bool:
        decoder, limit = self._decoder, self._limit
        thinks = bool(decoder.closer) and decoder.whole  # no character is cut in half
        return thinks and limit is not None and self._speech.thought >= limit

    def _ending(self) -> str:
        closer, said = self._decoder.closer, ""
        if self._limit:
            said = LAST_WORDS
            self._speech.notice(ThinkingEnded(self._limit))
        return said + closer + self._decoder.tags.then.get(closer, "")
