"""The files of a repository: what their names tell, and which one a person means.

A name tells the quant, the part number, and whether the file is a model at all. Names are the only
source: no metadata of the Hub says which files are quants of one model, and which are a projector,
an adapter or a draft model. `choose` never guesses between different models; it returns all of them
and the person chooses.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lcp import gguf_kinds
from lcp.errors import ModelNotFound
from lcp.split_names import PART, part_name, stem

# Best first, for the same model, by llama.cpp's measurements of perplexity against size. More bits
# than Q8_0 are not worth their bytes, so the float formats come after all 4-bit quants.
BEST_FIRST = (
    "Q8_0", "Q8_K_XL", "Q6_K_XL", "Q6_K_L", "Q6_K", "Q5_K_XL", "Q5_K_L", "Q5_K_M", "Q5_K_S",
    "Q5_K", "Q5_1", "Q5_0", "MXFP4", "MXFP4_MOE", "Q4_K_XL", "Q4_K_L", "Q4_K_M", "Q4_K_S", "Q4_K",
    "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0", "NVFP4", "Q8", "Q6", "Q5", "Q4", "F16", "BF16", "F32",
    "Q3_K_XL", "Q3_K_L", "Q3_K_M", "IQ3_M", "Q3_K_S", "IQ3_S", "Q3_K", "IQ3_XS", "IQ3_XXS",
    "Q2_K_XL", "Q2_K_L", "Q2_K", "IQ2_M", "Q2_K_S", "IQ2_S", "IQ2_XS", "IQ2_XXS", "Q3", "Q2",
    "TQ2_0", "IQ1_M", "IQ1_S", "TQ1_0",
)  # fmt: skip
_SPELLINGS = {"FP16": "F16", "FP32": "F32"}
_LONGEST = sorted((*BEST_FIRST, *_SPELLINGS), key=len, reverse=True)
# Only between separators, or Q4_K would match in Q4_K_M, and Q4_0 in Q4_0_4_4.
_QUANT = re.compile(rf"(?:^|(?<=[-._]))(UD-)?({'|'.join(_LONGEST)})(?=$|[-.])", re.IGNORECASE)
_CUT = re.compile(r"\.gguf[-.](part-?\w+|split-?\w+)$", re.IGNORECASE)  # cut as plain bytes
_SEPARATOR = re.compile(r"[-._]+")
# First words of files that are not models. Other words of lcp.gguf_kinds also start names of
# models.
_FIRST = re.compile(r"(mmproj|imatrix|mtp|draft|eagle3?|dflash|dspark|lora|adapter)[-._]", re.I)
_BEST_PROJECTORS = ("F16", "BF16", "Q8_0", "F32")


USUAL = "Q4_K_M"  # the quant that most people use


@dataclass(frozen=True)
class RepoFile:
    """A file of a repository, or of a folder with models."""

    path: str
    size: int  # bytes
    etag: str = ""  # its sha256, or git's sha1 for a small file
    here: int = 0  # bytes that are downloaded already
    kind: str | None = None  # by its header, see lcp.gguf_kinds; "": a model; None: not read


@dataclass(frozen=True)
class RepoModel:
    """A model in one quant: one file, or all parts of a split model."""

    parts: tuple[RepoFile, ...]
    quant: str | None
    base: str  # the name without quant and part number: the same for all quants of a model
    missing: tuple[str, ...] = ()  # paths of missing parts
    kind: str = ""  # see lcp.gguf_kinds; "" for a model

    @property
    def path(self) -> str:
        """The path of the first part, which llama.cpp opens."""
        return self.parts[0].path

    @property
    def title(self) -> str:
        """The file name without .gguf and part number."""
        return stem(self.path.rpartition("/")[2])

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)

    @property
    def to_download(self) -> int:
        """Bytes that are not here yet."""
        return sum(part.size - part.here for part in self.parts)


@dataclass(frozen=True)
class ModelChoice:
    """The model that is meant, or several that a person must choose from."""

    models: tuple[RepoModel, ...]
    why: str = ""  # a sentence, if the person did not name the quant


def normal(quant: str) -> str:
    """The usual spelling of a quant: Q4_K_M, UD-Q4_K_XL, F16."""
    quant = quant.upper()
    return _SPELLINGS.get(quant, quant)


def rank(quant: str | None) -> float:
    """The index of a quant in BEST_FIRST; a dynamic one (UD-) comes after the plain one."""
    plain = (quant or "").removeprefix("UD-")
    place = BEST_FIRST.index(plain) if plain in BEST_FIRST else len(BEST_FIRST)
    return place + (0.5 if quant and quant.startswith("UD-") else 0)


def quant_of(path: str) -> str | None:
    """The quant in a path: the last one in the file name, else the one in the folder name."""
    *folders, name = path.split("/")
    for text in (stem(name), *folders[-1:]):
        if found := list(_QUANT.finditer(text)):
            return normal((found[-1][1] or "") + found[-1][2])
    return None


def is_cut(path: str) -> bool:
    """Whether it is a piece of a file that an old tool cut, which must be joined by hand."""
    return bool(_CUT.search(path))


def models(files: Iterable[RepoFile]) -> list[RepoModel]:
    """The models among the files, sorted by path; the parts of a split model are one."""
    return [one for one in gguf_files(files) if not one.kind]


def gguf_files(files: Iterable[RepoFile]) -> list[RepoModel]:
    """All GGUF files, models or not, sorted by path; the parts of a split model are one."""
    ggufs = [f for f in sorted(files, key=lambda f: f.path) if f.path.lower().endswith(".gguf")]
    sets: dict[tuple[str, int], dict[int, RepoFile]] = {}
    for file in ggufs:
        part = PART.search(file.path)
        name = file.path[: part.start()] if part else file.path
        number, total = (int(part[1]), int(part[2])) if part else (1, 1)
        sets.setdefault((name, total), {})[number] = file
    return [_model(name, total, parts, ggufs) for (name, total), parts in sets.items()]


def kind(file: RepoFile, among: Iterable[RepoFile] = ()) -> str:
    """The kind of a GGUF file, see lcp.gguf_kinds; "" for a model.

    The name of a model ends with its quant. A word after the quant, before the name, or in the
    folder name says what other kind of file it is (docs/gguf.md of ggml: `Type`). Within the name,
    such a word may belong to the model, as in Qwen3.6-27B-MTP-Q8_0; there it counts only if the
    header was not read and a much larger file `among` the others has the same name without it.
    """
    *folders, name = file.path.split("/")
    bare = stem(name)
    own, suffix = _around_quant(bare)
    words = _SEPARATOR.split(own)
    first = _FIRST.match(bare + "-")
    named = [*folders, *_SEPARATOR.split(suffix), first[1] if first else ""]
    named += [
        w for w in words if gguf_kinds.by_word(w) in (gguf_kinds.PROJECTOR, gguf_kinds.MATRIX)
    ]
    named += [w for w in words[-1:] if gguf_kinds.by_word(w) == gguf_kinds.ADAPTER]
    named_kind = next(filter(None, map(gguf_kinds.by_word, named)), "") or file.kind or ""
    if bare.lower().startswith("ggml-vocab"):
        return gguf_kinds.VOCABULARY
    if named_kind or file.kind is not None:
        return named_kind
    for word in words[1:]:
        if gguf_kinds.by_word(word) == gguf_kinds.DRAFT:
            without = re.sub(rf"[-._]{re.escape(word)}(?=[-._]|$)", "", own, flags=re.I).casefold()
            alike = [f.size for f in among if _base(f.path.rpartition("/")[2]) == without]
            if any(size > 2 * file.size for size in alike):
                return gguf_kinds.DRAFT
    return ""


def projectors(files: Iterable[RepoFile], near: str = "") -> list[RepoFile]:
    """The vision projectors, best first; those in the folder of the file `near` before others."""

    def place(file: RepoFile) -> tuple[bool, int, int, str]:
        quant = quant_of(file.path) or ""
        known = (
            _BEST_PROJECTORS.index(quant) if quant in _BEST_PROJECTORS else len(_BEST_PROJECTORS)
        )
        elsewhere = file.path.rpartition("/")[0] != near.rpartition("/")[0]
        return elsewhere, known, len(file.path), file.path

    found = [f for f in files if f.path.lower().endswith(".gguf")]
    return sorted((f for f in found if kind(f) == gguf_kinds.PROJECTOR), key=place)


def choose(
    files: Sequence[RepoFile],
    verdict: Callable[[int], str] | None = None,
    *,
    quant: str | None = None,
    path: str | None = None,
    disk: int | None = None,
) -> ModelChoice:
    """The model that `path` or `quant` names; without both, the best that fits.

    verdict: whether a model of so many bytes "fits" this machine's memory, "pages" or does not run
    ("no"). disk: free bytes on its disk. ModelNotFound if no file matches, or a part is missing.
    """
    found = models(files)
    if path:
        one = _whole(_at(path, files))
        return ModelChoice((one,), gguf_kinds.sentence(one.kind) if one.kind else "")
    if not found:
        raise ModelNotFound(_nothing(files))
    if quant:
        exact = _one_each([c for c in found if c.quant == normal(quant)])
        if not exact:
            raise ModelNotFound(_no_quant(quant, found))
        return ModelChoice((_whole(exact[0]),) if len(exact) == 1 else tuple(exact))
    whole = [c for c in found if not c.missing] or [_whole(found[0])]
    named = [c for c in whole if c.quant] or whole
    if len({c.base for c in named}) > 1:
        return ModelChoice(tuple(named))
    return _best(_one_each(named), verdict, disk)


def _best(
    found: list[RepoModel], verdict: Callable[[int], str] | None, disk: int | None
) -> ModelChoice:
    """1) The only one. 2) The best that fits memory and disk. 3) The one nearest to Q4_K_M."""
    found = sorted(found, key=lambda c: rank(c.quant))
    if len(found) == 1:
        return ModelChoice(tuple(found))
    room = [c for c in found if disk is None or c.to_download <= disk] or found
    fitting = [c for c in room if verdict and verdict(c.size) == "fits"]
    if fitting:
        best = fitting[0]
        larger = found[0] is not best
        why = "the best quant that fits" if larger else "the best quant"
        return ModelChoice((best,), f"Chose {best.quant}: {why}.")
    paging = [c for c in room if verdict and verdict(c.size) == "pages"]
    doubt = min(paging or room, key=lambda c: abs(rank(c.quant) - rank(USUAL)))
    why = "no quant fits this machine; this is the usual one" if verdict else "the usual quant"
    return ModelChoice((doubt,), f"Chose {doubt.quant}: {why}.")


def _one_each(found: Iterable[RepoModel]) -> list[RepoModel]:
    """One of each model and quant: a complete one if there is one, with the shortest path."""
    first: dict[tuple[str, str | None], RepoModel] = {}
    for one in sorted(found, key=lambda c: (bool(c.missing), len(c.path), c.path)):
        first.setdefault((one.base, one.quant), one)
    return list(first.values())


def _whole(one: RepoModel) -> RepoModel:
    if one.missing:
        names = ", ".join(one.missing[:3]) + (", ..." if len(one.missing) > 3 else "")
        raise ModelNotFound(
            f"{one.path} is one of {len(one.parts) + len(one.missing)} parts, and the repository "
            f"does not have {names}. Use another quant or repository."
        )
    return one


def _at(path: str, files: Sequence[RepoFile]) -> RepoModel:
    """The model that this file is a part of; also a draft model or a projector."""
    for one in gguf_files(files):
        if any(part.path == path for part in one.parts):
            return one
    if is_cut(path):
        raise ModelNotFound(_nothing([RepoFile(path, 0)]))
    near = difflib.get_close_matches(path, [f.path for f in files], 1)
    hint = f"Did you mean {near[0]}?" if near else "Give only owner/repo to see what it has."
    raise ModelNotFound(f"The repository has no file {path}. {hint}")


def _no_quant(quant: str, found: Sequence[RepoModel]) -> str:
    has = sorted({c.quant for c in found if c.quant}, key=rank)
    if not has:
        return (
            f"No file of the repository is named {quant}. Give a file name, such as {found[0].path}"
        )
    return f"The repository has no {normal(quant)}. It has {', '.join(has)}."


def _nothing(files: Sequence[RepoFile]) -> str:
    if cut := [f.path for f in files if is_cut(f.path)]:
        return (
            f"{cut[0]} is a piece of a file that an old tool cut; it must be joined by hand. "
            "Use another quant or repository."
        )
    if any(f.path.lower().endswith(".gguf") for f in files):
        return (
            "The repository has draft models, projectors or adapters, but no model. "
            "Use the repository of the model itself."
        )
    return "The repository has no GGUF file. Use one whose name ends in -GGUF."


def _model(
    name: str, total: int, parts: dict[int, RepoFile], among: Iterable[RepoFile]
) -> RepoModel:
    listed = tuple(parts[number] for number in sorted(parts))
    missing = tuple(part_name(name, n, total) for n in range(1, total + 1) if n not in parts)
    path = listed[0].path
    base = _base(path.rpartition("/")[2])
    return RepoModel(listed, quant_of(path), base, missing, kind(listed[0], among))


def _base(name: str) -> str:
    """A file name without its quant; the same for all quants of a model."""
    return "".join(_around_quant(stem(name))).strip("-._").casefold()


def _around_quant(name: str) -> tuple[str, str]:
    """The parts of a name before and after its last quant."""
    if not (found := list(_QUANT.finditer(name))):
        return name, ""
    return name[: found[-1].start()].strip("-._"), name[found[-1].end() :]
