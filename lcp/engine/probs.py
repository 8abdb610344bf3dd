"""The probabilities of an answer's tokens, and the alternatives.

The answer is read again in an Observer, so the KV cache of the chat stays as it is. Probabilities
are the softmax of the raw logits: before temperature, top-k, penalties and grammar.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lcp.engine.model import Model
from lcp.engine_interface import Alternative, Progress, TokenProb
from lcp.worker import Emit

if TYPE_CHECKING:
    from lcp.engine.observer import Array, Observer

OTHERS = 10  # alternatives for each token


class LastMeasured:
    """Measures the tokens of an answer, and caches the last result."""

    def __init__(self) -> None:
        self._key: object = None
        self._rows: list[TokenProb] = []

    def known(self, prompt: Sequence[int], answer: Sequence[int]) -> list[TokenProb] | None:
        """The last result, if it was for this answer to this prompt."""
        return self._rows if self._key == (tuple(prompt), tuple(answer)) else None

    def measure(
        self, observed: "Observer", prompt: Sequence[int], answer: Sequence[int], emit: Emit
    ) -> list[TokenProb]:
        """The tokens of an answer to `prompt`. Raises what Observer.decode raises."""
        found: list[TokenProb] = []
        tokens, first = [*prompt, *answer[:-1]], len(prompt) - 1

        # Row i predicts the token after token i; the prompt's last row, the answer's first token.
        def add(rows: Sequence[int], logits: "Array") -> "Array":
            pairs = zip(rows, logits, strict=True)
            found.extend(_row(observed.model, answer[row - first], x) for row, x in pairs)
            emit(Progress(0, 0, observed.n_tokens, len(tokens)))
            return logits[:0]

        observed.decode(tokens, rows=range(first, len(tokens)), reduce=add)
        self._key, self._rows = (tuple(prompt), tuple(answer)), found
        return found


def _row(model: Model, token: int, logits: "Array") -> TokenProb:
    """A token and its alternatives, from the logits before it."""
    import numpy as np

    p = np.exp(logits.astype(float) - logits.max())
    p /= p.sum()
    best = np.argsort(-p, kind="stable")[:OTHERS].tolist()
    others = (Alternative(t, model.text([t]), float(p[t]), model.is_end(t)) for t in best)
    return TokenProb(token, model.text([token]), float(p[token]), tuple(others))
