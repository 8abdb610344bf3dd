"""Services: what a chat can turn to beside itself: other models, other saved chats, personas.

Functions and plain values; the command line gives them, for it knows where models lie. It knows
no chat.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lcp import paths
from lcp.engines import Engine
from lcp.errors import ModelNotFound
from lcp.session.store import Store
from lcp.settings import Settings


@dataclass(frozen=True)
class Found:
    """A model that is here."""

    name: str  # what finds it again, from any folder
    path: Path
    settings: Mapping[str, Any] = field(default_factory=dict)  # what the catalogue recommends
    notices: tuple[str, ...] = ()  # what of that has no meaning


def _nothing(name: str) -> Found:
    raise ModelNotFound(f"There is no model called {name}. /model lists those that are here.")


def _engine(found: Found, settings: Settings, now: datetime) -> Engine:
    from lcp.engine.engine import LlamaEngine

    return LlamaEngine(found.path, settings, now=now)


@dataclass(frozen=True)
class Services:
    """Of a chat that was told of nothing: no other model, no persona, the saved chats."""

    find: Callable[[str], Found] = _nothing
    # The same, after a person was asked whether to download one that is not here.
    offer: Callable[[str], Found] | None = None
    models: Callable[[], Mapping[str, str]] = dict  # name -> quant and size
    # For a conversation that began at this moment; the model is not loaded yet.
    engine: Callable[[Found, Settings, datetime], Engine] = _engine
    free_memory: Callable[[], int | None] = lambda: None  # bytes; None where nobody says
    personas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    store: Store = field(default_factory=lambda: Store(paths.sessions()))
