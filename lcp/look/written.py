"""What a head or a state would write: llama.cpp's own matrices, applied to vectors of ours.

A vector is written into a row of a named tensor of a small batch, and llama.cpp computes what
follows. No weights are read, so this is exact for every architecture and every quant.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lcp.look.lab import Array, Kept, Lab, Parts


def computed_from(lab: Lab, name: str, rows: Array, token: int) -> Array:
    """The logits that follow from each of these rows of the tensor `name`: (rows, vocabulary). It
    must be a tensor of the last layer or after it; `token` is any token."""
    found, most = [], min(lab.most_rows, lab.batch)
    for start in range(0, len(rows), most):
        part = rows[start : start + most].astype(np.float32)
        lab.clear()
        watch = {name: lambda x, part=part: part[None]}
        found.append(lab.decode([token] * len(part), watch, rows=range(len(part))))
    return np.concatenate(found)


def norm_scale(parts: Parts, kept: Kept) -> Array:
    """What the last norm multiplied each number of the last state by."""
    state = np.atleast_2d(kept[parts.after[-1]])[-1]  # of the last token
    return np.divide(kept[parts.normal], state, out=np.zeros_like(state), where=state != 0)


def head_vectors(
    lab: Lab, parts: Parts, kept: Kept, layers: Sequence[int], token: int
) -> dict[int, Array]:
    """What each head added to the state of the last token: layer -> (heads, width). `kept` has
    the outputs of the heads (parts.heads); the layers need a parts.out."""
    alone, count = Kept(), lab.heads
    watch: dict[str, Callable[[Array], Array | None]] = {}
    for layer in layers:
        own = kept[parts.heads[layer]].reshape(count, -1)
        watch[parts.heads[layer]] = _rows([_only(own[head], head, count) for head in range(count)])
    watch |= alone.all(*(parts.out[layer] for layer in layers))
    lab.clear()
    lab.decode([token] * count, watch, rows=range(count))
    return {layer: alone[parts.out[layer]] for layer in layers}


def brought(
    lab: Lab, parts: Parts, values: Mapping[int, Array], heads: Sequence[int], token: int
) -> dict[tuple[int, int], Array]:
    """How much each head can bring from each token, before attention weighs it: the length of what
    it would add to a state (Kobayashi 2020). (layer, head) -> (tokens,).

    `values`: layer -> (tokens, heads with values of their own, numbers). A batch has a row for
    each token, and serves all layers at once.
    """
    count, found = lab.heads, {}
    length = len(next(iter(values.values()), ()))
    for head in heads:
        pieces: list[Kept] = []
        for start in range(0, length, lab.most_rows):
            part, watch = slice(start, min(start + lab.most_rows, length)), {}
            for layer, value in values.items():
                own = value[part, head // (count // value.shape[1])]
                watch[parts.heads[layer]] = _rows([_only(v, head, count) for v in own])
            seen = Kept()
            names = [parts.out[layer] for layer in values]
            lab.clear()
            lab.decode(
                [token] * len(own),
                {**watch, **seen.part(lambda x: np.linalg.norm(x[0], axis=-1), *names)},
                rows=range(len(own)),
            )
            pieces.append(seen)
        for layer in values:
            found[layer, head] = np.concatenate([seen[parts.out[layer]] for seen in pieces])
    return found


def values_of(
    lab: Lab, parts: Parts, kept: Kept, tokens: int, layers: Sequence[int]
) -> dict[int, Array]:
    """The values of these layers in the form that `brought` takes; without the layers whose parts
    have no names, or whose attention is followed by a norm."""
    found = {}
    for layer in layers:
        if parts.out[layer] and parts.values[layer] and parts.heads[layer]:
            value, size = kept[parts.values[layer]], kept[parts.heads[layer]].shape[-1]
            if lab.kv_heads and value.size * lab.heads == tokens * lab.kv_heads * size:
                found[layer] = value.reshape(tokens, lab.kv_heads, -1)
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
