"""What each layer would say if the model stopped there, and who wrote the answer.

The logit lens (nostalgebraist 2020): the state after a layer goes through the model's own last norm
and output matrix. lcp does not imitate these: it writes the states of all layers into the rows of
the last layer of a second batch, and llama.cpp computes the rest. So the last row is the model's
own answer, exactly, for every kind of model.

Direct attribution: the last state is a sum of what each attention and each feed-forward added. Its
share of a logit is what the output matrix makes of this part, with the last norm's scale held.
"""

from dataclasses import dataclass

import numpy as np

from lcp.look.lab import Array, Kept, Lab, Parts, Tell, best


@dataclass(frozen=True)
class Contribution:
    """What one part of a layer added to the last token's state, as logits of all tokens."""

    name: str  # "attention", "feed-forward", "layer" (both), "embedding", or "head"
    layer: int
    head: int
    logits: Array


@dataclass(frozen=True)
class LayersFound:
    """The logits after each layer (layers, vocabulary), and what was added where."""

    true: Array  # the model's own logits
    lens: Array
    added: list[Contribution]  # in the order of the layers; their sum is `true`
    heads: list[Contribution]

    @property
    def error(self) -> float:
        """How far the sum of all parts is from the true logits, at most: quantized products round
        each part by itself."""
        return float(np.abs(sum(part.logits for part in self.added) - self.true).max())


def layers(lab: Lab, tokens: list[int], *, heads: bool = False, tell: Tell) -> LayersFound:
    """Look at the last of these tokens. `heads`: also at each attention head."""
    parts, kept = Parts.of(lab), Kept()
    names = [n for n in (parts.begin, *parts.middle, *parts.after, parts.normal) if n]
    watch = {**kept.last(*names), **(kept.last(*parts.out, *parts.heads) if heads else {})}
    watch.pop("", None)
    tell("reading", 0, len(tokens))
    lab.clear()
    true = lab.decode(tokens, watch)[0]
    states = np.stack([kept[name] for name in parts.after])
    tell("layers", 0, lab.layers)
    lens = _continued(lab, parts.after[-1], states, tokens[0])
    added = []
    if parts.normal:
        pieces = list(_added(parts, kept))
        vectors = np.stack([vector for *_, vector in pieces]) * _scale(parts, kept)
        tell("parts", 0, len(vectors))
        logits = _continued(lab, parts.normal, vectors, tokens[0])
        added = [Contribution(n, at, -1, x) for (n, at, _), x in zip(pieces, logits, strict=True)]
    found = _heads(lab, parts, kept, tokens[0], tell) if heads else []
    return LayersFound(true, lens, added, found)


def _continued(lab: Lab, name: str, rows: Array, token: int) -> Array:
    """The logits that llama.cpp computes from these rows of the tensor `name`."""
    found, most = [], min(lab.most_rows, lab.batch)
    for start in range(0, len(rows), most):
        part = rows[start : start + most].astype(np.float32)
        lab.clear()
        watch = {name: lambda x, part=part: part[None]}
        found.append(lab.decode([token] * len(part), watch, rows=range(len(part))))
    return np.concatenate(found)


def _added(parts: Parts, kept: Kept):  # type: ignore[no-untyped-def]
    """(name, layer, vector) of everything that was added to the state of the last token."""
    before = kept[parts.begin]
    yield "embedding", -1, before
    for layer, (middle, after) in enumerate(zip(parts.middle, parts.after, strict=True)):
        if middle:
            yield "attention", layer, kept[middle] - before
            before = kept[middle]
        yield "feed-forward" if middle else "layer", layer, kept[after] - before
        before = kept[after]


def _scale(parts: Parts, kept: Kept) -> Array:
    """What the last norm multiplied each number of the state by."""
    state = kept[parts.after[-1]]
    return np.divide(kept[parts.normal], state, out=np.zeros_like(state), where=state != 0)


def _heads(lab: Lab, parts: Parts, kept: Kept, token: int, tell: Tell) -> list[Contribution]:
    """What each head wrote: a batch whose rows keep one head each of every layer."""
    count, alone = lab.heads, Kept()
    at = [i for i in parts.with_heads() if parts.out[i]]

    def only(name: str):  # type: ignore[no-untyped-def]
        def f(x: Array) -> Array:
            new = np.zeros_like(x)
            size = x.shape[-1] // count
            for head in range(count):
                own = slice(head * size, (head + 1) * size)
                new[0, head, own] = kept[name][own]
            return new

        return f

    tell("heads", 0, len(at) * count)
    lab.clear()
    lab.decode(
        [token] * count,
        {**{parts.heads[i]: only(parts.heads[i]) for i in at},
         **alone.all(*(parts.out[i] for i in at))},
        rows=range(count),
    )  # fmt: skip
    vectors = np.concatenate([alone[parts.out[i]] for i in at]) * _scale(parts, kept)
    logits = _continued(lab, parts.normal, vectors, token)
    places = [(i, head) for i in at for head in range(count)]
    return [Contribution("head", i, h, x) for (i, h), x in zip(places, logits, strict=True)]


def strongest(parts: list[Contribution], token: int, other: int, n: int) -> list[Contribution]:
    """The parts that decided most between two tokens, for or against."""
    weights = np.array([abs(part.logits[token] - part.logits[other]) for part in parts])
    return [parts[i] for i in best(weights, n)] if parts else []
