"""What a head or a state contributes: llama.cpp's own matrices, applied to vectors of ours.

A vector is written into a row of a named tensor of a small batch, and llama.cpp computes what
follows. No weights are read, so this is exact for every architecture and every quant.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lcp.look.distributions import Array
from lcp.look.observed_model import Activations, ObservedModel, TensorNames


def computed_from(model: ObservedModel, name: str, rows: Array, token: int) -> Array:
    """The logits that follow from each of these rows of the tensor `name`: (rows, vocabulary). It
    must be a tensor of the last layer or after it; `token` is any token."""
    found, most = [], min(model.most_rows, model.batch)
    for start in range(0, len(rows), most):
        part = rows[start : start + most].astype(np.float32)
        model.clear()
        watch = {name: lambda x, part=part: part[None]}
        found.append(model.decode([token] * len(part), watch, rows=range(len(part))))
    return np.concatenate(found)


def norm_scale(tensors: TensorNames, kept: Activations) -> Array:
    """What the last norm multiplied each number of the last state by."""
    state = np.atleast_2d(kept[tensors.after[-1]])[-1]  # of the last token
    return np.divide(kept[tensors.normal], state, out=np.zeros_like(state), where=state != 0)


def head_vectors(
    model: ObservedModel, tensors: TensorNames, kept: Activations, layers: Sequence[int], token: int
) -> dict[int, Array]:
    """What each head added to the state of the last token: layer -> (heads, width). `kept` has
    the outputs of the heads (tensors.heads); the layers need a tensors.out."""
    alone, count = Activations(), model.heads
    watch: dict[str, Callable[[Array], Array | None]] = {}
    for layer in layers:
        own = kept[tensors.heads[layer]].reshape(count, -1)
        watch[tensors.heads[layer]] = _rows(
            [_only(own[head], head, count) for head in range(count)]
        )
    watch |= alone.all(*(tensors.out[layer] for layer in layers))
    model.clear()
    model.decode([token] * count, watch, rows=range(count))
    return {layer: alone[tensors.out[layer]] for layer in layers}


def brought(
    model: ObservedModel,
    tensors: TensorNames,
    values: Mapping[int, Array],
    heads: Sequence[int],
    token: int,
) -> dict[tuple[int, int], Array]:
    """How much each head can bring from each token, before attention weighs it: the length of what
    it would add to a state (Kobayashi 2020). (layer, head) -> (tokens,).

    `values`: layer -> (tokens, heads with values of their own, numbers). A batch has a row for
    each token, and serves all layers at once.
    """
    count, found = model.heads, {}
    length = len(next(iter(values.values()), ()))
    for head in heads:
        pieces: list[Activations] = []
        for start in range(0, length, model.most_rows):
            part, watch = slice(start, min(start + model.most_rows, length)), {}
            for layer, value in values.items():
                own = value[part, head // (count // value.shape[1])]
                watch[tensors.heads[layer]] = _rows([_only(v, head, count) for v in own])
            seen = Activations()
            names = [tensors.out[layer] for layer in values]
            model.clear()
            model.decode(
                [token] * len(own),
                {**watch, **seen.part(lambda x: np.linalg.norm(x[0], axis=-1), *names)},
                rows=range(len(own)),
            )
            pieces.append(seen)
        for layer in values:
            found[layer, head] = np.concatenate([seen[tensors.out[layer]] for seen in pieces])
    return found


def values_of(
    model: ObservedModel,
    tensors: TensorNames,
    kept: Activations,
    tokens: int,
    layers: Sequence[int],
) -> dict[int, Array]:
    """The values of these layers in the form that `brought` takes; without the layers whose tensors
    have no names, or whose attention is followed by a norm."""
    found = {}
    for layer in layers:
        if tensors.out[layer] and tensors.values[layer] and tensors.heads[layer]:
            value, size = kept[tensors.values[layer]], kept[tensors.heads[layer]].shape[-1]
            if model.kv_heads and value.size * model.heads == tokens * model.kv_heads * size:
                found[layer] = value.reshape(tokens, model.kv_heads, -1)
    return found


def _only(value: Array, head: int, count: int) -> Array:
    """The output of all heads, where only one has any: (heads * size,)."""
    new = np.zeros((count, len(value)), np.float32)
    new[head] = value
    return new.ravel()


def _rows(rows: Sequence[Array]) -> Callable[[Array], Array]:
    """A watching function that replaces the first rows."""
    new = np.stack(rows)

    def replace(x: Array) -> Array:
        x = np.array(x)
        x[0, : len(new)] = new
        return x

    return replace
