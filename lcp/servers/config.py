"""The servers of config.toml: its tables [server.NAME]."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcp.errors import SettingsError, UsageError
from lcp.formatting import short
from lcp.servers.address import ServerAddress, parse
from lcp.settings import near, toml_file

KEY = "LCP_API_KEY"


@dataclass(frozen=True)
class ServerTable:
    """A table [server.NAME] of config.toml. The key is in the environment variable `key_env`."""

    name: str
    address: ServerAddress  # with the model, if the table names one
    key_env: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def servers(path: Path) -> dict[str, ServerTable]:
    """The tables [server.NAME] of a config.toml by name. SettingsError for an invalid one."""
    found = toml_file(path).get("server")
    tables = found if isinstance(found, dict) else {}
    return {n: _server(n, t) for n, t in tables.items() if isinstance(t, dict)}


def _server(name: str, table: Mapping[str, Any]) -> ServerTable:
    texts = {"url", "key_env", "model"}
    where = f"[server.{name}] of config.toml"
    if unknown := [key for key in table if key not in {*texts, "headers"}]:
        close = near(unknown[0], {*texts, "headers"})
        known = "It can have url, key_env, model and headers."
        hint = f"Did you mean {close[0]}?" if close else known
        raise SettingsError(f"{where} has an unknown name, {unknown[0]}. {hint}")
    if not isinstance(table.get("url"), str):
        raise SettingsError(f'{where} needs the address of the server: url = "http://box:8080"')
    headers = table.get("headers", {})
    plain = isinstance(headers, dict) and all(isinstance(v, str) for v in headers.values())
    if not plain or not all(isinstance(table.get(n, ""), str) for n in texts):
        raise SettingsError(f"{where}: every value must be a string in quotes.")
    for header, value in headers.items():
        if not (re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", header, re.ASCII) and _is_plain(value)):
            raise SettingsError(
                f"{where}: the header {short(header, 40)} has characters that a header cannot "
                "have, for example a line break. Correct it."
            )
    try:
        address = parse(table["url"])
    except UsageError as error:
        raise SettingsError(f"{where}: {error}") from None
    address = address.with_model(table.get("model") or address.model)
    return ServerTable(name, address, table.get("key_env", ""), headers)


def _is_plain(text: str) -> bool:
    """Whether this can be the value of a header."""
    return text.isascii() and text.isprintable()


def table_of(address: ServerAddress, tables: Mapping[str, ServerTable]) -> ServerTable | None:
    """The table for this server, if there is one."""
    bare = address.with_model("")
    return next((t for t in tables.values() if t.address.with_model("") == bare), None)


def key(table: ServerTable | None) -> str:
    """The key for a server; "" if there is none. OPENAI_API_KEY is sent only if key_env names
    it."""
    variable = table.key_env if table and table.key_env else KEY
    found = os.environ.get(variable, "").strip()
    if table and table.key_env and not found:
        raise SettingsError(
            f"[server.{table.name}] takes its key from {variable}, which is not set. "
            f"Set it: export {variable}=…"
        )
    if not _is_plain(found):
        raise SettingsError(f"{variable} has characters that a key cannot have. Correct it.")
    return found
