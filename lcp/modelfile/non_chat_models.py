"""What a GGUF file is for, from its header: a chat model or something else.

`lcp chat`, `info` and `list` use it. It does not check for damage.
"""

from collections.abc import Mapping
from typing import Any

from lcp import gguf_kinds
from lcp.modelfile.header import GgufArray, Header

# Architectures that produce embeddings instead of the next token.
_ENCODERS = {
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2",
    "jina-bert-v3", "eurobert", "gemma-embedding", "llama-embed", "t5encoder",
}  # fmt: skip
_DIFFUSION = ("dream", "llada", "llada-moe", "rnd1")
_THE_MODEL = "Give the model's own file."
_CHAT = "Choose a model whose name says chat, instruct or it."
_ARCHITECTURES = {
    "controlvector": ("a control vector, not a model", _THE_MODEL),
    "wavtokenizer-dec": ("an audio decoder, not a chat model", _CHAT),
    **dict.fromkeys(_DIFFUSION, ("a diffusion model, which lcp cannot chat with", _CHAT)),
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
FROM_THE_HUB = "Download a GGUF file of this model from the Hugging Face Hub instead."
_RANK = 4  # llama.h: LLAMA_POOLING_TYPE_RANK
_SECTIONS = 4  # llama.cpp: numbers of rope.dimension_sections


def not_for_chat(header: Header) -> str:
    """Why lcp cannot chat with the file, to follow its name or "This": "is a LoRA adapter, not a
    model. Give the model's own file."; "" for a chat model."""
    values = header.values
    arch = header.architecture
    key = f"{arch}.rope.dimension_sections"
    sections = values.get(key)
    if found := _other(header, values, arch):
        return "is {}. {}".format(*found)
    if not arch:
        return (
            "has no text under the key general.architecture, so no program can run it. "
            "Use another file of this model."
        )
    if isinstance(sections, GgufArray) and sections.count < _SECTIONS:
        return (
            f"was made for Ollama's own engine: its {key} has {sections.count} numbers, and "
            f"llama.cpp needs {_SECTIONS}. {FROM_THE_HUB}"
        )
    return ""


def _other(header: Header, values: Mapping[str, Any], arch: str) -> tuple[str, str] | None:
    """What the file is and what to do, if it is not a chat model."""
    pooling = header.arch_number("pooling_type")
    if header.endian == "big":
        return "a big-endian file, which this machine cannot run", "Get a little-endian one."
    kind = gguf_kinds.by_header(arch, header.text("general.type"))
    if "adapter.type" in values:
        kind = gguf_kinds.ADAPTER
    elif any(key.startswith("imatrix.") for key in values):
        kind = gguf_kinds.MATRIX
    if kind:
        return f"{kind}, not a model", _THE_MODEL
    if found := _ARCHITECTURES.get(arch):
        return found
    if pooling == _RANK or f"{arch}.classifier.output_labels" in values:
        return "a reranker, not a chat model", _CHAT
    if arch in _ENCODERS or pooling or values.get(f"{arch}.attention.causal") is False:
        return "an embedding model, not a chat model", _CHAT
    if not header.tensors:
        return "a header without tensors, not a model", _THE_MODEL
    if header.text("tokenizer.ggml.model") == "no_vocab":
        return "a model without a vocabulary, which cannot read text", "Use a newer conversion."
    return None
