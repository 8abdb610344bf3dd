"""HTTP: opens URLs, through proxies, with redirects and tokens.

`open_url` returns a Response to read from. A token is sent only to the server it was given for,
never to another one that a redirect leads to. A failure is a DownloadError that says whether
trying again may help, or a NetworkError if nothing can.
"""

import email.utils
import http.client
import os
import re
import ssl
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import urljoin, urlsplit

from lcp import __version__
from lcp.errors import DownloadError
from lcp.network.connections import (
    CONNECT_S,
    FAILURES,
    LOGIN,
    Connection,
    connect,
    distrust,
    reason,
    send,
)
from lcp.network.proxies import Proxy, proxy_for
from lcp.network.urls import host, origin, shown

STALL = 25.0  # seconds without a byte after which a connection counts as dead
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_RETRYABLE = (408, 425, 429, 500, 502, 503, 504)
# A signed address has expired; asking again from the first address gives a new one.
EXPIRED = (401, 403, 404, 410)
_NEXT_STEPS = {
    401: "Set HF_TOKEN, or run hf auth login.",
    403: "If the model requires consent, give it on its web page; then check HF_TOKEN.",
    404: "Check the name.",
    407: LOGIN,
    429: "Wait a few minutes, then run the same command again.",
}


class Response:
    """A server's 2xx answer: a body that is read once.

    url: the address after redirects. size: bytes of the whole file, if the headers say so.
    start: the offset in the file where the body begins.
    """

    def __init__(
        self, url: str, connection: Connection, raw: http.client.HTTPResponse, stall: float
    ) -> None:
        self.url, self.status, self.headers = url, raw.status, raw.headers
        self._connection, self._raw, self._stall = connection, raw, stall
        self.left = raw.length  # bytes of the body still to come; None if the headers do not say
        length = self.headers.get("Content-Length", "")
        self.size, self.start = int(length) if length.isdecimal() else None, 0
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", self.headers.get("Content-Range", ""))
        if self.status == 206 and place:
            self.start = int(place[1])
            self.size = int(place[2]) if place[2] != "*" else None

    def readinto(self, view: memoryview) -> int:
        """Read the bytes that are there into view; 0 only at the end of the body."""
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
        """The next n bytes, fewer if the body ends before."""
        data = bytearray(n if self.left is None else min(n, self.left))
        view, have = memoryview(data), 0
        while have < len(data) and (came := self.readinto(view[have:])):
            have += came
        return bytes(view[:have])

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()
        self._connection.close()

    def release(self) -> Connection | None:
        """The connection, if it can take another request; else None, and it is closed."""
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
    """Send a request and follow redirects; raises NetworkError for anything but 2xx.

    connection: an open one to this server, from Response.release().
    """
    if any(is_set(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        raise DownloadError(
            f"HF_HUB_OFFLINE is set, so lcp does not connect to {host(url)}. "
            "Unset it to use the network."
        )
    asked = url
    for _ in range(MAX_REDIRECTS + 1):
        sent = {
            "User-Agent": f"lcp/{__version__}",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        if not same_origin(url, asked):
            token = None  # not even if a later redirect leads back
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
            raise _refused(url, raw, asked)
        url = urljoin(url, location)
    raise DownloadError(f"{host(asked)} redirects in a loop. Check the address: {shown(asked)}")


def same_origin(url: str, other: str) -> bool:
    """Whether both addresses have the same scheme, server and port."""
    return origin(url) == origin(other)


def is_set(name: str) -> bool:
    """Whether a switch in the environment is on, by huggingface_hub's rules."""
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


# One request to one server ------------------------------------------------------------------------


def ask(
    method: str,
    url: str,
    headers: Mapping[str, str],
    stall: float,
    connection: Connection | None = None,
    body: bytes | None = None,
) -> tuple[Connection, http.client.HTTPResponse]:
    """The answer, whatever its status; NetworkError if none comes."""
    proxy = proxy_for(*origin(url))
    reached = connection is not None
    try:
        connection = connection or connect(url, proxy)
        connection.sock.settimeout(stall)
        reached = True
        send(connection, method, url, headers, body, proxy)
        return connection, connection.getresponse()
    except FAILURES as error:
        if connection:
            connection.close()
        raise _broken(url, error, stall if reached else CONNECT_S, proxy, reached) from error


# Errors ----------------------------------------------------------------------------------


def _broken(
    url: str, error: Exception, stall: float, proxy: Proxy | None = None, reached: bool = True
) -> DownloadError:
    """The error for an answer that did not come, or came in part."""
    server = host(url)
    if isinstance(error, ssl.SSLCertVerificationError):
        return DownloadError(distrust(server, error))
    through = f" through {proxy}" if proxy else ""
    step = f"Check {proxy.variable}" if proxy and not reached else "Check the network"
    if server in os.environ.get("HF_ENDPOINT", ""):
        step += " and HF_ENDPOINT"
    failed = "Lost the connection to" if reached else "Cannot reach"
    return DownloadError(
        f"{failed} {server}{through}: {reason(error, stall)}. "
        f"{step}, then run the same command again.",
        retryable=not isinstance(error, http.client.InvalidURL | UnicodeError),
    )


def _refused(url: str, raw: http.client.HTTPResponse, asked: str) -> DownloadError:
    """The error for an answer with a bad status. The server of a redirect calls the file by its
    hash: the name of what was `asked` for says more."""
    status, redirected = raw.status, not same_origin(url, asked)
    message = raw.headers.get("X-Error-Message") or raw.reason
    step = _NEXT_STEPS.get(status, "Try again later." if status >= 500 else "Check the address.")
    file = PurePosixPath(urlsplit(asked).path).name
    return DownloadError(
        f"{host(url)} refused {file}: {status} {message}. {step}",
        retryable=status in _RETRYABLE or (redirected and status in EXPIRED),
        status=status,
        retry_after=_retry_after(raw.headers.get("Retry-After"), raw.headers.get("RateLimit")),
    )


def _retry_after(after: str | None, limit: str | None) -> float | None:
    """Seconds from Retry-After (a number or a date) or from RateLimit: "api";r=0;t=55."""
    if after and after.strip().isdecimal():
        return float(after)
    if after:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
        except ValueError:
            pass
    found = re.search(r";\s*r=0\s*;\s*t=(\d+)", limit or "")
    return float(found[1]) if found else None
