"""What a file name says: which quant it is, which part of how many, and whether it is a model.

Names are all there is to go by: no format of the Hub says which files of a repository are one
model in several sizes, and which is its projector, an adapter or a draft of it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

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
_PROJECTOR = re.compile(r"(^|[-._])mmproj([-._]|$)", re.IGNORECASE)
# a projector, an adapter, a draft for speculative decoding, statistics, a vocabulary
_NO_MODEL = re.compile(
    r"(^|[-._])(mmproj|imatrix)([-._]|$)|^(mtp|eagle3?|dflash|dspark|ggml-vocab|lora|adapter)[-._]"
    r"|[-._](lora|adapter)$",
    re.IGNORECASE,
)
_BEST_PROJECTOR = ("F16", "BF16", "Q8_0", "F32")


@dataclass(frozen=True)
class File:
    """A file of a repository, as its tree lists it."""

    path: str
    size: int  # bytes
    etag: str = ""  # its hash: the sha256, or of a small file git's sha1
    here: int = 0  # bytes of it that need not come any more


@dataclass(frozen=True)
class Candidate:
    """One model in one quant: a file, or all parts of a split one."""

    parts: tuple[File, ...]
    quant: str | None
    base: str  # the name without quant and part: one for all quants of a model
    missing: tuple[str, ...] = ()  # paths of parts that are not listed

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
    sets: dict[tuple[str, int], dict[int, File]] = {}
    for file in sorted(files, key=lambda f: f.path):
        name = file.path.rpartition("/")[2]
        if not name.lower().endswith(".gguf"):
            continue
        if _NO_MODEL.search(_base(name)) or _NO_MODEL.search(name[:-5]):
            continue
        part = _PART.search(file.path[:-5])
        stem = file.path[: part.start()] if part else file.path
        number, total = (int(part[1]), int(part[2])) if part else (1, 1)
        sets.setdefault((stem, total), {})[number] = file
    return [_candidate(stem, total, parts) for (stem, total), parts in sets.items()]


def projectors(files: Iterable[File], beside: str = "") -> list[File]:
    """The vision projectors, best first; those in the folder of `beside` before others."""

    def place(file: File) -> tuple[bool, int, int, str]:
        quant = quant_of(file.path) or ""
        known = _BEST_PROJECTOR.index(quant) if quant in _BEST_PROJECTOR else len(_BEST_PROJECTOR)
        elsewhere = file.path.rpartition("/")[0] != beside.rpartition("/")[0]
        return elsewhere, known, len(file.path), file.path

    found = [f for f in files if f.path.lower().endswith(".gguf") and _is_projector(f.path)]
    return sorted(found, key=place)


def _is_projector(path: str) -> bool:
    return bool(_PROJECTOR.search(_stem(path.rpartition("/")[2])))


def _candidate(stem: str, total: int, parts: dict[int, File]) -> Candidate:
    listed = tuple(parts[number] for number in sorted(parts))
    missing = tuple(
        f"{stem}-{n:05}-of-{total:05}.gguf" for n in range(1, total + 1) if n not in parts
    )
    path = listed[0].path
    return Candidate(listed, quant_of(path), _base(path.rpartition("/")[2]), missing)


def _stem(name: str) -> str:
    """A file's name without .gguf and without its part."""
    return _PART.sub("", re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE))


def _base(name: str) -> str:
    """A file's name without its last quant; the same for all quants of a model."""
    stem = _stem(name)
    if found := list(_QUANT.finditer(stem)):
        stem = stem[: found[-1].start()] + stem[found[-1].end() :]
    return stem.strip("-._").casefold()
