"""llama.cpp, started quietly: its environment, its log, its traps, and the byte that stops it.

`library()` gives the low-level C functions. It knows no model and no context.
"""

import ctypes
import functools
import os
from collections import deque
from collections.abc import Callable
from typing import Any

from lcp.errors import NativeError
from lcp.paths import distribution
from lcp.submodule_import import import_submodule

# The abort callback is asked for every node of the graph, some 1,400 times a token. As a Python
# function that costs several percent; libc's strlen over a buffer is as good a predicate:
# "" -> 0 goes on, "x" -> 1 stops.
_STRLEN = "strlen"
# What llama.cpp finds in its environment, unless the person has set it.
ENVIRONMENT = {
    # By default libgomp's threads spin at barriers: beside a second llama process a token then
    # takes seconds. 1000 spins keep the idle speed.
    "GOMP_SPINCOUNT": "1000",
    # A failed assert otherwise starts gdb for a backtrace.
    "GGML_NO_BACKTRACE": "1",
}
_kept_alive: list[Any] = []


class NativeLog:
    """What llama.cpp says, kept for error messages; `echo`, where there is one, gets each line."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=400)
        self.echo: Callable[[str], None] | None = None
        self._open = ""  # llama.cpp writes some lines in pieces

    def write(self, level: int, text: bytes) -> None:
        """One message of llama.cpp; level 1 is debug, 5 continues the line before."""
        if level == 1:
            return
        self._open += text.decode("utf-8", "replace")
        *lines, self._open = self._open.split("\n")
        self.lines.extend(lines)
        if self.echo:
            for line in lines:
                self.echo(line)

    def find(self, *parts: str) -> str:
        """The newest kept line that contains one of the parts, or ""."""
        return next((x for x in reversed(self.lines) if any(p in x for p in parts)), "")


log = NativeLog()


class StopByte:
    """A flag that Python sets and llama.cpp's graph loop reads, with no Python in between."""

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(2)

    def set(self) -> None:
        self._bytes[0] = b"x"

    def clear(self) -> None:
        self._bytes[0] = b"\0"

    def is_set(self) -> bool:
        return self._bytes[0] != b"\0"

    @property
    def address(self) -> ctypes.c_void_p:
        """The `data` argument of the abort callback."""
        return ctypes.cast(self._bytes, ctypes.c_void_p)


@functools.cache
def abort_callback() -> Any:
    """A `ggml_abort_callback` that is true while the StopByte it is given is set."""
    libc = ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)
    address = ctypes.cast(getattr(libc, _STRLEN), ctypes.c_void_p).value
    return library().ggml_abort_callback(address)


@functools.cache
def library() -> Any:
    """The module of llama.cpp's C functions, loaded once, its log redirected."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        # llama_cpp/__init__ imports the high-level Llama and numpy: every answer would wait 0.13 s
        c = import_submodule("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        raise NativeError(
            f"llama-cpp-python cannot be loaded here: {error}. "
            "Install it again: pip install --force-reinstall --no-cache-dir llama-cpp-python"
        ) from error
    callback = c.llama_log_callback(lambda level, text, _: log.write(level, text))
    _kept_alive.append(callback)  # C holds only a pointer
    c.llama_log_set(callback, None)
    c.llama_backend_init()
    return c


@functools.cache
def version() -> str:
    """The version of llama-cpp-python."""
    if about := distribution("llama-cpp-python"):
        return about.name.removesuffix(".dist-info").partition("-")[2]
    from importlib.metadata import version as find

    return find("llama-cpp-python")


def symbol(name: str) -> Any:
    """A function of llama.cpp or ggml that llama-cpp-python does not bind; None when the libraries
    do not have it. Its argument and result types are the caller's to set."""
    return next((getattr(part, name) for part in _parts() if hasattr(part, name)), None)


@functools.cache
def _parts() -> list[Any]:
    """The shared libraries by themselves: Windows does not look through one into the next."""
    load = import_submodule("llama_cpp._ctypes_extensions").load_shared_library
    return [load(name, library()._base_path) for name in ("llama", "ggml", "ggml-base")]


def extra_bufts() -> bool:
    """Whether weights may be repacked for special CPU instructions.

    Built by GCC 12 on a CPU with AMX, the first decode of a quantised model dies with SIGSEGV at
    `ldtilecfg` in ggml_backend_amx_mul_mat (llama.cpp #20824). Without the extra buffer types
    decode is as fast and prefill at most 8 % slower. LCP_EXTRA_BUFTS=1 or =0 overrides.
    """
    forced = os.environ.get("LCP_EXTRA_BUFTS")
    if forced:
        return forced != "0"
    return b"AMX_INT8 = 1" not in library().llama_print_system_info()


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can offload layers, and a device is there for it."""
    return bool(library().llama_supports_gpu_offload())
