"""`lcp info --server`: what a server runs, and what lcp can do there."""

import json
import sys
from typing import TYPE_CHECKING, Any

from lcp.cli import server_lookup
from lcp.servers.address import parse
from lcp.servers.config import key, table_of

if TYPE_CHECKING:
    from lcp.remote.discovery import ServerFacts
    from lcp.remote.server_kinds import ServerKind


# what a chat can do with a kind of server: a field of ServerKind, and what it means
_ABILITIES = {
    "counts": "count tokens (otherwise, lcp estimates)",
    "tells_cached": "show how much of a prompt was cached",
    "tells_progress": "show progress while the model reads a prompt",
    "moves": "keep turns in the cache when the window slides",
    "reads_ahead": "read your message while you type",
    "continues": "continue an answer that was cut",
    "continues_thinking": "continue an answer that was cut in its thinking",
    "completes": "continue text without a chat template",
    "schema": "make answers match a JSON schema",
    "regex": "make answers match a regular expression",
    "grammar": "make answers match a GBNF grammar",
    "probs": "show the probabilities of tokens",
    "budget": "limit the thinking",
    "effort": "set the reasoning effort",
}
_NEVER = "save the KV cache, replay chats, show memory figures"


def show(server: str, model: str | None, as_json: bool) -> None:
    """Ask the server, and print what it is."""
    from lcp.remote.discovery import look_up
    from lcp.terminal.printout import Printout

    address = parse(server_lookup.chosen(server, model))
    table = table_of(address, server_lookup.tables())
    facts = look_up(address, key(table), table.headers if table else None)
    if as_json:
        sys.stdout.write(json.dumps(_json(address.api, facts), indent=2) + "\n")
        return
    page = Printout()
    page.title(facts.model.rpartition("/")[2], f"{facts.kind.name} on {address.host}")
    rows = [("address", address.api), ("model", facts.model)]
    rows += [("build", facts.build)] if facts.build else []
    rows += [("context", _context(facts))]
    rows += [("sampling", _sampling(facts))]
    page.listing(rows)
    page.title("What lcp can do here")
    can = _abilities(facts.kind)
    rows = [("yes" if can[name] else "no", what) for name, what in _ABILITIES.items()]
    page.listing([*rows, ("no", _NEVER)])


def _abilities(kind: "ServerKind") -> dict[str, bool]:
    return {name: bool(getattr(kind, name)) for name in _ABILITIES}


def _context(facts: "ServerFacts") -> str:
    if not facts.size:
        return "not reported by this server"
    slots = f", for each of {facts.slots} chats at once" if facts.slots > 1 else ""
    trained = f" (trained for {facts.trained:,})" if facts.trained else ""
    return f"{facts.size:,} tokens{slots}{trained}"


def _sampling(facts: "ServerFacts") -> str:
    told = ", ".join(f"{name} {value}" for name, value in facts.defaults.items())
    return told or facts.kind.unset or "the server's own, not reported"


def _json(api: str, facts: "ServerFacts") -> dict[str, Any]:
    return {
        "server": {"address": api, "kind": facts.kind.name, "build": facts.build},
        "model": {"name": facts.model, "context_length": facts.trained or None},
        "context": facts.size or None,
        "slots": facts.slots,
        "sampling": dict(facts.defaults),
        "abilities": _abilities(facts.kind),
    }
