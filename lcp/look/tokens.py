"""Tokens: their bytes, and the merges that build them from characters."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Rank = Callable[[str, str], float | None]


@dataclass(frozen=True)
class Merge:
    """One step of building a token: the rank of the merge, the lowest first, and the parts
    afterwards."""

    rank: float
    parts: list[str]


def broken(raw: bytes) -> bool:
    """Whether the bytes of a token begin or end in the middle of a character."""
    return "\ufffd" in raw.decode("utf-8", "replace")


def merge(letters: Iterable[str], rank: Rank) -> Iterator[Merge]:
    """Byte-pair encoding (Sennrich, Haddow & Birch 2016): of all neighbours, merge the pair with
    the lowest rank, the first one of equal pairs, until no pair has a rank."""
    parts = list(letters)
    while True:
        pairs = [(rank(*pair), i) for i, pair in enumerate(pairwise(parts))]
        known = [(found, i) for found, i in pairs if found is not None]
        if not known:
            return
        lowest, i = min(known)
        parts[i : i + 2] = ["".join(parts[i : i + 2])]
        yield Merge(lowest, list(parts))


def by_list(merges: Sequence[tuple[str, str]]) -> Rank:
    """Ranks in a vocabulary with a list of merges: the first pair has rank 1."""
    ranks = {pair: i for i, pair in enumerate(merges, 1)}
    return lambda left, right: ranks.get((left, right))


def by_score(scores: dict[str, float]) -> Rank:
    """Ranks of a SentencePiece vocabulary (Kudo & Richardson 2018): any two neighbours that are a
    token together may be merged, those with the highest score first."""

    def rank(left: str, right: str) -> float | None:
        score = scores.get(left + right)
        return None if score is None else -score

    return rank


def letters_to_bytes() -> dict[str, int]:
    """The letters by which GPT-2 writes bytes (Radford et al. 2019, `bytes_to_unicode`): a byte
    that is a visible letter of Latin-1 stands for itself, the others are numbered from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in visible)
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(others)}
