"""Where the difference between two prompts is kept, layer by layer, and which heads move it.

Activation patching (Vig 2020, Meng 2022): prompt B is read with the state of prompt A put in after
one layer, at one token, and the share of A's answer that comes back is measured. Then prompt A is
read with one head's output taken from B. Both are the model's own, so nothing is measured that it
never does, as a state of zeros would be. What the prompts have in common is not seen.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lcp.errors import UsageError
from lcp.look.contributions import brought, computed_from, head_vectors, norm_scale, values_of
from lcp.look.distributions import Array, best, divergence, log_softmax, softmax
from lcp.look.observed_model import Activations, ObservedModel, Tell, TensorNames

MOST = 12  # tokens whose states are swapped
LEAST = 0.1  # nats between the prompts, of which shares can be told from rounding
SHOWN = 4  # heads whose attention and words are looked up

Margin = Callable[[Array], Array]  # the logit of A's answer minus that of B's


@dataclass(frozen=True)
class SwappedHead:
    """A head of A with its output of B, at the last token."""

    layer: int
    head: int
    share: float  # how much of the difference it moves, of 1
    kl: float  # how far it moves the distribution, in nats
    p: float  # A's answer, with it
    reads: tuple[tuple[int, float], ...] = ()  # the tokens of A that it looks at, and how much
    carries: tuple[tuple[int, float], ...] = ()  # the same, weighted by what is carried
    writes: tuple[int, ...] = ()  # tokens that its output makes likelier


@dataclass(frozen=True)
class Swap:
    """What the states and the heads move."""

    p_a: tuple[float, float]  # probabilities of A's and of B's answer, after A
    p_b: tuple[float, float]  # and after B
    places: list[int]  # the tokens whose states were swapped
    shares: Array  # (places, layers): how much of A's answer comes back, of 1
    heads: list[SwappedHead]  # the strongest first
    runs: int


def answers(model: ObservedModel, a: list[int], b: list[int]) -> tuple[Array, Array]:
    """The logits after each of the two prompts."""
    found = []
    for tokens in (a, b):
        model.clear()
        found.append(model.decode(tokens)[0])
    return found[0], found[1]


def places(a: list[int], b: list[int]) -> list[int]:
    """The tokens to swap: all from the first difference on; of many, those that differ and the
    last ones."""
    differ = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    every = range(differ[0], len(a))
    if len(every) <= MOST:
        return list(every)
    kept = set(differ[: MOST // 2])
    return sorted(kept | set(every[-(MOST - len(kept)) :]))


def swap(model: ObservedModel, a: list[int], b: list[int], x: int, y: int, tell: Tell) -> Swap:
    """Swap the states of A and B, two prompts of equal length. `x` and `y` are the tokens whose
    logits are compared: A's answer and B's. UsageError if the prompts hardly differ in them."""
    tensors = TensorNames.of(model)

    def margin(logits: Array) -> Array:
        return logits[..., x].astype(float) - logits[..., y]

    tell("reading", 0, 2)
    of_a, of_b = Activations(), Activations()
    with_heads = [name for name in tensors.heads if name]
    model.clear()
    after_a = model.decode(a, {
        **of_a.all(*tensors.after, *(name for name in tensors.values if name)),
        **of_a.last(*with_heads, *([tensors.normal] if tensors.normal else [])),
        **of_a.part(lambda x: x[:, -1, : len(a)], *(name for name in tensors.attention if name)),
    })[0]  # fmt: skip
    model.clear()
    after_b = model.decode(b, of_b.last(*with_heads))[0]
    difference = float(margin(after_a) - margin(after_b))
    if abs(difference) < LEAST:
        raise UsageError(
            f"A and B hardly differ between these two answers (by {abs(difference):.3f} nats, and "
            f"{LEAST} are needed). Name two other tokens."
        )
    chosen = places(a, b)
    shares = _states(model, tensors, b, of_a, chosen, margin, float(margin(after_a)), tell)
    heads = _heads(model, tensors, a, of_b, x, margin, difference, tell) if with_heads else []
    heads.sort(key=lambda one: -abs(one.share))
    strongest = [_described(model, tensors, of_a, one, a[0]) for one in heads[:SHOWN]]
    p_a, p_b = softmax(after_a), softmax(after_b)
    return Swap(
        (float(p_a[x]), float(p_a[y])), (float(p_b[x]), float(p_b[y])), chosen, shares,
        [*strongest, *heads[SHOWN:]], shares.size + len(heads),
    )  # fmt: skip


def _states(
    model: ObservedModel, tensors: TensorNames, b: list[int], of_a: Activations,
    chosen: list[int], margin: Margin, whole: float, tell: Tell,
) -> Array:  # fmt: skip
    """B with the state of A put in: (places, layers). A batch has a row for each layer, and one as
    B is, which the others are compared with: batches of another shape round in another way."""
    shares = np.zeros((len(chosen), model.layers))
    model.clear()
    for i, place in enumerate(chosen):
        held = chosen[i - 1] if i else 0
        if place > held:
            model.decode(b[held:place])
        ending = b[place:]
        most = max(2, min(model.most_rows, model.batch // len(ending)))
        for start in range(0, model.layers, most - 1):
            tell("swapping states", i * model.layers + start, shares.size)
            layers = range(start, min(start + most - 1, model.layers))
            watch = {
                tensors.after[layer]: _put(
                    of_a[tensors.after[layer]][place - len(b)], row, len(ending), 1 + len(layers)
                )
                for row, layer in enumerate(layers, 1)
                if layer < model.layers - 1 or len(ending) == 1
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
    model: ObservedModel, tensors: TensorNames, a: list[int], of_b: Activations,
    x: int, margin: Margin, difference: float, tell: Tell,
) -> list[SwappedHead]:  # fmt: skip
    """A with one head's output of B, for each head: rows of batches, as above."""
    every = [(layer, head) for layer in tensors.with_heads() for head in range(model.heads)]
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
            tensors.heads[layer]: _exchange(of_b[tensors.heads[layer]], own, model.heads)
            for layer, own in rows.items()
        }
        logits = model.branch([a[-1:]] * (1 + len(part)), watch)
        logs = log_softmax(logits)
        kl, moved = divergence(logs[0], logs), (margin(logits[0]) - margin(logits)) / difference
        found += [
            SwappedHead(layer, head, float(moved[row]), float(kl[row]), float(np.exp(logs[row, x])))
            for row, (layer, head) in enumerate(part, 1)
        ]
    return found


def _exchange(other: Array, rows: list[tuple[int, int]], count: int) -> Callable[[Array], Array]:
    """A watching function that gives one head of each (row, head) the output of `other`."""
    size = len(other) // count

    def exchange(x: Array) -> Array:
        x = np.array(x)
        for row, head in rows:
            own = slice(head * size, (head + 1) * size)
            x[0, row, own] = other[own]
        return x

    return exchange


def _described(
    model: ObservedModel, tensors: TensorNames, of_a: Activations, one: SwappedHead, token: int
) -> SwappedHead:
    """The head with what it looks at in A, what it carries from there, and what it writes."""
    layer, head = one.layer, one.head
    read = of_a[tensors.attention[layer]][head]
    if not tensors.out[layer]:  # a norm follows: what one head writes depends on the others
        return replace(one, reads=_most(read))
    written = head_vectors(model, tensors, of_a, [layer], token)[layer][head]
    logits = computed_from(
        model, tensors.normal, (written * norm_scale(tensors, of_a))[None], token
    )[0]  # fmt: skip
    carried: tuple[tuple[int, float], ...] = ()
    if values := values_of(model, tensors, of_a, len(read), [layer]):
        weight = read * brought(model, tensors, values, [head], token)[layer, head]
        carried = _most(weight / weight.sum())
    return replace(one, reads=_most(read), carries=carried, writes=tuple(best(logits, 5)))


def _most(shares: Array) -> tuple[tuple[int, float], ...]:
    return tuple((i, float(shares[i])) for i in best(shares, 3))
