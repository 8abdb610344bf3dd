"""The facts of a model, from its header alone.

A fact that the file does not state is None or empty; a wrong one is a sentence in `problems`.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lcp.answers.thinking_tag_table import thinks
from lcp.modelfile.header import GgufArray, Header
from lcp.modelfile.model_files import ModelFile
from lcp.modelfile.non_chat_models import not_for_chat
from lcp.modelfile.quants import file_quant
from lcp.split_names import stem

# Weights of experts, of which a token uses only a few: stacked, or one tensor per expert.
_EXPERTS = re.compile(r"_(ch)?exps\.|\.ffn_\w+\.\d+\.weight$")
# Keys of recurrent layers: Mamba and gated delta nets, RWKV, LFM2, Kimi.
_STATE_SIZES = ("ssm.state_size", "wkv.head_size", "shortconv.l_cache", "kda.head_dim")
# Keys of the architecture that llama.cpp needs to run a model.
_NUMBERS = ("block_count", "embedding_length", "context_length", "attention.head_count")
_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class Facts:
    """Counts are of numbers, layers or tokens; sizes are bytes."""

    name: str
    architecture: str
    licence: str
    parameters: int
    active_parameters: int | None  # of a mixture of experts: the parameters that a token uses
    quant: str  # as people name it: "Q4_K_M"
    mix: Mapping[str, int]  # quant -> bytes in it, the largest first
    bits_per_weight: float | None  # None if a tensor's type is not known
    layers: int | None
    heads: int | None  # if layers differ, the most
    kv_heads: int | None
    embedding: int | None
    experts: int | None
    experts_used: int | None
    expert_bytes: int  # of the weights that not every token uses
    context_length: int | None
    window: int | None  # tokens of a sliding window, as the file says
    vocabulary: int | None
    tokenizer: str
    template: bool
    tools: bool
    thinking: bool
    kinds: tuple[str, ...]  # what kind of model it is, a sentence for each property
    problems: tuple[str, ...]  # why lcp cannot chat with it, a sentence for each reason


def facts(model: ModelFile) -> Facts:
    """The facts of a model."""
    values, tensors = model.header.values, model.header.tensors
    header, arch = model.header, model.header.architecture

    def number(key: str) -> int | None:
        return header.arch_number(key) or None

    mix: Counter[str] = Counter()
    for t in tensors:
        mix[t.quant] += t.n_bytes or 0
    parameters = sum(t.elements for t in tensors)
    known = all(t.n_bytes is not None for t in tensors)
    experts, used = number("expert_count"), number("expert_used_count")
    routed = [t for t in tensors if experts and _EXPERTS.search(t.name)]
    resting = sum(t.elements for t in routed)
    active = None
    if experts and used and used <= experts and routed:
        active = parameters - resting + resting * used // experts
    template, tools, thinking = _template(header)
    tokens = values.get("tokenizer.ggml.tokens")
    return Facts(
        name=header.text("general.name") or stem(model.name),
        architecture=arch,
        licence=header.text("general.license"),
        parameters=parameters,
        active_parameters=active,
        quant=_quant(model.header),
        mix=dict(mix.most_common()),
        bits_per_weight=8 * sum(mix.values()) / parameters if parameters and known else None,
        layers=number("block_count"),
        heads=number("attention.head_count"),
        kv_heads=number("attention.head_count_kv") or number("attention.head_count"),
        embedding=number("embedding_length"),
        experts=experts,
        experts_used=used,
        expert_bytes=sum(t.n_bytes or 0 for t in routed),
        context_length=number("context_length"),
        window=_window(header),
        vocabulary=tokens.count if isinstance(tokens, GgufArray) else number("vocab_size"),
        tokenizer=header.text("tokenizer.ggml.model"),
        template=template,
        tools=tools,
        thinking=thinking,
        kinds=tuple(_kinds(header, experts, used)),
        problems=tuple(_problems(model, arch)),
    )


def _quant(header: Header) -> str:
    """The quant that the file states, if its matrices confirm it; else the quant of most matrices.

    Conversions often copy `general.file_type`, so it may be wrong. A Q4_K_M has other quants than
    Q4_K for rows that are not whole blocks of it, so one matrix of the family is enough. Floats
    have no family.
    """
    sizes: Counter[str] = Counter()
    for t in header.tensors:
        if len(t.shape) > 1:
            sizes[t.quant] += t.n_bytes or 0
    most = sizes.most_common(1)[0][0] if sizes else ""
    file_type = header.number("general.file_type")
    claim = "" if file_type is None else file_quant(file_type)
    family = re.match(r"I?Q\d|TQ\d|\w+", claim)
    if not family or claim in ("F32", "F16", "BF16"):
        return most
    return claim if any(quant.startswith(family[0]) for quant in sizes) else most


def _template(header: Header) -> tuple[bool, bool, bool]:
    """Whether there is a chat template, and whether it uses tools and thinking."""
    source = template_source(header)
    return (
        bool(source.strip()),
        bool(re.search(r"\btools\b", source)) or f"{_TEMPLATE}.tool_use" in header.values,
        thinks(source),
    )


def template_source(header: Header) -> str:
    """The chat template for a conversation; "" if there is none. A file may have several, each with
    a name."""
    named = [key for key in header.values if key.startswith(f"{_TEMPLATE}.")]
    named.sort(key=lambda key: (key.endswith((".tool_use", ".rag")), not key.endswith(".default")))
    found = (header.text(key) for key in (_TEMPLATE, *named))
    return next((source for source in found if source.strip()), "")


def _kinds(header: Header, experts: int | None, used: int | None) -> list[str]:
    """What kind of model it is, as far as the file says; a sentence for each property."""
    lines = []
    if experts:
        some = f"{used} of {experts}" if used else f"of {experts}"
        lines.append(f"Mixture of experts: each token uses {some} experts in each layer.")
    if any(header.arch_number(key) for key in _STATE_SIZES):
        attends = header.arch_number("attention.head_count")
        lines.append(
            "Hybrid: some layers keep a state of fixed size instead of keys and values."
            if attends
            else "Recurrent: a state of fixed size replaces the KV cache."
        )
    if window := _window(header):
        lines.append(f"The file names a sliding window of {window:,} tokens.")
    if header.arch_number("attention.key_length_mla"):
        lines.append("Multi-head latent attention: keys and values are one small vector per token.")
    return lines or (["Dense: each token uses all weights."] if header.architecture else [])


def _window(header: Header) -> int | None:
    """The sliding window that the file states; None if it is not shorter than the context."""
    window = header.arch_number("attention.sliding_window") or 0
    trained = header.arch_number("context_length")
    return window if 0 < window < (trained or window + 1) else None


def _problems(model: ModelFile, arch: str) -> list[str]:
    header, problems = model.header, []
    if why := not_for_chat(header):
        return [f"This {why}"]
    for key in (f"{arch}.{name}" for name in _NUMBERS):
        if key in header.values and header.number(key) is None:
            problems.append(f"{key} should be a whole number. Use a newer conversion.")
    if arch and f"{arch}.block_count" not in header.values and header.tensors:
        problems.append(f"The key {arch}.block_count is missing. Use a newer conversion.")
    if unknown := sorted({t.quant for t in header.tensors if t.n_bytes is None}):
        problems.append(
            f"Its tensors have the unknown {', '.join(unknown)}. A newer llama.cpp may load it."
        )
    if any("\ufffd" in key for key in header.values):
        problems.append("Some of its keys are not UTF-8: the file may be damaged.")
    return problems
