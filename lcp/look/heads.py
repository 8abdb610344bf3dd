"""A map of all attention heads, by what they look at; and answers without some of them.

The map is measured on random words that are repeated (Olsson 2022): a head that finds the word
after the first copy of the present word (an induction head) predicts the second half. Random words
have no meaning, so heads that look at meaning do not show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lcp.errors import NotSupported
from lcp.look.distributions import Array, divergence, log_softmax
from lcp.look.observed_model import ObservedModel, Tell, TensorNames, Watch

WORDS = 64
KINDS = ("first", "previous", "induction", "copy", "itself")
CLEAR = 0.4  # the least share of attention for which a head gets the name of a kind


@dataclass(frozen=True)
class Heads:
    """The attention of each head to each kind of place: (kinds, layers, heads); NaN in layers
    without attention."""

    shares: Array
    loss_first: float  # nats per word, the first time
    loss_second: float

    def kind(self, layer: int, head: int) -> str:
        """The kind of place that this head looks at; "" if there is no clear one."""
        shares = self.shares[:, layer, head]
        if not np.isfinite(shares).all() or shares.max() <= CLEAR:
            return ""
        return KINDS[int(shares.argmax())]


def repeated(words: Sequence[int], bos: Sequence[int], seed: int = 0) -> list[int]:
    """Random tokens of `words`, repeated once."""
    random = np.random.default_rng(seed)
    chosen = random.choice(np.array(words), min(WORDS, len(words)), replace=False).tolist()
    return [*(bos or chosen[-1:]), *chosen, *chosen]


def heads(model: ObservedModel, tokens: list[int], tell: Tell) -> Heads:
    """What the heads look at in these tokens, which are a result of `repeated`."""
    tensors, half = TensorNames.of(model), len(tokens) // 2
    names = [name for name in tensors.attention if name]
    if not names:
        raise NotSupported(
            "This model has no attention heads: it remembers the text in a state of fixed size. "
            "Choose another model."
        )
    length, seen = len(tokens), {}
    rows = np.arange(
        half + 2, length - 1
    )  # in the second copy, whose words have a next word in the first
    back = (rows, np.ones_like(rows), np.full_like(rows, half - 1), np.full_like(rows, half),
            np.zeros_like(rows))  # fmt: skip

    def watch(name: str) -> Callable[[Array], None]:
        sums, done = np.zeros((len(KINDS), model.heads)), 0
        seen[name] = sums

        def add(x: Array) -> None:
            nonlocal done  # a batch may have only a part of the tokens
            inside = (rows >= done) & (rows < done + x.shape[1])
            at = rows[inside]
            for kind, distance in enumerate(back):
                sums[kind] += x[:, at - done, at - distance[inside]].sum(-1) / len(rows)
            done += x.shape[1]

        return add

    def losses(part: Sequence[int], logits: Array) -> Array:
        following = [tokens[row + 1] for row in part]
        return -log_softmax(logits)[np.arange(len(part)), following]

    tell("reading", 0, length)
    model.clear()
    loss = model.decode(
        tokens, {name: watch(name) for name in names}, rows=range(length - 1), reduce=losses
    )
    shares = np.full((len(KINDS), model.layers, model.heads), np.nan)
    for layer, name in enumerate(tensors.attention):
        if name:
            shares[:, layer] = seen[name]
    return Heads(shares, float(loss[1:half].mean()), float(loss[half + 1 :].mean()))


def off(model: ObservedModel, heads: Sequence[tuple[int, int]]) -> Watch:
    """Watching functions that switch off heads (layer, head): they set their output to zero."""
    tensors = TensorNames.of(model)
    tensors.with_heads()
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        if not tensors.heads[layer]:
            raise NotSupported(
                f"The heads of layer {layer} of this model have no names in llama.cpp, so they "
                "cannot be switched off. Choose another layer."
            )
        by_layer.setdefault(layer, []).append(head)

    def switch_off(own: list[int]) -> Callable[[Array], Array]:
        def zero(x: Array) -> Array:
            x = np.array(x)
            x.reshape(*x.shape[:2], model.heads, -1)[:, :, own] = 0
            return x

        return zero

    return {tensors.heads[layer]: switch_off(own) for layer, own in by_layer.items()}


@dataclass(frozen=True)
class Answers:
    """The most likely answer with all heads and without some."""

    whole: list[int]
    without: list[int]
    kl: float  # nats between the distributions of the first token
    p: tuple[float, float]  # of the first token of `whole`, with and without them


def compare(
    model: ObservedModel, tokens: list[int], heads: Sequence[tuple[int, int]], most: int,
    ends: Callable[[int], bool], tell: Tell,
) -> Answers:  # fmt: skip
    """Answer greedily with all heads, and without these from the first token on."""
    found: list[list[int]] = []
    firsts: list[Array] = []
    for watch in (None, off(model, heads)):
        model.clear()
        logits = model.decode(tokens, watch)[0]
        firsts.append(log_softmax(logits))
        answer = [int(logits.argmax())]
        while len(answer) < most and not ends(answer[-1]):
            tell("answering", len(found) * most + len(answer), 2 * most)
            answer.append(int(model.decode(answer[-1:], watch)[0].argmax()))
        found.append(answer)
    first = found[0][0]
    p = float(np.exp(firsts[0][first])), float(np.exp(firsts[1][first]))
    return Answers(found[0], found[1], float(divergence(*firsts)), p)
