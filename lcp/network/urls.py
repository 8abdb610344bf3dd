"""Web addresses: their parts, and how a sentence shows them."""

import re
from urllib.parse import SplitResult, urlsplit

from lcp.errors import NetworkError

PORTS = {"http": 80, "https": 443}
_NETLOC = re.compile(r"(.*@)?(\[[\w.:%]+\]|[\w.%-]+)(:[0-9]+)?")  # urlsplit takes more


def split_address(address: str) -> SplitResult | None:
    """The parts of an address; None if it has no server or a malformed port."""
    try:
        split = urlsplit(address)
        split.port  # noqa: B018  # raises ValueError
    except ValueError:
        return None
    return split if _NETLOC.fullmatch(split.netloc) else None


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, server and port of a web address; NetworkError if it is not one."""
    split = split_address(url)
    if split and split.scheme in PORTS:
        return split.scheme, split.hostname or "", split.port or PORTS[split.scheme]
    raise NetworkError(f"{shown(url)} is not a web address. Give one that begins with https://")


def host(url: str) -> str:
    """The server and port of an address."""
    split = split_address(url)
    return split.netloc.rpartition("@")[2] if split else shown(url)


def shown(address: str) -> str:
    """An address for a sentence: "…" takes the place of what may be a password or a key."""
    found = re.match(r"(https?|ftp|file|socks\w?\w?)://", address, re.IGNORECASE)
    scheme = found[0] if found else ""
    split = split_address(address)
    if split is None or ":" in split.path or "@" in address.replace(split.netloc, "", 1):
        harmless = re.fullmatch(r"[\w./~\[\]-]*", address[len(scheme) :])
        return address if harmless else f"{scheme}…"
    user = "…@" if "@" in split.netloc else ""
    query = ("?…" if split.query else "") + ("#…" if split.fragment else "")
    return f"{scheme}{user}{host(address)}{split.path}{query}"
