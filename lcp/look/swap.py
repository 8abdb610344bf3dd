"""Which states keep the difference between two prompts, and which heads move it.

Activation patching (Vig 2020, Meng 2022): the model reads prompt B, but after one layer, at one
token, it gets the state from prompt A; lcp measures how much of A's answer comes back. Then the
model reads prompt A, but with one head's output from B. All these numbers are the model's own,
unlike a state of zeros. What the two prompts have in common does not show.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lcp.errors import UsageError
from lcp.look.contributions import (
    alone,
    carried_by,
    computed_from,
    norm_scale,
    values_of,
    written,
)
from lcp.look.distributions import Array, best, changes, softmax
from lcp.look.observed_model import Activations, ObservedModel, Tell, TensorNames

MOST = 12  # tokens whose states are swapped
LEAST = 0.1  # the least difference between the prompts, in nats; shares of less are rounding
SHOWN = 4  # heads whose attention and output are described

Margin = Callable[[Array], Array]  # the logit of A's answer minus that of B's


@dataclass(frozen=True)
class SwappedHead:
    """A head of A with its output from B, at the last token."""

    layer: int
    head: int
    share: float  # the share of the difference that it moves, from 0 to 1
    kl: float  # how far it moves the distribution, in nats
    p: float  # the probability of A's answer with it
    reads: tuple[tuple[int, float], ...] = ()  # the tokens of A that it looks at; attention
    carries: tuple[tuple[int, float], ...] = ()  # the same, weighted by what is carried
    writes: tuple[int, ...] = ()  # tokens that its output makes more likely


@dataclass(frozen=True)
class Swap:
    """What the states and the heads move."""

    p_a: tuple[float, float]  # probabilities of A's and of B's answer, after A
    p_b: tuple[float, float]  # and after B
    places: list[int]  # the tokens whose states were swapped
    shares: Array  # (places, layers): how much of A's answer comes back, from 0 to 1
    heads: list[SwappedHead]  # the strongest first
    runs: int


@dataclass(frozen=True)
class ReadPrompts:
    """Two prompts of equal length, and what was seen while the model read them."""

    a: list[int]
    b: list[int]
    logits_a: Array  # of the token after A
    logits_b: Array
    names: TensorNames
    of_a: Activations  # the states of all tokens; of the last one, what else is asked of it
    of_b: Activations  # the outputs of the heads at the last token


def read(model: ObservedModel, a: list[int], b: list[int], tell: Tell) -> ReadPrompts:
    """Read both prompts."""
    names, of_a, of_b = TensorNames.of(model), Activations(), Activations()
    with_heads = [name for name in names.heads if name]
    tell("reading", 0, 2)
    model.clear()
    logits_a = model.decode(a, {
        **of_a.all(*names.after, *(name for name in names.values if name)),
        **of_a.last(names.begin, *with_heads, *(name for name in (names.normal,) if name)),
        **of_a.part(lambda x: x[:, -1, : len(a)], *(name for name in names.attention if name)),
    })[0]  # fmt: skip
    tell("reading", 1, 2)
    model.clear()
    logits_b = model.decode(b, of_b.last(*with_heads))[0]
    return ReadPrompts(a, b, logits_a, logits_b, names, of_a, of_b)


def places(a: list[int], b: list[int]) -> list[int]:
    """The tokens to swap: all from the first difference on; if there are many, those that differ
    and the last ones."""
    differ = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    every = range(differ[0], len(a))
    if len(every) <= MOST:
        return list(every)
    kept = set(differ[: MOST // 2])
    return sorted(kept | set(every[-(MOST - len(kept)) :]))


def swap(model: ObservedModel, prompts: ReadPrompts, x: int, y: int, tell: Tell) -> Swap:
    """Swap the states of A and B. `x` and `y` are the tokens whose logits are compared: A's answer
    and B's. UsageError if these hardly differ."""

    def margin(logits: Array) -> Array:
        return logits[..., x].astype(float) - logits[..., y]

    difference = float(margin(prompts.logits_a) - margin(prompts.logits_b))
    if abs(difference) < LEAST:
        raise UsageError(
            f"A and B hardly differ between these two answers (by {abs(difference):.3f} nats, and "
            f"{LEAST} are needed). Name two other tokens."
        )
    chosen = places(prompts.a, prompts.b)
    shares = _states(model, prompts, chosen, margin, tell)
    heads = _heads(model, prompts, x, margin, difference, tell) if prompts.of_b else []
    heads.sort(key=lambda one: -abs(one.share))
    strongest = _described(model, prompts, heads[:SHOWN], tell)
    p_a, p_b = softmax(prompts.logits_a), softmax(prompts.logits_b)
    return Swap(
        (float(p_a[x]), float(p_a[y])), (float(p_b[x]), float(p_b[y])), chosen, shares,
        [*strongest, *heads[SHOWN:]], shares.size + len(heads),
    )  # fmt: skip


def _states(
    model: ObservedModel, prompts: ReadPrompts, chosen: list[int], margin: Margin, tell: Tell
) -> Array:
    """B with a state of A: (places, layers). A batch has a row for each layer, and one with B
    unchanged as the reference, because batches of another shape round differently."""
    b, after, of_a = prompts.b, prompts.names.after, prompts.of_a
    whole = float(margin(prompts.logits_a))
    shares = np.zeros((len(chosen), model.layers))
    model.clear()
    for i, place in enumerate(chosen):
        kept = chosen[i - 1] if i else 0
        if place > kept:
            model.decode(b[kept:place])
        ending = b[place:]
        # In the last layer, the state of an earlier token is of no use to the last one.
        useful = model.layers - (len(ending) > 1)
        most = max(2, min(model.most_rows, model.batch // len(ending)))
        for start in range(0, useful, most - 1):
            tell("swapping states", i * model.layers + start, shares.size)
            layers = range(start, min(start + most - 1, useful))
            watch = {
                after[layer]: _put(
                    of_a[after[layer]][place - len(b)], row, len(ending), 1 + len(layers)
                )
                for row, layer in enumerate(layers, 1)
            }
            logits = margin(model.branch([ending] * (1 + len(layers)), watch))
            shares[i, layers] = (logits[1:] - logits[0]) / (whole - logits[0])
    return shares


def _put(state: Array, ending: int, length: int, endings: int) -> Callable[[Array], Array]:
    """A watching function that puts a state into the first token of an ending."""

    def put(x: Array) -> Array:
        assert x.shape[1] == length * endings
        x = np.array(x)
        x[0, ending * length] = state
        return x

    return put


def _heads(
    model: ObservedModel, prompts: ReadPrompts, x: int, margin: Margin, difference: float,
    tell: Tell,
) -> list[SwappedHead]:  # fmt: skip
    """A with one head's output from B, for each head, in rows of batches as above."""
    names, a = prompts.names, prompts.a
    every = [(layer, head) for layer in names.with_heads() for head in range(model.heads)]
    found, most = [], min(model.most_rows, model.batch) - 1
    model.clear()
    if a[:-1]:
        model.decode(a[:-1])
    for start in range(0, len(every), most):
        tell("swapping heads", start, len(every))
        part = every[start : start + most]
        rows: dict[int, list[tuple[int, int]]] = {}
        for row, (layer, head) in enumerate(part, 1):
            rows.setdefault(layer, []).append((row, head))
        watch = {
            names.heads[layer]: _exchange(prompts.of_b[names.heads[layer]], own, model.heads)
            for layer, own in rows.items()
        }
        logits = model.branch([a[-1:]] * (1 + len(part)), watch)
        p, kl = changes(logits, x)
        moved = (margin(logits[0]) - margin(logits)) / difference
        found += [
            SwappedHead(layer, head, float(moved[row]), float(kl[row]), float(p[row]))
            for row, (layer, head) in enumerate(part, 1)
        ]
    return found


def _exchange(other: Array, rows: list[tuple[int, int]], count: int) -> Callable[[Array], Array]:
    """A watching function that replaces the output of each (row, head) with that of `other`."""
    size = len(other) // count

    def exchange(x: Array) -> Array:
        x = np.array(x)
        for row, head in rows:
            own = slice(head * size, (head + 1) * size)
            x[0, row, own] = other[own]
        return x

    return exchange


def _described(
    model: ObservedModel, prompts: ReadPrompts, heads: list[SwappedHead], tell: Tell
) -> list[SwappedHead]:
    """The heads with the tokens of A that they look at, what they carry from there, and what they
    write, as far as this is known."""
    names, of_a, token = prompts.names, prompts.of_a, prompts.a[0]
    tell("reading heads", 0, len(heads))
    outputs: dict[int, list[Array]] = {}
    places = []  # of each head, its row
    for one in heads:
        own = of_a[names.heads[one.layer]].reshape(model.heads, -1)[one.head]
        rows = outputs.setdefault(one.layer, [])
        places.append(len(rows))
        rows.append(alone(own, one.head, model.heads))
    stacked = {layer: np.stack(rows) for layer, rows in outputs.items()}
    added = written(model, names, of_a, stacked, token) if stacked and names.normal else {}
    known = [i for i, one in enumerate(heads) if one.layer in added]
    words: dict[int, tuple[int, ...]] = {}
    if known:
        vectors = np.stack([added[heads[i].layer][places[i]] for i in known])
        logits = computed_from(model, names.normal, vectors * norm_scale(names, of_a), token)
        words = {i: tuple(best(row, 5)) for i, row in zip(known, logits, strict=True)}
    values = values_of(model, names, of_a, len(prompts.a), [*outputs])
    every = [(one.layer, one.head) for one in heads if one.layer in values]
    weights = carried_by(model, names, of_a, values, every, token, tell)
    found = []
    for i, one in enumerate(heads):
        read = of_a[names.attention[one.layer]][one.head]
        carried = read * weights.get((one.layer, one.head), 0)
        found.append(replace(
            one, reads=_most(read), writes=words.get(i, ()),
            carries=_most(carried / carried.sum()) if carried.any() else (),
        ))  # fmt: skip
    return found


def _most(shares: Array) -> tuple[tuple[int, float], ...]:
    return tuple((i, float(shares[i])) for i in best(shares, 3))
