"""The embedding table: which tokens have nearly the same vector.

A row of the table is the vector of a token before the first layer. The cosine between two rows
tells how similar the tokens are (Mikolov et al. 2013). But all rows have a large part in common,
and frequent tokens have another, so that any two look similar. If the mean row and the few
directions in which the rows differ most are removed, the meaning is left (Mu & Viswanath 2018,
"All-but-the-Top").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lcp.look.distributions import Array, best

BLOCK = 4096  # rows of the table in memory at once
_SLICES = 64  # of 256 rows each, from all over the table, to compute the shared part
_SAMPLE = 256  # random tokens, for the cosine of unrelated tokens


@dataclass(frozen=True)
class Nearest:
    """The tokens nearest to some tokens, each with its cosine; and the cosines between them."""

    near: list[list[tuple[int, float]]]
    matrix: Array
    usual: float  # 19 of 20 pairs of random tokens have a lower cosine
    shared: float  # half of those pairs have a higher one before the shared part is subtracted


def nearest(
    rows: Callable[[int, int], Array], count: int, tokens: Sequence[int], most: int
) -> Nearest:
    """Find the nearest tokens. `rows(begin, end)` returns a part of the table of `count` rows."""

    def some(tokens: Sequence[int]) -> Array:
        return np.concatenate([rows(token, token + 1) for token in tokens])

    mean, top = _shared(rows, count)

    def own(rows: Array) -> Array:
        """The rows without the shared part."""
        rows = rows - mean
        return rows - (rows @ top) @ top.T

    words = _unit(own(some(tokens)))
    blocks = (rows(begin, min(begin + BLOCK, count)) for begin in range(0, count, BLOCK))
    cosines = np.concatenate([words @ _unit(own(block)).T for block in blocks], axis=1)
    near = []
    for token, row in zip(tokens, cosines, strict=True):
        found = [t for t in best(row, most + 1) if t != token]
        near.append([(t, float(row[t])) for t in found[:most]])
    chosen = np.random.default_rng(0).choice(count, min(_SAMPLE, count), replace=False)
    sample = some([int(token) for token in chosen])
    usual, shared = np.quantile(_pairs(own(sample)), 0.95), np.median(_pairs(sample))
    return Nearest(near, words @ words.T, float(usual), float(shared))


def _shared(rows: Callable[[int, int], Array], count: int) -> tuple[Array, Array]:
    """The mean row, and the directions in which the rows differ most: one for each 100 numbers of
    a row, as columns."""
    step = max(256, count // _SLICES)
    sample = np.concatenate([rows(i, min(i + 256, count)) for i in range(0, count, step)])
    mean = sample.mean(0)
    sample -= mean
    _, directions = np.linalg.eigh(sample.T @ sample)  # the largest last
    return mean, directions[:, directions.shape[1] - max(1, sample.shape[1] // 100) :]


def _pairs(rows: Array) -> Array:
    """The cosines of all pairs of different rows."""
    unit = _unit(rows)
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def _unit(rows: Array) -> Array:
    """The rows with length 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
