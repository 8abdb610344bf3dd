"""Layers: what each layer of a model keeps of the tokens before, by what its metadata says.

llama.cpp knows this in code, per architecture (src/models/*.cpp, load_arch_hparams); the tables
below repeat it. Of an architecture that is in none of them, only what the file itself says is
used. Sizes it does not know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lcp.modelfile.header import Array
from lcp.modelfile.quants import constants

# whole: keys and values of the whole context; window: of the last tokens only; state: a state of
# fixed size; both: whole and state; none: nothing of its own
Kept = Literal["whole", "window", "state", "both", "none"]

MAX_LAYERS = 512  # llama.cpp: LLAMA_MAX_LAYERS
RECURRENT = {"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"}
# They make embeddings or whole texts at once and keep nothing.
ENCODERS = {
    "bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2",
    "jina-bert-v3", "eurobert", "gemma-embedding", "llama-embed", "t5encoder", "wavtokenizer-dec",
}  # fmt: skip
DIFFUSION = {"dream", "llada", "llada-moe", "rnd1"}
# All layers keep the same.
_ALIKE: tuple[tuple[set[str], Kept], ...] = (
    (RECURRENT, "state"),
    (ENCODERS | DIFFUSION, "none"),
    ({"falcon-h1"}, "both"),
)
# A layer without KV heads keeps a state.
_STATE_WITHOUT_KV = {
    "jamba", "granitehybrid", "lfm2", "lfm2moe", "plamo2", "kimi-linear", "kimi-k3",
    "bailingmoe3", "glm5-next",
}  # fmt: skip
# Every so manieth layer keeps the context, the others a state.
_WHOLE_EVERY = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
# Of so many layers one keeps the context, the others a window; it is the last, or the first.
_PERIOD = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "llama4": 4, "cohere2": 4, "exaone4": 4,
    "exaone-moe": 4, "olmo2": 4, "afmoe": 4, "mellum": 4, "muse-glimmer": 4, "plamo3": 8,
    "cohere2moe": 4, "laguna": 4, "smallthinker": 4,
}  # fmt: skip
_WHOLE_FIRST = {"cohere2moe", "laguna", "smallthinker"}
_WINDOW = {"gemma2": 4096, "llama4": 8192}  # where the file does not say
_IN_CODE = {"deepseek4"}  # several kinds of cache, which no key describes


@dataclass(frozen=True)
class Layers:
    """What is kept, layer by layer; empty where it cannot be told."""

    kept: tuple[Kept, ...] = ()
    window: int = 0  # tokens that the layers with a window look back

    def count(self, *kinds: Kept) -> int:
        return sum(kept in kinds for kept in self.kept)


def layers(values: Mapping[str, Any]) -> Layers:
    """The layers of the model with this metadata, without those that only draft (MTP)."""
    arch = text(values, "general.architecture")
    n = number(values, f"{arch}.block_count") or 0
    n -= number(values, f"{arch}.nextn_predict_layers") or 0
    if not 0 < n <= MAX_LAYERS or not _known(values, arch):
        return Layers()
    for archs, kept_by_all in _ALIKE:
        if arch in archs:
            return Layers((kept_by_all,) * n)
    kv_heads = per_layer(values, f"{arch}.attention.head_count_kv", n)
    ffn = per_layer(values, f"{arch}.feed_forward_length", n)
    recurrent = _recurrent(values, arch, n, kv_heads)
    window = _window(values, arch, n)
    in_window = _in_window(values, arch, n) if window else [False] * n
    owners = _owners(values, arch, n)
    kept: list[Kept] = []
    for i in range(n):
        if recurrent[i] and arch.startswith("nemotron_h") and ffn and ffn[i]:
            kept.append("none")  # a feed-forward layer
        elif recurrent[i]:
            kept.append("state")
        elif i >= owners or (kv_heads and not kv_heads[i]):
            kept.append("none")
        else:
            kept.append("window" if in_window[i] else "whole")
    return Layers(tuple(kept), window if "window" in kept else 0)


def _known(values: Mapping[str, Any], arch: str) -> bool:
    """Whether the tables, or the file itself, say what the layers of this architecture keep."""
    ours = {*_PERIOD, *_WHOLE_EVERY, *_STATE_WITHOUT_KV, *RECURRENT, *ENCODERS, *DIFFUSION}
    told = ("sliding_window_pattern", "recurrent_layers")
    return arch not in _IN_CODE and (
        arch in ours
        or arch in constants().MODEL_ARCH_NAMES.values()
        or any(isinstance(values.get(f"{arch}.attention.{key}"), Array) for key in told)
    )


def _recurrent(
    values: Mapping[str, Any], arch: str, n: int, kv_heads: list[int] | None
) -> list[bool]:
    told = per_layer(values, f"{arch}.attention.recurrent_layers", n)
    if told:
        return [bool(x) for x in told]
    if arch in _WHOLE_EVERY:
        every = number(values, f"{arch}.full_attention_interval") or _WHOLE_EVERY[arch]
        return [(i + 1) % every != 0 for i in range(n)]
    if arch in _STATE_WITHOUT_KV or arch.startswith("nemotron_h"):
        return [heads == 0 for heads in kv_heads or [1] * n]
    return [False] * n


def _window(values: Mapping[str, Any], arch: str, n: int) -> int:
    """How far the window looks back; 0 where llama.cpp uses none."""
    if arch == "exaone4" and n != 64:
        return 0
    told = number(values, f"{arch}.attention.sliding_window")
    if arch == "smallthinker" and told:
        return 4096  # whatever the file says
    if arch == "llama4" and told:
        return _WINDOW[arch]
    return _WINDOW.get(arch, 0) if told is None else told


def _in_window(values: Mapping[str, Any], arch: str, n: int) -> list[bool]:
    """Which layers look back through a window only."""
    key = f"{arch}.attention.sliding_window_pattern"
    if isinstance(values.get(key), Array) and (told := per_layer(values, key, n)):
        return [bool(x) for x in told]
    if arch in ("lfm2", "lfm2moe"):
        return [True] * n
    if arch not in _PERIOD:
        return [False] * n  # as llama.cpp does with mistral's, qwen2's and phi3's window
    period = number(values, key)
    period = _PERIOD[arch] if period is None else period
    if not period:
        return [True] * n
    whole = 0 if arch in _WHOLE_FIRST else period - 1
    return [i % period != whole for i in range(n)]


def _owners(values: Mapping[str, Any], arch: str, n: int) -> int:
    """How many layers have keys and values of their own; later ones use those of earlier ones."""
    if arch == "gemma3n":
        return 20
    return n - (number(values, f"{arch}.attention.shared_kv_layers") or 0)


def number(values: Mapping[str, Any], key: str) -> int | None:
    """A whole number that is not negative, of several (one a layer) the largest; else None."""
    value = values.get(key)
    if isinstance(value, Array):
        found = [x for x in value.first if type(x) is int and x >= 0]
        return max(found, default=None)
    return value if type(value) is int and value >= 0 else None


def per_layer(values: Mapping[str, Any], key: str, n: int) -> list[int] | None:
    """One number or bool for each of `n` layers, whether the file gives one for all or each."""
    value = values.get(key)
    if isinstance(value, Array):
        return [int(x) for x in value.first[:n]] if n <= len(value.first) and _ints(value) else None
    return [value] * n if type(value) is int and value >= 0 else None


def _ints(value: Array) -> bool:
    return all(isinstance(x, int) for x in value.first)


def text(values: Mapping[str, Any], key: str) -> str:
    """A text, "" where there is none."""
    value = values.get(key)
    return value if isinstance(value, str) else ""
