"""Web addresses: their parts, and how a sentence shows them."""

import re
from urllib.parse import SplitResult, urlsplit

from lcp.errors import NetworkError

PORTS = {"http": 80, "https": 443}


def split_address(address: str) -> SplitResult | None:
    """The parts of an address; None if it has no server or a malformed port."""
    try:
        split = urlsplit(address)
        split.port  # noqa: B018  # raises ValueError
    except ValueError:
        return None
    return split if split.hostname and re.fullmatch(r"[\w.:%-]+", split.hostname) else None


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
    """An address for a sentence: "…" takes the place of what may be a password or a key. Whatever
    is malformed may be one, from the first colon or the last @ on."""
    scheme = re.match(r"\w*://|", address)[0]  # type: ignore[index]
    split = split_address(address)
    if split is None or "@" in address.replace(split.netloc, "", 1):
        harmless = re.fullmatch(r"[\w./~\[\]-]*", address[len(scheme) :])
        return address if harmless else f"{scheme}…"
    user = "…@" if "@" in split.netloc else ""
    query = ("?…" if split.query else "") + ("#…" if split.fragment else "")
    return f"{scheme}{user}{host(address)}{split.path}{query}"
