"""The only thing that opens a URL.

`open_url` asks for something and gives a Response to read from. A token goes to the server it was
given for and to no other, also not through a redirect. Everything that goes wrong is a
DownloadError that says whether trying again may help. Knows no repositories and writes no files.
"""

import base64
import email.utils
import http.client
import os
import re
import ssl
import string
import sys
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from lcp import __version__
from lcp.errors import DownloadError

CONNECT = 10.0  # seconds until a server must have taken the connection
STALL = 25.0  # seconds without a byte after which a connection counts as dead
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
# A signed address on another server runs out; a new one is had by asking from the start again.
RAN_OUT = (401, 403, 404, 410)
_AS_IT_IS = string.punctuation  # of an address that is quoted already
_PORTS = {"http": 80, "https": 443}
_NEXT_STEPS = {
    401: "It wants to know you: set HF_TOKEN, or run: hf auth login",
    403: "If the model asks for consent, give it on its web page; then check HF_TOKEN.",
    404: "Check the name.",
    429: "Wait a while, then run the same command again.",
}
Connection = http.client.HTTPConnection


class Response:
    """What a server answered with 2xx: a body that is read once.

    url: where it came from, after redirects. size: bytes of the whole thing, as far as the headers
    say. start: where in it the body begins.
    """

    def __init__(
        self, url: str, connection: Connection, raw: http.client.HTTPResponse, stall: float
    ) -> None:
        self.url, self.status, self.headers = url, raw.status, raw.headers
        self._connection, self._raw, self._stall = connection, raw, stall
        self.left = raw.length  # bytes of the body still to come; None where the headers are silent
        length = self.headers.get("Content-Length", "")
        self.size, self.start = int(length) if length.isdecimal() else None, 0
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", self.headers.get("Content-Range", ""))
        if self.status == 206 and place:
            self.start = int(place[1])
            self.size = int(place[2]) if place[2] != "*" else None

    def readinto(self, view: memoryview) -> int:
        """The next bytes, as many as are there; 0 at the end of the body and not before it."""
        if self.left == 0 or not view:
            return 0
        try:
            n = self._raw.readinto1(view if self.left is None else view[: self.left])
        except (OSError, http.client.HTTPException) as error:
            raise _broken(self.url, error, self._stall) from error
        if self.left is not None:
            if not n:
                raise _broken(self.url, EOFError("closed before the end"), self._stall)
            self.left -= n
        return n

    def read(self, n: int) -> bytes:
        """The next n bytes, fewer where the body ends before."""
        data = bytearray(n if self.left is None else min(n, self.left))
        view, have = memoryview(data), 0
        while have < len(data) and (came := self.readinto(view[have:])):
            have += came
        return bytes(view[:have])

    def close(self) -> None:
        """Let go of it."""
        self._raw.close()
        self._connection.close()

    def release(self) -> Connection | None:
        """Let go of it; its connection, where that can take another question."""
        if self.left == 0 and self._connection.sock:
            self._raw.close()
            return self._connection
        self.close()
        return None


def open_url(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
    stall: float = STALL,
    connection: Connection | None = None,
) -> Response:
    """Ask a server, follow its redirects; raises DownloadError for anything but a 2xx.

    connection: an open one to this server, as Response.release() gave it.
    """
    if any(is_set(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        raise DownloadError(
            f"{host(url)} is not asked, as HF_HUB_OFFLINE is set. Unset it to use the network."
        )
    asked = url
    for _ in range(MAX_REDIRECTS + 1):
        sent = {
            "User-Agent": f"lcp/{__version__}",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        if not same_origin(url, asked):
            token = None  # nor does it come back when a redirect does
        if token:
            sent["Authorization"] = f"Bearer {token}"
        connection, raw = _ask(method, url, sent, stall, connection)
        if raw.status < 300:
            return Response(url, connection, raw, stall)
        location = raw.headers.get("Location")
        raw.close()
        connection.close()
        connection = None
        if raw.status not in _REDIRECTS or not location:
            raise _refused(url, raw, elsewhere=not same_origin(url, asked))
        url = urljoin(url, location)
    raise DownloadError(f"{host(asked)} redirects in circles. Check the address: {asked}")


def same_origin(url: str, other: str) -> bool:
    """Whether both are on one server, reached in the same way."""
    return _origin(url) == _origin(other)


def host(url: str) -> str:
    """The server in an address, for a sentence."""
    return urlsplit(url).netloc.rpartition("@")[2] or url


# One question to one server -----------------------------------------------------------------------


def _ask(
    method: str, url: str, headers: dict[str, str], stall: float, connection: Connection | None
) -> tuple[Connection, http.client.HTTPResponse]:
    proxy = _proxy(url)
    try:
        split = urlsplit(quote(url, safe=_AS_IT_IS))
        connection = connection or _connect(split, proxy, stall)
        target = f"{split.path or '/'}{'?' if split.query else ''}{split.query}"
        if proxy and split.scheme == "http":
            target = f"{split.scheme}://{host(url)}{target}"
            headers |= _credentials(proxy)
        connection.request(method, target, headers=headers)
        return connection, connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        if connection:
            connection.close()
        raise _broken(url, error, stall if connection else CONNECT, proxy) from error


def _connect(split: SplitResult, proxy: SplitResult | None, stall: float) -> Connection:
    server = proxy or split
    name, port = server.hostname or "", server.port or _PORTS[server.scheme]
    if split.scheme == "http":
        connection = Connection(name, port, timeout=CONNECT)
    else:
        connection = http.client.HTTPSConnection(name, port, timeout=CONNECT, context=_trust())
        if proxy:
            connection.set_tunnel(split.hostname or "", split.port or 443, _credentials(proxy))
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    connection.sock.settimeout(stall)
    return connection


def _trust() -> ssl.SSLContext:
    """The certificates that huggingface_hub's own requests trust: SSL_CERT_FILE or the system's."""
    if sys.platform in ("darwin", "win32") and not os.environ.get("SSL_CERT_FILE"):
        import truststore  # Python from python.org knows none on a Mac

        return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return ssl.create_default_context()


def _origin(url: str) -> tuple[str, str, int]:
    split = urlsplit(url)
    try:
        if split.scheme in _PORTS and split.hostname:
            return split.scheme, split.hostname, split.port or _PORTS[split.scheme]
    except ValueError:  # a port that is no number
        pass
    raise DownloadError(f"{url} is no address to open. Give one that begins with https://")


def _proxy(url: str) -> SplitResult | None:
    """The proxy that the environment or the system names for this address."""
    from urllib.request import getproxies, proxy_bypass

    scheme, name, port = _origin(url)
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(f"{name}:{port}"):
        return None
    split = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if split.scheme != "http" or not split.hostname:
        raise DownloadError(
            f"The proxy for {name} is a {split.scheme} one; lcp can use http:// ones. "
            f"Change {scheme}_proxy."
        )
    return split


def _credentials(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def is_set(name: str) -> bool:
    """As huggingface_hub reads its switches."""
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


# What went wrong ----------------------------------------------------------------------------------


def _broken(
    url: str, error: Exception, stall: float, proxy: SplitResult | None = None
) -> DownloadError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return DownloadError(
            f"The certificate of {host(url)} is not trusted: {error.verify_message}. "
            "Behind a proxy that reads along, name its certificate in SSL_CERT_FILE."
        )
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        what = f"nothing came for {stall:g} s"
    through = f" through the proxy {proxy.hostname}" if proxy else ""
    return DownloadError(
        f"The connection to {host(url)}{through} failed: {what}. "
        "Check the network, then run the same command again.",
        retryable=not isinstance(error, http.client.InvalidURL),
    )


def _refused(url: str, raw: http.client.HTTPResponse, elsewhere: bool) -> DownloadError:
    status = raw.status
    said = raw.headers.get("X-Error-Message") or raw.reason
    step = _NEXT_STEPS.get(status, "Try again later." if status >= 500 else "Check the address.")
    return DownloadError(
        f"{host(url)} refuses {PurePosixPath(urlsplit(url).path).name}: {status} {said}. {step}",
        retryable=status in _AGAIN or (elsewhere and status in RAN_OUT),
        status=status,
        retry_after=_retry_after(raw.headers.get("Retry-After"), raw.headers.get("RateLimit")),
    )


def _retry_after(after: str | None, limit: str | None) -> float | None:
    """Seconds from Retry-After, a number or a date, or from RateLimit: "api";r=0;t=55."""
    if after and after.strip().isdecimal():
        return float(after)
    if after:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
        except ValueError:
            pass
    found = re.search(r";\s*r=0\s*;\s*t=(\d+)", limit or "")
    return float(found[1]) if found else None
