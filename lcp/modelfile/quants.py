"""Quants: the number formats of tensors, by gguf's tables: names, and the bytes of a block."""

import functools
from typing import Any

from lcp.submodule_import import import_submodule


@functools.cache
def quants() -> dict[int, tuple[str, int, int]]:
    """Type of a tensor -> its name, how many numbers a block has, and how many bytes."""
    sizes = constants().GGML_QUANT_SIZES
    return {int(quant): (quant.name, *block) for quant, block in sizes.items()}


def file_quant(file_type: int) -> str:
    """The name of the quant with this `general.file_type`: "Q4_K_M"; "" if unknown.

    llama.h adds 1024 to a value that it guessed.
    """
    return next((n for n, number in file_types().items() if number == file_type & ~1024), "")


@functools.cache
def file_types() -> dict[str, int]:
    """The names of quants, as people name them -> their numbers in llama.h's llama_ftype."""
    kinds = ((t.name, int(t)) for t in constants().LlamaFileType if t.name != "GUESSED")
    return {
        name.removeprefix("MOSTLY_").removeprefix("ALL_").removesuffix("_MOE"): number
        for name, number in kinds
    }


def constants() -> Any:
    """gguf's tables; the package itself would import numpy and more."""
    return import_submodule("gguf.constants")
