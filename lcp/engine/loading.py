"""Loading: a file and the numbers for it -> all that answers need, wired.

It decides no numbers: a Fit has them, or the settings.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.engine.answering import Answering
from lcp.engine.context import Context
from lcp.engine.kv_cells import keep_all_cells
from lcp.engine.model import Model
from lcp.engine.native import StopByte
from lcp.engine.prompt import PromptWriter
from lcp.machine import physical_cores
from lcp.settings import Settings

if TYPE_CHECKING:
    from lcp.engine.template_choice import TemplateChoice

AUTO_CTX = 8192  # -c auto without a Fit: what the model was trained for, at most this


@dataclass(frozen=True)
class Fit:
    """The numbers a model is loaded with, and what to say of them."""

    ctx_size: int
    n_gpu_layers: int  # -1: all
    repack: bool = True  # weights may be copied in an order that suits the CPU
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """What a load makes."""

    model: Model
    choice: "TemplateChoice"
    writer: PromptWriter
    context: Context
    answering: Answering
    new_context: Callable[..., Context]  # (size, ...): another one of this model


def load(
    path: Path,
    settings: Settings,
    fit: Fit | None,
    stop: StopByte,
    life: ExitStack,
    on_progress: Callable[[float], bool],
    *,
    now: datetime,
    template: str | None,
    variables: Callable[[], Mapping[str, Any]],
    name: str,
    raw: Callable[[], bool],
) -> Loaded:
    """Load a model and make its context; `life` will free what was made, also by a load that
    fails. Raises what Model, Template and Context do."""
    from lcp.engine.template_choice import choose  # jinja2, which the prompt does not wait for

    s = settings
    layers = fit.n_gpu_layers if fit else -1 if s.n_gpu_layers is None else s.n_gpu_layers
    model = Model.load(path, layers, on_progress, fit.repack if fit else True, name=name)
    life.callback(model.close)
    choice = choose(
        model.chat_template if template is None else template,
        now=now,
        bos=model.text([model.bos]) if model.bos >= 0 else "",
        eos=model.text([model.eos]) if model.eos >= 0 else "",
        name=name,
        own=template is not None,
    )

    def new_context(size: int, **more: Any) -> Context:
        return Context(
            model,
            size,
            stop,
            threads=s.threads or physical_cores(),
            kv_type=s.kv_type,
            flash_attn=s.flash_attn,
            offloaded=layers != 0,
            **more,
        )

    auto = min(model.n_ctx_train or AUTO_CTX, AUTO_CTX)
    size = fit.ctx_size if fit else s.ctx_size or auto
    context = new_context(size, swa_full=keep_all_cells(model, size, s.kv_type))
    life.callback(context.close)
    writer = PromptWriter(choice.template, model, variables, raw)
    answering = Answering(model, context, writer, stop)
    return Loaded(model, choice, writer, context, answering, new_context)


def told(fit: Fit | None, asked: int | None, size: int) -> Iterator[str]:
    """What a person should know of it: the context that was `asked` for, and its real `size`, in
    tokens."""
    if fit:
        yield from fit.notices
    if asked and asked != size:
        yield f"The context has {size:,} tokens, not {asked:,}: llama.cpp takes whole 256s."
