"""`lcp info`: what a model is, and what it needs, from the header of its file."""

import dataclasses
import json
import math
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from lcp import formatting, paths
from lcp.cli import (
    free_memory,
    info_online,
    info_page,
    info_server,
    options,
    shell_completion,
)
from lcp.cli.chat_services import title
from lcp.cli.options import argument, option, switch
from lcp.errors import LcpError, ModelError, NotHere, UsageError
from lcp.machine import machine
from lcp.settings import Layers

if TYPE_CHECKING:
    from lcp.modelfile.context_table import ContextTable
    from lcp.modelfile.facts import Facts
    from lcp.modelfile.model_files import ModelFile

UNFIT = 3  # exit code of an incomplete file, and of --check


@dataclass(frozen=True)
class InfoArguments:
    """What was typed after `lcp info`, except the settings."""

    name: str | None = argument(
        "MODEL", "File, model name, owner/repo[:QUANT] or address.",
        autocompletion=shell_completion.models,
    )  # fmt: skip
    every: bool = switch("--all", "Print every key of the file.")
    tensors: bool = switch("--tensors", "Print every tensor of the file.")
    template: bool = switch("--template", "Print only the chat template.")
    as_json: bool = switch("--json", "Print one JSON object, with sizes in bytes.")
    check: bool = switch("--check", "Exit with 3 if the model does not fit here.")
    gpu_mem: str | None = option(
        "--gpu-mem", "SIZE", "Plan for a GPU with this much memory, e.g. 24G."
    )


def run(asked: InfoArguments, flags: dict[str, Any]) -> None:
    """Show what a model is and how much memory it needs. Reads only the header."""
    if server := flags.pop("server", None):
        info_server.show(server, asked.name, asked.as_json)
        return
    from lcp.chat.error_advice import with_advice
    from lcp.modelfile.facts import facts

    name, settings = asked.name, Layers.of(flags).resolve()
    card = None if asked.gpu_mem is None else _bytes(asked.gpu_mem)
    if name and info_online.is_repository(name) and paths.at(name) is None:
        info_online.list_models(name, asked.as_json)
        return
    with ExitStack() as files:
        model = _open(name, files)
    if asked.template:
        _show_template(model)
        return
    known = facts(model)
    try:
        needs: ContextTable | str = _memory_table(name, model, known, settings, card)
    except LcpError as error:
        needs = with_advice(error)
    if asked.as_json:
        told = _as_json(model, known, needs)
        if asked.every:
            told["metadata"] = {k: _plain(v) for k, v in model.header.values.items()}
        if asked.tensors:
            told["tensors"] = [_tensor(t) for t in model.header.tensors]
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        from lcp.terminal.printout import Printout

        page = Printout()
        info_page.show(page, model, known)
        info_page.show_memory(page, known, needs)
        if asked.every:
            info_page.show_keys(page, model.header)
        if asked.tensors:
            info_page.show_tensors(page, model.header)
    fits = not isinstance(needs, str) and needs.fits and not known.problems
    if not model.complete or (asked.check and not fits):
        raise typer.Exit(UNFIT)


info = options.command(
    InfoArguments, run, ("ctx_size", "kv_type", "flash_attn", "n_gpu_layers", "server")
)


def _bytes(given: str) -> int:
    """24G, 8192M, 7.5GiB, 24GB -> bytes."""
    found = formatting.quantity(given, formatting.BYTES | {"": 1 << 30})
    if found is None:
        raise UsageError(f"--gpu-mem must be a size such as 24G or 8192M (got {given}).")
    return found


# where the file is


def _open(name: str | None, files: ExitStack) -> "ModelFile":
    from lcp.downloads import library, model_names
    from lcp.modelfile.model_files import local

    if name is None:
        return local(library.default().path)
    path = paths.at(name)
    # A file by its own path, not by where a link leads: the other parts of a model lie beside it.
    if path and name not in library.installed():
        return local(path)
    if info_online.is_address(name) and not model_names.is_remote(name):
        return info_online.at_address(name, files)
    try:
        return local(library.find(name).path)
    except NotHere:
        return info_online.on_hub(name, files)


# what it needs


def _memory_table(
    name: str | None, model: "ModelFile", known: "Facts", settings: Any, card: int | None
) -> "ContextTable":
    """The memory table; an LcpError says why there is none."""
    from lcp.modelfile.context_table import context_table
    from lcp.modelfile.llamacpp_answers import check_loads
    from lcp.modelfile.non_chat_models import not_for_chat

    if why := not_for_chat(model.header):
        raise ModelError(f"This {why}")
    if model.missing:
        raise ModelError("The memory it needs is known once all of its parts are here.")
    if known.bits_per_weight is None:
        raise ModelError("The memory it needs is not known: some tensors have an unknown type.")
    found = free_memory.gpus() if card is None else ()
    check_loads(model, free_memory.figures_folder(), title(model.name, name))
    return context_table(
        model, known, machine(gpus=found), ctx_size=settings.ctx_size, kv_type=settings.kv_type,
        n_gpu_layers=settings.n_gpu_layers, flash_attn=settings.flash_attn, gpu_memory=card,
        folder=None if found else free_memory.figures_folder(),
    )  # fmt: skip


# for scripts


def _show_template(model: "ModelFile") -> None:
    from lcp.modelfile.facts import template_source
    from lcp.terminal.printout import Printout

    source = template_source(model.header)
    if not source:
        raise ModelError(
            f"{model.name} has no chat template. Give one: lcp chat --chat-template FILE"
        )
    Printout().text(source)


def _as_json(model: "ModelFile", known: "Facts", needs: "ContextTable | str") -> dict[str, Any]:
    return {
        "file": {
            "path": None if model.path is None else str(model.path),
            "name": model.name,
            "size": model.size_present,
            "size_expected": model.size_expected,
            "complete": model.complete,
            "parts": [part.name for part in model.parts],
            "missing": list(model.missing),
            "gguf_version": model.header.version,
            "endian": model.header.endian,
        },
        "model": dataclasses.asdict(known),
        "memory": {"source": None, "why": needs, "rows": []} if isinstance(needs, str)
        else _memory_json(needs),
    }  # fmt: skip


def _memory_json(table: "ContextTable") -> dict[str, Any]:
    from lcp.chat.memory_fit import refused

    needs, machine, choice = table.needs, table.machine, table.choice
    return {
        "source": needs.source,
        "why": table.refused or (refused(choice.refusal) if choice.refusal else ""),
        "weights_file": needs.weights_file,
        "weights_anon": needs.weights_anon,
        "weights_gpu": needs.weights_gpu,
        "free": machine.free,
        "gpus": [{"name": gpu.title, "free": gpu.free} for gpu in machine.gpus],
        "n_gpu_layers": choice.n_gpu_layers,
        "context": table.chosen.context if table.chosen else choice.ctx_size,
        "kv_type": choice.kv_type,
        "largest_context": table.largest,
        "fits": table.fits,
        "rows": [
            {
                "context": row.context, "kv_type": row.kv_type, "weights": needs.weights,
                "kv": row.kv, "compute": row.compute, "output": row.output, "total": row.total,
                "fits": verdict == "fits", "verdict": verdict,
            }
            for row, verdict in table.rows
        ],
    }  # fmt: skip


def _tensor(t: Any) -> dict[str, Any]:
    return {"name": t.name, "shape": list(t.shape), "quant": t.quant, "bytes": t.n_bytes}


def _plain(value: Any) -> Any:
    """A value of the metadata as JSON has it; infinities and NaN as text."""
    from lcp.modelfile.header import GgufArray

    if isinstance(value, GgufArray):
        return {"count": value.count, "first": [_plain(x) for x in value.first]}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
