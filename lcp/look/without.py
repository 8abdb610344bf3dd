"""Which parts of a prompt an answer needed: how likely is the same answer without each of them?

The loss is in nats: by how much the log probability of the answer falls (1 nat makes it 2.7 times
less likely). This is occlusion, the simplest form of ContextCite (Cohen-Wang 2024). lcp also
measures the attention that each part got while the answer was generated: where a model looks is not
what it uses (Jain & Wallace 2019).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lcp.common_prefix import common_prefix
from lcp.look.distributions import Array, log_softmax
from lcp.look.observed_model import ObservedModel, Tell, Watch

MOST = 40  # spans
_END = re.compile(r"(?<=[.!?。！？…])[\"')\]]*\s+|\n+")


@dataclass(frozen=True)
class LeftOut:
    """What the answer lost without a span of the prompt."""

    start: int  # the tokens of the span
    end: int
    lost: float  # by the whole answer, in nats
    attention: float | None  # the share that the span got; None if the model has no attention
    by_token: Array  # lost by each token of the answer, in nats


@dataclass(frozen=True)
class Without:
    """The answer with the whole prompt, and without each span."""

    logp: Array  # log probability of each token of the answer, in nats
    sink: float | None  # the attention that the first token got
    spans: list[LeftOut]


def sentences(text: str) -> list[str]:
    """The sentences or lines of a text, each with the white space after it. If there are very many,
    neighbours are joined."""
    ends = [match.end() for match in _END.finditer(text)]
    cuts = [0, *(end for end in ends if end < len(text)), len(text)]
    found = [text[a:b] for a, b in pairwise(cuts) if text[a:b].strip()]
    size = -(-len(found) // MOST)
    return ["".join(found[i : i + size]) for i in range(0, len(found), size)] if size else []


def without(
    model: ObservedModel, prompt: Sequence[int], variants: Sequence[Sequence[int]],
    answer: Sequence[int], tell: Tell,
) -> Without:  # fmt: skip
    """Compare an answer to `prompt` with the same answer to each variant, which is the prompt
    without a span. The tokens before the span are read only once."""
    prompt, answer = list(prompt), list(answer)
    # 1) The whole prompt, and where the model looks while it generates the answer.
    names = [n for n in sorted(model.names) if n.startswith("kq_soft_max-")]
    sums = {name: np.zeros(len(prompt)) for name in names}  # a long answer is read in pieces
    tell("reading the prompt", 0, len(variants))
    model.clear()
    if prompt[:-1]:
        model.decode(prompt[:-1])
    base = _logp(model, prompt[-1:], answer, {name: _add(sums[name]) for name in names})
    attention = np.mean([*sums.values()], 0) / len(answer) if names else None
    # 2) Each variant, those with the last spans first: the tokens before a span stay in the cache.
    spans = [_span(prompt, list(variant)) for variant in variants]
    found: dict[int, LeftOut] = {}
    for done, i in enumerate(sorted(range(len(spans)), key=lambda i: -spans[i][0])):
        tell("leaving spans out", done, len(variants))
        (start, end), variant = spans[i], list(variants[i])
        kept = model.cut(min(start, len(variant) - 1))
        lost = base - _logp(model, variant[kept:], answer)
        looked = None if attention is None else float(attention[start:end].sum())
        found[i] = LeftOut(start, end, float(lost.sum()), looked, lost)
    sink = None if attention is None else float(attention[0])
    return Without(base, sink, [found[i] for i in range(len(spans))])


def _add(total: Array) -> Callable[[Array], None]:
    """A watching function that adds up the attention that the tokens of the prompt get."""

    def add(x: Array) -> None:
        total[:] += x[:, :, : len(total)].mean(0).sum(0)

    return add


def _logp(
    model: ObservedModel, rest: Sequence[int], answer: list[int], watch: Watch | None = None
) -> Array:
    """Log probabilities of the answer's tokens after the tokens in the cache and `rest`."""
    first = len(rest) - 1

    def reduce(rows: Sequence[int], logits: Array) -> Array:
        wanted = [answer[row - first] for row in rows]
        return log_softmax(logits)[np.arange(len(wanted)), wanted]

    tokens = [*rest, *answer[:-1]]
    return model.decode(tokens, watch, rows=range(first, len(tokens)), reduce=reduce)


def _span(whole: list[int], variant: list[int]) -> tuple[int, int]:
    """The range of the tokens that the variant lacks."""
    start = common_prefix(whole, variant)
    most = min(len(whole), len(variant)) - start
    same = common_prefix(whole[::-1], variant[::-1])
    return start, len(whole) - min(same, most)
