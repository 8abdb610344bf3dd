"""Catalog: models.toml -> Entry: short names and what is known of them."""

import importlib.resources
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Entry:
    """One table of models.toml."""

    name: str
    wheel: str | None = None  # a distribution that contains the GGUF
    settings: Mapping[str, Any] = field(default_factory=dict)  # system text and sampling


def catalog() -> dict[str, Entry]:
    """The entries that come with lcp, by name."""
    tables = tomllib.loads(_models_toml().read_text(encoding="utf-8"))
    return {name: _entry(name, dict(table)) for name, table in tables.items()}


def _entry(name: str, table: dict[str, Any]) -> Entry:
    return Entry(name, wheel=table.pop("wheel", None), settings=table)


def _models_toml() -> Any:
    """Package data of a wheel; an editable install reads the file people send patches to."""
    packaged = importlib.resources.files("lcp") / "models.toml"
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "models.toml"
