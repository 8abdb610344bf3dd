"""What a person should know about a server before the first question."""

from lcp.remote.discovery import ServerFacts
from lcp.servers.address import ServerAddress
from lcp.settings import Settings


def notices(
    facts: ServerFacts, address: ServerAddress, settings: Settings, size: int, has_key: bool
) -> list[str]:
    """Notices about a server. `size` is the size of the context that lcp uses."""
    sentences, host, asked = [], address.host, settings.ctx_size
    if not facts.size:
        sentences.append(
            f"{host} does not report its context size; lcp assumes {size:,} tokens (ctx_size)."
        )
    elif asked and asked > facts.size:
        sentences.append(f"The context of {host} has {facts.size:,} tokens, not {asked:,}.")
    if facts.kind.drops:
        sentences.append(f"{facts.kind.name} drops the oldest messages of a chat that is too long.")
    if facts.kind.unset and not {"temp", "top_p"} <= settings.chosen:
        sentences.append(facts.kind.unset)
    if has_key and address.is_open:
        sentences.append(f"The key goes to {host} unencrypted. Use an address with https://")
    return sentences
