"""The choice of the next token, sampler by sampler.

lcp applies each sampler of llama.cpp's chain by itself. After each one, the probabilities of the
tokens that are left are the softmax of their logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lcp.look.distributions import Array, best, entropy, softmax

CHOOSING = ("dist", "greedy")  # llama.cpp's names of the samplers that select the token


@dataclass(frozen=True)
class Stage:
    """The tokens that are left after a sampler."""

    name: str
    left: int  # tokens
    bits: float  # entropy of the choice
    dropped: float  # the probability, before this stage, of the tokens that it removed
    p: Array  # of each token of the vocabulary, 0 if it was removed
    changed: bool


def first(logits: memoryview[float]) -> Stage:
    """The stage before all samplers: all tokens, in the order of their ids."""
    p = softmax(np.array(logits))
    return Stage("model", len(p), float(entropy(p)), 0.0, p, True)


def after(name: str, left: tuple[memoryview[int], memoryview[float]], before: Stage) -> Stage:
    """The stage after a sampler. `left`: the ids and logits that it left."""
    ids, logits = np.array(left[0]), np.array(left[1])
    kept = np.isfinite(logits)
    p = np.zeros_like(before.p)
    p[ids[kept]] = softmax(logits[kept])
    dropped = max(0.0, 1 - float(before.p[ids[kept]].sum()))
    changed = not np.allclose(p, before.p, rtol=1e-5, atol=1e-9)
    return Stage(name, int(kept.sum()), float(entropy(p)), dropped, p, changed)


def chosen(name: str, token: int, before: Stage) -> Stage:
    """The last stage if the sampler is greedy: the token that it selects."""
    p = np.zeros_like(before.p)
    p[token] = 1.0
    return Stage(name, 1, 0.0, 1 - float(before.p[token]), p, True)


def shown(stages: list[Stage], token: int, n: int) -> list[int]:
    """The tokens to show: the most likely at the end, then at the beginning; the sampled one."""
    last = [t for t in best(stages[-1].p, n) if stages[-1].p[t] > 0]
    more = [t for t in best(stages[0].p, n) if t not in last]
    found = (last + more)[:n]
    return found if token in found or token < 0 else [*found[:-1], token]
