"""Formulas: the memory of a model by arithmetic on its header, as llama.cpp would lay it out.

The cache is exact for attention (grouped, in windows, latent), recurrent and hybrid models; for
sparse attention with an indexer (deepseek32, minimax-m3) it is wrong: only llama.cpp can tell.
Compute buffers are about right for dense models and MoE.
Sources: src/llama-kv-cache*.cpp, llama-memory-recurrent.cpp, llama-hparams.cpp, llama-context.cpp.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcp.modelfile.header import Array, Header
from lcp.modelfile.layers import Kept, layers, number, per_layer, text

_BATCH = 512  # tokens computed at once, as the chat sets it
_BLOCK = {"f16": 64, "q8_0": 34, "q4_0": 18}  # bytes of 32 numbers in the cache


@dataclass(frozen=True)
class Cache:
    """Bytes per layer: keys and values grow with the context, a state does not."""

    kv: tuple[int, ...]
    state: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.kv) + sum(self.state)


def padded(context: int) -> int:
    """The cells llama.cpp makes for a context of so many tokens."""
    return -(-context // 256) * 256


def cache(values: Mapping[str, Any], context: int, kv_type: str, flash: bool, whole: bool) -> Cache:
    """What a context of so many tokens remembers with, for one sequence.

    `flash`: flash attention; without it the values of all layers are as wide as the widest.
    `whole`: layers with a window keep all cells, and not only their window's.
    """
    n = _Numbers(values)
    kept, cells = _kept(values), padded(context)
    narrow = min(cells, padded(layers(values).window + min(_BATCH, context)))
    heads = n.per_layer("attention.head_count", len(kept))
    kv_heads = n.per_layer("attention.head_count_kv", len(kept)) or heads
    size = n("embedding_length") // heads[0] if heads and heads[0] else 0
    keys, widths = [], []
    for i, kind in enumerate(kept):
        end = "_swa" if kind == "window" else ""
        key, value = n("attention.key_length", size), n("attention.value_length", size)
        key, value = n("attention.key_length" + end, key), n("attention.value_length" + end, value)
        has = kv_heads[i] if heads and size else 0
        keys.append(key * has)
        widths.append(value * has)
    latent = n("attention.key_length_mla") and n("attention.value_length_mla")
    kv, state = [], []
    for i, kind in enumerate(kept):
        width = 0 if latent else widths[i] if flash else max(widths)
        numbers = (keys[i] + width) * (narrow if kind == "window" and not whole else cells)
        # Layers of deci that have no heads get values all the same.
        keeps = kind in ("whole", "window", "both") or n.arch == "deci"
        kv.append(numbers // 32 * _BLOCK[kv_type] if keeps else 0)
        state.append(4 * _state_size(n) if kind in ("state", "both") else 0)
    return Cache(tuple(kv), tuple(state))


def output(values: Mapping[str, Any]) -> int:
    """The logits of one token."""
    return 4 * _Numbers(values).vocabulary


def compute(values: Mapping[str, Any], context: int, flash: bool) -> int:
    """About what the buffers of a computation take: the largest of its stages."""
    n = _Numbers(values)
    batch = min(_BATCH, context)
    tokens, width, heads = 4 * batch, n("embedding_length"), n("attention.head_count")
    used, expert = n("expert_used_count"), n("expert_feed_forward_length")
    remembers = any(kind != "none" for kind in _kept(values))
    cells = padded(context) if remembers else batch  # an encoder sees its batch only
    mask = cells * batch * (2 if flash else 4) if heads else 0
    stages = [
        4 * n.vocabulary + 2 * width * tokens,
        (3 * n("feed_forward_length") + 4 * width) * tokens + mask,
        (2 * used * width + used * expert + 3 * width) * tokens + mask,
        (6 * n("ssm.inner_size") + width) * tokens,
    ]
    if not flash and heads:
        stages.append(heads * cells * tokens + mask + 11 * width * tokens // 2)
    return max(stages)


def split(header: Header, n_gpu_layers: int) -> tuple[int, int]:
    """Bytes of weights on the CPU, and on one GPU with so many layers: the output, the last blocks.

    The input stays on the CPU; an embedding that serves as output, too, is there twice.
    """
    n = _Numbers(header.values)
    first = n("block_count") + 1 - n_gpu_layers
    tied = not any(t.name == "output.weight" for t in header.tensors)
    stays = moved = 0
    for t in header.tensors:
        block = re.match(r"blk\.(\d+)\.", t.name)
        embedding = t.name == "token_embd.weight"
        last = "output" in t.name or (embedding and tied)
        goes = n_gpu_layers > 0 and (int(block[1]) >= first if block else last)
        moved += (t.n_bytes or 0) if goes else 0
        stays += (t.n_bytes or 0) if embedding or not goes else 0
    return stays, moved


def _kept(values: Mapping[str, Any]) -> tuple[Kept, ...]:
    """What each layer keeps; of an architecture that nobody knows, everything."""
    whole: Kept = "whole"
    return layers(values).kept or (whole,) * _Numbers(values)("block_count")


class _Numbers:
    """The numbers of the architecture, by the ends of their keys."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.arch = text(values, "general.architecture")

    def __call__(self, key: str, default: int = 0) -> int:
        told = number(self._values, f"{self.arch}.{key}")
        return default if told is None else told

    def per_layer(self, key: str, n: int) -> list[int]:
        return per_layer(self._values, f"{self.arch}.{key}", n) or []

    @property
    def vocabulary(self) -> int:
        tokens = self._values.get("tokenizer.ggml.tokens")
        return tokens.count if isinstance(tokens, Array) else self("vocab_size")


def _state_size(n: _Numbers) -> int:
    """Numbers in the state of a recurrent layer: its convolution's and its memory's."""
    width, heads = n("embedding_length"), n("attention.head_count")
    convolution = max(0, n("ssm.conv_kernel") - 1)
    if head := n("wkv.head_size"):  # RWKV
        return n("token_shift_count", 2) * width + width * head
    if length := n("shortconv.l_cache"):  # LFM2
        return width * (length - 1)
    if head := n("kda.head_dim"):  # Kimi
        return 3 * (convolution or 3) * heads * head + head * head * heads
    if n.arch == "minimax-01" and heads:
        return n("attention.key_length", width // heads) ** 2 * heads
    inner, state = n("ssm.inner_size"), n("ssm.state_size")  # Mamba and gated delta nets
    return convolution * (inner + 2 * n("ssm.group_count") * state) + state * inner
