"""Weights: the tensors of a model file as numbers, some rows at a time; and the merges of its
vocabulary."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.errors import NotSupported
from lcp.modelfile.header import TensorInfo, read_header
from lcp.modelfile.model_files import local
from lcp.modelfile.quants import constants

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float32]]


class Weights:
    """The tensors of a model in one or several files. Nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        model = local(path)
        self._places = {
            tensor.name: (path.with_name(part.name), part.header.data_start + tensor.offset)
            for part in model.parts
            for tensor in part.header.tensors
        }
        self.tensors = {tensor.name: tensor for tensor in model.header.tensors}

    def rows(self, name: str, begin: int = 0, end: int | None = None) -> "Floats":
        """Rows of a tensor as float32: (end - begin, numbers of a row). NotSupported if gguf
        cannot read its quant."""
        import numpy as np

        tensor, (file, start) = self.tensors[name], self._places[name]
        count = row_count(tensor)
        end = count if end is None else min(end, count)
        size = (tensor.n_bytes or 0) // count
        with file.open("rb") as opened:
            opened.seek(start + begin * size)
            raw = np.frombuffer(opened.read((end - begin) * size), np.uint8)
        constants()  # gguf without its __init__
        try:
            found = importlib.import_module("gguf.quants").dequantize(
                raw.reshape(end - begin, size),
                constants().GGMLQuantizationType(tensor.type),
            )
        except (NotImplementedError, ValueError) as error:
            raise NotSupported(
                f"The package gguf cannot read {tensor.quant}, the quant of {name}. "
                "Use another quant of this model."
            ) from error
        rows: Floats = found.astype(np.float32, copy=False)
        return rows


def row_count(tensor: TensorInfo) -> int:
    """How many rows a tensor has; a row is contiguous in memory."""
    return tensor.elements // tensor.shape[0]


def merges(path: Path) -> list[tuple[str, str]]:
    """The pairs that a byte-pair vocabulary merges, the first ones first; [] if it has no list."""
    key = "tokenizer.ggml.merges"
    with path.open("rb") as file:

        def read(offset: int, n: int) -> bytes:
            file.seek(offset)
            return file.read(n)

        header = read_header(read, path.stat().st_size, path.name, whole=(key,))
    found = header.values.get(key)
    pairs = (pair.partition(" ") for pair in found.first) if found else ()
    return [(left, right) for left, _, right in pairs]
