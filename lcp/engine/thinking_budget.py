"""Ends the thinking of an answer after a number of tokens, so that the answer begins.

A model that thinks although it was told not to has a budget of 0.
"""

from lcp.engine.decoder import Decoder
from lcp.engine.model import Model
from lcp.engine.reply import Speech

# Added to the thinking as if the model had written it. Without such a sentence, a model whose
# thinking is cut continues to think in its answer.
LAST_WORDS = "\n\nThat is all the time I have to think. I answer now.\n"


class ThinkingBudget:
    """Ends the thinking of one answer after `limit` tokens."""

    def __init__(self, limit: int | None, model: Model, decoder: Decoder, speech: Speech) -> None:
        """Without a `limit` the model itself ends its thinking."""
        self._limit = limit
        self._model = model
        self._decoder = decoder
        self._speech = speech
        self._due: list[int] = []

    def due(self) -> int | None:
        """The token that must come next; None if the model may sample one."""
        if not self._due and self._is_spent():
            self._due = self._model.tokenize(self._ending())
        return self._due.pop(0) if self._due else None

    def _is_spent(self) -> bool:
        decoder, limit = self._decoder, self._limit
        thinks = bool(decoder.closer) and decoder.whole  # never inside a character
        return thinks and limit is not None and self._speech.thought >= limit

    def _ending(self) -> str:
        closer, said = self._decoder.closer, ""
        if self._limit:
            said = LAST_WORDS
            self._speech.remark(
                f"Its thinking was ended after {self._limit:,} tokens; "
                "/set reasoning_budget auto leaves that to the model."
            )
        return said + closer + self._decoder.tags.then.get(closer, "")
