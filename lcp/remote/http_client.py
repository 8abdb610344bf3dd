"""HTTP client: one HTTP request to a server, over a connection of its own.

A request runs on a thread of its own. While it waits (for a name, a connection, the first byte),
the caller can leave it at any moment, which closes the connection. The key is sent only to the
server's own origin and is never in an error.
"""

import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from http.client import HTTPResponse, IncompleteRead
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from lcp.errors import LcpError, ServerError
from lcp.formatting import short
from lcp.network.connections import CONNECT_S, connect, distrust, reason, send
from lcp.network.proxies import Proxy, proxy_for
from lcp.network.urls import origin, shown
from lcp.remote.json_values import count, record
from lcp.servers.address import ServerAddress

WRITE_S = 30.0  # to send a piece of a request
ASK_S = 10.0  # for a short answer: a list of models, a number of tokens
LARGEST = 32 << 20  # bytes of a short answer, and of one event of a stream
LEAST = 8  # characters of a word in a header that may be a key
PIECE = 1 << 16  # the most bytes of an answer that are taken at once
HOPS = 3  # redirects within the same origin
_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, times

IsStopped = Callable[[], bool]


class Cut(Exception):
    """The caller stopped the request."""


class Broken(Exception):
    """The connection broke after the answer had begun."""


def never() -> bool:
    return False


class HttpClient:
    """Requests to one server."""

    def __init__(
        self, address: ServerAddress, key: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """`headers` are sent with every request, like the key."""
        self.address = address
        values = [key, *(headers or {}).values()]
        words = [word for value in values for word in value.split() if len(word) >= LEAST]
        secrets = {*values, *words} - {""}  # "Bearer KEY" has the key as a word
        self._secrets = sorted({*secrets, *map(_quoted, secrets)}, key=len, reverse=True)
        self._headers = {"User-Agent": "lcp", "Accept-Encoding": "identity", **(headers or {})}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(
        self,
        url: str,
        body: Any = None,
        *,
        limit_s: float | None = None,
        stopped: IsStopped = never,
    ) -> "JsonAnswer":
        """GET, or POST a body. Returns the answer as JSON; ServerError if it is not JSON."""
        until = time.monotonic() + (limit_s or ASK_S)
        with self.open(url, body, stopped=stopped, until=until) as answer:
            data = b"".join(answer.chunks(LARGEST))
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise ServerError(
                f"{self.address.host} does not answer {urlsplit(url).path} as an OpenAI-compatible "
                "server does. Is the address right?",
                status=answer.status,
            ) from None
        return JsonAnswer(value, answer.headers)

    def open(
        self,
        url: str,
        body: Any = None,
        *,
        stopped: IsStopped = never,
        until: float | None = None,
    ) -> "ServerAnswer":
        """The answer to a request when its headers are here; ServerError for an error status."""
        for _ in range(HOPS + 1):
            request = _Request(self, url, body)
            answer = ServerAnswer(self, request, stopped, until)
            try:
                answer.begin()
                if not 300 <= answer.status < 400:
                    answer.check()
                    return answer
            except BaseException:
                answer.close()
                raise
            answer.close()
            url = self._next(url, answer.headers.get("location", ""))
        raise ServerError(f"{self.address.host} redirects in a loop.")

    def _next(self, url: str, location: str) -> str:
        """The target of a redirect. ServerError if it is not in the same origin."""
        there = urljoin(url, location)
        here, to = urlsplit(url), urlsplit(there)
        if not location or (here.scheme, here.netloc) != (to.scheme, to.netloc):
            raise ServerError(
                f"{self.address.host} redirects to another server: "
                f"{short(self.hide(shown(there)), 100)}.",
                change={"server": self.hide(f"{to.scheme}://{to.netloc}")},
            )
        return there

    def hide(self, text: str) -> str:
        """The text without the key, which a server may repeat. Shorten a text only after this."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def headers_for(self, body: bytes | None) -> dict[str, str]:
        """The headers of a request."""
        return self._headers | ({"Content-Type": "application/json"} if body else {})

    @property
    def proxy(self) -> Proxy | None:
        """The proxy in the environment; None for this computer and private networks."""
        return None if self.address.is_near else proxy_for(*origin(self.address.base))


def _quoted(secret: str) -> str:
    """A secret in the encoding of addresses."""
    return quote(secret, safe="")


class _Request(threading.Thread):
    """One request. `items` gets the response, then pieces of its body, then None; or an error."""

    def __init__(self, http: HttpClient, url: str, body: Any) -> None:
        super().__init__(name="lcp request", daemon=True)
        self._http, self._url = http, url
        self._body = None if body is None else json.dumps(body).encode()
        self.items: queue.SimpleQueue[HTTPResponse | bytes | Exception | None] = queue.SimpleQueue()
        self.proxy: Proxy | None = None
        self.reached = False  # the server
        self._socket: socket.socket | None = None
        self._cut = False
        self.start()

    def run(self) -> None:
        try:
            for piece in self._pieces():
                self.items.put(piece)
            self.items.put(None)
        except Exception as error:  # otherwise, the caller would wait for ever
            self.items.put(error)

    def _pieces(self) -> Iterator[HTTPResponse | bytes]:
        self.proxy = self._http.proxy
        connection = connect(self._url, self.proxy)
        with closing(connection):
            self._socket, self.reached = connection.sock, True
            if self._cut:
                self.cut()
            _notice_a_dead_peer(self._socket)
            self._socket.settimeout(WRITE_S)
            method, headers = "POST" if self._body else "GET", self._http.headers_for(self._body)
            send(connection, method, self._url, headers, self._body, self.proxy)
            self._socket.settimeout(None)
            response = connection.getresponse()
            with closing(response):
                yield response
                while piece := response.read1(PIECE):
                    yield piece
                if response.length:  # bytes that the headers promised
                    raise IncompleteRead(b"", response.length)

    def cut(self) -> None:
        """Close the connection, also while it waits."""
        self._cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def _notice_a_dead_peer(connected: socket.socket) -> None:
    """Turn on TCP keep-alive: an answer may take minutes to begin, so no time-out helps."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _ALIVE.items():
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class JsonAnswer:
    """A short answer: its value and its headers."""

    def __init__(self, value: Any, headers: Mapping[str, str]) -> None:
        self.value, self.headers = value, headers

    def get(self, name: str) -> Any:
        """A field, if the value is an object."""
        return record(self.value).get(name)

    def number(self, name: str) -> int:
        """The number in this field; 0 if there is none."""
        return count(self.get(name))


class ServerAnswer:
    """The answer to a request, while it arrives."""

    def __init__(
        self, http: HttpClient, request: _Request, stopped: IsStopped, until: float | None
    ) -> None:
        self._http, self._request, self._stopped = http, request, stopped
        self.until = until
        self.when_idle: Callable[[], object] = never  # called now and then while nothing arrives
        self.status = 0
        self.headers: Mapping[str, str] = {}

    def __enter__(self) -> "ServerAnswer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hide(self, text: str) -> str:
        """See HttpClient.hide."""
        return self._http.hide(text)

    def close(self) -> None:
        """Close the connection."""
        self._request.cut()

    def begin(self) -> None:
        """Wait for the status and the headers."""
        first = self._item()
        if isinstance(first, Exception):
            raise self._unreachable(first)
        self.status, self.headers = first.status, first.headers

    def check(self) -> None:
        """Raise ServerError unless the status is good."""
        if self.status < 400:
            return
        self.until = self.until or time.monotonic() + ASK_S
        with suppress(Broken):
            data = b"".join(self.chunks(LARGEST))
            raise failure(self._http, self.status, self.headers, data)
        raise failure(self._http, self.status, self.headers, b"")

    def chunks(self, largest: int | None = None) -> Iterator[bytes]:
        """The body, at most `largest` bytes. Broken if it ends too early."""
        size = 0
        while (item := self._item()) is not None:
            if isinstance(item, Exception):
                raise Broken(self._reason(item))
            size += len(item)
            if largest and size > largest:
                raise ServerError(
                    f"{self._http.address.host} sends more than {largest:,} bytes where a short "
                    "answer was expected. Is the address right?"
                )
            yield item

    def _item(self) -> Any:
        while True:
            if self._stopped():
                self.close()
                raise Cut
            left = 0.05 if self.until is None else min(0.05, self.until - time.monotonic())
            if left <= 0:
                self.close()
                raise ServerError(
                    f"{self._http.address.host} does not answer. Is the server busy, or is this "
                    "the address of another program?",
                    retry_after=1,
                )
            with suppress(queue.Empty):
                return self._request.items.get(timeout=left)
            self.when_idle()

    def _unreachable(self, error: Exception) -> LcpError:
        if isinstance(error, LcpError):
            return error
        host, request = self._http.address.host, self._request
        if isinstance(error, ssl.SSLCertVerificationError):
            return ServerError(distrust(host, error))
        why = self._reason(error)
        if proxy := not request.reached and request.proxy:
            return ServerError(
                f"Cannot reach {host} through {proxy}: {why}. Check {proxy.variable}, or name the "
                "server in no_proxy."
            )
        if not request.reached:
            return ServerError(
                f"Cannot reach {host}: {why}. Is the server running, and is the address right?"
            )
        return ServerError(
            f"{host} closed the connection without an answer ({why}). Try again.", retry_after=0.5
        )

    def _reason(self, error: Exception) -> str:
        waited = WRITE_S if self._request.reached else CONNECT_S
        return short(self.hide(reason(error, waited)), 200)


def failure(http: HttpClient, status: int, headers: Mapping[str, str], data: bytes) -> ServerError:
    """The error for an answer with a bad status."""
    from lcp.remote.server_errors import error_in, too_long

    host = http.address.host
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    complaint = error_in(value, http.hide)
    if complaint.too_long:
        return too_long(host, complaint, status)
    message = complaint.text
    detail = f": {message.rstrip('.')}" if message else f" (HTTP {status})"
    if status in (401, 403):
        return ServerError(
            f"{host} wants a key, or refuses this one{detail}. Put it into LCP_API_KEY, or name "
            "its variable as key_env in [server.NAME] of config.toml.",
            status=status,
        )
    if status == 404:
        return ServerError(
            f"{host} has no such page{detail}. Is the address right, with or without /v1?",
            status=status,
        )
    after = headers.get("retry-after", "")
    if status in (429, 502, 503, 504):
        wait = float(after) if after.replace(".", "", 1).isdecimal() else 1.0
        why = "has too many requests" if status == 429 else "cannot answer now"
        return ServerError(f"{host} {why}{detail}. Try again.", status=status, retry_after=wait)
    return ServerError(f"{host} refuses this request{detail}.", status=status)
