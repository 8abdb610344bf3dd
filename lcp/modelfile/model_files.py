"""A model in one file or in several parts.

Names, headers and sizes tell whether the model is complete; its weights are never read.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from lcp.errors import GgufError, ModelNotFound
from lcp.modelfile.header import MAX_HEADER, Header, Read, TensorInfo, read_header
from lcp.split_names import part_name

MAX_REMOTE_HEADER = 64 << 20
_MAX_PARTS = 512


@dataclass(frozen=True)
class OpenFile:
    """A file that can be read; `size` is None if it is not known."""

    name: str
    size: int | None
    read: Read


@dataclass(frozen=True)
class FilePart:
    """One file of a model."""

    name: str
    size: int | None
    header: Header

    @property
    def end(self) -> int:
        """Where its last tensor ends; the padding after it may be missing."""
        if not self.header.tensors:
            return self.header.data_start
        last = self.header.tensors[-1]
        return self.header.data_start + last.offset + (last.n_bytes or 0)


@dataclass(frozen=True)
class ModelFile:
    """A model in one or several files.

    Its header has the values of the first part and the tensors of all parts, with offsets as in a
    single file. The headers of the parts have the real offsets.
    """

    name: str  # of the first part
    path: Path | None  # of the first part; None if it is not on this computer
    header: Header
    parts: tuple[FilePart, ...]
    missing: tuple[str, ...]  # file names of missing parts
    size_present: int  # bytes of the parts that exist
    size_expected: int  # bytes they should have
    complete: bool

    @property
    def header_only(self) -> bool:
        """Whether a part announces tensors and has none of their data."""
        sizes = [(p.size, p.header) for p in self.parts if p.header.tensors]
        return any(size is not None and size <= header.data_start for size, header in sizes)

    @property
    def trailing(self) -> int:
        """Unused bytes after the last tensor."""
        ends = [(p.size, p.header.data_start + p.header.data_size) for p in self.parts]
        return sum(max(0, size - end) for size, end in ends if size is not None)


def local(path: Path) -> ModelFile:
    """The model in a file on this computer, or with this part. ModelNotFound, GgufError."""
    with _opened(path):
        if path.is_dir():
            raise GgufError(_folder(path))
    path = path.absolute()
    model = open_model(path.name, lambda name: _file(path.with_name(name)), MAX_HEADER)
    return replace(model, path=path.with_name(model.name))


def open_model(
    name: str, open: Callable[[str], OpenFile], limit: int = MAX_REMOTE_HEADER
) -> ModelFile:
    """The model in the file `name`, which may be one of its parts.

    `open` returns the file of this name in the same folder, and raises ModelNotFound if there is
    none. `limit`: the largest header, in bytes.
    """
    first = _part(open(name), limit)
    count = _count(first)
    if _number(first.header, "split.no"):
        name = part_name(name, 1, count)
        try:
            first = _part(open(name), limit)
        except ModelNotFound as error:
            raise GgufError(
                f"{first.name} is a later part of a model, and its first part, {name}, is missing. "
                "Put all parts into one folder."
            ) from error
    parts, missing = [first], []
    for number in range(2, count + 1):
        sibling = part_name(name, number, count)
        try:
            parts.append(_part(open(sibling), limit))
        except ModelNotFound:
            missing.append(sibling)
    return _model(name, tuple(parts), tuple(missing))


def _model(name: str, parts: tuple[FilePart, ...], missing: tuple[str, ...]) -> ModelFile:
    header = _joined([part.header for part in parts])
    announced = _number(header, "split.tensors.count")
    if announced and not missing and announced != len(header.tensors):
        raise GgufError(
            f"The parts of {name} have {len(header.tensors):,} tensors together and should have "
            f"{announced:,}: they belong to different models. Download all parts again."
        )
    whole = all(part.size is None or part.size >= part.end for part in parts)
    return ModelFile(
        name=name,
        path=None,
        header=header,
        parts=parts,
        missing=missing,
        size_present=sum(part.end if part.size is None else part.size for part in parts),
        size_expected=sum(part.end for part in parts),
        complete=whole and not missing,
    )


def _joined(headers: list[Header]) -> Header:
    """The header that a single file with all the tensors would have."""
    first, *others = headers
    if not others:
        return first
    tensors = list(first.tensors)
    size = first.data_size
    for header in others:
        tensors += [replace(t, offset=t.offset + size) for t in header.tensors]
        size += -(-header.data_size // first.alignment) * first.alignment
    infos = b"".join(_packed(t, "<" if first.endian == "little" else ">") for t in tensors)
    return replace(first, tensors=tuple(tensors), data_size=size, infos=infos)


def _packed(t: TensorInfo, order: str) -> bytes:
    """A tensor info in the format of the file."""
    name = t.name.encode()
    n = len(t.shape)
    shape = struct.pack(f"{order}I{n}Q", n, *t.shape)
    return (
        struct.pack(f"{order}Q", len(name)) + name + shape
        + struct.pack(f"{order}IQ", t.type, t.offset)
    )  # fmt: skip


def _part(source: OpenFile, limit: int) -> FilePart:
    return FilePart(
        source.name, source.size, read_header(source.read, source.size, source.name, limit)
    )


def _count(part: FilePart) -> int:
    """How many parts the model has."""
    count = _number(part.header, "split.count") or 1
    if count > _MAX_PARTS:
        raise GgufError(
            f"{part.name} is damaged: it claims to have {count:,} parts. Use another file."
        )
    return count


def _number(header: Header, key: str) -> int:
    value = header.values.get(key)
    return value if type(value) is int and value > 0 else 0


def _file(path: Path) -> OpenFile:
    """A file on this computer."""

    def read(offset: int, n: int) -> bytes:
        with _opened(path), path.open("rb") as file:
            file.seek(offset)
            return file.read(n)

    with _opened(path):
        return OpenFile(path.name, path.stat().st_size, read)


def _folder(path: Path) -> str:
    found = sorted(p.name for p in path.glob("*.gguf"))
    if not found:
        return f"{path} is a folder without a .gguf file. Give the path of a .gguf file."
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"{path} is a folder. Give one of its files: {', '.join(found[:8])}{more}."


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        link = f"{path} is a link to a missing file." if path.is_symlink() else ""
        raise ModelNotFound(
            (link or f"There is no file {path}.") + " Give the path of a .gguf file."
        ) from error
    except OSError as error:
        raise GgufError(
            f"Cannot read {path}: {error.strerror}. Check its permissions, and the disk."
        ) from error
