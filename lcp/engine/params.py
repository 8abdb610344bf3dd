"""Params: how models and contexts are made, for good or only to ask what they would take."""

from typing import Any

from lcp.engine.llama_library import extra_bufts, library, supports_gpu

# Tokens per llama_decode: the physical batch, so that an abort or a progress report is never
# more than one graph away. A multiple would save nothing: llama.cpp splits it again.
N_BATCH = 512
_FLASH_ATTN = {"off": 0, "on": 1, "auto": -1}


def model_params(n_gpu_layers: int, repack: bool = True) -> Any:
    """How a model is loaded. `repack`: weights may be copied in an order that suits this CPU."""
    params = library().llama_model_default_params()
    params.n_gpu_layers = n_gpu_layers
    params.use_extra_bufts = repack and extra_bufts()
    return params


def context_params(size: int, kv_type: str, flash_attn: str, swa_full: bool) -> Any:
    """How a context of `size` tokens is made, `flash_attn` being what `flash_attention` gave."""
    c = library()
    params = c.llama_context_default_params()
    params.n_ctx = size
    params.n_batch = params.n_ubatch = min(N_BATCH, size)
    params.n_outputs_max = 1  # logits of the last token only: 98 -> 21 MiB at 8k
    params.type_k = params.type_v = getattr(c, f"GGML_TYPE_{kv_type.upper()}")
    params.flash_attn_type = _FLASH_ATTN[flash_attn]
    params.swa_full = swa_full
    return params


def padded(size: int) -> int:
    """The tokens that a context of `size` tokens has: llama.cpp rounds up to a multiple of 256."""
    return -(-size // 256) * 256


def flash_attention(asked: str, kv_type: str, offloaded: bool = True) -> str:
    """What is used for on, off or auto: llama.cpp's own auto turns it on, and on a CPU that makes
    decoding up to 3x slower. A quantised V needs it."""
    if asked != "auto" or (offloaded and supports_gpu()):
        return asked
    return "off" if kv_type == "f16" else "on"
