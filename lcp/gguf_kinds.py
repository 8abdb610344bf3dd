"""What a GGUF file is if it is not a chat model: a draft model, a projector, an adapter.

The header tells (`general.type`, `general.architecture`); if only the file name is known, its words
do. Rooms that read headers and rooms that list files share these rules.
"""

import re
import struct
from pathlib import Path

DRAFT = "a draft model for speculative decoding"
PROJECTOR = "a projector for images or sound"
ADAPTER = "a LoRA adapter"
MATRIX = "an importance matrix for quantizing"
VOCABULARY = "a vocabulary without weights"

# Words of file names, folders and architectures. Gemma 4 calls its draft model "assistant".
_DRAFT = r"mtp|drafts?|drafter|eagle-?\d?|medusa|dflash|dspark|speculator|assistant"
_WORDS = {
    _DRAFT: DRAFT,
    r"mmproj": PROJECTOR,
    r"loras?|adapters?": ADAPTER,
    r"imatrix": MATRIX,
    r"vocab": VOCABULARY,
}
_TYPES = {"adapter": ADAPTER, "imatrix": MATRIX, "mmproj": PROJECTOR, "vocab": VOCABULARY}
_DRAFTING = re.compile(rf"(?:^|[-_.])(?:{_DRAFT})$", re.IGNORECASE)

_PEEK = 1 << 14  # bytes of the first keys of a GGUF, which include these two
_STRING = 8  # GGUF value type
_LENGTHS = dict(enumerate((1, 1, 2, 2, 4, 4, 4, 1))) | {10: 8, 11: 8, 12: 8}


def by_word(word: str) -> str:
    """The kind that a word means; "" for any other word."""
    return next((k for words, k in _WORDS.items() if re.fullmatch(words, word, re.I)), "")


def by_header(architecture: str, type: str) -> str:
    """The kind that `general.architecture` and `general.type` mean; "" for a model."""
    if type.lower() in _TYPES:
        return _TYPES[type.lower()]
    if architecture == "clip":
        return PROJECTOR
    return DRAFT if _DRAFTING.search(architecture) else ""


def sentence(kind: str) -> str:
    """The error if a model was expected."""
    return f"This is {kind}, not a model to chat with. Give the model's own file."


def of(path: Path) -> str | None:
    """The kind of a file on this computer: "" for a model, None if its first bytes do not tell.
    It does not validate the file; lcp.modelfile.header does."""
    try:
        with path.open("rb") as file:
            head = file.read(_PEEK)
        if head[:4] != b"GGUF":
            return None
        values: dict[str, str] = {}
        at = 24  # magic, version, the numbers of tensors and of pairs
        while len(values) < 2:
            key, at = _text(head, at)
            (kind,) = struct.unpack_from("<I", head, at)
            at += 4
            if kind == _STRING:
                value, at = _text(head, at)
                if key in ("general.architecture", "general.type"):
                    values[key] = value
            elif kind in _LENGTHS:
                at += _LENGTHS[kind]
            else:  # a list: these two keys come before any list
                break
    except (OSError, ValueError):
        return None
    except struct.error:  # the end of the keys, or of the bytes that were read
        pass
    if not values:
        return None
    return by_header(values.get("general.architecture", ""), values.get("general.type", ""))


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A GGUF string, and the offset of its end."""
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise struct.error
    return data[at + 8 : end].decode("utf-8", "replace"), end
