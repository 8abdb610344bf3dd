"""The devices on which llama.cpp can compute, and their memory.

This runs in the child process: a GPU's driver may be slow or crash.
"""

import ctypes
from typing import Any

from lcp.engine.llama_library import supports_gpu, symbol

# ggml-backend.h: enum ggml_backend_dev_type
_KINDS = ("cpu", "gpu", "igpu", "accel", "meta")


def devices() -> dict[str, Any]:
    """All devices, with their free and total bytes (0 and 0 if unknown)."""
    count = _function("ggml_backend_dev_count", ctypes.c_size_t)
    get = _function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
    return {
        "ok": True,
        "gpu": supports_gpu(),
        "devices": [_facts(get(i)) for i in range(count())],
    }


def device_name(device: int) -> str:
    """ggml's name of a device: "CPU", "CUDA0"."""
    name = _function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
    return name(device).decode("utf-8", "replace")


def device_kind(device: int) -> str:
    """One of _KINDS."""
    kind = _function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)(device)
    return _KINDS[kind] if 0 <= kind < len(_KINDS) else str(kind)


def _facts(device: int) -> dict[str, Any]:
    described = _function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
    size = ctypes.POINTER(ctypes.c_size_t)
    memory = _function("ggml_backend_dev_memory", None, ctypes.c_void_p, size, size)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    memory(device, ctypes.byref(free), ctypes.byref(total))
    return {
        "name": device_name(device),
        "description": described(device).decode("utf-8", "replace"),
        "kind": device_kind(device),
        "free": free.value,
        "total": total.value,
    }


def _function(name: str, result: Any, *arguments: Any) -> Any:
    found = symbol(name)
    found.restype, found.argtypes = result, arguments
    return found
