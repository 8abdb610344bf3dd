"""Opening URLs: where a token is sent, errors, and ranges of a remote file."""

import base64
import contextlib
import os
import socket
import ssl
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time

import pytest
import trustme
from hub import TOKEN, Hub, pattern
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lcp import __version__
from lcp.downloads.http import open_url
from lcp.downloads.remote_file import RemoteFile
from lcp.errors import DownloadError, NetworkError

pytestmark = pytest.mark.slow  # processes, servers and time-outs

NOWHERE = "http://127.0.0.1:9"  # the discard port: no program listens


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture
def big(hub, tmp_path):
    """The address of a file of a little over 3 MiB, and its content."""
    content = pattern(tmp_path / "big", (3 << 20) + 5).read_bytes()
    return hub.url_of(hub.add("o/n", {"a b.gguf": content}), "a b.gguf"), content


class Server(ThreadingHTTPServer):
    """A server that answers as `script` says, path -> (status, headers, body), and a proxy."""

    daemon_threads = True

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen = {}, []
        self.scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"{self.scheme}://localhost:{self.server_port}"

    def handle_error(self, *_):
        pass


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, dict(self.headers)))
        status, headers, body = self.server.script.get(self.path, (200, {}, b"hello"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self):
        self.server.seen.append((self.path, dict(self.headers)))
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            other = threading.Thread(target=copy, args=(far, self.connection), daemon=True)
            other.start()
            copy(self.connection, far)
            other.join()

    def log_message(self, *_):
        pass


def copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def servers():
    """A function that starts another server."""
    started = []

    def start(context=None):
        started.append(Server(context))
        return started[-1]

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


@pytest.fixture
def tls(tmp_path, monkeypatch):
    """A certificate for localhost that is trusted here, as a context for a server."""
    authority, trusted = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def get(url, **options):
    response = open_url(url, **options)
    try:
        return response.read(10 << 20)
    finally:
        response.close()


def tokens(seen):
    return [headers.get("Authorization") for _, headers in seen]


# where a token goes


def test_a_token_is_not_sent_to_another_server(hub, big):
    url, content = big
    hub.repos["o/n"].private = True
    assert get(url, token=TOKEN) == content
    assert [(r.where, r.token) for r in hub.log] == [("resolve", TOKEN), ("cdn", None)]


def test_a_token_follows_a_redirect_on_its_own_server(hub):
    repo = hub.add("o/new", {"README.md": b"hi"}, private=True)
    hub.renamed["o/old"] = "o/new"
    assert get(hub.url_of(repo, "README.md").replace("o/new", "o/old"), token=TOKEN) == b"hi"
    assert [r.token for r in hub.log] == [TOKEN] * 3  # the alias, the file, where it is cached


def test_a_token_is_not_sent_after_a_redirect_through_another_server(servers):
    home, other = servers(), servers()
    home.script["/a"] = (302, {"Location": f"{other.url}/b"}, b"")
    other.script["/b"] = (302, {"Location": f"{home.url}/c"}, b"")
    assert get(f"{home.url}/a", token="secret") == b"hello"
    assert tokens(home.seen) == ["Bearer secret", None]
    assert tokens(other.seen) == [None]


def test_a_token_is_not_sent_after_a_redirect_from_https_to_http(servers, tls):
    safe, plain = servers(tls), servers()
    safe.script["/a"] = (302, {"Location": f"{plain.url}/b"}, b"")
    assert get(f"{safe.url}/a", token="secret") == b"hello"
    assert tokens(safe.seen) == ["Bearer secret"]
    assert tokens(plain.seen) == [None]


# proxies


def test_a_proxy_gets_the_full_address(servers, monkeypatch):
    proxy = servers()
    monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{proxy.server_port}")
    assert get("http://models.test/a?b=c", token="secret") == b"hello"
    path, headers = proxy.seen[0]
    assert path == "http://models.test/a?b=c"
    assert headers["Host"] == "models.test"
    assert headers["Proxy-Authorization"] == f"Basic {base64.b64encode(b'me:p@ss').decode()}"


def test_a_proxy_tunnels_tls(servers, tls, monkeypatch):
    server, proxy = servers(tls), servers()
    monkeypatch.setenv("https_proxy", f"http://me@127.0.0.1:{proxy.server_port}")
    assert get(f"{server.url}/a", token="secret") == b"hello"
    path, headers = proxy.seen[0]
    assert path == f"localhost:{server.server_port}"
    assert "Proxy-Authorization" in headers and "Authorization" not in headers
    ((path, headers),) = server.seen
    assert "Proxy-Authorization" not in headers and headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("named", ["localhost", "*", ".localhost, 127.0.0.1, localhost:{port}"])
def test_no_proxy_is_respected(servers, monkeypatch, named):
    server = servers()
    monkeypatch.setenv("http_proxy", NOWHERE)
    monkeypatch.setenv("no_proxy", named.format(port=server.server_port))
    assert get(f"{server.url}/a") == b"hello"


@pytest.mark.parametrize("url", ["http://models.test/a", "https://models.test/a"])
def test_an_unreachable_proxy_is_named(monkeypatch, url):
    monkeypatch.setenv("all_proxy", NOWHERE)
    says = r"models\.test through the proxy 127\.0\.0\.1:9 \(all_proxy\): connection refused"
    with pytest.raises(DownloadError, match=says):
        get(url)


def test_an_invalid_proxy_is_named(monkeypatch):
    monkeypatch.setenv("all_proxy", "socks4://me:secret@127.0.0.1:1080")
    with pytest.raises(NetworkError, match=r"^all_proxy=socks4://…@127\.0\.0\.1:1080\b"):
        get("http://models.test/a")


# what is sent, what is refused


def test_a_request_has_a_user_agent(servers):
    server = servers()
    assert get(f"{server.url}/ü b?q=1 2") == b"hello"
    path, headers = server.seen[0]
    assert path == "/%C3%BC%20b?q=1%202"
    assert headers["User-Agent"] == f"lcp/{__version__}"
    assert headers["Accept-Encoding"] == "identity"


def test_a_head_has_a_size_and_no_body(hub, big):
    response = open_url(big[0], method="HEAD")
    assert (response.size, response.read(10), response.url[:21]) == (
        len(big[1]), b"", hub.cdn_url[:21],
    )  # fmt: skip
    response.close()


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_sends_no_request(hub, big, monkeypatch, name):
    monkeypatch.setenv(name, "true")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set") as error:
        get(big[0])
    assert not hub.log and not error.value.retryable
    monkeypatch.setenv(name, "0")
    assert get(big[0]) == big[1]


@pytest.mark.parametrize(
    ("status", "retryable", "says"),
    [
        (
            401,
            False,
            r"refused n\.gguf: 401 Broken on purpose\. Set HF_TOKEN",
        ),
        (403, False, "consent"),
        (404, False, r"Check the name\.$"),
        (410, False, r"Check the address\.$"),
        (429, True, "run the same command again"),
        (500, True, r"Try again later\.$"),
        (503, True, r"Try again later\.$"),
    ],
)
def test_an_http_error_is_reported_with_a_next_step(hub, status, retryable, says):
    hub.fault("status", status, where="resolve")
    with pytest.raises(DownloadError, match=says) as error:
        get(f"{hub.url}/o/n/resolve/main/n.gguf?secret=1")
    assert str(error.value).startswith(f"{hub.url[7:]} refused n.gguf")
    assert (error.value.status, error.value.retryable) == (status, retryable)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_signed_address_can_be_retried(hub, big, status):
    hub.fault("status", status, where="cdn")
    with pytest.raises(DownloadError) as error:
        get(big[0])
    assert (error.value.status, error.value.retryable) == (status, True)
    assert f" refused {big[0].rpartition('/')[2]}: {status}" in str(error.value)  # not a hash


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "in a while"}, 3600),
        ({"Retry-After": "soon"}, None),
        ({"RateLimit": '"resolvers";r=0;t=55'}, 55),
        ({"RateLimit": '"resolvers";r=9;t=55'}, None),
        ({}, None),
    ],
)
def test_retry_after_headers(servers, headers, seconds):
    server = servers()
    if headers.get("Retry-After") == "in a while":  # a date is relative to now
        headers = {"Retry-After": formatdate(time() + seconds, usegmt=True)}
    server.script["/a"] = (429, headers, b"")
    with pytest.raises(DownloadError) as error:
        get(f"{server.url}/a")
    assert error.value.retry_after == (seconds and pytest.approx(seconds, abs=60))


def test_redirect_loops_end(servers):
    server = servers()
    server.script["/a"] = (302, {"Location": "/a"}, b"")
    with pytest.raises(DownloadError, match="redirects in a loop"):
        get(f"{server.url}/a")
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    "url", ["ftp://h/a", "file:///etc/passwd", "a/b", "http://", "http://h:x/"]
)
def test_only_http_addresses_are_opened(url):
    with pytest.raises(NetworkError, match="is not a web address"):
        get(url)


def test_a_redirect_to_a_file_is_not_followed(servers):
    server = servers()
    server.script["/a"] = (302, {"Location": "file:///etc/passwd"}, b"")
    with pytest.raises(NetworkError, match="file:///etc/passwd is not a web address"):
        get(f"{server.url}/a")


def test_an_unreachable_server():
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9: connection refused") as error:
        get(f"{NOWHERE}/a")
    assert error.value.retryable


def test_an_untrusted_certificate(servers, tls, monkeypatch):
    server = servers(tls)
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadError, match=r"is not trusted: .*SSL_CERT_FILE") as error:
        get(f"{server.url}/a")
    assert not error.value.retryable


@contextlib.contextmanager
def one_answer(said):
    """A server that sends these bytes to its first client, and closes. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n"])
def test_a_server_that_does_not_speak_http(said):
    raises = pytest.raises(DownloadError, match=r" the connection to 127")
    with one_answer(said) as port, raises as error:
        get(f"http://127.0.0.1:{port}/a")
    assert error.value.retryable


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("drop", "before the end"),
        ("reset", "was reset"),
        ("stall", "no answer for 0.3 s"),
    ],
)
def test_a_truncated_body_is_noticed(hub, big, kind, says):
    hub.fault(kind, 1_000_000)
    begun = time()
    with pytest.raises(DownloadError, match=says) as error:
        get(big[0], stall=0.3 if kind == "stall" else 10)
    assert error.value.retryable
    assert time() - begun < 5  # far less than the 10 s limit of a connection


# pieces of a file that is not here


@pytest.mark.parametrize("kind", ["none", "norange"])
def test_any_range_has_the_bytes_of_the_file(hub, big, kind):
    url, content = big
    hub.fault(kind)

    @settings(max_examples=8, deadline=None)
    @example([(len(content) + 5, 3), (0, 3)])
    @given(
        st.lists(st.tuples(st.integers(0, len(content) + 9), st.integers(0, 3 << 20)), max_size=4)
    )
    def check(pieces):
        with RemoteFile(url) as file:
            for offset, n in pieces:
                assert file.read(offset, n) == content[offset : offset + n]
            assert (file.size, file.name) == (len(content), "a b.gguf")

    check()


def test_a_header_is_read_over_one_connection(hub, big):
    with RemoteFile(big[0]) as file:
        assert file.size == len(big[1])
        for offset in range(0, 3 << 20, 1 << 16):
            file.read(offset, 1 << 16)
    assert [r.range for r in hub.log if r.where == "cdn"] == [
        "bytes=0-1048575", "bytes=1048576-2097151", "bytes=2097152-3145727",
    ]  # fmt: skip
    assert [r.where for r in hub.log].count("resolve") == 1
    assert hub.connections == {"hub": 1, "cdn": 1}


def test_a_header_of_a_private_model_is_read_with_its_token(hub, big):
    hub.repos["o/n"].private = True
    with RemoteFile(big[0], token=TOKEN) as file:
        assert file.read(2 << 20, 10) == big[1][2 << 20 :][:10]
    assert {(r.where, r.token) for r in hub.log} == {("resolve", TOKEN), ("cdn", None)}


def test_an_expired_address_is_requested_again(hub, big):
    with RemoteFile(big[0]) as file:
        file.read(0, 1)
        hub.fault("status", 403, times=1)
        assert file.read(2 << 20, 10) == big[1][2 << 20 :][:10]
    assert [r.where for r in hub.log] == ["resolve", "cdn", "cdn", "resolve", "cdn"]


@pytest.mark.parametrize("kind", ["drop", "reset", "stall"])
def test_a_broken_range_is_requested_again(hub, big, kind):
    hub.fault(kind, 1000, times=2)
    stall = 0.3 if kind == "stall" else 10
    with RemoteFile(big[0], stall=stall) as file:
        assert file.read(0, 1 << 20) == big[1][: 1 << 20]
    hub.fault(kind, 1000)
    with RemoteFile(big[0], stall=stall) as file, pytest.raises(DownloadError, match="connection"):
        file.read(0, 1 << 20)


def test_a_file_that_changes_between_two_reads_is_noticed(hub, big):
    with RemoteFile(big[0]) as file:
        file.read(0, 1)
        hub.fault("etag")
        with pytest.raises(DownloadError, match=r"^a b\.gguf changed on the server"):
            file.read(2 << 20, 1)


@pytest.mark.parametrize("kind", ["none", "norange"])
def test_no_more_is_read_than_the_limit_of_a_header(hub, tmp_path, kind):
    (tmp_path / "a.gguf").touch()
    os.truncate(tmp_path / "a.gguf", 70 << 20)
    hub.fault(kind)
    url = hub.url_of(hub.add("o/n", {"a.gguf": tmp_path / "a.gguf"}), "a.gguf")
    with RemoteFile(url) as file:
        assert len(file.read(0, 64 << 20)) == 64 << 20
        with pytest.raises(DownloadError, match=r"a\.gguf is longer than 67\.1 MB"):
            file.read(64 << 20, 1)


def test_a_server_that_does_not_tell_the_size(servers):
    server = servers()
    server.script["/a"] = (200, {}, b"GGUF" * 1000)
    with RemoteFile(f"{server.url}/a") as file:
        assert file.size is None
        assert file.read(4, 10) == b"GGUFGGUFGG"
        assert file.read(3996, 10) == b"GGUF"
