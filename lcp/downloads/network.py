"""Network: how this computer reaches servers, as the environment says: the proxy, the trusted
certificates, the address of the Hub, the token.

A value that has no meaning is a DownloadError that names the variable, its value and what to set
instead. No sentence shows a token or the password of a proxy. Knows no connections.
"""

import ipaddress
import os
import re
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, getproxies_environment, proxy_bypass

from lcp.errors import DownloadError

HUB = "https://huggingface.co"
_PROXY_PORTS = {"http": 80, "socks5": 1080}
_SOCKS = ("socks", "socks5", "socks5h")  # all let the proxy look up names, as curl's socks5h
# The first two are OpenSSL's own; programs that use requests read the others.
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Proxy:
    """A server that passes connections on."""

    kind: str  # http or socks5
    host: str
    port: int
    user: str
    password: str
    variable: str  # where it is named

    def __str__(self) -> str:
        return f"the proxy {self.host}:{self.port} ({self.variable})"


def proxy_for(scheme: str, host: str, port: int) -> Proxy | None:
    """The proxy that the environment or the system names for a server; None for a direct way."""
    found = getproxies()
    value = found.get(scheme) or found.get("all")
    if not value or _is_direct(host, port):
        return None
    names = (f"{scheme}_proxy", "all_proxy")
    variable = next(
        (n for n, v in os.environ.items() if n.lower() in names and v == value),
        "the system's settings",
    )
    return _proxy(value, variable)


def trusted() -> ssl.SSLContext:
    """The certificates that are trusted: the system's, or those that a variable names."""
    given = {name: value for name in _CERTIFICATES if (value := os.environ.get(name))}
    if sys.platform in ("darwin", "win32") and "SSL_CERT_FILE" not in given:
        import truststore  # Python from python.org knows none on a Mac

        context: ssl.SSLContext = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.create_default_context()  # passes over what it cannot read
    for name, value in given.items():
        _add_certificates(context, name, value)
    return context


def endpoint() -> str:
    """The address of the Hub: HF_ENDPOINT, or huggingface.co."""
    given = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if not given:
        return HUB
    split = split_address(given)
    if split is None or split.scheme not in ("http", "https"):
        raise DownloadError(
            f"HF_ENDPOINT={without_password(given)} is not a web address. "
            f"Set it to one such as {HUB}, or unset it."
        )
    return given


def token() -> str | None:
    """The person's token: HF_TOKEN, or what `hf auth login` saved."""
    import huggingface_hub
    from huggingface_hub import constants

    given = next(((n, os.environ[n]) for n in _TOKENS if os.environ.get(n)), None)
    where = given[0] if given else f"The file {constants.HF_TOKEN_PATH}"
    try:
        found = given[1] if given else huggingface_hub.get_token()
    except UnicodeDecodeError:
        found = "\0"
    except OSError as error:
        raise DownloadError(
            f"The Hugging Face token in {constants.HF_TOKEN_PATH} cannot be read: "
            f"{error.strerror}. Mend the file, or set HF_TOKEN."
        ) from None
    found = (found or "").strip()
    if found and not re.fullmatch("[!-~]+", found):
        raise DownloadError(
            f"{where} does not hold a token: a token is one word of ASCII letters and digits, "
            f"such as hf_…. Copy it again from {HUB}/settings/tokens."
        )
    return found or None


def split_address(address: str) -> SplitResult | None:
    """The parts of an address that has a server and a valid port, or none; None for another."""
    try:
        split = urlsplit(address)
        split.port  # noqa: B018  # raises ValueError
    except ValueError:
        return None
    return split if split.hostname and re.fullmatch(r"[\w.:%-]+", split.hostname) else None


def without_password(address: str) -> str:
    """The address for a sentence."""
    return re.sub(r"^(\w+://)?[^/]*@", r"\1…@", address)


def _proxy(value: str, variable: str) -> Proxy:
    split = split_address(value if "://" in value else f"http://{value}")
    if split is None:
        # "http://me:secret" has a password where a port should be
        shown = re.sub(r"(?<=[^/]):(?!//)(?!\d+/?$)[^\]]*$", ":…", without_password(value))
        raise DownloadError(
            f"{variable}={shown} is not the address of a proxy. "
            "Set it to http://HOST:PORT or socks5h://HOST:PORT, or unset it."
        )
    kind = "socks5" if split.scheme in _SOCKS else split.scheme
    if kind not in _PROXY_PORTS:
        raise DownloadError(
            f"{variable}={without_password(value)} is a proxy that lcp cannot use: it begins with "
            f"{split.scheme}://. Set it to an http:// or socks5h:// one, or unset it."
        )
    user, password = unquote(split.username or ""), unquote(split.password or "")
    port = split.port or _PROXY_PORTS[kind]
    return Proxy(kind, split.hostname or "", port, user, password, variable)


def _is_direct(host: str, port: int) -> bool:
    """Whether NO_PROXY names this server: a name and what is below it, an address or a network."""
    if not getproxies_environment():
        return bool(proxy_bypass(f"{host}:{port}"))  # the system's list
    listed = getproxies_environment().get("no", "")
    return any(_names(entry.strip().lower(), host.lower(), port) for entry in listed.split(","))


def _names(entry: str, host: str, port: int) -> bool:
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


def _add_certificates(context: ssl.SSLContext, name: str, value: str) -> None:
    """Trust these as well; DownloadError where they cannot be read."""
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
        why = "it has no certificates in it"
    except OSError as error:
        why = error.strerror or type(error).__name__
    else:
        return
    raise DownloadError(
        f"{name}={value} cannot be used: {why}. Set it to a file of certificates (PEM), "
        "or unset it."
    )
