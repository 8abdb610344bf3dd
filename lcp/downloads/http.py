"""The only thing that opens a URL.

`open_url` asks for something and gives a Response to read from. A token goes to the server it was
given for and to no other, also not through a redirect. Everything that goes wrong is a
DownloadError that says whether trying again may help. Knows no repositories and writes no files.
"""

import base64
import email.utils
import errno
import http.client
import os
import re
import socket
import ssl
import string
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from lcp import __version__
from lcp.downloads import network, socks
from lcp.downloads.network import Proxy
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
    401: "It asks for a token: set HF_TOKEN, or run: hf auth login",
    403: "If the model asks for consent, give it on its web page; then check HF_TOKEN.",
    404: "Check the name.",
    407: "Put a user name and password into the proxy variable: http://USER:PASSWORD@HOST:PORT.",
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
        connection, raw = ask(method, url, sent, stall, connection)
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
    split = network.split_address(url)
    return split.netloc.rpartition("@")[2] if split else network.without_password(url)


# One question to one server -----------------------------------------------------------------------


def ask(
    method: str,
    url: str,
    headers: Mapping[str, str],
    stall: float,
    connection: Connection | None = None,
    body: bytes | None = None,
) -> tuple[Connection, http.client.HTTPResponse]:
    """The answer, whatever its status; DownloadError where none comes."""
    scheme, name, port = _origin(url)
    proxy = network.proxy_for(scheme, name, port)
    reached = connection is not None
    sent = dict(headers)
    try:
        split = urlsplit(quote(url, safe=_AS_IT_IS))
        connection = connection or _connect(split, proxy, stall)
        reached = True
        target = f"{split.path or '/'}{'?' if split.query else ''}{split.query}"
        if proxy and proxy.kind == "http" and scheme == "http":
            target = f"{scheme}://{host(url)}{target}"
            sent |= _credentials(proxy)
        connection.request(method, target, body, sent)
        return connection, connection.getresponse()
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        if connection:
            connection.close()
        raise _broken(url, error, stall if reached else CONNECT, proxy, reached) from error


def _connect(split: SplitResult, proxy: Proxy | None, stall: float) -> Connection:
    name, port = split.hostname or "", split.port or _PORTS[split.scheme]
    server, at = (proxy.host, proxy.port) if proxy and proxy.kind == "http" else (name, port)
    if split.scheme == "http":
        connection = Connection(server, at, timeout=CONNECT)
    else:
        trusted = network.trusted()
        connection = http.client.HTTPSConnection(server, at, timeout=CONNECT, context=trusted)
        if proxy and proxy.kind == "http":
            connection.set_tunnel(name, port, _credentials(proxy))
    if proxy and proxy.kind == "socks5":
        # where http.client makes its socket, before any TLS
        def through(address: tuple[str, int], timeout: float, *_: object) -> socket.socket:
            return socks.connect(proxy, address, timeout)

        connection._create_connection = through  # type: ignore[attr-defined]
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    connection.sock.settimeout(stall)
    return connection


def _origin(url: str) -> tuple[str, str, int]:
    split = network.split_address(url)
    if split and split.scheme in _PORTS:
        return split.scheme, split.hostname or "", split.port or _PORTS[split.scheme]
    shown = network.without_password(url)
    raise DownloadError(f"{shown} is not an address to open. Give one that begins with https://")


def _credentials(proxy: Proxy) -> dict[str, str]:
    if not proxy.user:
        return {}
    pair = f"{proxy.user}:{proxy.password}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def is_set(name: str) -> bool:
    """As huggingface_hub reads its switches."""
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


# What went wrong ----------------------------------------------------------------------------------


def _broken(
    url: str, error: Exception, stall: float, proxy: Proxy | None = None, reached: bool = True
) -> DownloadError:
    """What a person is told where no answer came, or only a part of it."""
    server = host(url)
    if isinstance(error, ssl.SSLCertVerificationError):
        return DownloadError(
            f"The certificate of {server} is not trusted: {error.verify_message}. If a proxy "
            "inspects your traffic, set SSL_CERT_FILE to a file with the proxy's certificate."
        )
    through = f" through {proxy}" if proxy else ""
    step = f"Check {proxy.variable}" if proxy and not reached else "Check the network"
    if server in os.environ.get("HF_ENDPOINT", ""):
        step += " and HF_ENDPOINT"
    failed = "Lost the connection to" if reached else "Cannot reach"
    return DownloadError(
        f"{failed} {server}{through}: {_reason(error, stall)}. "
        f"{step}, then run the same command again.",
        retryable=not isinstance(error, http.client.InvalidURL | UnicodeError),
    )


def _reason(error: Exception, stall: float) -> str:
    """Why, in the words of a person and not of the C library."""
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror):
        return "no network or no DNS"
    if number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        return "no network"
    if isinstance(error, TimeoutError):
        return f"no answer for {stall:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, EOFError | http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "it was closed before the end"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    if isinstance(error, ssl.SSLError):
        return f"no encrypted connection ({(error.reason or 'TLS').replace('_', ' ').lower()})"
    if isinstance(error, UnicodeError | http.client.InvalidURL):
        return "this is not the name of a server"
    if isinstance(error, http.client.HTTPException):
        return "the server does not speak HTTP"
    if "Tunnel connection failed: 407" in str(error):
        return f"the proxy refuses it. {_NEXT_STEPS[407]}".rstrip(".")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


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
