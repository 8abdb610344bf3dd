"""Loads a model file and creates what an answer needs.

The sizes come from a LoadPlan or from the settings.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.engine import kv_cache_file
from lcp.engine.answering import Answering
from lcp.engine.context import Context
from lcp.engine.drafting import MOST
from lcp.engine.kv_cells import keep_all_cells
from lcp.engine.llama_library import StopByte, version
from lcp.engine.model import Model
from lcp.engine.params import flash_attention
from lcp.engine.prompt import PromptWriter
from lcp.engine_interface import AUTO_CTX, CTX_STEP
from lcp.machine import physical_cores
from lcp.settings import Settings

if TYPE_CHECKING:
    from lcp.engine.template_choice import TemplateChoice


@dataclass(frozen=True)
class LoadPlan:
    """The sizes that a model is loaded with, what is fastest for it, and notices."""

    ctx_size: int
    n_gpu_layers: int  # -1: all
    repack: bool = True  # llama.cpp may copy weights into an order that is faster on the CPU
    notices: tuple[str, ...] = ()
    flash_attn: str = "auto"  # which is faster, as measured
    threads: int | None = None  # the same, for the tokens of an answer; None if not measured
    # stores a measurement for the next start, and returns whether that was possible; None if there
    # is nothing to choose
    keep_speeds: Callable[[Mapping[str, Any]], bool] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LoadRequest:
    """A model file, and how to set up its engine."""

    path: Path
    settings: Settings
    plan: LoadPlan | None  # None: use the sizes of the settings
    now: datetime  # the beginning of the conversation, for the chat template
    template: str | None  # Jinja source; None: the template of the file
    name: str  # what errors call the model
    variables: Callable[[], Mapping[str, Any]]  # for the chat template
    raw: Callable[[], bool]  # continue text without a chat template


@dataclass(frozen=True)
class Loaded:
    """What answers need."""

    model: Model
    choice: "TemplateChoice"
    writer: PromptWriter
    context: Context
    answering: Answering


def load(
    request: LoadRequest, stop: StopByte, life: ExitStack, on_progress: Callable[[float], bool]
) -> Loaded:
    """Load a model and create its context. `life` frees them, also after a failure. Raises what
    Model, Template and Context raise."""
    s, plan = request.settings, request.plan
    layers = plan.n_gpu_layers if plan else -1 if s.n_gpu_layers is None else s.n_gpu_layers
    repack = plan.repack if plan else True
    model = Model.load(request.path, layers, on_progress, repack, name=request.name)
    life.callback(model.close)
    from lcp.engine.template_choice import of_model  # it imports jinja2, slowly

    choice = of_model(model, request.name, request.now, request.template)

    auto = min(model.n_ctx_train or AUTO_CTX, AUTO_CTX)
    size = plan.ctx_size if plan else s.ctx_size or auto
    context = Context(
        model,
        size,
        stop,
        threads=s.threads or physical_cores(),
        kv_type=s.kv_type,
        flash_attn=flash_attention(s.flash_attn, s.kv_type, layers != 0),
        swa_full=keep_all_cells(model, size, s.kv_type),
        rows=MOST,
    )
    life.callback(context.close)
    if plan and plan.threads and not s.threads:
        context.decode_on(plan.threads)
    writer = PromptWriter(choice.template, model, request.variables, request.raw)
    answering = Answering(model, context, writer, stop)
    return Loaded(model, choice, writer, context, answering)


def with_flash_attention(settings: Settings, plan: LoadPlan | None, saved: Path | None) -> Settings:
    """The settings, where flash attention is not "auto" if lcp knows better: it is that of the KV
    cache in the file `saved`, because another context cannot use this cache, or the faster one."""
    if settings.flash_attn != "auto":
        return settings
    made_with = kv_cache_file.made_with(saved) if saved else {}
    usable = {"llama.cpp": version(), "kv_type": settings.kv_type}.items() <= made_with.items()
    kept = made_with.get("flash_attn") if usable else ""
    measured = plan.flash_attn if plan else "auto"
    return replace(settings, flash_attn=kept if kept in ("on", "off") else measured)


def notices(plan: LoadPlan | None, asked: int | None, size: int) -> Iterator[str]:
    """Notices about the sizes: `asked` is the context size of the settings, `size` the real one."""
    if plan:
        yield from plan.notices
    if asked and asked < size:
        yield (
            f"The context has {size:,} tokens, not {asked:,}: llama.cpp rounds it up to a multiple "
            f"of {CTX_STEP}."
        )
