"""What each layer would predict if it were the last, and which parts made the answer.

The logit lens (nostalgebraist 2020) applies the model's last norm and output matrix to the state
after each layer. lcp does not reimplement these: it writes the states of all layers into the rows
of the last layer of a second batch, and llama.cpp computes the rest. So the last row is exactly the
model's own prediction, for every kind of model.

Direct logit attribution: the last state is the sum of what each attention and each feed-forward
added. The output matrix, with the last norm's scale kept fixed, turns each part into its share of a
logit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lcp.errors import NotSupported
from lcp.look.contributions import computed_from, head_vectors, norm_scale
from lcp.look.distributions import Array, best
from lcp.look.observed_model import Activations, ObservedModel, Tell, TensorNames


@dataclass(frozen=True)
class Contribution:
    """What one part of a layer added to the last token's state, as logits of all tokens."""

    name: str  # "attention", "feed-forward", "layer" (both), "embedding", or "head"
    layer: int
    head: int
    logits: Array


@dataclass(frozen=True)
class LayersFound:
    """The logits after each layer (layers, vocabulary), and what each part added."""

    true: Array  # the model's own logits
    lens: Array
    added: list[Contribution]  # in the order of the layers; their sum is `true`
    heads: list[Contribution]

    @property
    def error(self) -> float:
        """The largest difference between the sum of all parts and the true logits. It is not 0,
        because quantized products round each part by itself."""
        return float(np.abs(sum(part.logits for part in self.added) - self.true).max())


def layers(
    model: ObservedModel, tokens: list[int], *, heads: bool = False, tell: Tell
) -> LayersFound:
    """Examine the last of these tokens. `heads`: also each attention head."""
    tensors, kept = TensorNames.of(model), Activations()
    names = [n for n in (tensors.begin, *tensors.middle, *tensors.after, tensors.normal) if n]
    watch = kept.last(*names, *(n for n in tensors.heads if n and heads))
    tell("reading", 0, len(tokens))
    model.clear()
    true = model.decode(tokens, watch)[0]
    states = np.stack([kept[name] for name in tensors.after])
    tell("layers", 0, model.layers)
    lens = computed_from(model, tensors.after[-1], states, tokens[0])
    added = []
    if tensors.normal:
        pieces = list(_added(tensors, kept))
        vectors = np.stack([vector for *_, vector in pieces]) * norm_scale(tensors, kept)
        tell("parts", 0, len(vectors))
        logits = computed_from(model, tensors.normal, vectors, tokens[0])
        added = [Contribution(n, at, -1, x) for (n, at, _), x in zip(pieces, logits, strict=True)]
    found = _heads(model, tensors, kept, tokens[0], tell) if heads else []
    return LayersFound(true, lens, added, found)


def _added(tensors: TensorNames, kept: Activations) -> Iterator[tuple[str, int, Array]]:
    """(name, layer, vector) of everything that was added to the state of the last token."""
    before = kept[tensors.begin]
    yield "embedding", -1, before
    for layer, (middle, after) in enumerate(zip(tensors.middle, tensors.after, strict=True)):
        if middle:
            yield "attention", layer, kept[middle] - before
            before = kept[middle]
        yield "feed-forward" if middle else "layer", layer, kept[after] - before
        before = kept[after]


def _heads(
    model: ObservedModel, tensors: TensorNames, kept: Activations, token: int, tell: Tell
) -> list[Contribution]:
    """What each head added, as logits."""
    at = tensors.with_heads()
    tell("heads", 0, len(at) * model.heads)
    written = head_vectors(model, tensors, kept, at, token)
    if not written:
        why = "they do not add to its state one by one" if any(tensors.middle) else (
            "llama.cpp has no name for the state between its attention and its feed-forward"
        )  # fmt: skip
        raise NotSupported(
            f"What the heads of this model write cannot be told apart: {why}. Choose another model."
        )
    vectors = np.concatenate([*written.values()]) * norm_scale(tensors, kept)
    logits = computed_from(model, tensors.normal, vectors, token)
    places = [(layer, head) for layer in written for head in range(model.heads)]
    return [Contribution("head", i, h, x) for (i, h), x in zip(places, logits, strict=True)]


def strongest(parts: list[Contribution], token: int, other: int, n: int) -> list[Contribution]:
    """The parts with the largest effect, for or against, on the choice between two tokens."""
    weights = np.array([abs(part.logits[token] - part.logits[other]) for part in parts])
    return [parts[i] for i in best(weights, n)] if parts else []
