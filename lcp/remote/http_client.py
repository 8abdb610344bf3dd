"""HTTP client: one HTTP request to a server, over a connection of its own.

A request runs on a thread of its own. Whatever it waits for (a name, a connection, the first byte),
the caller can leave at once, and closes the connection when it does. The key goes to the server's
own origin only and never into an error.
"""

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from lcp.errors import ServerError
from lcp.formatting import short
from lcp.remote.values import count, record
from lcp.servers.address import ServerAddress

CONNECT_S, WRITE_S = 10.0, 30.0
ASK_S = 10.0  # for a short answer: a list of models, a number of tokens
LARGEST = 32 << 20  # bytes of a short answer, and of one event of a stream
LEAST = 8  # characters of a word in a header that may be a key
HOPS = 3  # redirects within the same origin
_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, times

Stopped = Callable[[], bool]


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
        """`headers` are sent with every request, as the key is."""
        self.address = address
        values = [key, *(headers or {}).values()]
        words = [word for value in values for word in value.split() if len(word) >= LEAST]
        told = {*values, *words} - {""}  # "Bearer KEY" has the key as a word
        self._secrets = sorted({*told, *map(_quoted, told)}, key=len, reverse=True)
        self._headers = {"User-Agent": "lcp", "Accept-Encoding": "identity", **(headers or {})}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._lock = threading.Lock()
        self._client: Any = None

    def ask(
        self,
        url: str,
        body: Any = None,
        *,
        limit_s: float | None = None,
        stopped: Stopped = never,
    ) -> "JsonAnswer":
        """GET, or POST a body; the answer as JSON. ServerError if that is not what comes."""
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
        stopped: Stopped = never,
        until: float | None = None,
    ) -> "ServerAnswer":
        """The answer to a request once its status is 200; ServerError for any other."""
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
        raise ServerError(f"{self.address.host} redirects in a circle.")

    def _next(self, url: str, location: str) -> str:
        """Where a redirect leads, within the same origin."""
        there = urljoin(url, location)
        here, to = urlsplit(url), urlsplit(there)
        if not location or (here.scheme, here.netloc) != (to.scheme, to.netloc):
            raise ServerError(
                f"{self.address.host} redirects to another server: {short(self.hide(there), 100)}.",
                change={"server": self.hide(f"{to.scheme}://{to.netloc}")},
            )
        return there

    def hide(self, text: str) -> str:
        """The text without the key: a server may repeat it. Shorten it only then."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    @property
    def client(self) -> Any:
        """The client of httpx2, made by the first thread that asks."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Any:
        import httpx2

        options: list[tuple[int, int, int]] = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        for name, value in _ALIVE.items():  # notices a dead peer, as nothing else does
            if hasattr(socket, name):
                options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
        # llama-server says that it keeps connections, and closes them: one for each request
        limits = httpx2.Limits(max_keepalive_connections=0)
        secure = self.address.base.startswith("https")
        verify: Any = httpx2.create_ssl_context() if secure else False
        transport = httpx2.HTTPTransport(
            verify=verify, limits=limits, socket_options=options, proxy=_proxy(self.address)
        )
        timeout = httpx2.Timeout(None, connect=CONNECT_S, write=WRITE_S)
        return httpx2.Client(
            headers=self._headers, timeout=timeout, transport=transport, trust_env=False
        )


def _proxy(address: ServerAddress) -> str | None:
    """The proxy of the environment; none for this computer and private networks."""
    from urllib.request import getproxies, proxy_bypass

    split = urlsplit(address.base)
    if address.is_near or proxy_bypass(split.hostname or ""):
        return None
    proxies = getproxies()
    proxy = proxies.get(split.scheme) or proxies.get("all")
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme = proxy.partition("://")[0].lower()
    if scheme not in ("http", "https"):  # no sentence shows the value: it may have a password
        raise ServerError(
            f"{address.host} must be reached through a {short(scheme, 20)}:// proxy, but lcp "
            "reaches servers through http:// proxies only. Set no_proxy to the name of the server "
            f"if it needs none: export no_proxy={split.hostname}"
        )
    try:
        urlsplit(proxy).port  # noqa: B018  # raises ValueError
    except ValueError:
        raise ServerError(
            f"The proxy for {address.host} is not an address. Set {split.scheme}_proxy to "
            "http://HOST:PORT, or unset it."
        ) from None
    return proxy


def _quoted(secret: str) -> str:
    """A secret as an address spells it."""
    return quote(secret, safe="")


class _Request(threading.Thread):
    """One request. `items` gets the response, then pieces of its body, then None; or an error."""

    def __init__(self, http: HttpClient, url: str, body: Any) -> None:
        super().__init__(name="lcp request", daemon=True)
        self._http, self._url, self._body = http, url, body
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._socket: Any = None
        self._cut = False
        self.start()

    def run(self) -> None:
        try:
            method = "GET" if self._body is None else "POST"
            with self._http.client.stream(
                method, self._url, json=self._body, extensions={"trace": self._trace}
            ) as response:
                self.items.put(response)
                for piece in response.iter_bytes():
                    if self._cut:
                        break
                    self.items.put(piece)
            self.items.put(None)
        except Exception as error:
            self.items.put(error)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")
            if self._cut:
                self.cut()

    def cut(self) -> None:
        """Close the connection, whatever is waited for."""
        self._cut = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class JsonAnswer:
    """A short answer: its value and its headers."""

    def __init__(self, value: Any, headers: Mapping[str, str]) -> None:
        self.value, self.headers = value, headers

    def get(self, name: str) -> Any:
        """A field, if the value is an object."""
        return record(self.value).get(name)

    def number(self, name: str) -> int:
        """A number of this name; 0 if there is none."""
        return count(self.get(name))


class ServerAnswer:
    """The answer to a request, while it arrives."""

    def __init__(
        self, http: HttpClient, request: _Request, stopped: Stopped, until: float | None
    ) -> None:
        self._http, self._request, self._stopped = http, request, stopped
        self.until = until
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
        self.status, self.headers = first.status_code, first.headers

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
                raise Broken(_reason(item, self._http))
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

    def _unreachable(self, error: Exception) -> ServerError:
        if isinstance(error, ServerError):
            return error
        import httpx2

        host = self._http.address.host
        reason = _reason(error, self._http)
        if isinstance(error, httpx2.ConnectTimeout):
            reason = f"no connection in {CONNECT_S:.0f} s"
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return ServerError(
                f"Cannot reach {host}: {reason}. Is the server running, and is the address right?"
            )
        again = isinstance(error, httpx2.TransportError)
        return ServerError(
            f"{host} closed the connection without an answer ({reason}). Try again.",
            retry_after=0.5 if again else None,
        )


def _reason(error: BaseException, http: HttpClient) -> str:
    """What the system says of an error, in a few words."""
    said = http.hide(str(error) or type(error).__name__)
    number, bracket, text = said.partition("] ")
    return short(text if bracket and number.startswith("[Errno") else said, 200)


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
    said = complaint.text
    told = f": {said.rstrip('.')}" if said else f" (HTTP {status})"
    if status in (401, 403):
        return ServerError(
            f"{host} wants a key, or refuses this one{told}. Put it into LCP_API_KEY, or name its "
            "variable as key_env in [server.NAME] of config.toml.",
            status=status,
        )
    if status == 404:
        return ServerError(
            f"{host} has no such page{told}. Is the address right, with or without /v1?",
            status=status,
        )
    after = headers.get("retry-after", "")
    if status in (429, 502, 503, 504):
        wait = float(after) if after.replace(".", "", 1).isdecimal() else 1.0
        why = "asks to be left alone" if status == 429 else "cannot answer now"
        return ServerError(f"{host} {why}{told}. Try again.", status=status, retry_after=wait)
    return ServerError(f"{host} refuses this request{told}.", status=status)
