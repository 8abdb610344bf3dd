"""Makes another quant of a model file with llama.cpp. This runs in the child process, because
nothing else stops llama.cpp in the middle of it."""

import ctypes
import os
from collections.abc import Mapping
from typing import Any

from lcp.engine.llama_library import library, log
from lcp.errors import ModelError

_KEPT = 20_000  # lines of llama.cpp's log: it writes one for each tensor


def quantize(wish: Mapping[str, Any]) -> dict[str, Any]:
    """Write the file `target` with the weights of `source`, in the quant whose number in
    llama.h's llama_ftype is `type`. `dry`: write nothing, only find out the size.

    The answer has the bytes of the weights ("weights"), their bits per weight, how many tensors had
    to get a larger quant because of their shape ("fallbacks"), and whether it needs an importance
    matrix ("imatrix"). Raises ModelError, which calls the model `name`.
    """
    c = library()
    params = c.llama_model_quantize_default_params()
    params.ftype, params.dry_run = wish["type"], wish["dry"]
    params.allow_requantize = True  # lcp tells the person
    params.nthread = wish["threads"]
    log.lines = type(log.lines)(maxlen=_KEPT)
    source, target = os.fsencode(wish["source"]), os.fsencode(wish["target"])
    if c.llama_model_quantize(source, target, ctypes.byref(params)):
        line = log.find("failed to quantize:", "error", "failed")
        why = line.rpartition("failed to quantize:")[2].strip() or "no reason given"
        if "iostream" in why:  # C++ has no more to say about a write that failed
            raise ModelError(
                "The new file cannot be written whole: the disk is full, or ulimit -f is lower. "
                "Make room, or choose another disk with -o."
            )
        raise ModelError(
            f"llama.cpp cannot quantize {wish['name']}: {why}. Choose another quant or model."
        )
    size = log.find("quant size")  # "quant size  =   136.40 MiB (8.51 BPW)"
    megabytes, bits = size.partition("=")[2].split()[0::2]
    fallbacks = log.find("required fallback").rpartition("WARNING:")[2].split()
    return {
        "ok": True,
        "weights": round(float(megabytes) * 2**20),
        "bits": float(bits.lstrip("(")),
        "fallbacks": int(fallbacks[0]) if fallbacks else 0,
        "imatrix": bool(log.find("require an imatrix")),
    }
