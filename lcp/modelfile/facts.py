"""Facts: what a person wants to know of a model, from its header alone.

Pure. What a file does not say is None or empty; what it says wrongly is a sentence in `problems`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcp.modelfile.header import Array, Header
from lcp.modelfile.layers import DIFFUSION, ENCODERS, Layers, layers, number, text
from lcp.modelfile.parts import ModelFile
from lcp.modelfile.purpose import not_for_chat
from lcp.modelfile.quants import file_quant
from lcp.thinking_tags import thinks
from lcp.words import either

# Weights of which a token uses those of a few experts only: stacked, or one tensor an expert.
_EXPERTS = re.compile(r"_(ch)?exps\.|\.ffn_\w+\.\d+\.weight$")
_PART = re.compile(r"(-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
# What llama.cpp has to know to run any model; key -> whether it is under the architecture's name.
_NUMBERS = ("block_count", "embedding_length", "context_length", "attention.head_count")


_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class Facts:
    """Counts are of numbers, layers or tokens; sizes are bytes."""

    name: str
    architecture: str
    licence: str
    parameters: int
    active_parameters: int | None  # of a mixture of experts: those that a token uses
    quant: str  # as people name it: "Q4_K_M"
    mix: Mapping[str, int]  # quant -> bytes in it, the largest first
    bits_per_weight: float | None  # None where a tensor's type is not known
    layers: int | None
    heads: int | None  # where layers differ, the most
    kv_heads: int | None
    embedding: int | None
    experts: int | None
    experts_used: int | None
    expert_bytes: int  # of the weights that not every token uses
    context_length: int | None
    window: int | None  # tokens its sliding-window layers look back
    vocabulary: int | None
    tokenizer: str
    template: bool
    tools: bool
    thinking: bool
    kinds: tuple[str, ...]  # what kind of model it is, a plain line for each thing to know
    problems: tuple[str, ...]  # why nobody can chat with it, a sentence for each reason


def facts(model: ModelFile) -> Facts:
    """The facts of a model."""
    values, tensors = model.header.values, model.header.tensors
    arch = text(values, "general.architecture")

    def said(key: str) -> int | None:
        return number(values, f"{arch}.{key}") or None

    mix: Counter[str] = Counter()
    for t in tensors:
        mix[t.quant] += t.n_bytes or 0
    parameters = sum(t.elements for t in tensors)
    known = all(t.n_bytes is not None for t in tensors)
    experts, used = said("expert_count"), said("expert_used_count")
    routed = [t for t in tensors if experts and _EXPERTS.search(t.name)]
    resting = sum(t.elements for t in routed)
    active = None
    if experts and used and used <= experts and routed:
        active = parameters - resting + resting * used // experts
    kept = layers(values)
    template, tools, thinking = _template(values)
    tokens = values.get("tokenizer.ggml.tokens")
    return Facts(
        name=text(values, "general.name") or _PART.sub("", model.name),
        architecture=arch,
        licence=text(values, "general.license"),
        parameters=parameters,
        active_parameters=active,
        quant=_quant(model.header),
        mix=dict(mix.most_common()),
        bits_per_weight=8 * sum(mix.values()) / parameters if parameters and known else None,
        layers=said("block_count"),
        heads=said("attention.head_count"),
        kv_heads=said("attention.head_count_kv") or said("attention.head_count"),
        embedding=said("embedding_length"),
        experts=experts,
        experts_used=used,
        expert_bytes=sum(t.n_bytes or 0 for t in routed),
        context_length=said("context_length"),
        window=kept.window or None,
        vocabulary=tokens.count if isinstance(tokens, Array) else said("vocab_size"),
        tokenizer=text(values, "tokenizer.ggml.model"),
        template=template,
        tools=tools,
        thinking=thinking,
        kinds=tuple(_kinds(values, arch, kept, experts, used)),
        problems=tuple(_problems(model, arch)),
    )


def _quant(header: Header) -> str:
    """What the file calls its quant where its matrices bear that out, else what most of them are.

    Conversions often copy `general.file_type`, and a Q4_K_M has other quants beside Q4_K where
    rows are no whole blocks of it: one matrix of the family is enough. Floats have no family.
    """
    sizes: Counter[str] = Counter()
    for t in header.tensors:
        if len(t.shape) > 1:
            sizes[t.quant] += t.n_bytes or 0
    most = sizes.most_common(1)[0][0] if sizes else ""
    file_type = number(header.values, "general.file_type")
    claim = "" if file_type is None else file_quant(file_type)
    family = re.match(r"I?Q\d|TQ\d|\w+", claim)
    if not family or claim in ("F32", "F16", "BF16"):
        return most
    return claim if any(quant.startswith(family[0]) for quant in sizes) else most


def _template(values: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Whether there is a chat template, and whether it uses tools and thinking."""
    source = template_source(values)
    return (
        bool(source.strip()),
        bool(re.search(r"\btools\b", source)) or f"{_TEMPLATE}.tool_use" in values,
        thinks(source),
    )


def template_source(values: Mapping[str, Any]) -> str:
    """The chat template that a talk is written with; "" where there is none. A file may have
    several, each under a name."""
    named = [key for key in values if key.startswith(f"{_TEMPLATE}.")]
    named.sort(key=lambda key: (key.endswith((".tool_use", ".rag")), not key.endswith(".default")))
    found = (text(values, key) for key in (_TEMPLATE, *named))
    return next((source for source in found if source.strip()), "")


def _kinds(
    values: Mapping[str, Any], arch: str, kept: Layers, experts: int | None, used: int | None
) -> list[str]:
    """What kind of model it is, in plain words."""
    told = []
    if experts:
        some = f"{used} of {experts}" if used else f"of {experts}"
        told.append(f"Mixture of experts: {some} experts work on a token in each layer.")
    if arch not in ENCODERS | DIFFUSION and (line := _memory(values, arch, kept)):
        told.append(line)
    if number(values, f"{arch}.attention.key_length_mla"):
        told.append("Keys and values are one small vector a token (multi-head latent attention).")
    if not told and kept.kept:
        told.append("Dense: each layer uses all its weights and keeps the whole context.")
    if arch and not kept.kept and number(values, f"{arch}.block_count"):
        told.append("What its layers keep of the context is not known for this architecture.")
    return told


def _memory(values: Mapping[str, Any], arch: str, kept: Layers) -> str:
    """What the layers keep of the context, "" when all keep all of it."""
    n = len(kept.kept)
    window = f"a {kept.window:,}-token window"
    whole, some, state = kept.count("whole"), kept.count("window"), kept.count("state")
    if kept.count("both"):
        return "Hybrid: each layer keeps the whole context and a fixed state."
    if state == n and n:
        return "Recurrent: a fixed state instead of a cache; a longer context needs no more memory."
    rest = [window] * bool(some) + ["a fixed state"] * bool(state)
    rest += ["nothing of their own"] * bool(kept.count("none"))
    if some == n and n:
        return f"Sliding window: every layer keeps {window} only."
    if rest and n:
        hybrid = "Hybrid: " if state else "Sliding window: " if some else ""
        return f"{hybrid}{whole} of {n} layers keep the whole context; the rest {either(rest)}."
    told = number(values, f"{arch}.attention.sliding_window")
    if told and told < (number(values, f"{arch}.context_length") or 0):
        return f"The file names a sliding window of {told:,} tokens."
    if number(values, f"{arch}.ssm.state_size"):
        return "Some of its layers keep a fixed state (state space model)."
    return ""


def _problems(model: ModelFile, arch: str) -> list[str]:
    header, problems = model.header, []
    if why := not_for_chat(header):
        return [f"This {why}"]
    for key in (f"{arch}.{name}" for name in _NUMBERS):
        if key in header.values and number(header.values, key) is None:
            problems.append(f"{key} should be a whole number. Use a newer conversion.")
    if arch and f"{arch}.block_count" not in header.values and header.tensors:
        problems.append(f"The key {arch}.block_count is missing. Use a newer conversion.")
    if unknown := sorted({t.quant for t in header.tensors if t.n_bytes is None}):
        problems.append(
            f"Its tensors have the unknown {', '.join(unknown)}: a newer llama.cpp may read it."
        )
    if any("\ufffd" in key for key in header.values):
        problems.append("Some of its keys are not UTF-8: the file may be damaged.")
    return problems
