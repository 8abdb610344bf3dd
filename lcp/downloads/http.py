"""HTTP: opens URLs, through proxies, with redirects and tokens.

`open_url` returns a Response to read from. A token is sent only to the server it was given for,
never to another one that a redirect leads to. Every failure is a DownloadError that says whether
trying again may help. Knows no repositories and writes no files.
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
import sys
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from lcp import __version__
from lcp.downloads.proxies import Proxy, connect_socks, proxy_for
from lcp.downloads.urls import host, split_address, without_password
from lcp.errors import DownloadError

CONNECT = 10.0  # seconds to connect to a server
STALL = 25.0  # seconds without a byte after which a connection counts as dead
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_RETRYABLE = (408, 425, 429, 500, 502, 503, 504)
# A signed address has expired; asking again from the first address gives a new one.
EXPIRED = (401, 403, 404, 410)
_SAFE = string.punctuation  # addresses are quoted already
_PORTS = {"http": 80, "https": 443}
# The first two are OpenSSL's own; programs that use requests read the others.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_NEXT_STEPS = {
    401: "Set HF_TOKEN, or run hf auth login.",
    403: "If the model requires consent, give it on its web page; then check HF_TOKEN.",
    404: "Check the name.",
    407: "Add a user name and password to the proxy variable: http://USER:PASSWORD@HOST:PORT.",
    429: "Wait a few minutes, then run the same command again.",
}
Connection = http.client.HTTPConnection


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
    """Send a request and follow redirects; raises DownloadError for anything but 2xx.

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
            raise _refused(url, raw, redirected=not same_origin(url, asked))
        url = urljoin(url, location)
    raise DownloadError(f"{host(asked)} redirects in a loop. Check the address: {asked}")


def same_origin(url: str, other: str) -> bool:
    """Whether both addresses have the same scheme, server and port."""
    return _origin(url) == _origin(other)


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
    """The answer, whatever its status; DownloadError if none comes."""
    scheme, name, port = _origin(url)
    proxy = proxy_for(scheme, name, port)
    reached = connection is not None
    sent = dict(headers)
    try:
        split = urlsplit(quote(url, safe=_SAFE))
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
        trusted = trusted_certificates()
        connection = http.client.HTTPSConnection(server, at, timeout=CONNECT, context=trusted)
        if proxy and proxy.kind == "http":
            connection.set_tunnel(name, port, _credentials(proxy))
    if proxy and proxy.kind == "socks5":
        # http.client calls this to make its socket, before TLS
        def through(address: tuple[str, int], timeout: float, *_: object) -> socket.socket:
            return connect_socks(proxy, address, timeout)

        connection._create_connection = through  # type: ignore[attr-defined]
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    connection.sock.settimeout(stall)
    return connection


def _origin(url: str) -> tuple[str, str, int]:
    split = split_address(url)
    if split and split.scheme in _PORTS:
        return split.scheme, split.hostname or "", split.port or _PORTS[split.scheme]
    shown = without_password(url)
    raise DownloadError(f"{shown} is not a web address. Give one that begins with https://")


def _credentials(proxy: Proxy) -> dict[str, str]:
    if not proxy.user:
        return {}
    pair = f"{proxy.user}:{proxy.password}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def trusted_certificates() -> ssl.SSLContext:
    """The system's certificates, and those that an environment variable names."""
    given = {name: value for name in _CERTIFICATES if (value := os.environ.get(name))}
    if sys.platform in ("darwin", "win32") and "SSL_CERT_FILE" not in given:
        import truststore  # Python from python.org has no certificates on a Mac

        context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.create_default_context()  # ignores files it cannot read
    for name, value in given.items():
        _add_certificates(context, name, value)
    return context


def _add_certificates(context: ssl.SSLContext, name: str, value: str) -> None:
    """Trust these as well; DownloadError if they cannot be read."""
    places = value.split(os.pathsep) if name == "SSL_CERT_DIR" else [value]
    try:
        for place in filter(None, places):
            path = Path(place)
            if path.is_dir():
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
    except FileNotFoundError:
        why = "there is no such file or folder"
    except ssl.SSLError:
        why = "it contains no certificates"
    except OSError as error:
        why = error.strerror or type(error).__name__
    else:
        return
    raise DownloadError(
        f"{name}={value} cannot be used: {why}. Set it to a file of certificates (PEM), "
        "or unset it."
    )


# Errors ----------------------------------------------------------------------------------


def _broken(
    url: str, error: Exception, stall: float, proxy: Proxy | None = None, reached: bool = True
) -> DownloadError:
    """The error for an answer that did not come, or came in part."""
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
    """Why it failed, without error numbers."""
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
        return "the server closed it before the end"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection was reset"
    if isinstance(error, ssl.SSLError):
        return f"no encrypted connection ({(error.reason or 'TLS').replace('_', ' ').lower()})"
    if isinstance(error, UnicodeError | http.client.InvalidURL):
        return "this is not a server name"
    if isinstance(error, http.client.HTTPException):
        return "the server does not speak HTTP"
    if "Tunnel connection failed: 407" in str(error):
        return f"the proxy requires a login. {_NEXT_STEPS[407]}".rstrip(".")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _refused(url: str, raw: http.client.HTTPResponse, redirected: bool) -> DownloadError:
    status = raw.status
    said = raw.headers.get("X-Error-Message") or raw.reason
    step = _NEXT_STEPS.get(status, "Try again later." if status >= 500 else "Check the address.")
    return DownloadError(
        f"{host(url)} refused {PurePosixPath(urlsplit(url).path).name}: {status} {said}. {step}",
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
