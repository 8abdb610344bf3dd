"""The catalogue: short names of models, and the facts that models.toml states about them."""

import importlib.resources
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcp import paths
from lcp.errors import SettingsError
from lcp.settings import toml_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Field of a table -> type of its value. Every other name is a setting of the chat.
_FIELDS: dict[str, Any] = {
    "repo": str,
    "quant": str,
    "wheel": str,
    "size": (int, float),
    "licence": str,
    "context": int,
    "good_for": str,
}


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue: one table of models.toml."""

    name: str
    repo: str | None = None  # owner/name on the Hub
    quant: str | None = None  # which file of it
    wheel: str | None = None  # a distribution that contains the GGUF
    size: int | None = None  # bytes; see `about`
    about: bool = False  # whether the size is only known to a few percent
    licence: str = ""
    context: int | None = None  # tokens, as trained
    good_for: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)  # system text and sampling


def catalog() -> dict[str, Entry]:
    """All entries by name: lcp's own, overridden field by field by those of the user's
    models.toml; SettingsError if that file is invalid."""
    tables = tomllib.loads(_models_toml().read_text(encoding="utf-8"))
    own = paths.config() / "models.toml"
    for name, table in toml_file(own).items():
        if not isinstance(table, dict):
            raise SettingsError(f"{own}: {name} is outside a table. Put it under a [name].")
        tables[name] = tables.get(name, {}) | table
    return {name: _entry(name, dict(table), own) for name, table in tables.items()}


def _entry(name: str, table: dict[str, Any], own: Path) -> Entry:
    facts = {field: table.pop(field) for field in _FIELDS if field in table}
    for field_, value in facts.items():
        if isinstance(value, bool) or not isinstance(value, _FIELDS[field_]):
            raise SettingsError(f"{own}: {name} has an invalid {field_} ({value}). Correct it.")
    if isinstance(size := facts.get("size"), float):  # GB
        facts |= {"size": round(size * 1e9), "about": True}
    return Entry(name, settings=table, **facts)


def _models_toml() -> Any:
    """lcp's own models.toml: in a wheel, package data; in a checkout, the file at the top."""
    packaged = importlib.resources.files("lcp") / "models.toml"
    return packaged if packaged.is_file() else Path(__file__).parents[2] / "models.toml"
