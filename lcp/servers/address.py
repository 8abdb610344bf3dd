"""The address of a server, http://box:8080, with or without /v1; and the model to use there.

`http://box:8080#MODEL` names both. Saved chats keep it, so that they find the server again. A key
is never part of it.
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from lcp.errors import UsageError

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
        """What finds the server and the model again."""
        url = self.base if self.api == f"{self.base}/v1" else self.api
        return f"{url}#{self.model}" if self.model else url

    @property
    def host(self) -> str:
        """Host and port, for people."""
        return urlsplit(self.base).netloc

    def with_model(self, model: str) -> "ServerAddress":
        return replace(self, model=model)

    @property
    def is_open(self) -> bool:
        """Whether others may read what goes there."""
        return self.base.startswith("http:") and not self.is_near

    @property
    def is_near(self) -> bool:
        """Whether it is this computer or in a private network, as far as its name tells. No proxy
        leads there."""
        host = (urlsplit(self.base).hostname or "").lower()
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return "." not in host or host.endswith(LANS)
        return address.is_private or address.is_loopback or address.is_link_local


def is_server(name: str) -> bool:
    """Whether this is the address of a server, and not of a model file or of a page with one."""
    if not re.match(r"https?://", name, re.IGNORECASE):
        return False
    path = urlsplit(name.partition("#")[0]).path
    host = (urlsplit(name.partition("#")[0]).hostname or "").lower()
    hub = host in ("hf.co", "huggingface.co") or host.endswith((".hf.co", ".huggingface.co"))
    return not (hub or path.lower().endswith(".gguf"))


def parse(given: str) -> ServerAddress:
    """The address of "http://box:8080", "box:8080", "http://box/v1#model". UsageError if it is not
    one, or contains a key."""
    url, _, model = given.partition("#")
    if "://" not in url:
        url = f"http://{url}"
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        host, port, split = None, None, urlsplit("")
    if not host or split.scheme not in ("http", "https") or re.search(r"[\s\x00-\x1f]", url):
        # what precedes an @ may be a password; what follows a question mark, a key
        shown = re.sub(r"\?.*", "?…", re.sub(r"^(\w+://)?.*@", r"\1…@", given, flags=re.S))
        raise UsageError(f"{shown} is not the address of a server. Give one: http://box:8080")
    if split.username or split.password or split.query:
        raise UsageError(
            f"The address of {host} contains a user name, password or query. Put the key into "
            "LCP_API_KEY instead."
        )
    if host == "0.0.0.0":  # where a server listens, not where it can be reached
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    origin = f"{split.scheme}://{shown}" + (f":{port}" if port else "")
    path = split.path.rstrip("/")
    api = origin + (path or "/v1")
    return ServerAddress(re.sub(r"/v1$", "", api), api, unquote(model))
