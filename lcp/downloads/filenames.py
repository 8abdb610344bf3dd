"""What a file name says: which quant it is, which part of how many, and whether it is a model.

Names are all there is to go by: no format of the Hub says which files of a repository are one
model in several sizes, and which is its projector, an adapter or a draft of it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lcp import kinds

# Best first, for one and the same model: what llama.cpp measures as perplexity lost per byte.
# More bits than Q8_0 are not worth their bytes, so the floats stand behind all of four bits.
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
# Between separators, or a part of a word would do: Q4_K in Q4_K_M, Q4_0 in Q4_0_4_4.
_QUANT = re.compile(rf"(?:^|(?<=[-._]))(UD-)?({'|'.join(_LONGEST)})(?=$|[-.])", re.IGNORECASE)
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_CUT = re.compile(r"\.gguf[-.](part-?\w+|split-?\w+)$", re.IGNORECASE)  # pieces of plain bytes
_SEPARATOR = re.compile(r"[-._]+")
# The first word of a file that is beside a model; other words of kinds begin names of models.
_FIRST = re.compile(r"(mmproj|imatrix|mtp|draft|eagle3?|dflash|dspark|lora|adapter)[-._]", re.I)
_BEST_PROJECTOR = ("F16", "BF16", "Q8_0", "F32")


@dataclass(frozen=True)
class File:
    """A file of a repository, as its tree lists it."""

    path: str
    size: int  # bytes
    etag: str = ""  # its hash: the sha256, or of a small file git's sha1
    here: int = 0  # bytes of it that need not come any more
    kind: str | None = None  # what its header says it is, "" for a model; None: not read


@dataclass(frozen=True)
class Candidate:
    """One model in one quant: a file, or all parts of a split one."""

    parts: tuple[File, ...]
    quant: str | None
    base: str  # the name without quant and part: one for all quants of a model
    missing: tuple[str, ...] = ()  # paths of parts that are not listed
    kind: str = ""  # what it is, if no model: see lcp.kinds

    @property
    def path(self) -> str:
        """The path by which llama.cpp opens it: the first part's."""
        return self.parts[0].path

    @property
    def title(self) -> str:
        """The file's name without .gguf and without its part."""
        return _stem(self.path.rpartition("/")[2])

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def to_come(self) -> int:
        return sum(part.size - part.here for part in self.parts)


def normal(quant: str) -> str:
    """One spelling for one quant: Q4_K_M, UD-Q4_K_XL, F16."""
    quant = quant.upper()
    return _SPELLINGS.get(quant, quant)


def rank(quant: str | None) -> float:
    """The place of a quant in BEST_FIRST; an unsloth dynamic one stands behind the plain one."""
    plain = (quant or "").removeprefix("UD-")
    place = BEST_FIRST.index(plain) if plain in BEST_FIRST else len(BEST_FIRST)
    return place + (0.5 if quant and quant.startswith("UD-") else 0)


def quant_of(path: str) -> str | None:
    """The quant that a path names: the last one in the file's name, else in its folder's."""
    *folders, name = path.split("/")
    for text in (_stem(name), *folders[-1:]):
        if found := list(_QUANT.finditer(text)):
            return normal((found[-1][1] or "") + found[-1][2])
    return None


def is_cut(path: str) -> bool:
    """Whether it is a piece of a file that was cut by an old tool, to be joined by hand."""
    return bool(_CUT.search(path))


def candidates(files: Iterable[File]) -> list[Candidate]:
    """The models among the files, in the order of their paths; split ones as a whole."""
    return [one for one in everything(files) if not one.kind]


def everything(files: Iterable[File]) -> list[Candidate]:
    """All GGUF files in the order of their paths, split ones as a whole: the models, and those of
    another kind."""
    ggufs = [f for f in sorted(files, key=lambda f: f.path) if f.path.lower().endswith(".gguf")]
    sets: dict[tuple[str, int], dict[int, File]] = {}
    for file in ggufs:
        part = _PART.search(file.path[:-5])
        stem = file.path[: part.start()] if part else file.path
        number, total = (int(part[1]), int(part[2])) if part else (1, 1)
        sets.setdefault((stem, total), {})[number] = file
    return [_candidate(stem, total, parts, ggufs) for (stem, total), parts in sets.items()]


def kind(file: File, among: Iterable[File] = ()) -> str:
    """What a GGUF file is, if no model: see lcp.kinds; "" for a model.

    A quant is the last word of a model's name. A word behind it, in front of the name, or the
    folder's, says what else the file is (docs/gguf.md of ggml: `Type`). Such a word within the
    name may be the model's own, as in Qwen3.6-27B-MTP-Q8_0; it counts where the header is not at
    hand and a file `among` them has the same name without it and is much larger.
    """
    *folders, name = file.path.split("/")
    stem = _stem(name)
    own, behind = _around_quant(stem)
    words = _SEPARATOR.split(own)
    first = _FIRST.match(stem + "-")
    named = [*folders, *_SEPARATOR.split(behind), first[1] if first else ""]
    named += [w for w in words if kinds.by_word(w) in (kinds.PROJECTOR, kinds.MATRIX)]
    named += [w for w in words[-1:] if kinds.by_word(w) == kinds.ADAPTER]
    told = next(filter(None, map(kinds.by_word, named)), "") or file.kind or ""
    if stem.lower().startswith("ggml-vocab"):
        return kinds.VOCABULARY
    if told or file.kind is not None:
        return told
    for word in words[1:]:
        if kinds.by_word(word) == kinds.DRAFT:
            without = re.sub(rf"[-._]{re.escape(word)}(?=[-._]|$)", "", own, flags=re.I).casefold()
            alike = [f.size for f in among if _base(f.path.rpartition("/")[2]) == without]
            if any(size > 2 * file.size for size in alike):
                return kinds.DRAFT
    return ""


def projectors(files: Iterable[File], beside: str = "") -> list[File]:
    """The vision projectors, best first; those in the folder of `beside` before others."""

    def place(file: File) -> tuple[bool, int, int, str]:
        quant = quant_of(file.path) or ""
        known = _BEST_PROJECTOR.index(quant) if quant in _BEST_PROJECTOR else len(_BEST_PROJECTOR)
        elsewhere = file.path.rpartition("/")[0] != beside.rpartition("/")[0]
        return elsewhere, known, len(file.path), file.path

    found = [f for f in files if f.path.lower().endswith(".gguf")]
    return sorted((f for f in found if kind(f) == kinds.PROJECTOR), key=place)


def _candidate(stem: str, total: int, parts: dict[int, File], among: Iterable[File]) -> Candidate:
    listed = tuple(parts[number] for number in sorted(parts))
    missing = tuple(
        f"{stem}-{n:05}-of-{total:05}.gguf" for n in range(1, total + 1) if n not in parts
    )
    path = listed[0].path
    base = _base(path.rpartition("/")[2])
    return Candidate(listed, quant_of(path), base, missing, kind(listed[0], among))


def _stem(name: str) -> str:
    """A file's name without .gguf and without its part."""
    return _PART.sub("", re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE))


def _base(name: str) -> str:
    """A file's name without its last quant; the same for all quants of a model."""
    return "".join(_around_quant(_stem(name))).strip("-._").casefold()


def _around_quant(stem: str) -> tuple[str, str]:
    """What stands before the last quant of a name, and what behind it."""
    if not (found := list(_QUANT.finditer(stem))):
        return stem, ""
    return stem[: found[-1].start()].strip("-._"), stem[found[-1].end() :]
