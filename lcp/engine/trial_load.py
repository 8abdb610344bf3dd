"""Asks llama.cpp how much memory a model and its contexts would take, without allocating it.

With `no_alloc`, llama.cpp plans a model and a context as for a chat but allocates nothing. Some
files make it abort, so this runs only in the child process.
"""

import base64
import contextlib
import ctypes
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lcp.engine.devices import device_kind, device_name, devices
from lcp.engine.kv_cells import keep_all_cells
from lcp.engine.llama_library import KV_TYPE_REFUSED, library, log, supports_gpu, symbol
from lcp.engine.model import Model
from lcp.engine.params import context_params, flash_attention
from lcp.engine.temporary_file import scratch
from lcp.errors import NativeError

_MIB = 1 << 20
_ANY = 512  # size of a context, in tokens, where it does not matter
# Lines of llama.cpp's log about one context; sizes are in MiB, rounded to 0.01.
_KV = re.compile(r"size = +([\d.]+) MiB \(.*, K \(")
_STATE = re.compile(r"size = +([\d.]+) MiB \(.*, R \(|layers = \d+, size = +([\d.]+) MiB")
_COMPUTE = re.compile(r"(\S+) compute buffer size = +([\d.]+) MiB")
_OUTPUT = re.compile(r"output buffer size = +([\d.]+) MiB")

Buffers = list[dict[str, Any]]


def memory_needs(
    wish: dict[str, Any], by_buffer: Callable[[Any], Buffers] | None = None
) -> dict[str, Any]:
    """The memory of the model with wish["header"], and of a context for each of wish["rows"].

    A row is (context, kv_type). Sizes are in bytes. They come from `by_buffer` (by default
    `breakdown`) if it agrees with the log, else from the log, to 0.01 MiB; then `weights` is None,
    because the log does not have it. `gpus` are the names of the GPUs that could take layers. A
    row that llama.cpp refuses has an `error`.
    """
    _limit_memory()
    with scratch() as (file, path):
        file.write(base64.b64decode(wish["header"]))
        file.flush()
        try:
            file.truncate(file.tell() + wish["data_size"])  # sparse: no space
        except OSError as error:
            raise NativeError(
                f"lcp cannot lay out a file as large as the model: {error.strerror}. "
                "Set TMPDIR to a folder that can hold one."
            ) from error
        model = Model.load(
            path, wish["n_gpu_layers"], repack=wish["repack"], weights=False, name=wish["name"]
        )
    asked, offloaded = wish["flash_attn"], wish["n_gpu_layers"] != 0
    rows = [
        context_needs(model, size, kv_type, asked, offloaded, by_buffer or breakdown)
        for size, kv_type in wish["rows"]
    ]
    weights = next((row["weights"] for row in rows if "weights" in row), None)
    model.close()
    gpus = [d["name"] for d in devices()["devices"] if d["kind"] in ("gpu", "igpu")]
    return {"ok": True, "weights": weights, "gpus": gpus if supports_gpu() else [], "rows": rows}


def load(wish: dict[str, Any]) -> dict[str, Any]:
    """Do everything with the file at wish["path"] that a chat does before it computes.

    Raises ModelError. A header, vocabulary or tokenizer that aborts here would abort the chat.
    """
    c = library()
    _limit_memory()
    model = Model.load(Path(wish["path"]), 0, weights=False, name=wish["name"])
    if ctx := c.llama_init_from_model(model.handle, context_params(_ANY, "f16", "off", False)):
        c.llama_free(ctx)
    model.tokenize("".join(map(chr, range(1, 256))) + "日本語 🙂")
    model.text([token for token in (model.bos, model.eos) if token >= 0])
    model.close()
    return {"ok": True}


def context_needs(
    model: Model, size: int, kv_type: str, asked: str, offloaded: bool,
    by_buffer: Callable[[Any], Buffers],
) -> dict[str, Any]:  # fmt: skip
    """One row: create a context as a chat does, and free it."""
    c = library()
    swa_full = keep_all_cells(model, size, kv_type)
    flash = flash_attention(asked, kv_type, offloaded)
    log.lines.clear()
    ctx = c.llama_init_from_model(model.handle, context_params(size, kv_type, flash, swa_full))
    if not ctx:
        return {"context": size, "kv_type": kv_type, "error": _said()}
    text = "\n".join(log.lines)
    state = sum(_bytes(a or b) for a, b in _STATE.findall(text))
    context = sum(_bytes(mib) for mib in _KV.findall(text)) + state
    compute: dict[str, int] = defaultdict(int)
    for name, mib in _COMPUTE.findall(text):
        compute[name] += _bytes(mib)
    output = sum(_bytes(mib) for mib in _OUTPUT.findall(text))
    row: dict[str, Any] = {
        "context": c.llama_n_ctx(ctx),
        "kv_type": kv_type,
        "kv": context,
        "state": state,
        "compute": sum(compute.values()),
        # one row of logits (llama_context::output_reserve), which is not in the breakdown
        "output": model.n_vocab * 4 if _near(model.n_vocab * 4, output) else output,
        "flash_attn": flash,
        "swa_full": swa_full,
        "devices": None,
    }
    buffers = by_buffer(ctx)
    agrees = _near(sum(b["kv"] for b in buffers), context, len(_KV.findall(text)) + 2) and all(
        _near(b["compute"], compute[b["buffer"]]) for b in buffers
    )
    if buffers and agrees:
        row |= _by_device(buffers)
    c.llama_free(ctx)
    return row


def _by_device(buffers: Buffers) -> dict[str, Any]:
    """Exact sizes by device, from the breakdown."""
    found: dict[str, dict[str, Any]] = {}
    weights = {"file": 0, "anon": 0, "gpu": 0}
    for b in buffers:
        # A chat maps the file: weights that the CPU uses unchanged are pages of the file, repacked
        # ones are a copy. Buffers of a GPU in host memory ("CUDA_Host") belong to the host.
        where = "file" if b["host"] else "anon" if b["kind"] in ("cpu", "accel") else "gpu"
        weights[where] += b["weights"]
        name = "CPU" if where != "gpu" else b["device"]
        device = found.setdefault(name, {"name": name, "weights": 0, "kv": 0, "compute": 0})
        for part in ("weights", "kv", "compute"):
            device[part] += b[part]
    return {
        "kv": sum(b["kv"] for b in buffers),
        "compute": sum(b["compute"] for b in buffers),
        "devices": list(found.values()),
        "weights": weights,
    }


class _Map(ctypes.Structure):
    """libstdc++'s std::map: its comparison, the header node (colour, root, first, last), count."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("_", "colour", "root", "a", "b", "count")]


class _Node(ctypes.Structure):
    """A node of that map: buffer type -> llama_memory_breakdown_data (src/llama-ext.h)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("colour", "parent", "left", "right", "buft", "weights", "kv", "compute")
    ]


def breakdown(ctx: Any) -> Buffers:
    """Bytes per buffer type from `llama_get_memory_breakdown`; [] if its ABI is not known.

    It returns a std::map by value, through a hidden pointer like any large structure. The map is
    never freed; the child ends soon.
    """
    function = symbol("_Z26llama_get_memory_breakdownPK13llama_context")
    if function is None or sys.platform != "linux":
        return []
    function.restype, function.argtypes = _Map, [ctypes.c_void_p]
    tree = function(ctx)
    nodes: list[_Node] = []
    todo = [tree.root]
    while todo and len(nodes) < tree.count:
        if address := todo.pop():
            node = _Node.from_address(address)
            nodes.append(node)
            todo += [node.right, node.left]
    name, is_host = symbol("ggml_backend_buft_name"), symbol("ggml_backend_buft_is_host")
    device_of = symbol("ggml_backend_buft_get_device")
    name.restype, is_host.restype, device_of.restype = (
        ctypes.c_char_p, ctypes.c_bool, ctypes.c_void_p,
    )  # fmt: skip
    buffers = []
    for node in nodes:
        buft = ctypes.c_void_p(node.buft)
        device = device_of(buft)
        buffers.append({
            "buffer": name(buft).decode(),
            "device": device_name(device) if device else "CPU",
            "kind": device_kind(device) if device else "cpu",
            "host": is_host(buft),
            "weights": node.weights,
            "kv": node.kv,
            "compute": node.compute,
        })  # fmt: skip
    return buffers


def _bytes(mib: str) -> int:
    return round(float(mib) * _MIB)


def _near(exact: int, logged: int, lines: int = 1) -> bool:
    """Whether a size agrees with a sum of `lines` sizes that the log rounds to 0.01 MiB."""
    return abs(exact - logged) <= 0.01 * _MIB * max(1, lines)


def _said() -> str:
    """Why llama.cpp refused a context, from its log."""
    line = log.find(*KV_TYPE_REFUSED, "failed", "error")
    return line.partition(": ")[2].strip() or "no reason given"  # after the function's name


def _limit_memory() -> None:
    """Limit this process's memory, so that a hostile file cannot fill the machine's. Not with a
    GPU: its driver reserves address space without limit."""
    if sys.platform == "win32" or supports_gpu():
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    with contextlib.suppress(ValueError, OSError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, hard))
