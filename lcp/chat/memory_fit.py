"""What a model is loaded with: its file and this computer -> context, GPU layers, what is fastest.

The figures are llama.cpp's own, from a process that may crash, and are kept: only the first chat
with a model waits for them.
"""

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lcp.engine.loading import LoadPlan
from lcp.engine_interface import AUTO_CTX
from lcp.errors import LcpError, ModelError, NotEnoughMemory
from lcp.formatting import either, size
from lcp.machine import physical_cores
from lcp.settings import Settings
from lcp.worker import Task

if TYPE_CHECKING:
    from lcp.modelfile.context_and_gpu_layers import Refusal
    from lcp.modelfile.facts import Facts
    from lcp.modelfile.model_files import ModelFile


def choose(path: Path, settings: Settings, known: Path, gpu: bool, name: str = "") -> LoadPlan:
    """Context and GPU layers for a model; takes a while if llama.cpp has to be asked.

    `known`: the folder of llama.cpp's answers; `gpu`: whether it has a GPU; `name`: what messages
    call the model. Raises NotEnoughMemory if the model cannot run here, ModelError if llama.cpp
    cannot load it or it is not a chat model, and GgufError.
    """
    # here and not above: the prompt does not wait for it
    from lcp.modelfile.llamacpp_answers import check_loads, stored_speed

    model = _chat_model(path, name)
    # What a person chose is not measured; a quantized KV cache needs flash attention.
    speed = stored_speed(model, known, physical_cores())
    ours = settings.flash_attn == "auto" and settings.kv_type == "f16" and not gpu
    fastest = (ours and speed.read()) or {}
    trial = Task(lambda _: check_loads(model, known, name))
    threading.Thread(target=trial.run).start()  # each of the two is a process
    try:
        plan = _sizes(model, settings, known, gpu, name)
    finally:
        trial.result()  # what it raises says more than what the sizes raise
    if ours:
        called = name or model.name
        plan = replace(plan, keep_speeds=lambda new: speed.write({"model": called, **new}))
    if fastest:
        plan = replace(plan, flash_attn=fastest["flash_attn"], threads=fastest["threads"])
    return plan


def without_figures(path: Path, settings: Settings, name: str = "") -> LoadPlan:
    """The sizes for a model in memory that lcp cannot see, such as that of other computers.

    Raises ModelError if it is not a chat model, and GgufError.
    """
    from lcp.modelfile.facts import facts

    return _plain(facts(_chat_model(path, name)), settings)


def refused(refusal: "Refusal") -> str:
    """The sentence for a context that does not fit, with what to type."""
    if not refusal.place:
        return f"A context of {refusal.context} does not fit. Use -c auto."
    options = [
        f"-c {refusal.smaller_context}" * bool(refusal.smaller_context),
        f"--kv-type {refusal.smaller_kv_type}" * bool(refusal.smaller_kv_type),
        "-ngl auto" * refusal.too_many_layers,
    ]
    quant = refusal.smaller_quant
    options = [o for o in options if o] or [f"its {quant} version" if quant else "a smaller model"]
    return (
        f"A context of {refusal.context} needs {size(refusal.needed)} of {refusal.place}; "
        f"{size(refusal.room)} are available. Use {either(options)}."
    )


def _chat_model(path: Path, name: str) -> "ModelFile":
    from lcp.modelfile.model_files import local
    from lcp.modelfile.non_chat_models import not_for_chat

    model = local(path)
    if why := not_for_chat(model.header):
        raise ModelError(f"{name or model.name} {why}")
    if not model.complete:
        raise ModelError(_incomplete(model))
    return model


def _plain(told: "Facts", settings: Settings, *notices: str) -> LoadPlan:
    """The sizes of the settings; else a moderate context, and all layers on the GPU."""
    from lcp.modelfile.memory_needs import ALL

    context = settings.ctx_size or min(told.context_length or AUTO_CTX, AUTO_CTX)
    layers = ALL if settings.n_gpu_layers is None else settings.n_gpu_layers
    return LoadPlan(context, layers, True, notices)


def _sizes(model: "ModelFile", settings: Settings, known: Path, gpu: bool, name: str) -> LoadPlan:
    from lcp.machine import machine
    from lcp.modelfile.context_and_gpu_layers import choose_sizes
    from lcp.modelfile.facts import facts
    from lcp.modelfile.llamacpp_answers import gpus
    from lcp.modelfile.memory_needs import Figures

    told = facts(model)
    # GPUs come and go; what a CPU needs stays the same.
    figures = Figures(
        model, settings.flash_attn, gpu="here" if gpu else "none", folder=None if gpu else known
    )
    try:
        choice = choose_sizes(
            figures, machine(gpus=gpus() if gpu else ()), trained=told.context_length or 0,
            layers=told.layers or 0, ctx_size=settings.ctx_size,
            n_gpu_layers=settings.n_gpu_layers, kv_type=settings.kv_type,
            bits_per_weight=told.bits_per_weight or 0.0,
        )  # fmt: skip
    except LcpError as error:  # the chat itself will show whether the model runs
        return _plain(told, settings, f"Memory needs are not known: {error}")
    if choice.refusal:
        raise NotEnoughMemory(f"{name or model.name} does not fit here. {refused(choice.refusal)}")
    return LoadPlan(choice.ctx_size, choice.n_gpu_layers, choice.repack, choice.notices)


def _incomplete(model: "ModelFile") -> str:
    if model.missing:
        return f"{model.name} lacks {', '.join(model.missing)}. Download all parts to one folder."
    return (
        f"{model.name} is incomplete: {size(model.size_present)} of "
        f"{size(model.size_expected)} are here (missing: "
        f"{size(model.size_expected - model.size_present)}). Resume the download with lcp pull."
    )
