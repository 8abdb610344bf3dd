"""Which file of a repository is meant. Pure: file names and sizes in, a choice out.

It is never guessed between different models: where a name could mean several, all are given and
the person chooses.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lcp import kinds
from lcp.downloads.filenames import Candidate, File, candidates, everything, is_cut, normal, rank
from lcp.errors import ModelNotFound

Fits = Callable[[int], str]  # bytes of weights -> "fits" | "pages" | "no"
DEFAULT = "Q4_K_M"


@dataclass(frozen=True)
class Choice:
    """One candidate, or several between which a person has to choose."""

    candidates: tuple[Candidate, ...]
    why: str = ""  # a sentence, where something was chosen that nobody asked for


def choose(
    files: Sequence[File],
    fits: Fits | None = None,
    *,
    quant: str | None = None,
    path: str | None = None,
    disk: int | None = None,
) -> Choice:
    """The model that `path` or `quant` names, or without both the best that fits.

    `fits` tells of a size in bytes whether it fits this machine's memory, `disk` how many bytes
    its disk has room for. ModelNotFound when nothing is meant, or a part of it is missing.
    """
    found = candidates(files)
    if path:
        one = _whole(_at(path, files))
        return Choice((one,), kinds.sentence(one.kind) if one.kind else "")
    if not found:
        raise ModelNotFound(_nothing(files))
    if quant:
        exact = _one_each([c for c in found if c.quant == normal(quant)])
        if not exact:
            raise ModelNotFound(_no_quant(quant, found))
        return Choice((_whole(exact[0]),) if len(exact) == 1 else tuple(exact))
    whole = [c for c in found if not c.missing] or [_whole(found[0])]
    named = [c for c in whole if c.quant] or whole
    if len({c.base for c in named}) > 1:
        return Choice(tuple(named))
    return _best(_one_each(named), fits, disk)


def _best(found: list[Candidate], fits: Fits | None, disk: int | None) -> Choice:
    """1) The only one. 2) The best that fits memory and disk. 3) In doubt, Q4_K_M."""
    found = sorted(found, key=lambda c: rank(c.quant))
    if len(found) == 1:
        return Choice(tuple(found))
    room = [c for c in found if disk is None or c.to_come <= disk] or found
    fitting = [c for c in room if fits and fits(c.size) == "fits"]
    if fitting:
        best = fitting[0]
        larger = found[0] is not best
        return Choice((best,), f"{best.quant} is the best {'that fits here' if larger else 'one'}.")
    paging = [c for c in room if fits and fits(c.size) == "pages"]
    doubt = min(paging or room, key=lambda c: abs(rank(c.quant) - rank(DEFAULT)))
    known = "Nothing of it fits here; " if fits else ""
    return Choice((doubt,), f"{known}{doubt.quant} is what most people take.")


def _one_each(found: Iterable[Candidate]) -> list[Candidate]:
    """Of copies of one model in one quant, the one with the shortest path; whole ones first."""
    first: dict[tuple[str, str | None], Candidate] = {}
    for one in sorted(found, key=lambda c: (bool(c.missing), len(c.path), c.path)):
        first.setdefault((one.base, one.quant), one)
    return list(first.values())


def _whole(one: Candidate) -> Candidate:
    if one.missing:
        names = ", ".join(one.missing[:3]) + (", ..." if len(one.missing) > 3 else "")
        raise ModelNotFound(
            f"{one.path} is one of {len(one.parts) + len(one.missing)} parts and the repository "
            f"lacks {names}. Take another quant or repository."
        )
    return one


def _at(path: str, files: Sequence[File]) -> Candidate:
    """The candidate with this file in it; a draft or a projector, too, when it is asked for."""
    for one in everything(files):
        if any(part.path == path for part in one.parts):
            return one
    if is_cut(path):
        raise ModelNotFound(_nothing([File(path, 0)]))
    near = difflib.get_close_matches(path, [f.path for f in files], 1)
    hint = f"Did you mean {near[0]}?" if near else "Name the repository alone to see what it has."
    raise ModelNotFound(f"The repository has no file {path}. {hint}")


def _no_quant(quant: str, found: Sequence[Candidate]) -> str:
    has = sorted({c.quant for c in found if c.quant}, key=rank)
    if not has:
        return f"No file of the repository is named {quant}. Name one: {found[0].path}"
    return f"The repository has no {normal(quant)}. It has {', '.join(has)}."


def _nothing(files: Sequence[File]) -> str:
    if cut := [f.path for f in files if is_cut(f.path)]:
        return (
            f"{cut[0]} is a piece of a file that was cut by an old tool and must be joined by "
            "hand. Take a quant or a repository that is not cut like this."
        )
    if any(f.path.lower().endswith(".gguf") for f in files):
        return (
            "The repository has drafts, projectors or adapters, but no model. Look for its model's."
        )
    return "The repository has no GGUF file. Look for one whose name ends in -GGUF."
