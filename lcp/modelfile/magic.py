"""Magic: the first bytes of a file: a GGUF that can be read, or what it is instead."""

import re
import struct

from lcp.errors import GgufError
from lcp.modelfile.ahead import Ahead

_OTHERS = (
    (rb"\s*<(!DOCTYPE|html|\?xml)", "but a web page: give the address of the file itself."),
    (rb"version https://git-lfs", "but a git-lfs pointer to one. Run: git lfs pull"),
    (rb"tjgg|ggjt|GGJT|lmgg|fmgg|ggml|GGML", "but its predecessor GGML: fetch a newer conversion."),
    (rb"algg|ggla|GGLA", "but an old LoRA adapter: give the model's own file."),
    (rb'(?s).{8}\{"', "but a safetensors file: fetch the GGUF of this model."),
    (rb"PK", "but a zip, perhaps of PyTorch: fetch the GGUF of this model."),
    (rb"\0*$", "but full of zeros: an interrupted download? Fetch it again."),
    (rb"\{", "but JSON: give the address of the file itself."),
)


def begin(ahead: Ahead) -> tuple[int, str]:
    """Magic and version: is it a GGUF at all, and which one."""
    head = ahead.peek(64)
    if not head:
        raise GgufError(f"{ahead.name} is empty. An interrupted download? Fetch it again.")
    if not head.startswith(b"GGUF"[: len(head)]):
        raise GgufError(f"{ahead.name} is no GGUF file{_what_else(head)}")
    if len(head) < 24:
        raise GgufError(
            f"{ahead.name} has only {len(head)} bytes, no whole header. Download it again."
        )
    little, big = struct.unpack_from("<I", head, 4)[0], struct.unpack_from(">I", head, 4)[0]
    # gguf.cpp: a version with nothing in its low half was written the other way round
    version, endian = (big, "big") if little and not little & 0xFFFF else (little, "little")
    if version not in (2, 3):
        newer = "Update lcp." if version > 3 else "Fetch a newer conversion of the model."
        raise GgufError(
            f"{ahead.name} is GGUF version {version}; versions 2 and 3 are read. {newer}"
        )
    ahead.take(8, "the version")
    return version, endian


def _what_else(head: bytes) -> str:
    for pattern, told in _OTHERS:
        if re.match(pattern, head, re.IGNORECASE if head[:1] in b"< \n\r\t" else 0):
            return f", {told}"
    return f" (it begins with {head[:4]!r}). Give the path of a .gguf file."
