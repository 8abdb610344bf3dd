"""Probability distributions: softmax, entropy, divergence, the most likely tokens, ranks."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def softmax(logits: Array) -> Array:
    """Probabilities, along the last axis."""
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(-1, keepdims=True)
    return x


def log_softmax(logits: Array) -> Array:
    """Log probabilities, in nats, along the last axis."""
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    return x


def entropy(p: Array) -> Array:
    """Entropy in bits: 3 bits are as open as 8 equal choices (Shannon 1948)."""
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)


def divergence(logs: Array, others: Array) -> Array:
    """Kullback-Leibler divergence (1951) of each row of `others` from `logs`, in nats. Both are
    results of log_softmax."""
    p = np.exp(logs)
    return np.maximum(0, p @ logs - others @ p)


def changes(logits: Array, token: int) -> tuple[Array, Array]:
    """The probability of a token in each row, and how far the row is from the first one, in nats.

    Of many rows that hardly differ, it takes a third of the time of log_softmax and `divergence`:
    KL = ln(sum p exp(d)) for differences of logits d with the mean 0 under p.
    """
    p = softmax(logits[0])
    d = logits - logits[0]
    d -= (d @ p.astype(d.dtype))[:, None]
    own = d[:, token].astype(float)
    total = np.exp(d, out=d) @ p.astype(d.dtype)
    return p[token] * np.exp(own) / total, np.maximum(0, np.log(total))


def best(numbers: Array, n: int) -> list[int]:
    """The indexes of the n largest numbers, the largest first."""
    n = min(n, len(numbers))
    found = np.argpartition(-numbers, n - 1)[:n]
    return [int(i) for i in found[np.argsort(-numbers[found], kind="stable")]]


def rank(logits: Array, token: int) -> int:
    """The rank of a token; 1 for the most likely one."""
    return int((logits > logits[token]).sum()) + 1
