"""The free memory of this machine, and roughly whether a model of a given size fits in it."""

from pathlib import Path
from typing import TYPE_CHECKING

from lcp import paths
from lcp.errors import LcpError
from lcp.machine import Gpu, machine

if TYPE_CHECKING:
    from lcp.modelfile.context_and_gpu_layers import Verdict


def gpus() -> "tuple[Gpu, ...]":
    """The GPUs that llama.cpp can use; none if it does not run here."""
    from lcp.engine import cpu_check
    from lcp.modelfile import llamacpp_answers

    try:
        return llamacpp_answers.gpus() if cpu_check.check_once(paths.cache()) else ()
    except LcpError:
        return ()


def free() -> int | None:
    """Free bytes in the fullest memory, of the machine and its GPUs; None if unknown."""
    found = machine(gpus=gpus())
    return None if found.free is None else min([found.free, *(gpu.free for gpu in found.gpus)])


def room() -> int | None:
    """Free bytes in all memories together; None if unknown."""
    found = machine(gpus=gpus())
    if found.free is None:
        return None
    return found.free + sum(gpu.free for gpu in found.gpus if not gpu.shared)


def verdict(size: int, room: int | None) -> "Verdict":
    """Roughly whether a model of this size fits: for models whose header was not read."""
    from lcp.modelfile.context_and_gpu_layers import rough_verdict

    return rough_verdict(size, room)


def figures_folder() -> Path:
    """The cache of llama.cpp's memory figures of models, for this version on this CPU."""
    from lcp.engine import cpu_check

    return cpu_check.answers(paths.cache())
