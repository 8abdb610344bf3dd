"""Loads llama.cpp: its environment, its log, workarounds, and the byte that stops it.

`library()` returns the module of its C functions.
"""

import ctypes
import functools
import importlib.util
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from lcp.errors import NativeError

# llama.cpp calls the abort callback for every node of the graph, about 1,400 times per token. A
# Python function would slow it by several percent. libc's strlen of a buffer does the same:
# "" -> 0 continues, "x" -> 1 stops.
_STRLEN = "strlen"
_kept_alive: list[Any] = []


class NativeLog:
    """The last lines of llama.cpp's log, for error messages. `echo` is called with each line."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=400)
        self.echo: Callable[[str], None] | None = None
        self._open = ""  # llama.cpp writes some lines in pieces

    def write(self, level: int, text: bytes) -> None:
        """Take a message of llama.cpp. Level 1 is debug; level 5 continues a line."""
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
    """A flag that Python sets and llama.cpp reads while it computes, without calling Python."""

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
    """The module of llama.cpp's C functions, loaded once, with its log redirected."""
    # By default libgomp's threads spin at barriers. With a second llama.cpp process running, a
    # token then takes seconds. With 1000 spins, speed on an idle machine is the same.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Otherwise a failed assert starts gdb for a backtrace.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    try:
        c = _bindings()
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


def _bindings() -> Any:
    """`llama_cpp.llama_cpp` without running `llama_cpp/__init__`, which imports the high-level
    Llama, numpy and more, and would delay the first answer by 0.13 s."""
    if "llama_cpp" not in sys.modules:
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None:
            raise ImportError("there is no package llama_cpp")
        sys.modules["llama_cpp"] = importlib.util.module_from_spec(spec)
    return importlib.import_module("llama_cpp.llama_cpp")


def symbol(name: str) -> Any:
    """A function of llama.cpp or ggml that llama-cpp-python does not bind; None if there is none of
    this name. The caller sets its argument and result types."""
    return next((getattr(part, name) for part in _parts() if hasattr(part, name)), None)


@functools.cache
def _parts() -> list[Any]:
    """Each shared library: Windows does not find a symbol of one library through another."""
    load = importlib.import_module("llama_cpp._ctypes_extensions").load_shared_library
    return [load(name, library()._base_path) for name in ("llama", "ggml", "ggml-base")]


def extra_bufts() -> bool:
    """Whether llama.cpp may repack weights for special CPU instructions.

    Not on a CPU with AMX: built by GCC 12, llama.cpp crashes there in the first decode of a
    quantized model (SIGSEGV at `ldtilecfg` in ggml_backend_amx_mul_mat, llama.cpp #20824). Without
    repacking, decode is as fast and prefill at most 8 % slower. LCP_EXTRA_BUFTS=1 or =0 overrides.
    """
    forced = os.environ.get("LCP_EXTRA_BUFTS")
    if forced:
        return forced != "0"
    return b"AMX_INT8 = 1" not in library().llama_print_system_info()


def supports_gpu() -> bool:
    """Whether this build of llama.cpp can offload layers, and there is a device for them."""
    return bool(library().llama_supports_gpu_offload())
