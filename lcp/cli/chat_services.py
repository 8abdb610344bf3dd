"""The services of a chat that the command line starts: models, engines, free memory, personas."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lcp import paths
from lcp.cli import free_memory, server_lookup
from lcp.cli.pull import find_or_pull
from lcp.engine_interface import Engine
from lcp.formatting import size
from lcp.recommended_settings import usable
from lcp.settings import Settings, personas

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lcp.chat.services_interface import FoundModel, Services
    from lcp.downloads.library import Installed
    from lcp.engine.engine import LlamaEngine


def services(template: str | None = None, verbose: bool = False) -> "Services":
    """The services of a chat. `template`: Jinja source for its first model only."""
    from lcp.chat.services_interface import Services

    first: list[Path] = []

    def engine(found: "FoundModel", settings: Settings, now: "datetime") -> Engine:
        if found.path is None:
            return server_lookup.engine(found.name, settings)
        from lcp.downloads import pulls_and_uses
        from lcp.engine import llama_library

        llama_library.log.echo = _echo if verbose else None
        if first:  # the use of the first model is recorded already
            pulls_and_uses.note_use(found.name)
        first[:] = first or [found.path]
        return local_engine(found, settings, now, template if found.path == first[0] else None)

    return Services(
        find=find,
        offer=_find_or_pull,
        models=_models,
        engine=engine,
        free_memory=free_memory.free,
        personas=personas(paths.config() / "config.toml"),
    )


def local_engine(
    found: "FoundModel", settings: Settings, now: "datetime", template: str | None = None
) -> "LlamaEngine":
    """An engine of llama.cpp, with sizes that fit here; NotSupported for a model on a server."""
    from lcp.chat import memory_fit
    from lcp.engine import cpu_check
    from lcp.engine.engine import LlamaEngine

    gpu = cpu_check.check_once(paths.cache())
    shown = title(found.file.name, found.name)
    plan = partial(
        memory_fit.choose, found.file, settings, free_memory.figures_folder(), gpu, shown
    )
    return LlamaEngine(found.file, settings, now=now, template=template, plan=plan, name=shown)


def find(name: str, look: "Callable[[str], Installed] | None" = None) -> "FoundModel":
    """The model with this name or path, found by `look`, with its recommended settings; or the
    server with this name or address."""
    from lcp.chat.services_interface import FoundModel
    from lcp.downloads import library

    if address := server_lookup.named(name):
        return FoundModel(address.name, None)
    model = (look or library.find)(name)
    settings, notices = usable(model.entry.settings if model.entry else {}, "models.toml")
    again = model.name if model.stored else absolute(name)
    return FoundModel(again, model.path, settings, tuple(notices))


def _find_or_pull(name: str) -> "FoundModel":
    """The model of this name; if it is not here, a person is asked whether to download it."""
    return find(name, lambda wanted: find_or_pull(wanted, remember=False))


def absolute(model: str) -> str:
    """The absolute path if `model` is a file, so that any folder finds it; else the name."""
    path = paths.at(model)
    return str(path.absolute()) if path and path.is_file() else model


def _echo(line: str) -> None:
    """Print a line of llama.cpp's log, cleaned: it contains text from the GGUF file."""
    from lcp.terminal.clean import clean

    sys.stderr.write(f"{clean(line)}\n")


def _models() -> dict[str, str]:
    """Name of each model that is here -> its quant and size; of each server -> its host."""
    from lcp.downloads import library

    found = {name: model.stored for name, model in library.installed().items()}
    here = {n: f"{f.quant or ''} {size(f.size)}".strip() if f else "" for n, f in found.items()}
    return here | {n: f"server {t.address.host}" for n, t in server_lookup.tables().items()}


def title(file: str, name: str | None) -> str:
    """What messages call a model: its file name; Ollama's name if the file is named by a hash."""
    return file if name is None or file.lower().endswith(".gguf") else name
