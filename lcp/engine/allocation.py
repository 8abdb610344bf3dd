"""Allocation: an empty llama.cpp context and the memory that it took."""

import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lcp.engine.llama_library import KV_TYPE_REFUSED, library, log
from lcp.engine.model import Model
from lcp.errors import ModelError, NotEnoughMemory, SettingsError

# llama.cpp's log about a context: a line for each of its buffers
_BUFFER = re.compile(r"buffer size = +([\d.]+) MiB")


@dataclass(frozen=True)
class Allocation:
    """A `llama_context *` with `cells` cells, which decodes at most `batch` tokens at once. All its
    buffers have `bytes` bytes."""

    handle: Any
    cells: int
    batch: int
    bytes: float

    def free(self) -> None:
        library().llama_free(self.handle)


def allocate(model: Model, params: Any, kv_type: str) -> Allocation:
    """Make a context. Raises NotEnoughMemory, or SettingsError if the model does not support these
    parameters."""
    c = library()
    log.lines.clear()
    handle = c.llama_init_from_model(model.handle, params)
    if not handle:
        raise _why_not(model, params.n_ctx, kv_type)
    size = sum(map(float, _BUFFER.findall("\n".join(log.lines)))) * 2**20
    return Allocation(handle, c.llama_n_ctx(handle), c.llama_n_batch(handle), size)


def allocate_in_advance(make: Callable[[], Allocation]) -> Future[Allocation]:
    """Call `make` in another thread. It takes most of its time to clear the cells."""
    executor = ThreadPoolExecutor(1, "lcp cells")
    future = executor.submit(make)
    executor.shutdown(wait=False)
    return future


def _why_not(model: Model, size: int, kv_type: str) -> ModelError | SettingsError:
    if line := log.find(*KV_TYPE_REFUSED):
        return SettingsError(
            f"{model.path.name} cannot use a {kv_type} KV cache ({line.strip()}).",
            change={"kv_type": "f16", "flash_attn": "auto"},
        )
    if line := log.find("failed to allocate", "unable to allocate", "alloc", "out of memory"):
        return NotEnoughMemory(
            f"There is not enough memory for a context of {size:,} tokens ({line.strip()}).",
            change={"ctx_size": str(max(512, size // 2)), "kv_type": "q8_0"},
        )
    reason = log.find("error", "failed") or "no reason given"
    return ModelError(f"llama.cpp cannot make a context for {model.path.name}: {reason.strip()}.")
