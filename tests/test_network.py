"""The network as the environment describes it: proxies, certificates, the Hub's address, tokens."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from hub import TOKEN, Hub
from scripted_server import ScriptedServer, serving
from terminal import terminal_environment
from test_http import copy, get, one_answer, servers, tls  # noqa: F401  # fixtures

from lcp.downloads import hub
from lcp.downloads.model_names import Name, is_remote
from lcp.errors import DownloadError, ServerError
from lcp.network.proxies import proxy_for
from lcp.remote.discovery import look_up
from lcp.servers.address import parse

SECRET = "s3cret"


class Socks(threading.Thread):
    """A SOCKS5 proxy that resolves every name to this machine."""

    def __init__(self, pair=None, reply=0):
        super().__init__(daemon=True)
        self.pair, self.reply, self.asked = pair, reply, []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                client = self.listening.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.answer, args=(client,), daemon=True).start()

    def answer(self, client):
        with contextlib.suppress(OSError):  # it disconnected
            self.serve(client)

    def serve(self, client):
        stream = client.makefile("rb")

        def take(n=None):
            return stream.read(stream.read(1)[0] if n is None else n)

        with client:
            assert take(1) == b"\5"
            way = 2 if self.pair else 0
            if way not in take():
                return client.sendall(b"\5\xff")
            client.sendall(bytes([5, way]))
            if self.pair:
                assert take(1) == b"\1"
                wrong = (take().decode(), take().decode()) != self.pair
                client.sendall(bytes([1, wrong]))
                if wrong:
                    return
            assert take(3) == b"\5\1\0"
            kind = take(1)[0]
            to = take() if kind == 3 else take({1: 4, 4: 16}[kind])
            port = int.from_bytes(take(2), "big")
            self.asked.append((to.decode() if kind == 3 else to, port))
            # an address of the longest kind, in two pieces
            client.sendall(bytes([5, self.reply, 0, 4, 1, 2, 3]))
            client.sendall(bytes(15))
            if self.reply:
                return
            with socket.create_connection(("127.0.0.1", port)) as far:
                threading.Thread(target=copy, args=(far, client), daemon=True).start()
                copy(client, far)


@pytest.fixture
def socks():
    """A function that starts a SOCKS5 proxy."""
    started = []

    def start(**options):
        started.append(Socks(**options))
        return started[-1]

    yield start
    for proxy in started:
        proxy.listening.close()


@pytest.fixture
def server(monkeypatch):
    with Hub() as running:
        running.add("owner/model", {"m-Q8_0.gguf": bytes(20_000)})
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


# SOCKS


@pytest.mark.parametrize("kind", ["socks", "socks5", "socks5h"])
def test_a_socks_proxy_gets_the_host_name(servers, socks, monkeypatch, kind):  # noqa: F811
    proxy, there = socks(), servers()
    monkeypatch.setenv("ALL_PROXY", f"{kind}://127.0.0.1:{proxy.port}")
    assert get(f"http://models.test:{there.server_port}/a", token="secret") == b"hello"
    assert proxy.asked == [("models.test", there.server_port)]
    ((path, headers),) = there.seen
    assert (path, headers["Authorization"]) == ("/a", "Bearer secret")
    get(f"http://127.0.0.1:{there.server_port}/a")
    assert proxy.asked[1] == (b"\x7f\0\0\1", there.server_port)


def test_tls_goes_through_a_socks_proxy(servers, socks, tls, monkeypatch):  # noqa: F811
    proxy, there = socks(pair=("me", "p@ss")), servers(tls)
    monkeypatch.setenv("https_proxy", f"socks5h://me:p%40ss@127.0.0.1:{proxy.port}")
    assert get(f"{there.url}/a") == b"hello"
    assert proxy.asked == [("localhost", there.server_port)]


@pytest.mark.parametrize(
    ("options", "given", "says"),
    [
        ({"reply": 5}, "", "connection refused"),
        ({"reply": 99}, "", "error 99"),
        ({"pair": ("me", "x")}, "", "USER:PASSWORD"),
        ({"pair": ("me", "x")}, f"me:{SECRET}@", "wrong user name or password"),
    ],
)
def test_a_socks_proxy_that_refuses(socks, monkeypatch, options, given, says):
    proxy = socks(**options)
    monkeypatch.setenv("all_proxy", f"socks5h://{given}127.0.0.1:{proxy.port}")
    with pytest.raises(DownloadError, match=says) as error:
        get("http://models.test/a")
    assert f"127.0.0.1:{proxy.port} (all_proxy)" in str(error.value)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_proxy_that_does_not_speak_socks(monkeypatch, said):
    with one_answer(said) as port:
        monkeypatch.setenv("all_proxy", f"socks5h://127.0.0.1:{port}")
        with pytest.raises(DownloadError, match=r"not (be )?a SOCKS5 proxy"):
            get("http://models.test/a")


@pytest.mark.slow
def test_the_hub_and_the_bytes_go_through_the_socks_proxy(server, socks, lcp_main, monkeypatch):
    server.repos["owner/model"].private = True
    proxy = socks()
    monkeypatch.setenv("all_proxy", f"socks5://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("HF_ENDPOINT", server.url.replace("127.0.0.1", "hub.test"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert lcp_main("pull", "owner/model") == 0
    assert {host for host, _ in proxy.asked if isinstance(host, str)} == {"hub.test"}
    assert {r.token for r in server.log if r.where == "cdn"} == {None}
    assert len(proxy.asked) >= 4  # two questions, the file, its server


@pytest.mark.parametrize("user", ["", "me:p%40ss@"])
def test_a_server_with_models_is_reached_through_the_socks_proxy(socks, monkeypatch, user):
    proxy = socks(pair=("me", "p@ss") if user else None)
    monkeypatch.setenv("all_proxy", f"socks5h://{user}127.0.0.1:{proxy.port}")
    with ScriptedServer(serving("vllm")) as there:
        port = int(there.address.rpartition(":")[2])
        far = parse(f"http://models.test:{port}")
        assert look_up(far, "the-key").model == "m"
        assert set(proxy.asked) == {("models.test", port)}
        assert {asked.headers["authorization"] for asked in there.asked} == {"Bearer the-key"}
        assert {asked.headers["host"] for asked in there.asked} == {f"models.test:{port}"}
        del proxy.asked[:]
        assert look_up(parse(there.address), "").model == "m"
        assert not proxy.asked


def test_a_server_with_models_may_have_a_certificate_of_its_own(servers, tls, monkeypatch):  # noqa: F811
    there = servers(tls)
    listed = json.dumps({"data": [{"id": "m", "owned_by": "vllm"}]}).encode()
    there.script["/v1/models"] = (200, {}, listed)
    assert look_up(parse(there.url), "").model == "m"
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ServerError, match="SSL_CERT_FILE"):
        look_up(parse(there.url), "")


# invalid values


MALFORMED = [
    {"http_proxy": "http://[::1"},
    {"http_proxy": "127.0.0.1:port"},
    {"http_proxy": "http://127.0.0.1:99999"},
    {"http_proxy": f"http://me:{SECRET}@[::1"},
    {"http_proxy": f"http://me:{SECRET}"},
    {"http_proxy": "http://"},
    {"ALL_PROXY": f"socks4://me:{SECRET}@127.0.0.1:1"},
    {"all_proxy": "ftp://127.0.0.1:1"},
    {"HF_ENDPOINT": "foo"},
    {"HF_ENDPOINT": "http://[::1"},
    {"HF_ENDPOINT": "http://127.0.0.1:port"},
    {"HF_ENDPOINT": f"ftp://me:{SECRET}@127.0.0.1"},
    {"HF_TOKEN": f"hf_{SECRET}\nhf_other"},
    {"HF_TOKEN": f"hf_{SECRET}é"},
    {"HUGGING_FACE_HUB_TOKEN": f"hf {SECRET}"},
    {"HF_TOKEN_PATH": "{home}"},  # a folder
    {"HF_TOKEN_PATH": "{binary}"},
    {"HF_HUB_ETAG_TIMEOUT": "soon"},
    {"SSL_CERT_FILE": "/nowhere.pem"},
    {"SSL_CERT_DIR": "/nowhere"},
    {"REQUESTS_CA_BUNDLE": "/nowhere.pem"},
    {"SSL_CERT_FILE": "{binary}"},
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "given"),
    [("pull", given) for given in MALFORMED] + [("info", MALFORMED[n]) for n in (0, 6, 9, 13, 18)],
)
def test_an_invalid_variable_is_an_error(server, home, tmp_path, command, given):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    ((name, value),) = given.items()
    value = value.format(home=tmp_path, binary=tmp_path / "binary")
    endpoint = "https://127.0.0.1:9" if "CERT" in name or "CA_" in name else server.url
    done = subprocess.run(
        [sys.executable, "-m", "lcp", command, "owner/model"],
        env=terminal_environment(home) | {"HF_ENDPOINT": endpoint, name: value},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("lcp: ")
    assert (name if name != "HF_TOKEN_PATH" else value) in done.stderr
    assert SECRET not in done.stderr
    assert {request.token for request in server.log} <= {None}


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["http://[::1", "foo"])
def test_a_malformed_endpoint_does_no_other_harm(lcp_main, monkeypatch, capsys, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert not is_remote("nothing")
    assert lcp_main("list") == 0
    assert lcp_main("info", "https://[x/y.gguf") in (1, 2)
    assert "[x" in capsys.readouterr().err


@pytest.mark.slow
def test_white_space_around_a_token_is_ignored(server, monkeypatch):
    server.repos["owner/model"].private = True
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\r\n")
    assert hub.look_up(Name("owner/model")).name == "owner/model"


def test_certificates_of_other_programs_are_trusted(servers, tls, monkeypatch):  # noqa: F811
    there, trusted = servers(tls), os.environ["SSL_CERT_FILE"]
    monkeypatch.delenv("SSL_CERT_FILE")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", trusted)
    assert get(f"{there.url}/a") == b"hello"


@pytest.mark.slow
def test_api_requests_use_the_certificates_of_downloads(servers, tls, monkeypatch):  # noqa: F811
    there = servers(tls)
    there.script["/api/models/o/n"] = (404, {"X-Error-Code": "RepoNotFound"}, b"{}")
    monkeypatch.setenv("HF_ENDPOINT", there.url)
    with pytest.raises(Exception, match="There is no repository o/n"):
        hub.look_up(Name("o/n"))
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadError, match="SSL_CERT_FILE"):
        hub.look_up(Name("o/n"))


@pytest.mark.slow
def test_a_dns_error_is_reported_without_error_numbers(monkeypatch):
    def nobody(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    for name in ("https://huggingface.co/a", "https://huggingface.co/b"):
        with pytest.raises(DownloadError, match=r"^Cannot reach huggingface\.co: no network") as e:
            get(name)
        assert "Errno" not in str(e.value)
    with pytest.raises(DownloadError, match=r"^Cannot reach huggingface\.co: no network"):
        hub.look_up(Name("o/n"))


@pytest.mark.parametrize("url", ["http://a..b/x", f"http://{'a' * 70}.test/x"])
def test_an_invalid_server_name(url):
    with pytest.raises(DownloadError, match="is not a server name") as error:
        get(url)
    assert not error.value.retryable


# without a proxy


@pytest.mark.parametrize(
    ("listed", "host", "direct"),
    [
        ("", "a.test", False),
        ("*", "a.test", True),
        ("a.test", "A.test", True),
        ("a.test", "b.a.test", True),
        (".a.test", "b.a.test", True),
        ("*.a.test", "b.a.test", True),
        ("a.test", "ba.test", False),
        ("x, a.test:80", "a.test", True),
        ("a.test:81", "a.test", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("[::1]:80", "::1", True),
        ("[::1]:81", "::1", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "10.1.2.3", False),
        ("[", "a.test", False),
    ],
)
def test_no_proxy_names_hosts_addresses_and_networks(monkeypatch, listed, host, direct):
    monkeypatch.setenv("http_proxy", "127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", listed)
    assert (proxy_for("http", host, 80) is None) == direct


@pytest.mark.parametrize(
    ("given", "kind", "host", "port"),
    [
        ("proxy", "http", "proxy", 80),
        ("proxy:3128", "http", "proxy", 3128),
        ("http://[::1]:8080/", "http", "::1", 8080),
        ("socks://proxy", "socks5", "proxy", 1080),
        ("SOCKS5H://proxy:1", "socks5", "proxy", 1),
    ],
)
def test_the_forms_of_a_proxy(monkeypatch, given, kind, host, port):
    monkeypatch.setenv("https_proxy", given)
    proxy = proxy_for("https", "a.test", 443)
    assert proxy and (proxy.kind, proxy.host, proxy.port) == (kind, host, port)
    assert proxy_for("http", "a.test", 80) is None
