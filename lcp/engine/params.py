"""llama.cpp's parameters for models and contexts."""

from typing import Any

from lcp.engine.llama_library import extra_bufts, library, supports_gpu

# Tokens per llama_decode: one physical batch, so that a progress report never waits for more than
# one graph. A larger batch would not be faster: llama.cpp splits it into physical batches.
N_BATCH = 512
_FLASH_ATTN = {"off": 0, "on": 1, "auto": -1}


def model_params(n_gpu_layers: int, repack: bool = True) -> Any:
    """For a model. `repack`: llama.cpp may copy weights into a faster order for this CPU."""
    params = library().llama_model_default_params()
    params.n_gpu_layers = n_gpu_layers
    params.use_extra_bufts = repack and extra_bufts()
    return params


def context_params(size: int, kv_type: str, flash_attn: str, swa_full: bool) -> Any:
    """For a context of `size` tokens. `flash_attn` is a result of `flash_attention`."""
    c = library()
    params = c.llama_context_default_params()
    params.n_ctx = size
    params.n_batch = params.n_ubatch = min(N_BATCH, size)
    params.n_outputs_max = 1  # logits of the last token only: 98 -> 21 MiB at 8k
    params.type_k = params.type_v = getattr(c, f"GGML_TYPE_{kv_type.upper()}")
    params.flash_attn_type = _FLASH_ATTN[flash_attn]
    params.swa_full = swa_full
    return params


def flash_attention(asked: str, kv_type: str, offloaded: bool = True) -> str:
    """What lcp uses for on, off or auto. llama.cpp's own auto turns it on, which makes decoding on
    a CPU up to 3 times slower. A quantized V needs it."""
    if asked != "auto" or (offloaded and supports_gpu()):
        return asked
    return "off" if kv_type == "f16" else "on"
