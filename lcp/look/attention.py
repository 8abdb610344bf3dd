"""Where attention heads look, and what they carry from there.

`read` is the attention itself. `carried` is the attention weighted by how much of the value arrives
in the state (Kobayashi 2020): many heads look at the first token and take almost nothing from it
(an attention sink, Xiao 2023). lcp never averages attention over heads or layers, because the
average shows only the sink. It does not multiply attention through the layers either: in a causal
model, rollout (Abnar & Zuidema 2020) gives everything to the first token.
"""

from dataclasses import dataclass

import numpy as np

from lcp.errors import NotSupported
from lcp.look.contributions import carried_by, values_of
from lcp.look.distributions import Array, best
from lcp.look.observed_model import Activations, ObservedModel, Tell, TensorNames

MOST = 300  # tokens; a map grows with their square, and `carried` with heads times tokens


@dataclass(frozen=True)
class Link:
    """What a head brings from one token to another."""

    layer: int
    head: int
    source: int
    read: float  # attention, from 0 to 1
    carried: float | None  # share of what the head carries, from 0 to 1; None if not known
    strength: float | None  # length of what it adds, as a share of the state to which it is added


@dataclass(frozen=True)
class HeadMap:
    """What one head reads and carries: (tokens, tokens). Row i is what token i takes."""

    layer: int
    head: int
    read: Array
    carried: Array | None


def links(model: ObservedModel, tokens: list[int], n: int, tell: Tell) -> tuple[list[Link], float]:
    """The n strongest links of all heads into the last token, except those from the first token;
    and the share of attention that the first token gets."""
    tensors, kept = TensorNames.of(model), Activations()
    layers = _with_attention(tensors)
    length = len(tokens)
    tell("reading", 0, model.heads)
    model.clear()
    model.decode(tokens, {
        **kept.part(lambda x: x[:, -1, :length], *(tensors.attention[i] for i in layers)),
        **kept.all(*(tensors.values[i] for i in layers if tensors.values[i])),
        **kept.last(tensors.begin, *tensors.after),
        **kept.last(*(tensors.heads[i] for i in layers if tensors.heads[i])),
    })  # fmt: skip
    values = values_of(model, tensors, kept, length, layers)
    every = [(layer, head) for layer in values for head in range(model.heads)]
    norms = carried_by(model, tensors, kept, values, every, tokens[0], tell)
    found, sink = [], []
    for layer in layers:
        state = np.linalg.norm(kept[tensors.after[layer - 1] if layer else tensors.begin])
        for head, read in enumerate(kept[tensors.attention[layer]]):
            weight = read * norms[layer, head] if (layer, head) in norms else None
            sink.append(float(read[0]))
            for source in best(read[1:] if weight is None else weight[1:], 2):
                at = source + 1
                carried = strength = None
                if weight is not None:
                    carried = float(weight[at] / weight.sum())
                    strength = float(weight[at] / state)
                found.append(Link(layer, head, at, float(read[at]), carried, strength))
    found.sort(key=lambda one: -(one.read if one.strength is None else one.strength))
    return found[:n], float(np.mean(sink))


def maps(
    model: ObservedModel, tokens: list[int], layer: int, heads: list[int], tell: Tell
) -> list[HeadMap]:
    """What these heads of a layer read and carry, for every token."""
    tensors, kept, length = TensorNames.of(model), Activations(), len(tokens)
    _with_attention(tensors)
    if not tensors.attention[layer]:
        raise NotSupported(f"Layer {layer} of this model has no attention. Choose another layer.")
    read = np.zeros((len(heads), length, length))
    done = 0

    def keep(x: Array) -> None:
        nonlocal done
        read[:, done : done + x.shape[1]] = x[heads, :, :length]
        done += x.shape[1]

    known = [name for name in (tensors.values[layer],) if name]
    pieces: list[Array] = []
    tell("reading", 0, length)
    model.clear()
    model.decode(
        tokens,
        {
            tensors.attention[layer]: keep,
            **{name: lambda x: pieces.append(np.array(x)) for name in known},
            **kept.last(tensors.begin, *tensors.after, *(n for n in (tensors.heads[layer],) if n)),
        },
    )
    if known:  # the name appears several times in the graph; the last one has the values
        kept[known[0]] = pieces[-1]
    values = values_of(model, tensors, kept, length, [layer])
    every = [(at, head) for at in values for head in heads]
    carried = carried_by(model, tensors, kept, values, every, tokens[0], tell)
    found = []
    for i, head in enumerate(heads):
        weight = read[i] * carried[layer, head] if carried else None
        share = None if weight is None else weight / weight.sum(-1, keepdims=True)
        found.append(HeadMap(layer, head, read[i], share))
    return found


def _with_attention(tensors: TensorNames) -> list[int]:
    found = [layer for layer, name in enumerate(tensors.attention) if name]
    if not found:
        raise NotSupported(
            "This model has no attention: it remembers the text in a state of fixed size. "
            "Choose another model."
        )
    return found
