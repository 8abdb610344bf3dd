"""GGUF files byte by byte, valid and invalid ones: gguf's own writer does not write these."""

import struct
from collections.abc import Iterable, Sequence
from typing import Any

LETTERS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
F32_TENSOR, Q4_0_TENSOR, Q4_K_TENSOR, Q8_0_TENSOR, Q8_1_TENSOR = 0, 2, 12, 8, 9
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    8: (32, 34),
    9: (32, 40),
    12: (256, 144),
    39: (32, 17),
}


def text(value: str | bytes, order: str = "<", length: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(f"{order}Q", len(raw) if length is None else length) + raw


def value(kind: int, it: Any, order: str = "<") -> bytes:
    return text(it, order) if kind == STRING else struct.pack(order + LETTERS[kind], it)


def pair(key: str | bytes, kind: int, it: Any, order: str = "<") -> bytes:
    """A key and its value; for an array `it` is (kind, elements)."""
    head = text(key, order) + struct.pack(f"{order}I", kind)
    if kind != ARRAY:
        return head + value(kind, it, order)
    kind, elements = it
    return head + array(kind, len(elements), (value(kind, x, order) for x in elements), order)


def array(kind: int, count: int, elements: Iterable[bytes] = (), order: str = "<") -> bytes:
    """The bytes after an array's key and type."""
    return struct.pack(f"{order}IQ", kind, count) + b"".join(elements)


def tensor(
    name: str | bytes, shape: Sequence[int], kind: int = 0, offset: int = 0, order: str = "<",
    dims: int | None = None,
) -> bytes:  # fmt: skip
    n = len(shape) if dims is None else dims
    where = struct.pack(f"{order}IQ", kind, offset)
    return text(name, order) + struct.pack(f"{order}I{len(shape)}Q", n, *shape) + where


def start(n_tensors: int, n_pairs: int, version: int = 3, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(f"{order}IQQ", version, n_tensors, n_pairs)


def laid_out(
    tensors: Sequence[tuple[str, Sequence[int], int]], order: str = "<", alignment: int = 32
) -> tuple[list[bytes], int]:
    """Consecutive tensor infos, and the size of the data."""
    infos, at = [], 0
    for name, shape, kind in tensors:
        infos.append(tensor(name, shape, kind, at, order))
        n = 1
        for dimension in shape:
            n *= dimension
        block, size = _BLOCKS[kind]
        at += -(-n // block * size // alignment) * alignment
    return infos, at


def gguf(
    pairs: Sequence[bytes] = (),
    tensors: Sequence[tuple[str, Sequence[int], int]] = (("a", (32,), 0), ("b", (32, 2), 0)),
    *,
    order: str = "<",
    version: int = 3,
    data: bool = True,
) -> bytes:
    """A whole file; without `data`, only its header."""
    infos, size = laid_out(tensors, order)
    head = start(len(infos), len(pairs), version, order) + b"".join([*pairs, *infos])
    padded = head + bytes(-len(head) % 32) if tensors else head
    return padded + bytes(size) if data else padded


def described(arch: str, /, **numbers: Any) -> list[bytes]:
    """The pairs of an architecture: `attention__head_count=4`; a list is an array a layer."""
    pairs = [pair("general.architecture", STRING, arch)]
    for name, number in numbers.items():
        key = f"{arch}.{name.replace('__', '.')}"
        if isinstance(number, list):
            kind = BOOL if isinstance(number[0], bool) else U32
            pairs.append(pair(key, ARRAY, (kind, number)))
        else:
            pairs.append(pair(key, STRING if isinstance(number, str) else U32, number))
    return pairs
