"""The probabilities of an answer's tokens, and the alternatives.

The answer is read again in a context of its own, so the KV cache of the chat stays as it is.
Probabilities are the softmax of the raw logits: before temperature, top-k, penalties and grammar.
"""

from collections.abc import Callable, Sequence
from contextlib import closing

from lcp import formatting
from lcp.answers.worker import Emit
from lcp.engine.context import N_BATCH, Context, Stopped
from lcp.engine.kv_cells import kv_bytes
from lcp.engine.llama_library import library
from lcp.engine.model import Model
from lcp.engine.params import padded
from lcp.engine.sampler import TokenCandidates
from lcp.engine_interface import Alternative, Progress, TokenProb
from lcp.errors import NotEnoughMemory

ROWS = 32  # tokens of the answer evaluated at once; each needs memory for a row of logits
OTHERS = 10  # alternatives for each token


def check_room(model: Model, tokens: int, kv_type: str, free: int | None) -> int:
    """The size of the context. Raises NotEnoughMemory if it takes more than `free` bytes; None
    means unknown."""
    size = padded(tokens)
    needed = about(model, size, kv_type)
    if free is not None and needed > free:
        raise NotEnoughMemory(
            f"Not enough memory for the probabilities of {tokens:,} tokens: they need a second "
            f"context of about {formatting.size(needed)}; free: {formatting.size(free)}. "
            "Close other programs, or use a shorter chat."
        )
    return size


def about(model: Model, size: int, kv_type: str, rows: int = ROWS) -> int:
    """About the bytes of a context of `size` tokens with `rows` rows: cache, logits (computed and
    copied), and the attention scores of a batch with their mask."""
    logits = 2 * rows * model.n_vocab * 4
    heads = library().llama_model_n_head(model.handle)
    scores = min(N_BATCH, size) * size * (heads + 1) * 4
    return int(kv_bytes(model, size, kv_type) + logits + scores)


class LastMeasured:
    """Measures the tokens of an answer, and caches the last result."""

    def __init__(self) -> None:
        self._key: object = None
        self._rows: list[TokenProb] = []

    def rows(
        self,
        model: Model,
        new_context: Callable[..., Context],
        kv_type: str,
        prompt: Sequence[int],
        answer: Sequence[int],
        free: Callable[[], int | None],
        emit: Emit,
    ) -> list[TokenProb]:
        """The tokens of an answer to `prompt`; fewer if it was stopped."""
        key = (tuple(prompt), tuple(answer))
        if self._key != key:
            size = check_room(model, len(prompt) + len(answer), kv_type, free())
            with closing(new_context(size, rows=ROWS, start=size)) as context:
                found = measure(model, context, prompt, answer, emit)
            if len(found) < len(answer):
                return found
            self._key, self._rows = key, found
        return self._rows


def measure(
    model: Model, context: Context, prompt: Sequence[int], answer: Sequence[int], emit: Emit
) -> list[TokenProb]:
    """The tokens of an answer to `prompt`; fewer if it was stopped."""
    found: list[TokenProb] = []
    total = len(prompt) + len(answer) - 1
    with _Softmax(model, context) as softmax:
        try:
            # 1) Evaluate the prompt: its last row of logits predicts the first token of the answer.
            for step in context.feed(prompt):
                emit(Progress(0, 0, step.done, total))
            found.append(softmax.row(-1, answer[0]))
            # 2) Evaluate the answer without its last token: row i predicts the token after token i.
            for start in range(0, len(answer) - 1, ROWS):
                batch = answer[start : min(start + ROWS, len(answer) - 1)]
                context.feed_rows(batch)
                following = answer[start + 1 : start + 1 + len(batch)]
                found += [softmax.row(i, token) for i, token in enumerate(following)]
                emit(Progress(0, 0, len(context.tokens), total))
        except Stopped:
            pass
    return found


class _Softmax:
    """Logits to probabilities with llama.cpp's samplers: `dist` computes them all (lcp ignores the
    token that it samples), `top_k` finds the highest."""

    def __init__(self, model: Model, context: Context) -> None:
        c = library()
        self._model = model
        self._context = context
        self._candidates = TokenCandidates(model.n_vocab)
        self._dist = c.llama_sampler_init_dist(0)
        self._best = c.llama_sampler_init_top_k(OTHERS)

    def __enter__(self) -> "_Softmax":
        return self

    def __exit__(self, *_: object) -> None:
        library().llama_sampler_free(self._dist)
        library().llama_sampler_free(self._best)

    def row(self, row: int, token: int) -> TokenProb:
        candidates = self._candidates
        candidates.fill(self._context, row)
        candidates.apply(self._dist)
        p = candidates.p(token)
        candidates.apply(self._best)
        best = candidates.array.data[: candidates.array.size]
        is_end = self._model.is_end
        others = tuple(Alternative(d.id, self._text(d.id), d.p, is_end(d.id)) for d in best)
        return TokenProb(token, self._text(token), p, others)

    def _text(self, token: int) -> str:
        return self._model.text([token])
