"""The same answer, timed with and without the KV cache.

Without the cache, the model reads the whole text again for each token: n tokens cost n (n + 1) / 2
instead of n (Pope et al. 2022). The run without it gets the tokens of the run with it, so that both
do the same work.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from lcp.look.distributions import best, softmax
from lcp.look.observed_model import ObservedModel, Tell


@dataclass(frozen=True)
class CacheDifference:
    """A place where the most likely tokens differ: a near tie, which depends on rounding."""

    at: int
    cached: int  # the most likely token with the cache
    again: int  # and without
    p_cached: float  # the probabilities of both tokens with the cache
    p_again: float


@dataclass(frozen=True)
class Timed:
    """The time after each token since the answer began, in seconds."""

    tokens: list[int]
    cached: list[float]
    again: list[float]
    differences: list[CacheDifference]


def measure(
    model: ObservedModel,
    prompt: list[int],
    n: int,
    tell: Tell,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Generate n tokens greedily, with the cache and without."""
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
    differences: list[CacheDifference] = []
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
            differences.append(
                CacheDifference(i, tokens[i], other, near[tokens[i]], near.get(other, 0.0))
            )
    return Timed(tokens, cached, again, differences)
