"""The page that `lcp info` prints: the facts of a model and the memory it needs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lcp.engine_interface import padded
from lcp.formatting import size

if TYPE_CHECKING:
    from lcp.modelfile.context_table import ContextTable
    from lcp.modelfile.facts import Facts
    from lcp.modelfile.header import Header
    from lcp.modelfile.model_files import ModelFile
    from lcp.terminal.printout import Printout

VERDICTS = {"fits": "fits", "pages": "from disk", "no": "too large"}


def show(page: "Printout", model: "ModelFile", known: "Facts") -> None:
    """What the file says, then what is wrong with it."""
    page.title(known.name, model.name if model.name != known.name else "")
    whole = model.size_present if model.complete else model.size_expected
    if model.path is None:
        page.line(f"Not downloaded: {size(whole)} to fetch.")
    parameters = f"{count(known.parameters)} parameters" if known.parameters else ""
    active = f"{count(known.active_parameters)} active" if known.active_parameters else ""
    bits = f" ({known.bits_per_weight:.2f} bits/weight)" if known.bits_per_weight else ""
    page.items([
        known.architecture, parameters, active, f"{known.quant}{bits}" if known.quant else "",
        size(whole), known.licence,
    ])  # fmt: skip
    heads = "" if known.kv_heads in (None, known.heads) else f" ({known.kv_heads} kv)"
    trained = known.context_length
    page.items([
        f"{known.layers} layers" if known.layers else "",
        f"embedding {known.embedding:,}" if known.embedding else "",
        f"{known.heads} heads{heads}" if known.heads else "",
        f"trained for {trained:,} tokens" if trained else "",
        f"vocabulary {known.vocabulary:,} ({known.tokenizer})" if known.vocabulary else "",
    ])  # fmt: skip
    tools, thinking = ("yes" if x else "no" for x in (known.tools, known.thinking))
    state = "complete" if model.complete else "incomplete"
    parts = len(model.parts) + len(model.missing)
    page.items([
        f"chat template: yes (tools: {tools}, thinking: {thinking})" if known.template
        else f"chat template: no{_base(known)}",
        state if parts == 1 else f"{parts} parts, {state}",
        f"GGUF v{model.header.version}",
    ])  # fmt: skip
    if len(known.mix) > 1:
        page.items([f"{quant} {size(n)}" for quant, n in known.mix.items()])
    for line in (*known.kinds, *_notices(model), *known.problems):
        page.line(line)


def _base(known: "Facts") -> str:
    """What a model without a chat template is good for, where it is one that writes."""
    return "" if known.problems else " (a base model: lcp chat --raw continues text)"


def _notices(model: "ModelFile") -> Iterator[str]:
    """What is odd about the file, a sentence each."""
    here = model.path is not None
    if model.missing:
        todo = "Fetch them into the same folder." if here else "The server does not have them."
        yield f"Missing: {', '.join(model.missing)}. {todo}"
    present, lost = size(model.size_present), size(model.size_expected - model.size_present)
    part = f"{present} of {size(model.size_expected)}"
    if not here and model.size_present < model.size_expected:
        yield f"The server has only {part} (missing: {lost}). Choose another file."
    elif model.header_only:
        yield f"Only its header is here: {part}. Download the rest."
    elif model.size_present < model.size_expected:
        yield (
            f"{part} are here (missing: {lost}): the download was interrupted. Download the rest."
        )
    if model.trailing:
        yield f"{model.trailing:,} bytes after its last tensor are not used."


def show_memory(page: "Printout", known: "Facts", table: "ContextTable | str") -> None:
    """The table of contexts, and what follows from it; or why there is none."""
    if isinstance(table, str):
        if table not in known.problems:
            page.blank()
            page.line(table, indent=0)
        return
    from lcp.chat.memory_fit import refused

    page.blank()
    needs, choice, free = table.needs, table.choice, table.machine.free
    source = f"exact, by {_version()}" if needs.source == "exact" else "about"
    page.line(f"Memory ({source}; KV cache {choice.kv_type})", style="bold", indent=0)
    copied = f" ({size(needs.weights_anon)} repacked for this CPU)" * bool(needs.weights_anon)
    on_gpu = f" ({size(needs.weights_gpu)} on the GPU)" * bool(needs.weights_gpu)
    page.items([
        f"weights {size(needs.weights)}{copied}{on_gpu}",
        f"output {size(table.chosen.output)}" if table.chosen else "",
        f"{size(free)} of memory free here" if free is not None else "",
    ])  # fmt: skip
    head, rows, marked = _table(known, table)
    if rows:
        page.table(head, rows, drop=range(len(head) - 3, 0, -1), marked=marked)
    refusals = [refused(choice.refusal)] if choice.refusal else list(_refused(table))
    for line in (*choice.notices, *refusals):
        page.line(line)
    if rows:
        page.line(_largest(known, table))
    page.line(_gpu(known, table), indent=0)
    page.line("Not counted: about 160 MB for lcp itself, and a GPU driver's memory.", indent=0)


def _table(known: "Facts", table: "ContextTable") -> tuple[list[str], list[list[str]], int | None]:
    """A line for each context: the caches of all KV types, the sum for the one chosen."""
    kinds = sorted({row.kv_type for row, _ in table.rows})
    caches = {(row.context, row.kv_type): size(row.kv) for row, _ in table.rows}
    chosen = table.chosen.context if table.chosen else None
    rows: list[list[str]] = []
    marked = None
    for row, verdict in table.rows:
        if row.kv_type != table.choice.kv_type:
            continue
        note = VERDICTS[verdict]
        if known.context_length and row.context > padded(known.context_length):
            note += ", beyond training"
        if row.context == chosen:
            marked = len(rows)
            note += " ← -c" if table.asked else " ← default"
        each = [caches.get((row.context, kind), "-") for kind in kinds]
        rows.append([f"{row.context:,}", *each, size(row.compute), size(row.total), note])
    return ["context", *(f"KV {kind}" for kind in kinds), "compute", "total", ""], rows, marked


def _refused(table: "ContextTable") -> Iterator[str]:
    """Why llama.cpp refuses what was asked for, and what to type instead."""
    if table.refused:
        advice = "" if table.choice.kv_type == "f16" else " Use --kv-type f16."
        yield f"llama.cpp refuses a {table.choice.kv_type} KV cache here: {table.refused}.{advice}"


def _largest(known: "Facts", table: "ContextTable") -> str:
    if not table.largest:
        return "None of these contexts fits in the free memory."
    limit = " (limited by training, not by memory)" * (table.largest == known.context_length)
    return f"Largest context that fits: {table.largest:,}{limit}."


def _gpu(known: "Facts", table: "ContextTable") -> str:
    """How many layers go to which GPU."""

    def layers(n: int) -> str:
        total = (known.layers or 0) + 1
        return f"all {total} layers" if n < 0 or n >= total else f"{n} of {total} layers"

    if not table.machine.gpus:
        return "GPU: none found. --gpu-mem 8G plans for one with 8 GB."
    names = [f"{gpu.title} ({size(gpu.free)} free)" for gpu in table.machine.gpus]
    return f"{', '.join(names)}: {layers(table.choice.n_gpu_layers)}."


def show_keys(page: "Printout", header: "Header") -> None:
    """Every key and its value, cut at the margin."""
    page.blank()
    page.listing([(key, _short(value)) for key, value in header.values.items()])


def show_tensors(page: "Printout", header: "Header") -> None:
    """Every tensor: name, quant, shape, bytes."""
    page.blank()
    page.listing([
        (
            t.name, t.quant, " x ".join(map(str, t.shape)) or "1",
            "?" if t.n_bytes is None else f"{t.n_bytes:,} bytes",
        )
        for t in header.tensors
    ])  # fmt: skip


def _short(value: Any) -> str:
    from lcp.modelfile.header import GgufArray

    if isinstance(value, GgufArray):
        first = ", ".join(_short(x) for x in value.first[:8])
        return f"[{value.count:,}] {first}{', …' if value.count > 8 else ''}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.7g}" if isinstance(value, float) else str(value)[:1000]


def count(n: int) -> str:
    """Parameters as people write them: 134.5 M, 30.5 B."""
    for letter, unit in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if n >= unit:
            return f"{n / unit:.1f} {letter}"
    return f"{n:,}"


def _version() -> str:
    from importlib.metadata import version

    return f"llama-cpp-python {version('llama-cpp-python')}"
