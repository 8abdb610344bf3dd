"""A connection through a SOCKS5 proxy (RFC 1928; a password as in RFC 1929).

Names go to the proxy as names: where only the proxy reaches the internet, only it has DNS.
"""

import ipaddress
import socket

from lcp.downloads.network import Proxy

_NO_PASSWORD, _PASSWORD, _NONE_FITS = 0, 2, 255
_REPLIES = {
    1: "it failed",
    2: "its rules forbid it",
    3: "the network is unreachable",
    4: "the server is unreachable",
    5: "the server refused the connection",
    6: "the time to live ran out",
}


class Refused(OSError):
    """The proxy does not make this connection; the text says why."""


def connect(proxy: Proxy, address: tuple[str, int], timeout: float) -> socket.socket:
    """A socket that reaches the address; OSError where the proxy cannot be reached or refuses."""
    to_proxy = socket.create_connection((proxy.host, proxy.port), timeout)
    try:
        _greet(to_proxy, proxy)
        host, port = address
        to_proxy.sendall(b"\5\1\0" + _packed(host) + port.to_bytes(2, "big"))
        version, reply, _, kind = _exactly(to_proxy, 4)
        if version != 5 or reply:
            raise Refused(_REPLIES.get(reply, f"it answers {reply}"))
        length = {1: 4, 4: 16}.get(kind) or _exactly(to_proxy, 1)[0]
        _exactly(to_proxy, length + 2)  # the address that it uses itself
    except BaseException:
        to_proxy.close()
        raise
    return to_proxy


def _greet(to_proxy: socket.socket, proxy: Proxy) -> None:
    ways = bytes([_NO_PASSWORD, _PASSWORD] if proxy.user else [_NO_PASSWORD])
    to_proxy.sendall(bytes([5, len(ways)]) + ways)
    version, way = _exactly(to_proxy, 2)
    if version != 5:
        raise Refused("it is not a SOCKS5 proxy")
    if way == _NONE_FITS or way not in ways:
        raise Refused(
            "it does not accept a user name and password" if proxy.user
            else "it asks for a user name and password (socks5h://USER:PASSWORD@HOST:PORT)"
        )  # fmt: skip
    if way == _PASSWORD:
        user, password = proxy.user.encode()[:255], proxy.password.encode()[:255]
        pair = bytes([len(user)]) + user + bytes([len(password)]) + password
        to_proxy.sendall(b"\1" + pair)
        if _exactly(to_proxy, 2)[1]:
            raise Refused("it does not accept this user name and password")


def _packed(host: str) -> bytes:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna")
        return bytes([3, len(name)]) + name
    return bytes([1 if ip.version == 4 else 4]) + ip.packed


def _exactly(to_proxy: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        if not (came := to_proxy.recv(n - len(data))):
            raise Refused("it closed the connection; it may not be a SOCKS5 proxy")
        data += came
    return data
