"""Web addresses: their parts, and how a sentence shows them."""

import re
from urllib.parse import SplitResult, urlsplit


def split_address(address: str) -> SplitResult | None:
    """The parts of an address; None if it has no server or a malformed port."""
    try:
        split = urlsplit(address)
        split.port  # noqa: B018  # raises ValueError
    except ValueError:
        return None
    return split if split.hostname and re.fullmatch(r"[\w.:%-]+", split.hostname) else None


def host(url: str) -> str:
    """The server and port of an address."""
    split = split_address(url)
    return split.netloc.rpartition("@")[2] if split else without_password(url)


def without_password(address: str) -> str:
    """The address, its user name and password replaced by "…"."""
    return re.sub(r"^(\w+://)?[^/]*@", r"\1…@", address)
