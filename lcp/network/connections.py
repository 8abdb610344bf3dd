"""Connections: HTTP over TCP, TLS and proxies, with Python's http.client.

A connection raises only FAILURES. Downloads and servers with models turn them into errors for a
person.
"""

import base64
import errno
import http.client
import os
import socket
import ssl
import string
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from lcp.errors import NetworkError
from lcp.network.proxies import Proxy, connect_socks
from lcp.network.urls import host, origin

CONNECT_S = 10.0  # to connect to a server
FAILURES = (OSError, UnicodeError, http.client.HTTPException)
LOGIN = "Add a user name and password to the proxy variable: http://USER:PASSWORD@HOST:PORT."
_SAFE = string.punctuation  # addresses are quoted already
# The first two are OpenSSL's own; programs that use requests read the others.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
Connection = http.client.HTTPConnection


def connect(url: str, proxy: Proxy | None) -> Connection:
    """An open connection to the server of this address. Its socket has a time-out of CONNECT_S."""
    scheme, name, port = origin(url)
    server, at = (proxy.host, proxy.port) if proxy and proxy.kind == "http" else (name, port)
    if scheme == "http":
        connection = Connection(server, at, timeout=CONNECT_S)
    else:
        trusted = _trusted_certificates()
        connection = http.client.HTTPSConnection(server, at, timeout=CONNECT_S, context=trusted)
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
    return connection


def send(
    connection: Connection,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    proxy: Proxy | None = None,
) -> None:
    """Send a request; `proxy` is that of the connection."""
    split = urlsplit(quote(url, safe=_SAFE))
    target = f"{split.path or '/'}{'?' if split.query else ''}{split.query}"
    sent = dict(headers)
    if proxy and proxy.kind == "http" and split.scheme == "http":
        target = f"http://{host(url)}{target}"
        sent |= _credentials(proxy)
    connection.request(method, target, body, sent)


def _credentials(proxy: Proxy) -> dict[str, str]:
    if not proxy.user:
        return {}
    pair = f"{proxy.user}:{proxy.password}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _trusted_certificates() -> ssl.SSLContext:
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
    """Trust these as well; NetworkError if they cannot be read."""
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
    raise NetworkError(
        f"{name}={value} cannot be used: {why}. Set it to a file of certificates (PEM), "
        "or unset it."
    )


def reason(error: Exception, waited: float) -> str:
    """Why a connection failed, without error numbers; `waited`: its time-out in seconds."""
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror):
        return "no network or no DNS"
    if number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN):
        return "no network"
    if isinstance(error, TimeoutError):
        return f"no answer for {waited:g} s"
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
        return f"the proxy requires a login. {LOGIN}".rstrip(".")
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def distrust(server: str, error: ssl.SSLCertVerificationError) -> str:
    """A sentence on a certificate that is not trusted."""
    return (
        f"The certificate of {server} is not trusted: {error.verify_message}. If the server has a "
        "certificate of its own, or a proxy inspects your traffic, set SSL_CERT_FILE to a file "
        "with that certificate."
    )
