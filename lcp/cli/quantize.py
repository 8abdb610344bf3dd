"""`lcp quantize`: another quant of a model file, made by llama.cpp.

The size is known before anything is written. The file appears under its name only when it is whole;
its path goes to stdout, everything else to stderr.
"""

import os
import re
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp import formatting
from lcp.cli import options, shell_completion
from lcp.cli.options import argument, option, switch
from lcp.errors import LcpError, UsageError
from lcp.settings import Layers
from lcp.split_names import stem

if TYPE_CHECKING:
    from lcp.modelfile.facts import Facts
    from lcp.terminal.screen import Screen

WHOLE = ("F32", "F16", "BF16")  # number formats, no quants: nothing was lost before
_SILENT = 2.0  # seconds of work without a word


@dataclass(frozen=True)
class QuantizeArguments:
    """What was typed after `lcp quantize`, except the settings."""

    model: str = argument(
        "MODEL", "Model name or file.", required=True, autocompletion=shell_completion.models
    )
    quant: str = argument("TYPE", "Quant to make, such as Q8_0 or Q4_K_M.", required=True)
    output: Path | None = option(
        "-o --output", "FILE", "File to write; default: a new one in this folder."
    )
    dry_run: bool = switch("--dry-run", "Show the size of the new file, and stop.")


@dataclass(frozen=True)
class NewFile:
    """What would be made of a file, according to llama.cpp."""

    bytes: int  # about
    bits: float  # of a weight
    fallbacks: int  # tensors that get a larger quant, because their rows are not whole blocks


def run(asked: QuantizeArguments, flags: dict[str, Any]) -> None:
    """Quantize an installed model to another type, and print the path of the new file."""
    from lcp.downloads import library
    from lcp.modelfile.facts import facts
    from lcp.modelfile.model_files import local
    from lcp.modelfile.quants import file_types
    from lcp.terminal.screen import Screen

    kinds = file_types()
    quant = asked.quant.upper()
    if quant not in kinds:
        raise UsageError(f"There is no quant {asked.quant}. Give one of: {', '.join(kinds)}.")
    source = library.find(asked.model).path
    model = local(source)
    told = facts(model)
    if not model.complete:
        raise LcpError(f"{model.name} is incomplete. Resume its download: lcp pull NAME")
    if told.quant == quant:
        raise UsageError(f"{model.name} is {quant} already. Choose another quant.")
    target = asked.output or Path(target_name(model.name, told.quant, quant))
    if target.is_dir():
        target /= target_name(model.name, told.quant, quant)
    if target.exists():
        raise UsageError(f"{target} exists already. Remove it, or give another file with -o.")
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    threads = Layers.of(flags).resolve().threads
    wish = {"source": str(source), "target": str(part), "type": kinds[quant],
            "threads": threads or os.cpu_count() or 1, "name": model.name}  # fmt: skip
    screen = Screen()
    plan = _plan(wish, model.name, quant, model.header.data_start)
    screen.notice(_announced(told, model.size_present, quant, plan))
    if asked.dry_run:
        return
    _check_disk(target, plan.bytes)
    _write(wish, model.name, target, plan.bytes, screen)
    if not told.problems:
        screen.notice(f"Chat with it: lcp chat {shlex.quote(str(target))}")
    sys.stdout.write(f"{target.absolute()}\n")


quantize = options.command(QuantizeArguments, run, ("threads",))


def target_name(name: str, made_from: str, quant: str) -> str:
    """The name of the new file. It says what it was made from, unless that was a whole model."""
    bare = stem(name)
    spelled = re.compile(rf"[.\-_ ]{re.escape(made_from)}$", re.IGNORECASE)
    lost = "" if made_from in ("", *WHOLE) else f"-from-{made_from}"
    return f"{spelled.sub('', bare) if made_from else bare}.{quant}{lost}.gguf"


def _plan(wish: dict[str, Any], name: str, quant: str, header: int) -> NewFile:
    """What llama.cpp says it would write."""
    from lcp.modelfile.llamacpp_answers import ask

    answer = ask("quantize", {**wish, "dry": True}, name, timeout=None)
    if answer["imatrix"]:
        raise LcpError(
            f"{quant} needs an importance matrix, which lcp cannot make. Choose a K-quant, such "
            "as Q2_K or Q4_K_M."
        )
    return NewFile(header + answer["weights"], answer["bits"], answer["fallbacks"])


def _announced(told: "Facts", size: int, quant: str, plan: NewFile) -> str:
    """What will be made, and what it cannot be."""
    before = told.bits_per_weight or 0.0
    lines = [
        f"{told.quant}, {formatting.size(size)}, {before:.2f} bits per weight -> "
        f"{quant}, about {formatting.size(plan.bytes)}, {plan.bits:.2f} bits per weight."
    ]
    if plan.fallbacks:
        lines.append(
            f"{formatting.count(plan.fallbacks, 'tensor')} will have a larger quant: "
            f"{'its' if plan.fallbacks == 1 else 'their'} rows are not whole blocks of {quant}."
        )
    if told.quant not in WHOLE and quant in WHOLE:
        lines.append(f"Made from {told.quant}: the new file is no more accurate than that.")
    elif told.quant not in WHOLE:
        lines.append(f"Made from {told.quant}, not from the original: the errors of both add up.")
    return " ".join(lines)


def _check_disk(target: Path, needed: int) -> None:
    """LcpError if the file cannot be written, or the disk has too little room for it."""
    try:
        free = shutil.disk_usage(target.absolute().parent).free
    except OSError as error:
        raise LcpError(f"Cannot write {target}: {error.strerror}. Choose another file.") from None
    if needed > free:
        raise LcpError(
            f"{target} needs about {formatting.size(needed)}; "
            f"{formatting.size(free)} of the disk are free. "
            "Make room, or choose another disk with -o."
        )


def _write(wish: dict[str, Any], name: str, target: Path, size: int, screen: "Screen") -> None:
    """Write the file. llama.cpp leaves a beginning if it refuses or is stopped; it is removed."""
    from lcp.modelfile.llamacpp_answers import ask

    begun, part = time.monotonic(), Path(wish["target"])

    def waiting() -> None:
        if time.monotonic() - begun > _SILENT and part.exists():
            share = min(99, 100 * part.stat().st_size // size)
            screen.progress(f"quantizing: {share} % (Ctrl-C stops)")

    try:
        part.touch(exist_ok=False)
        ask("quantize", {**wish, "dry": False}, name, timeout=None, waiting=waiting)
        take_name(part, target)
    except OSError as error:
        raise LcpError(f"Cannot write {target}: {error.strerror}. Choose another file.") from None
    finally:
        screen.clear_progress()
        part.unlink(missing_ok=True)


def take_name(part: Path, target: Path) -> None:
    """Give the complete file its name. LcpError if another file has had it since we looked."""
    taken = LcpError(f"{target} was created in the meantime. Give another file with -o.")
    try:
        os.link(part, target)  # unlike a rename, never replaces a file
    except FileExistsError:
        raise taken from None
    except OSError:  # not every disk has links
        if target.exists():
            raise taken from None
        part.replace(target)
