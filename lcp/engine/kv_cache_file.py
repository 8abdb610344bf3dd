"""Saves the KV cache of a chat in a file, so that resuming the chat evaluates nothing again.

llama.cpp's own state files crash the process when they are truncated, and it does not notice
flipped bytes. This file is used only if its length and hash are right and it was made by the same
build, with the same model and the same kind of cache.

    magic, 8 bytes | header length, u64 | header, JSON | blob length, u64 | blob | blake2b, 32 bytes
"""

import ctypes
import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcp.engine.context import State

MAGIC = b"lcpkv\x00\x01\n"
_U64 = struct.Struct("<Q")
_HASH = 32
_PIECE = 8 << 20


@dataclass(frozen=True)
class Unusable:
    """Why a file cannot be used, as the end of a sentence."""

    why: str


def write(
    path: Path,
    state: State,
    fingerprint: Mapping[str, Any],
    cancelled: Callable[[], bool] = lambda: False,
) -> int:
    """Write a state to a file. Returns its size in bytes, 0 if it was cancelled.

    The file gets its name only when it is completely on the disk: after a crash there is the old
    file or none. Raises OSError.
    """
    facts = {
        "fingerprint": dict(fingerprint),
        "tokens": state.tokens,
        "positions": state.positions,
    }
    header = json.dumps(facts, separators=(",", ":")).encode()
    digest = hashlib.blake2b(digest_size=_HASH)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "wb") as file:
            blob = memoryview(state.blob).cast("B")
            pieces: list[bytes | memoryview] = [
                MAGIC,
                _U64.pack(len(header)),
                header,
                _U64.pack(len(blob)),
            ]
            pieces += [blob[at : at + _PIECE] for at in range(0, len(blob), _PIECE)]
            for piece in pieces:
                if cancelled():
                    part.unlink()
                    return 0
                digest.update(piece)
                file.write(piece)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    return size


def made_with(path: Path) -> dict[str, Any]:
    """What the cache in a file was made with, according to its header; {} without a file."""
    damaged = (ValueError, LookupError, TypeError, RecursionError, struct.error)
    with suppress(OSError, *damaged), path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            (length,) = _U64.unpack(file.read(_U64.size))
            return dict(json.loads(file.read(min(length, _PIECE)))["fingerprint"])
    return {}


def read(path: Path, fingerprint: Mapping[str, Any]) -> State | Unusable | None:
    """The state in a file; Unusable if the file cannot be used; None if there is no file."""
    try:
        with path.open("rb") as file:
            data = bytearray(os.fstat(file.fileno()).st_size)
            del data[file.readinto(data) :]
    except FileNotFoundError:
        return None
    except OSError as error:
        return Unusable(f"cannot be read ({error.strerror or error})")
    except MemoryError:
        return Unusable("does not fit in the free memory")
    body, digest = memoryview(data)[:-_HASH], data[-_HASH:]
    if not data.startswith(MAGIC) or hashlib.blake2b(body, digest_size=_HASH).digest() != digest:
        return Unusable("is damaged")
    # The hash is right, so the rest is complete and was written by lcp.
    at = len(MAGIC)
    (length,) = _U64.unpack_from(body, at)
    at += _U64.size
    facts = json.loads(bytes(body[at : at + length]))
    at += length + _U64.size
    made_by = facts["fingerprint"]
    for name, value in fingerprint.items():
        if made_by.get(name) != value:
            return Unusable(f"was made with another {name}")
    blob = (ctypes.c_uint8 * (len(body) - at)).from_buffer(data, at)
    return State(facts["tokens"], facts["positions"], blob)
