"""What a head or a state contributes to later states and logits.

lcp writes a vector into a row of a named tensor of a small batch, and llama.cpp computes the rest
with the model's own matrices. So the result is exact for every architecture and every quant.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lcp.look.distributions import Array
from lcp.look.observed_model import Activations, ObservedModel, Tell, TensorNames

Outputs = Mapping[int, Array]  # of all heads of a layer, side by side: layer -> (rows, width)
_ALIKE = 0.05  # the part of its length by which a vector may differ from an equal one
_KNOWN = 4  # rows of a batch whose outputs of heads are not those asked about
_NUMBERS = 1 << 23  # of a batch that are kept: 64 MiB


def computed_from(model: ObservedModel, name: str, rows: Array, token: int) -> Array:
    """The logits that follow from each of these rows of the tensor `name`: (rows, vocabulary). The
    tensor must be in the last layer or after it; `token` is any token."""
    found, most = [], min(model.most_rows, model.batch)
    for start in range(0, len(rows), most):
        part = rows[start : start + most].astype(np.float32)
        model.clear()
        watch = {name: lambda x, part=part: part[None]}
        found.append(model.decode([token] * len(part), watch, rows=range(len(part))))
    return np.concatenate(found)


def norm_scale(tensors: TensorNames, kept: Activations) -> Array:
    """The factors by which the last norm multiplied the numbers of the last state."""
    state = _last(kept, tensors.after[-1])
    return np.divide(kept[tensors.normal], state, out=np.zeros_like(state), where=state != 0)


def written(
    model: ObservedModel, tensors: TensorNames, kept: Activations, outputs: Outputs, token: int
) -> dict[int, Array]:
    """What attention adds to the state of the last token if its heads put out these numbers: layer
    -> (rows, width). `kept` has tensors.begin, .after and .heads of the last token.

    Each row of a batch has the state before the layer, and a row whose heads put out nothing is
    subtracted. So everything that follows the heads counts: a matrix, a gate, a scale. Where a norm
    follows, its scale is that of the model's own output, so that the heads add up to what attention
    adds. Layers are left out in which the heads do not add to the state in one of these ways.
    """
    most = max(1, min(model.most_rows, model.batch) - _KNOWN)
    if any(len(x) > most for x in outputs.values()):
        parts: dict[int, list[Array]] = {}
        for start in range(0, max(map(len, outputs.values())), most):
            part = {i: x[start : start + most] for i, x in outputs.items() if len(x) > start}
            for i, vectors in written(model, tensors, kept, part, token).items():
                parts.setdefault(i, []).append(vectors)
        return {i: np.concatenate(pieces) for i, pieces in parts.items()}
    own = {layer: _last(kept, tensors.heads[layer]) for layer in outputs}
    some = {layer: _random(x) for layer, x in own.items()}
    first = _states_after(model, tensors, kept, token, {
        layer: np.stack([0 * x, some[layer], 2 * some[layer], x, *outputs[layer]])
        for layer, x in own.items()
    })  # fmt: skip
    changes = {layer: rows[1:] - rows[0] for layer, rows in first.items()}
    found = {i: x[3:] for i, x in changes.items() if _alike(x[1], 2 * x[0])}
    with_norm = [i for i, x in changes.items() if i not in found and _alike(x[1], x[0])]
    if with_norm:
        # A norm hides how long each vector was. The sum of a vector and a known one shows it.
        rows = {i: np.stack([own[i], *outputs[i]]) for i in with_norm}
        sizes = {i: np.linalg.norm(x, axis=1) / np.linalg.norm(some[i]) for i, x in rows.items()}
        second = _states_after(model, tensors, kept, token, {
            i: np.concatenate([0 * own[i][None], x + sizes[i][:, None] * some[i]])
            for i, x in rows.items()
        })  # fmt: skip
        for i in with_norm:
            sums, directions = second[i][1:] - second[i][0], changes[i][2:]
            lengths = [
                _length(direction, size * changes[i][0], both)
                for direction, size, both in zip(directions, sizes[i], sums, strict=True)
            ]
            if lengths[0] > 0:
                found[i] = directions[1:] * (np.array(lengths[1:]) / lengths[0])[:, None]
    return found


def _states_after(
    model: ObservedModel, tensors: TensorNames, kept: Activations, token: int, outputs: Outputs
) -> dict[int, Array]:
    """The states after the attention of each layer, where its heads put out these rows."""
    count = max(map(len, outputs.values()))
    put: dict[str, Array] = {}
    take: dict[str, int] = {}
    for layer, rows in outputs.items():
        put[tensors.heads[layer]] = rows
        before = tensors.after[layer - 1] if layer else tensors.begin
        put[before] = np.repeat(_last(kept, before)[None], count, axis=0)
        take[tensors.middle[layer] or tensors.after[layer]] = layer
    found: dict[int, Array] = {}

    def watch(name: str) -> Callable[[Array], Array | None]:
        def seen(x: Array) -> Array | None:
            if name in take:
                found[take[name]] = x[0, : len(outputs[take[name]])].astype(float)
            if name not in put:
                return None
            x = np.array(x)
            x[0, : len(put[name])] = put[name]
            return x

        return seen

    model.clear()
    model.decode(
        [token] * count,
        {name: watch(name) for name in {*put, *take}},
        rows=range(count) if model.layers - 1 in outputs else None,
    )
    return found


def _random(like: Array) -> Array:
    """A random vector that is as long as another one."""
    x = np.random.default_rng(0).standard_normal(len(like)).astype(np.float32)
    return x * np.float32((np.linalg.norm(like) or 1.0) / np.linalg.norm(x))


def _alike(x: Array, y: Array) -> bool:
    return bool(np.linalg.norm(x - y) < _ALIKE * np.linalg.norm(y))


def _length(direction: Array, known: Array, both: Array) -> float:
    """How often `direction` must be added to `known` so that the sum points as `both` does."""
    factors = np.linalg.lstsq(np.stack([direction, -both], 1), -known, rcond=None)[0]
    return float(factors[0])


def head_vectors(
    model: ObservedModel, tensors: TensorNames, kept: Activations, layers: Sequence[int], token: int
) -> dict[int, Array]:
    """What each head added to the state of the last token: layer -> (heads, width), without the
    layers where this is not known."""
    outputs = {}
    for layer in layers:
        own = _last(kept, tensors.heads[layer]).reshape(model.heads, -1)
        outputs[layer] = np.stack([alone(own[head], head, model.heads) for head in range(len(own))])
    return written(model, tensors, kept, outputs, token) if outputs else {}


def carried_by(
    model: ObservedModel,
    tensors: TensorNames,
    kept: Activations,
    values: Outputs,
    heads: Sequence[tuple[int, int]],
    token: int,
    tell: Tell,
) -> dict[tuple[int, int], Array]:
    """How much heads could carry from each token: the length of the vector that they would add to
    the state of the last token with all their attention there (Kobayashi 2020). (layer, head) ->
    (tokens,), without the layers where this is not known. `values` is a result of `values_of`."""
    if not heads:
        return {}
    tokens = len(next(iter(values.values())))
    own: dict[int, list[int]] = {}
    for layer, head in heads:
        own.setdefault(layer, []).append(head)

    def output(layer: int, row: int) -> Array:
        head, value = own[layer][row // tokens], values[layer]
        kv = head // (model.heads // value.shape[1])
        return alone(value[row % tokens, kv], head, model.heads)

    total = {layer: tokens * len(one) for layer, one in own.items()}
    lengths: dict[int, list[float]] = {layer: [] for layer in own}
    width = len(_last(kept, tensors.after[-1])) * len(own)
    most = max(8, min(model.most_rows, model.batch, _NUMBERS // width) - _KNOWN)
    for start in range(0, max(total.values()), most):
        tell("measuring heads", start, max(total.values()))
        part = {
            layer: np.stack([output(layer, row) for row in range(start, min(start + most, n))])
            for layer, n in total.items() if start < n
        }  # fmt: skip
        for layer, vectors in written(model, tensors, kept, part, token).items():
            lengths[layer].extend(np.linalg.norm(vectors, axis=1))
    return {
        (layer, head): np.array(lengths[layer][tokens * i : tokens * (i + 1)])
        for layer in own if len(lengths[layer]) == total[layer]
        for i, head in enumerate(own[layer])
    }  # fmt: skip


def values_of(
    model: ObservedModel,
    tensors: TensorNames,
    kept: Activations,
    tokens: int,
    layers: Sequence[int],
) -> dict[int, Array]:
    """The values that heads can take from each token: layer -> (tokens, heads with values of their
    own, numbers), without the layers whose tensors have no names."""
    found = {}
    for layer in layers:
        if tensors.values[layer] and tensors.heads[layer]:
            value, size = kept[tensors.values[layer]], kept[tensors.heads[layer]].shape[-1]
            if model.kv_heads and value.size * model.heads == tokens * model.kv_heads * size:
                found[layer] = value.reshape(tokens, model.kv_heads, -1)
    return found


def alone(value: Array, head: int, count: int) -> Array:
    """The output of all heads if only one has any: (heads * numbers,)."""
    new = np.zeros((count, len(value)), np.float32)
    new[head] = value
    return new.ravel()


def _last(kept: Activations, name: str) -> Array:
    """What was kept of the last token."""
    return np.atleast_2d(kept[name])[-1]
