"""What goes into a load, what comes out while it lasts, and what is said of it then: plain
values.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """The numbers a model is loaded with, and what to say of them."""

    ctx_size: int
    n_gpu_layers: int  # -1: all
    repack: bool = True  # weights may be copied in an order that suits the CPU
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loading:
    """How much of the model is mapped, 0..1."""

    fraction: float


def told(fit: Fit | None, fallback: bool, asked: int | None, size: int) -> Iterator[str]:
    """What a person should know of it: `fallback`, whether the model has no template of its own;
    the context that was `asked` for, and its real `size`, in tokens."""
    if fit:
        yield from fit.notices
    if fallback:
        yield (
            "This model has no chat template; ChatML is used. --chat-template FILE gives another."
        )
    if asked and asked != size:
        yield f"The context has {size:,} tokens, not {asked:,}: llama.cpp takes whole 256s."
