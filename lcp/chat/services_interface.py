"""What a chat needs beside its engine: other models, saved chats, personas.

The command line provides these functions and values, because it knows where models are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lcp import paths
from lcp.engine_interface import Engine
from lcp.errors import ModelNotFound, NotSupported
from lcp.session.store import Store
from lcp.settings import Settings


@dataclass(frozen=True)
class FoundModel:
    """A model on this computer, or on a server."""

    name: str  # finds it again, from any folder
    path: Path | None  # None: on the server of that name
    settings: Mapping[str, Any] = field(default_factory=dict)  # that the catalogue recommends
    notices: tuple[str, ...] = ()  # on recommendations without meaning

    @property
    def file(self) -> Path:
        """Its file; NotSupported for a model on a server."""
        if self.path is None:
            raise NotSupported(
                f"{self.name} is on a server. This needs a model on this "
                "computer; lcp list shows them."
            )
        return self.path


def _nothing(name: str) -> FoundModel:
    raise ModelNotFound(
        f"There is no model called {name}. /model lists the models on this computer."
    )


def _engine(found: FoundModel, settings: Settings, now: datetime) -> Engine:
    from lcp.engine.engine import LlamaEngine

    return LlamaEngine(found.file, settings, now=now)


@dataclass(frozen=True)
class Services:
    """By default: no other model, no persona, the saved chats of this computer."""

    find: Callable[[str], FoundModel] = _nothing
    # The same, but asks whether to download a model that is not here.
    offer: Callable[[str], FoundModel] | None = None
    models: Callable[[], Mapping[str, str]] = dict  # name -> quant and size
    # An engine for a conversation that began at this moment; not loaded yet.
    engine: Callable[[FoundModel, Settings, datetime], Engine] = _engine
    free_memory: Callable[[], int | None] = lambda: None  # bytes, None if unknown
    personas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    store: Store = field(default_factory=lambda: Store(paths.sessions()))
