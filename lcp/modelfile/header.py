"""The header of a GGUF file: everything before the weights, read strictly, without the vocabulary.

It reads with `read(offset, n)`, so the file may be on a server. Every length is checked against a
limit and against the rest of the file before anything is read or allocated. Values are as in the
file; the caller interprets them.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; llama.cpp reads it in gguf.cpp.
"""

import math
import re
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from lcp.errors import GgufError
from lcp.formatting import count
from lcp.modelfile.block_reader import BlockReader
from lcp.modelfile.quants import quants

Read = Callable[[int, int], bytes]

# Limits far above those of real files.
MAX_HEADER = 256 << 20
MAX_KEYS, MAX_TENSORS = 65_536, 1_048_576
MAX_KEPT = 32 << 20  # bytes of the keys without the vocabulary
MAX_KEY, MAX_STRING = 65_535, 16 << 20
MAX_ALIGNMENT = 1 << 20
MAX_DIMS, MAX_NAME = 4, 63  # ggml.h: GGML_MAX_DIMS, GGML_MAX_NAME - 1
# Elements of an array that are kept: all numbers of a short one, the first ones of any other.
_SHORT, _FIRST = 1024, 8
# GGUF value types -> struct's letter
_NUMBERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_UINT32, _BOOL, _STRING, _ARRAY = 4, 7, 8, 9
# Left out of `Header.keys`: the vocabulary, and which part of a model the file is.
_NOT_KEPT = ("tokenizer.", "split.")
# First bytes of a file that is not GGUF -> what it is instead
_OTHERS = (
    (rb"\s*<(!DOCTYPE|html|\?xml)", "but a web page. Give the address of the file itself."),
    (rb"version https://git-lfs", "but a git-lfs pointer. Get the file with: git lfs pull"),
    (rb"tjgg|ggjt|GGJT|lmgg|fmgg|ggml|GGML", "but an older GGML file. Use a newer conversion."),
    (rb"algg|ggla|GGLA", "but an old LoRA adapter. Give the model's own file."),
    (rb'(?s).{8}\{"', "but a safetensors file. Get the GGUF of this model."),
    (rb"PK", "but a zip file, perhaps of PyTorch. Get the GGUF of this model."),
    (rb"\0*$", "but full of zeros, as after an interrupted download. Download it again."),
    (rb"\{", "but JSON. Give the address of the file itself."),
)


@dataclass(frozen=True)
class GgufArray:
    """An array of a GGUF file, without the elements of a long one."""

    kind: int  # GGUF value type of its elements
    count: int
    first: tuple[Any, ...]  # numbers and bools: all up to 1024, else the first 8; strings: 8


@dataclass(frozen=True)
class TensorInfo:
    """The place, shape and type of a tensor. The first dimension is contiguous in memory."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # within the tensor data

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def quant(self) -> str:
        """The name of its type: "Q4_K", "F32"; "type 99" if gguf has no name for it."""
        return quants()[self.type][0] if self.type in quants() else f"type {self.type}"

    @property
    def n_bytes(self) -> int | None:
        """Its size without padding; None if the type is not known."""
        if self.type not in quants():
            return None
        _, block, size = quants()[self.type]
        return self.elements // block * size


@dataclass(frozen=True)
class Header:
    """What a GGUF file says about itself."""

    version: int
    endian: str  # "little" | "big"
    alignment: int
    values: dict[str, Any]  # key -> int | float | bool | str | GgufArray
    tensors: tuple[TensorInfo, ...]
    data_start: int  # where the tensor data begins in the file
    data_size: int  # bytes of tensor data, each tensor padded; those of unknown type count as 0
    keys: bytes  # raw pairs, without tokenizer.* and split.*
    n_keys: int  # the number of these pairs
    infos: bytes  # raw tensor infos

    @property
    def architecture(self) -> str:
        """The value of general.architecture, such as "llama"; "" if there is none."""
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """A text; "" if the key is missing or has another type."""
        value = self.values.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """A whole number >= 0, or the largest of a list (one per layer); else None."""
        value = self.values.get(key)
        numbers = value.first if isinstance(value, GgufArray) else (value,)
        return max((x for x in numbers if type(x) is int and x >= 0), default=None)

    def arch_number(self, key: str) -> int | None:
        """The number under a key of the architecture: "block_count" for "llama.block_count"."""
        return self.number(f"{self.architecture}.{key}")


def read_header(
    read: Read,
    size: int | None,
    name: str,
    limit: int = MAX_HEADER,
    whole: Collection[str] = (),
) -> Header:
    """The header of the file `name`; `size` is None if it is not known. `whole`: keys of arrays of
    strings that are kept with all their elements.

    Raises GgufError if it is not GGUF, cut off, damaged, or would mislead llama.cpp.
    """
    reader = BlockReader(read, size, name, limit)
    version, endian = _begin(reader)
    parse = _Parser(reader, "<" if endian == "little" else ">", whole)
    n_tensors = parse.count("tensors", MAX_TENSORS, least=24)
    n_pairs = parse.count("keys", MAX_KEYS, least=13)
    values, keys, n_keys = parse.pairs(n_pairs)
    alignment = values.get("general.alignment", 32)
    tensors, infos = parse.tensors(n_tensors)
    data_size = _check_offsets(reader, tensors, alignment)
    start = _padded(reader.at, alignment) if tensors else reader.at
    return Header(
        version, endian, alignment, values, tensors, start, data_size, keys, n_keys, infos
    )


def _begin(reader: BlockReader) -> tuple[int, str]:
    """Check that it is a GGUF file; its version and byte order."""
    head = reader.peek(64)
    if not head:
        raise GgufError(
            f"{reader.name} is empty, as after an interrupted download. Download it again."
        )
    if not head.startswith(b"GGUF"[: len(head)]):
        raise GgufError(f"{reader.name} is not a GGUF file{_what_else(head)}")
    if len(head) < 24:
        raise GgufError(
            f"{reader.name} has only {count(len(head), 'byte')}, less than a header. "
            "Download it again."
        )
    little, big = struct.unpack_from("<I", head, 4)[0], struct.unpack_from(">I", head, 4)[0]
    # gguf.cpp: a version whose low half is zero was written in the other byte order
    version, endian = (big, "big") if little and not little & 0xFFFF else (little, "little")
    if version not in (2, 3):
        newer = "Update lcp." if version > 3 else "Use a newer conversion of the model."
        raise GgufError(
            f"{reader.name} is GGUF version {version}; lcp reads versions 2 and 3. {newer}"
        )
    reader.take(8, "the version")
    return version, endian


def _what_else(head: bytes) -> str:
    for pattern, what in _OTHERS:
        if re.match(pattern, head, re.IGNORECASE if head[:1] in b"< \n\r\t" else 0):
            return f" {what}"
    begin = ascii(head[:4].decode("latin-1"))[1:-1]
    return f' (it starts with "{begin}"). Give the path of a .gguf file.'


class _Parser:
    """Parses the sections of a header, in their order."""

    def __init__(self, reader: BlockReader, order: str, whole: Collection[str]) -> None:
        self._reader = reader
        self._whole = whole
        self._structs = {kind: struct.Struct(order + c) for kind, c in _NUMBERS.items()}
        self._length = struct.Struct(order + "Q")

    def count(self, what: str, most: int, least: int) -> int:
        """The number of items that follow; each has at least `least` bytes."""
        n = self._u64(f"the number of {what}")
        if n > most:
            raise self._reader.damaged(f"it claims to have {n:,} {what}")
        self._reader.check(n * least, f"the list of its {n:,} {what}")
        return n

    def pairs(self, n: int) -> tuple[dict[str, Any], bytes, int]:
        """The metadata, the raw bytes of the pairs that are kept, and their number."""
        values: dict[str, Any] = {}
        seen: set[bytes] = set()
        kept: list[bytes] = []
        size = 0
        for i in range(n):
            start = self._reader.at
            raw = self._string(f"key {i + 1} of {n}", MAX_KEY)
            key = raw.decode("utf-8", "replace")
            if not raw or raw in seen:
                raise self._reader.damaged(
                    f"the key {key} appears twice" if raw else "a key is empty"
                )
            seen.add(raw)
            kind = self._u32(key)
            values[key] = self._value(key, kind)
            if key == "general.alignment":
                self._check_alignment(values[key], kind)
            if not key.startswith(_NOT_KEPT):
                kept.append(self._reader.since(start))
                size += len(kept[-1])
                if size > MAX_KEPT:
                    raise self._reader.damaged(f"its keys up to {key} have {size:,} bytes")
        return values, b"".join(kept), len(kept)

    def tensors(self, n: int) -> tuple[tuple[TensorInfo, ...], bytes]:
        """The tensor infos, parsed and raw."""
        infos: dict[str, TensorInfo] = {}
        start = self._reader.at
        for i in range(n):
            info = self._tensor(f"tensor {i + 1} of {n}")
            if info.name in infos:
                raise self._reader.damaged(f"the tensor {info.name} appears twice")
            infos[info.name] = info
        return tuple(infos.values()), self._reader.since(start)

    def _tensor(self, which: str) -> TensorInfo:
        damaged = self._reader.damaged
        name = self._string(f"the name of {which}", MAX_NAME).decode("utf-8", "replace")
        n_dims = self._u32(f"the shape of {name}")
        if n_dims > MAX_DIMS:
            raise damaged(f"the tensor {name} has {n_dims:,} dimensions; the maximum is 4")
        shape = tuple(self._u64(f"the shape of {name}") for _ in range(n_dims))
        info = TensorInfo(
            name, shape, self._u32(f"the type of {name}"), self._u64(f"the place of {name}")
        )
        if not 0 < info.elements < 2**63:
            raise damaged(f"the tensor {name} has an impossible shape, {list(shape)}")
        _, block, _ = quants().get(info.type, ("", 1, 0))
        if (shape[0] if shape else 1) % block:
            raise damaged(f"rows of the tensor {name} are not whole blocks of {info.quant}")
        return info

    def _value(self, key: str, kind: int) -> Any:
        if kind in self._structs:
            return self._number(kind, key)
        if kind == _STRING:
            return self._string(key, MAX_STRING).decode("utf-8", "replace")
        if kind != _ARRAY:
            raise self._reader.damaged(f"{key} has a value of the unknown type {kind}")
        kind, count = self._u32(key), self._u64(key)
        if kind == _STRING:
            return self._strings(key, count)
        if kind == _ARRAY:
            raise self._reader.damaged(f"{key} is an array of arrays, which no model has")
        if kind not in self._structs:
            raise self._reader.damaged(f"{key} is an array of the unknown type {kind}")
        return self._numbers(key, kind, count)

    def _numbers(self, key: str, kind: int, count: int) -> GgufArray:
        number = self._structs[kind]
        self._check_array(key, count, number.size)
        shown = count if count <= _SHORT else _FIRST
        first = number.iter_unpack(self._reader.take(shown * number.size, key))
        self._reader.skip((count - shown) * number.size, key)
        return GgufArray(kind, count, tuple(value for (value,) in first))

    def _strings(self, key: str, count: int) -> GgufArray:
        self._check_array(key, count, 8)
        shown = count if key in self._whole else min(count, _FIRST)
        raw = [self._string(key, MAX_STRING) for _ in range(shown)]
        self._reader.skip_strings(count - shown, key, self._length, MAX_STRING)
        return GgufArray(_STRING, count, tuple(text.decode("utf-8", "replace") for text in raw))

    def _check_array(self, key: str, count: int, width: int) -> None:
        if count * width > MAX_HEADER:
            raise self._reader.damaged(f"{key} claims to be an array of {count:,}")
        self._reader.check(count * width, f"the array {key} of {count:,}")

    def _check_alignment(self, value: Any, kind: int) -> None:
        if kind != _UINT32:
            raise self._reader.damaged("general.alignment is not a 32-bit number")
        if not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
            raise self._reader.damaged(f"its alignment is {value:,}, not a power of two up to 2^20")

    def _string(self, what: str, most: int) -> bytes:
        n = self._u64(what)
        if n > most:
            raise self._reader.damaged(f"{what} claims to be {n:,} bytes long")
        return self._reader.take(n, what)

    def _number(self, kind: int, what: str) -> Any:
        number = self._structs[kind]
        return number.unpack(self._reader.take(number.size, what))[0]

    def _u32(self, what: str) -> int:
        return self._number(_UINT32, what)

    def _u64(self, what: str) -> int:
        return self._length.unpack(self._reader.take(8, what))[0]


def _check_offsets(reader: BlockReader, tensors: tuple[TensorInfo, ...], alignment: int) -> int:
    """The size of the data; llama.cpp requires that tensors follow each other without gaps."""
    end: int = 0
    known = True  # whether the size of the previous tensor is known
    for t in tensors:
        if t.offset % alignment:
            raise reader.damaged(f"the data of {t.name} is not aligned to {alignment} bytes")
        if t.offset != end and (known or not end <= t.offset < 2**63):
            raise reader.damaged(f"the data of {t.name} is at {t.offset:,}, not at {end:,}")
        known = t.n_bytes is not None
        end = _padded(t.offset + (t.n_bytes or 0), alignment)
    return end


def _padded(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment
