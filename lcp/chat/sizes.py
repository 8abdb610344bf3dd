"""Fitting: a model's file and this machine -> the numbers that the engine loads it with.

The figures are llama.cpp's own, from a process that may die, and are remembered: only the first
chat with a model waits for them.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lcp.engine.loading import Fit
from lcp.errors import ModelError, NotEnoughMemory
from lcp.settings import Settings
from lcp.words import size

if TYPE_CHECKING:
    from lcp.modelfile.fit import Choice
    from lcp.modelfile.memory import Memory, Wish
    from lcp.modelfile.parts import ModelFile


def fitting(
    path: Path, settings: Settings, known: Path, gpu: bool, name: str = ""
) -> Callable[[], Fit]:
    """What chooses context and GPU layers for a model, when it is called: that takes a while.

    `known`: the folder of remembered answers; `gpu`: whether this llama.cpp can use one; `name`:
    what sentences call the model. The call raises NotEnoughMemory when the model cannot run here,
    ModelError for one that llama.cpp cannot load or nobody can chat with, and GgufError.
    """

    def choose() -> Fit:
        # here and not above: the prompt does not wait for them
        from concurrent.futures import ThreadPoolExecutor

        from lcp.modelfile.parts import local
        from lcp.modelfile.purpose import not_for_chat
        from lcp.modelfile.trial import check_loads

        model = local(path)
        if why := not_for_chat(model.header):
            raise ModelError(f"{name or model.name} {why}")
        if not model.complete:
            raise ModelError(_incomplete(model))
        with ThreadPoolExecutor(1) as beside:  # each is a process
            trial = beside.submit(check_loads, model, known, name)
            try:
                return sizes(model)
            finally:
                trial.result()  # what it raises says more than what the sizes raise

    def sizes(model: "ModelFile") -> Fit:
        from lcp.modelfile import fit, machine, memory
        from lcp.modelfile.facts import facts

        known_facts = facts(model)
        here = machine.machine(gpus=machine.gpus() if gpu else ())

        def choice(repack: bool) -> "Choice":
            @cache
            def estimate(rows: "tuple[Wish, ...]", layers: int) -> "Memory":
                # GPUs come and go; what a CPU needs stays.
                return memory.estimate(
                    model,
                    rows,
                    n_gpu_layers=layers,
                    flash_attn=settings.flash_attn,
                    repack=repack,
                    known=None if gpu else known,
                )

            return fit.choose(
                lambda rows, layers: estimate(tuple(rows), layers),
                here,
                trained=known_facts.context_length or 0,
                layers=known_facts.layers or 0,
                ctx_size=settings.ctx_size,
                n_gpu_layers=settings.n_gpu_layers,
                kv_type=settings.kv_type,
                bits_per_weight=known_facts.bits_per_weight or 0.0,
            )

        repack, chosen = fit.with_copies_or_without(choice)
        if chosen.refusal:
            raise NotEnoughMemory(f"{name or path.name} does not fit here. {chosen.refusal}")
        return Fit(chosen.ctx_size, chosen.n_gpu_layers, repack, chosen.notices)

    return choose


def _incomplete(model: "ModelFile") -> str:
    if model.missing:
        return f"{model.name} lacks {', '.join(model.missing)}. Fetch all parts into one folder."
    return (
        f"{model.name} is incomplete: {size(model.size_present)} of "
        f"{size(model.size_expected)} are there. Fetch it again; lcp pull goes on where it was."
    )
