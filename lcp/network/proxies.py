"""Proxies: which one reaches a server, and connections through SOCKS5.

Reads the environment (https_proxy, all_proxy, no_proxy, ...) or the system's settings. An invalid
value is a NetworkError that names the variable; no sentence shows a password.
"""

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from urllib.parse import unquote
from urllib.request import getproxies, getproxies_environment, proxy_bypass

from lcp.errors import NetworkError
from lcp.network.urls import shown, split_address

_PORTS = {"http": 80, "socks5": 1080}
_SOCKS = ("socks", "socks5", "socks5h")  # all let the proxy resolve names, as curl's socks5h
_NO_PASSWORD, _PASSWORD, _NO_METHOD = 0, 2, 255  # SOCKS5 authentication methods
_REPLIES = {
    1: "general failure",
    2: "forbidden by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "TTL expired",
}  # RFC 1928, section 6


class ProxyRefused(OSError):
    """The proxy refuses a connection; the text says why."""


@dataclass(frozen=True)
class Proxy:
    """A server that passes connections on."""

    kind: str  # http or socks5
    host: str
    port: int
    user: str
    password: str
    variable: str  # the environment variable that names it

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port} ({self.variable})"


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy for a server; None for a direct connection."""
    found = getproxies()
    value = found.get(scheme) or found.get("all")
    if not value or _is_direct(host, port):
        return None
    names = (f"{scheme}_proxy", "all_proxy")
    variable = next(
        (n for n, v in os.environ.items() if n.lower() in names and v == value),
        "the system's settings",
    )
    return _parse(value, variable)


def connect_socks(proxy: Proxy, address: tuple[str, int], timeout: float) -> socket.socket:
    """A socket to the address through a SOCKS5 proxy (RFC 1928; passwords: RFC 1929).

    The proxy resolves the name: often only it has DNS. Raises OSError.
    """
    to_proxy = socket.create_connection((proxy.host, proxy.port), timeout)
    try:
        _greet(to_proxy, proxy)
        host, port = address
        to_proxy.sendall(b"\5\1\0" + _packed(host) + port.to_bytes(2, "big"))
        version, reply, _, kind = _receive(to_proxy, 4)
        if version != 5 or reply:
            raise ProxyRefused(_REPLIES.get(reply, f"error {reply}"))
        length = {1: 4, 4: 16}.get(kind) or _receive(to_proxy, 1)[0]
        _receive(to_proxy, length + 2)  # the address it connects from
    except BaseException:
        to_proxy.close()
        raise
    return to_proxy


def _parse(value: str, variable: str) -> Proxy:
    split = split_address(value if "://" in value else f"http://{value}")
    kind = "socks5" if split and split.scheme in _SOCKS else split.scheme if split else ""
    if split is None or kind not in _PORTS:
        raise NetworkError(
            f"{variable}={shown(value)} is not the address of an HTTP or SOCKS5 proxy. "
            "Set it to http://HOST:PORT or socks5h://HOST:PORT, or unset it."
        )
    user, password = unquote(split.username or ""), unquote(split.password or "")
    port = split.port or _PORTS[kind]
    return Proxy(kind, split.hostname or "", port, user, password, variable)


def _is_direct(host: str, port: int) -> bool:
    """Whether NO_PROXY, or the system's list, covers this server."""
    if not getproxies_environment():
        return bool(proxy_bypass(f"{host}:{port}"))
    listed = getproxies_environment().get("no", "")
    return any(_covers(entry.strip().lower(), host.lower(), port) for entry in listed.split(","))


def _covers(entry: str, host: str, port: int) -> bool:
    """An entry of NO_PROXY: a domain, an address or a network, with or without a port."""
    if entry == "*":
        return True
    with_port = re.fullmatch(r"\[(.+)\](?::(\d+))?|([^:]+):(\d+)", entry)
    if with_port:
        entry = with_port[1] or with_port[3]
        wanted = with_port[2] or with_port[4]
        if wanted and int(wanted) != port:
            return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of them is a name
        entry = entry.removeprefix("*").lstrip(".")
        return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _greet(to_proxy: socket.socket, proxy: Proxy) -> None:
    """Agree on an authentication method, and log in."""
    methods = bytes([_NO_PASSWORD, _PASSWORD] if proxy.user else [_NO_PASSWORD])
    to_proxy.sendall(bytes([5, len(methods)]) + methods)
    version, method = _receive(to_proxy, 2)
    if version != 5:
        raise ProxyRefused("it is not a SOCKS5 proxy")
    if method == _NO_METHOD or method not in methods:
        raise ProxyRefused(
            "it does not accept a user name and password" if proxy.user
            else "it requires a user name and password (socks5h://USER:PASSWORD@HOST:PORT)"
        )  # fmt: skip
    if method == _PASSWORD:
        user, password = proxy.user.encode()[:255], proxy.password.encode()[:255]
        pair = bytes([len(user)]) + user + bytes([len(password)]) + password
        to_proxy.sendall(b"\1" + pair)
        if _receive(to_proxy, 2)[1]:
            raise ProxyRefused("wrong user name or password")


def _packed(host: str) -> bytes:
    """The host in SOCKS5's form: a type, then the bytes."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna")
        return bytes([3, len(name)]) + name
    return bytes([1 if ip.version == 4 else 4]) + ip.packed


def _receive(to_proxy: socket.socket, n: int) -> bytes:
    """Exactly n bytes."""
    data = b""
    while len(data) < n:
        if not (came := to_proxy.recv(n - len(data))):
            raise ProxyRefused("it closed the connection; it may not be a SOCKS5 proxy")
        data += came
    return data
