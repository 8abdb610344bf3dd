"""A temporary file: in memory on Linux, else in the first folder that can be written.

The folders are the system's for temporary files (TMPDIR), then lcp's cache.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from lcp import paths
from lcp.errors import NativeError


@contextmanager
def scratch() -> Iterator[tuple[BinaryIO, Path]]:
    """An empty file, and a path with which this process can open it again.

    Raises NativeError if no folder can be written, or not so much.
    """
    try:
        with ExitStack() as life:
            yield _in_memory(life) or _in_a_folder(life)
    except OSError as error:  # of the caller's writes, or when closing the file writes the rest
        raise NativeError(
            f"lcp cannot write a temporary file: {error.strerror}. Check the free space of TMPDIR, "
            "and ulimit -f."
        ) from error


def _in_memory(life: ExitStack) -> tuple[BinaryIO, Path] | None:
    """A file in memory (Linux); None if the system has none or /proc is not mounted."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        file = life.enter_context(os.fdopen(os.memfd_create("lcp"), "w+b"))
    except OSError:
        return None
    path = Path(f"/proc/self/fd/{file.fileno()}")
    return (file, path) if path.exists() else None


def _in_a_folder(life: ExitStack) -> tuple[BinaryIO, Path]:
    why: OSError | None = None
    for parent in (None, paths.cache()):
        try:
            if parent:
                parent.mkdir(parents=True, exist_ok=True)
            folder = life.enter_context(tempfile.TemporaryDirectory(dir=parent))
            path = Path(folder) / "scratch"
            return life.enter_context(path.open("w+b")), path
        except OSError as error:
            why = error
    raise NativeError(
        f"lcp cannot create a temporary file: {why and why.strerror}. "
        "Set TMPDIR to a folder you can write to."
    )
