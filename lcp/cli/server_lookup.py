"""Finds the server that a name or an address means: [server.NAME] of config.toml, and its key."""

import re

from lcp import paths
from lcp.engine_interface import Engine
from lcp.errors import UsageError
from lcp.servers.address import ServerAddress, is_server, parse
from lcp.servers.config import ServerTable, key, servers, table_of
from lcp.settings import Settings


def tables() -> "dict[str, ServerTable]":
    """The servers of config.toml by name."""
    return servers(paths.config() / "config.toml")


def named(name: str) -> ServerAddress | None:
    """The server that a name or an address means, with its model; None if it is neither."""
    if is_server(name):
        return parse(name)
    short, _, model = name.partition("#")
    if table := tables().get(short):
        return table.address.with_model(model or table.address.model)
    return None


def chosen(server: str, model: str | None) -> str:
    """The name of the model on a server: `server` is an address or a name, `model` what -m says."""
    address = named(server) or parse(_address(server))
    return (address.with_model(model) if model else address).name


def _address(server: str) -> str:
    """What was given, if it can be an address; UsageError for a name that config.toml lacks."""
    if re.search("[.:@/?]", server) or server == "localhost":
        return server
    known = ", ".join(tables())
    told = f"config.toml has {known}" if known else "config.toml has no [server.NAME]"
    raise UsageError(
        f"There is no server called {server} ({told}). Give an address: --server http://box:8080"
    )


def engine(name: str, settings: Settings) -> Engine:
    """An engine for the model of this name, with the key of its server."""
    from lcp.remote.engine import RemoteEngine

    address = parse(name)
    table = table_of(address, tables())
    return RemoteEngine(address, settings, key(table), table.headers if table else None)
