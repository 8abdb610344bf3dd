"""Purpose: what a GGUF file is for, by its header: a model to chat with, or what else.

The one place that tells: chat, info and list say the same of a file. Damage it does not know.
"""

from collections.abc import Mapping
from typing import Any

from lcp import kinds
from lcp.modelfile.header import Array, Header
from lcp.modelfile.layers import DIFFUSION, ENCODERS, number, text

_THE_MODEL = "Give the model's own file."
_CHAT = "Choose a model whose name says chat, instruct or it."
# general.type (gguf-py: GGUFType) -> what such a file is
_TYPES = {
    "adapter": ("a LoRA adapter, not a model", _THE_MODEL),
    "mmproj": ("a projector for images or sound, not a model", _THE_MODEL),
    "imatrix": ("an importance matrix for quantizing, not a model", _THE_MODEL),
    "vocab": ("only a vocabulary, not a model", _THE_MODEL),
}
_ARCHITECTURES = {
    "clip": _TYPES["mmproj"],
    "controlvector": ("a control vector, not a model", _THE_MODEL),
    "wavtokenizer-dec": ("an audio decoder, not a chat model", _CHAT),
    **dict.fromkeys(DIFFUSION, ("a diffusion model, which lcp cannot chat with", _CHAT)),
    **dict.fromkeys(("qwen3tts", "pockettts"), ("a speech model, not a chat model", _CHAT)),
    "t5": ("an encoder-decoder model, not a chat model", _CHAT),
    # ComfyUI and stable-diffusion.cpp keep image models in GGUF
    **dict.fromkeys(
        (
            "flux", "sd1", "sd3", "sdxl", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan",
            "lumina2", "qwen_image", "pig",
        ),
        ("an image or video model, not a chat model", _CHAT),
    ),
}  # fmt: skip
FROM_THE_HUB = "Get a GGUF file of this model from the Hub instead: lcp pull OWNER/REPO"
_RANK = 4  # llama.h: LLAMA_POOLING_TYPE_RANK
_SECTIONS = 4  # llama.cpp: numbers of rope.dimension_sections


def not_for_chat(header: Header) -> str:
    """Why nobody can chat with the file, to follow its name or "This": "is a LoRA adapter, not a
    model. Give the model's own file."; "" for a model that answers."""
    values = header.values
    arch = text(values, "general.architecture")
    key = f"{arch}.rope.dimension_sections"
    sections = values.get(key)
    if found := _other(header, values, arch):
        return "is {}. {}".format(*found)
    if not arch:
        return (
            "has no text under the key general.architecture, so no program can run it. "
            "Use another file of this model."
        )
    if isinstance(sections, Array) and sections.count < _SECTIONS:
        return (
            f"was made for Ollama's own engine: its {key} has {sections.count} numbers, and "
            f"llama.cpp takes {_SECTIONS}. {FROM_THE_HUB}"
        )
    return ""


def _other(header: Header, values: Mapping[str, Any], arch: str) -> tuple[str, str] | None:
    """What the file is, if it is no model that answers, and what to do."""
    pooling = number(values, f"{arch}.pooling_type")
    if header.endian == "big":
        return "a big-endian file, which this machine cannot run", "Get a little-endian one."
    if found := _TYPES.get(text(values, "general.type")) or _ARCHITECTURES.get(arch):
        return found
    if "adapter.type" in values:
        return _TYPES["adapter"]
    if any(key.startswith("imatrix.") for key in values):
        return _TYPES["imatrix"]
    if kinds.by_header(arch, "") == kinds.DRAFT:
        return "a draft model, which only speeds up the model it was made for", _THE_MODEL
    if pooling == _RANK or f"{arch}.classifier.output_labels" in values:
        return "a reranker, not a chat model", _CHAT
    if arch in ENCODERS or pooling or values.get(f"{arch}.attention.causal") is False:
        return "an embedding model, not a chat model", _CHAT
    if not header.tensors:
        return "a header without tensors, not a model", _THE_MODEL
    return None
