"""The address of a server, http://box:8080, with or without /v1; and the model to use there.

`http://box:8080#MODEL` names both. Saved chats contain it, so that lcp finds the server again. It
never contains a key.
"""

import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from lcp.errors import UsageError
from lcp.network.urls import PORTS, shown, split_address

LANS = (".local", ".lan", ".internal", ".home.arpa", ".localhost")


@dataclass(frozen=True)
class ServerAddress:
    """`api` is the folder of the OpenAI-compatible end points, usually /v1; `base` that of the
    server's own ones. `model` may be ""."""

    base: str
    api: str
    model: str = ""

    @property
    def name(self) -> str:
        """The name by which to find the server and the model again."""
        url = self.base if self.api == f"{self.base}/v1" else self.api
        return f"{url}#{quote(self.model, safe='/:+')}" if self.model else url

    @property
    def host(self) -> str:
        """Host and port, for people."""
        return urlsplit(self.base).netloc

    def with_model(self, model: str) -> "ServerAddress":
        return replace(self, model=model)

    @property
    def is_open(self) -> bool:
        """Whether requests leave this computer and its network unencrypted."""
        return self.base.startswith("http:") and not self.is_near

    @property
    def is_near(self) -> bool:
        """Whether it is this computer or in a private network, as far as its name tells. lcp uses
        no proxy for it."""
        host = (urlsplit(self.base).hostname or "").rstrip(".").partition("%")[0]
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            with suppress(OSError):  # 127.1 is an address, too
                return not ipaddress.ip_address(socket.inet_aton(host)).is_global
            return "." not in host or host.endswith(LANS)
        return not (getattr(ip, "ipv4_mapped", None) or ip).is_global


def is_server(name: str) -> bool:
    """Whether this is the address of a server, not of a model file or of a web page with one."""
    if not re.match(r"https?://", name, re.IGNORECASE) or re.match(r"[^?#]*\.gguf\b", name, re.I):
        return False
    split = split_address(name)
    host = (split.hostname or "" if split else "").lower()
    return not (host in ("hf.co", "huggingface.co") or host.endswith((".hf.co", ".huggingface.co")))


def parse(given: str) -> ServerAddress:
    """The address of "http://box:8080", "box:8080", "http://box/v1#model". UsageError if it is not
    one, or may contain a key; the error does not show that."""
    url, _, model = given.partition("#")
    split = split_address(url if "://" in url else f"http://{url}")
    if "@" in given or (split and split.query):
        raise UsageError(
            "The address of a server must not contain a user name, a password or a query. Put the "
            "key into LCP_API_KEY instead; a model with an @ in its name is for -m."
        )
    known = split and split.scheme in PORTS and ":" not in split.path
    if split is None or not known or re.search(r"[\s\x00-\x1f]", url):
        raise UsageError(
            f'"{shown(given)}" is not the address of a server. Give one: http://box:8080'
        )
    host, port = split.hostname or "", split.port
    if host == "0.0.0.0":  # where a server listens, not where it can be reached
        host = "127.0.0.1"
    in_url = f"[{host}]" if ":" in host else host
    api = f"{split.scheme}://{in_url}" + (f":{port}" if port else "")
    api += split.path.rstrip("/") or "/v1"
    return ServerAddress(re.sub(r"/v1$", "", api), api, unquote(model))
