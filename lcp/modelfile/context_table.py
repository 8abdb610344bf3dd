"""The contexts that a model can have on this computer, and the one that a chat would choose."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lcp.engine_interface import CTX_STEP, padded
from lcp.machine import Gpu, Machine
from lcp.modelfile.context_and_gpu_layers import (
    SizeChoice,
    Verdict,
    choose_sizes,
    largest_context,
    verdict,
)
from lcp.modelfile.facts import Facts
from lcp.modelfile.memory_needs import IMAGINED, ContextNeeds, ContextWish, Figures, MemoryNeeds
from lcp.modelfile.model_files import ModelFile

KV_TYPES = ("f16", "q8_0")  # always shown
_LEAST, _MOST = 2048, 1 << 20  # contexts that are shown, in tokens; more only if asked for
_UNTOLD = 32768  # if the file does not say what the model was trained for


@dataclass(frozen=True)
class ContextTable:
    """Rows by context, then KV type. `choice` is what a chat would load the model with."""

    needs: MemoryNeeds
    machine: Machine
    choice: SizeChoice
    rows: tuple[tuple[ContextNeeds, Verdict], ...]
    asked: bool  # whether a person gave the context
    chosen: ContextNeeds | None  # the row of the choice, None if llama.cpp refuses it
    fits: bool  # whether the choice fits in the free memory
    largest: int  # the largest context that fits, with the KV type of the choice; 0 if none does
    refused: str  # why llama.cpp refuses the choice


def context_table(
    model: ModelFile,
    facts: Facts,
    machine: Machine,
    *,
    ctx_size: int | None = None,
    kv_type: str = "f16",
    n_gpu_layers: int | None = None,
    flash_attn: str = "auto",
    gpu_memory: int | None = None,
    folder: Path | None = None,
) -> ContextTable:
    """What this model needs here; None leaves a number to lcp.

    `gpu_memory`: bytes of a GPU that is not here but might be. `folder`: where llama.cpp's answers
    are kept. Raises NativeError if llama.cpp does not run here, ModelError if it refuses the model.
    """
    trained, blocks = facts.context_length or 0, facts.layers or 0
    wishes = [(n, kv) for n in contexts(trained, ctx_size) for kv in sorted({*KV_TYPES, kv_type})]
    here = gpu_memory is None and bool(machine.gpus)
    if gpu_memory is not None:
        machine = _with_gpu(machine, gpu_memory)
    figures = Figures(
        model, flash_attn, gpu="here" if here else "imagined" if machine.gpus else "none",
        likely=() if here else wishes, folder=folder,
    )  # fmt: skip
    choice = choose_sizes(
        figures, machine, trained=trained, layers=blocks, ctx_size=ctx_size,
        n_gpu_layers=n_gpu_layers, kv_type=kv_type, bits_per_weight=facts.bits_per_weight or 0,
    )  # fmt: skip
    wish = (choice.ctx_size, kv_type)
    needs = figures.needs([*wishes, wish], choice.n_gpu_layers, choice.repack)
    own = figures.needs([wish], choice.n_gpu_layers, choice.repack)
    chosen = next(iter(own.rows), None)
    by_size = sorted({(row.context, row.kv_type): row for row in needs.rows}.items())
    rows = tuple((row, verdict(needs, row, machine)) for _, row in by_size)
    return ContextTable(
        needs=needs,
        machine=machine,
        choice=choice,
        rows=rows,
        asked=ctx_size is not None,
        chosen=chosen,
        fits=chosen is not None and verdict(needs, chosen, machine) == "fits",
        largest=_largest(rows, figures, machine, choice, trained or _UNTOLD),
        refused=needs.refused.get(wish, ""),
    )


def contexts(trained: int, asked: int | None) -> list[int]:
    """2048, doubled up to what the model was trained for, that itself, and the one asked for."""
    most = min(trained or _UNTOLD, _MOST)
    doubled = [_LEAST << i for i in range(20) if _LEAST << i < most]
    return sorted({*doubled, most} | ({asked} if asked else set()))


def _largest(
    rows: Sequence[tuple[ContextNeeds, Verdict]], figures: Figures, machine: Machine,
    choice: SizeChoice, most: int,
) -> int:  # fmt: skip
    """The largest context that fits, searched between rows that do and rows that do not."""
    known = [
        (min(row.context, most), result == "fits") for row, result in rows
        if row.kv_type == choice.kv_type and row.context < most + CTX_STEP
    ]  # fmt: skip
    low = max((n for n, fitting in known if fitting), default=0)
    high = min((n for n, fitting in known if not fitting and n > low), default=0)
    if not low or not high or high - low <= CTX_STEP:
        return low

    def fits(sizes: list[int]) -> list[bool]:
        wishes: list[ContextWish] = [(n, choice.kv_type) for n in sizes]
        made = figures.needs(wishes, choice.n_gpu_layers, choice.repack)
        answers = {row.context: verdict(made, row, machine) == "fits" for row in made.rows}
        return [answers.get(padded(n), False) for n in sizes]

    return largest_context(fits, high, low)  # which asks for `high` first: that is known


def _with_gpu(machine: Machine, size: int) -> Machine:
    return replace(machine, gpus=(Gpu(IMAGINED, size, size),))
