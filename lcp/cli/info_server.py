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
    page.listing([("yes" if can else "no", what) for what, can in abilities(facts.kind).items()])


def abilities(kind: "ServerKind") -> dict[str, bool]:
    """What a chat can do with this kind of server, and what it cannot."""
    return {
        "count tokens (otherwise, lcp estimates)": kind.counts,
        "show how much of a prompt was cached": kind.tells_cached,
        "show progress while the model reads a prompt": kind.tells_progress,
        "keep turns in the cache when the window slides": kind.moves,
        "read your message while you type": kind.reads_ahead,
        "continue an answer that was cut": kind.continues,
        "continue an answer that was cut in its thinking": kind.continues_thinking,
        "continue text without a chat template": kind.completes,
        "make answers match a JSON schema": kind.schema,
        "make answers match a regular expression": bool(kind.regex),
        "make answers match a GBNF grammar": bool(kind.grammar),
        "show the probabilities of tokens": kind.probs,
        "limit the thinking": bool(kind.budget),
        "set the reasoning effort": kind.effort,
        "save the KV cache, replay chats, show memory figures": False,
    }


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
        "abilities": abilities(facts.kind),
    }
