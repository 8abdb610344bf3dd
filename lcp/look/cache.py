"""The same answer with and without the KV cache.

Without it, the model reads the whole text again for each token: n tokens cost n (n + 1) / 2 instead
of n (Pope et al. 2022). The tokens are those of the answer with the cache, so that both do the same
work.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from lcp.look.distributions import best, softmax
from lcp.look.observed_model import ObservedModel, Tell


@dataclass(frozen=True)
class Parted:
    """A place where the first choices differ: a near tie, because other batches round otherwise."""

    at: int
    cached: int  # token
    again: int
    p_cached: float  # of both tokens, with the cache
    p_again: float


@dataclass(frozen=True)
class Timed:
    """Seconds after each token, from the beginning of the answer."""

    tokens: list[int]
    cached: list[float]
    again: list[float]
    parted: list[Parted]


def measure(
    model: ObservedModel,
    prompt: list[int],
    n: int,
    tell: Tell,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Generate n tokens, greedily, with the cache and without."""
    model.clear()
    model.decode(prompt)  # the first run is slower
    tokens: list[int] = []
    shares: list[dict[int, float]] = []
    cached: list[float] = []
    model.clear()
    begun, aside, new = clock(), 0.0, prompt
    for i in range(n):
        tell("with the cache", i, n)
        logits = model.decode(new)[0]
        tokens.append(int(logits.argmax()))
        cached.append(clock() - begun - aside)
        looked = clock()
        p = softmax(logits)
        shares.append({t: float(p[t]) for t in best(logits, 16)})
        aside += clock() - looked
        new = tokens[-1:]
    again: list[float] = []
    parted: list[Parted] = []
    spent = 0.0
    for i in range(n):
        tell("without the cache", i, n)
        begun = clock()
        model.clear()
        logits = model.decode(prompt + tokens[:i])[0]
        spent += clock() - begun
        again.append(spent)
        if (other := int(logits.argmax())) != tokens[i]:
            near = shares[i]
            parted.append(Parted(i, tokens[i], other, near[tokens[i]], near.get(other, 0.0)))
    return Timed(tokens, cached, again, parted)
