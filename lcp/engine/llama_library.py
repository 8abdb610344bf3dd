"""Loads llama.cpp: its environment, its log, its pitfalls, and the byte that stops it.

`library()` returns the low-level C functions.
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

# llama.cpp calls the abort callback for every node of the graph, about 1,400 times a token. A
# Python function would take several percent of the time. The C library's strlen on a buffer works,
# too: "" -> 0 continues, "x" -> 1 stops.
_STRLEN = "strlen"
# Environment variables for llama.cpp, unless the person has set them.
ENVIRONMENT = {
    # By default, libgomp's threads spin at barriers: if a second llama.cpp process runs, a token
    # takes seconds. With 1000 spins it does not, and an idle machine is as fast as before.
    "GOMP_SPINCOUNT": "1000",
    # Otherwise, a failed assert starts gdb for a backtrace.
    "GGML_NO_BACKTRACE": "1",
}
# What the log says of a KV cache type that the model or its attention does not allow.
KV_TYPE_REFUSED = ("quantization requires", "requires flash_attn", "block size")
_kept_alive: list[Any] = []


class NativeLog:
    """llama.cpp's log, kept for error messages. `echo`, if it is set, gets each line."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=400)
        self.echo: Callable[[str], None] | None = None
        self._open = ""  # llama.cpp writes some lines in pieces

    def write(self, level: int, text: bytes) -> None:
        """Add a message of llama.cpp. Level 1 is debug; level 5 continues the last line."""
        if level == 1:
            return
        self._open += text.decode("utf-8", "replace")
        *lines, self._open = self._open.split("\n")
        self.lines.extend(lines)
        if self.echo:
            for line in lines:
                self.echo(line)

    def find(self, *parts: str) -> str:
        """The newest line that contains one of the parts; "" if there is none."""
        return next((x for x in reversed(self.lines) if any(p in x for p in parts)), "")


log = NativeLog()


class StopByte:
    """A flag that Python sets and llama.cpp reads at each node, without calling Python."""

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
    """A `ggml_abort_callback` that returns true while its StopByte is set."""
    libc = ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)
    address = ctypes.cast(getattr(libc, _STRLEN), ctypes.c_void_p).value
    return library().ggml_abort_callback(address)


@functools.cache
def library() -> Any:
    """The module of llama.cpp's C functions. It is loaded once, with its log redirected."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        # llama_cpp/__init__ imports the high-level Llama and numpy, which takes 0.13 s
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
    """A function of llama.cpp or ggml that llama-cpp-python does not bind; None if the libraries do
    not have it. The caller sets its argument and result types."""
    return next((getattr(part, name) for part in _parts() if hasattr(part, name)), None)


@functools.cache
def _parts() -> list[Any]:
    """The shared libraries, one by one: on Windows, a library does not show symbols of others."""
    load = import_submodule("llama_cpp._ctypes_extensions").load_shared_library
    return [load(name, library()._base_path) for name in ("llama", "ggml", "ggml-base")]


def extra_bufts() -> bool:
    """Whether weights may be repacked for special CPU instructions.

    If GCC 12 built llama.cpp on a CPU with AMX, the first decode of a quantized model crashes with
    SIGSEGV at `ldtilecfg` in ggml_backend_amx_mul_mat (llama.cpp #20824). Without the extra buffer
    types, decoding is as fast and prefill is at most 8 % slower. LCP_EXTRA_BUFTS=1 or =0 overrides
    this.
    """
    forced = os.environ.get("LCP_EXTRA_BUFTS")
    if forced:
        return forced != "0"
    return b"AMX_INT8 = 1" not in library().llama_print_system_info()


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can offload layers to a device of this computer."""
    return bool(library().llama_supports_gpu_offload())
