"""Addresses of servers and proxies: which are valid, which are local, and that no error shows a
secret in one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcp.errors import LcpError
from lcp.network.proxies import proxy_for
from lcp.network.urls import shown
from lcp.servers.address import is_server, parse
from lcp.session.export import plain_name

SECRET = "S3CRET"
junk = st.text(st.sampled_from("ab1.:/?#[]%\\ \n;&=-"), max_size=6)
port = st.sampled_from(["", ":80", ":port", ":", ":99999", ":-1", ":８０"])


@st.composite
def addresses(draw):
    """Addresses with a secret in places where people write one, whole or broken."""
    scheme = draw(st.sampled_from(["", "http://", "https://", "HTTP://", "http:/", "ftp://", "//"]))
    user = draw(st.sampled_from(["", "me"])) + draw(st.sampled_from([":", ""])) + draw(junk)
    host = draw(st.sampled_from(["box", "127.0.0.1", "[::1]", "[::1", "b ox", ""])) + draw(port)
    return scheme + draw(
        st.sampled_from(
            [
                f"{user}{SECRET}{draw(junk)}@{host}{draw(junk)}",
                f"me:{draw(junk)}{SECRET}",
                f"me:{draw(junk)}{SECRET}{host}",
                f"{host}/v1?key={draw(junk)}{SECRET}{draw(junk)}",
                f"{host}?{SECRET}@{draw(junk)}",
            ]
        )
    )


@given(addresses())
def test_an_address_with_a_secret_is_refused_and_no_error_shows_it(address):
    is_server(address)
    try:
        found = parse(address)
    except LcpError as error:
        assert SECRET not in str(error) + shown(address)
    else:  # box:1/SECRET has a path, box:1#SECRET a model
        assert SECRET not in found.host and not re.search(r"@|^[^#]*\?", address)


@given(addresses())
def test_no_error_shows_the_secret_of_a_proxy(address):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("http_proxy", address.replace("\0", ""))
        try:
            said = str(proxy_for("http", "models.test", 80))
        except LcpError as error:
            said = str(error)
    assert SECRET not in said or address.split("@")[-1].startswith(SECRET)


def test_parse_addresses():
    assert parse("box:8080").api == "http://box:8080/v1"
    assert parse("http://box:8080/v1/#a/b").name == "http://box:8080#a/b"
    assert parse("https://x.com/api/v1").base == "https://x.com/api"
    assert parse("http://0.0.0.0:1").base == "http://127.0.0.1:1"
    assert parse("http://[::1]:8080").api == "http://[::1]:8080/v1"
    for wrong in ("http://", "ftp://box", "http://b ox", ":80", "http:/box", "http://box:", "[x"):
        with pytest.raises(LcpError):
            parse(wrong)


@pytest.mark.parametrize("model", ["m", "org/m.gguf", "qwen@q4", "a#b?c=%41", "ä b"])
def test_the_name_of_an_address_parses_to_the_same_address(model):
    name = parse("http://box:1").with_model(model).name
    assert parse(name).model == model and "@" not in name
    assert plain_name(name) == f"{model.rpartition('/')[2].removesuffix('.gguf')} on box:1"


@pytest.mark.parametrize(
    "host",
    ["box", "LOCALHOST", "localhost.", "127.0.0.1", "127.1", "10.0.0.1", "172.16.9.9", "[::1]",
     "192.168.1.2", "169.254.1.1", "100.100.1.1", "[fe80::1]", "[fd00::1]", "nas.local",
     "[::ffff:10.0.0.1]", "0.0.0.0"],
)  # fmt: skip
def test_this_computer_and_private_networks_need_no_proxy(host):
    assert parse(f"http://{host}:1").is_near and not parse(f"http://{host}").is_open


def test_public_addresses_without_tls_are_unencrypted():
    for host in ("example.com", "8.8.8.8", "[2606:4700::1]", "box.example"):
        assert parse(f"http://{host}").is_open and not parse(f"http://{host}").is_near
    assert not parse("https://example.com").is_open


def test_server_addresses_are_told_from_model_names():
    assert is_server("http://box:1") and is_server("HTTPS://x.com/v1#m") and is_server("http://[")
    for model in (
        "m",
        "box:1",
        "https://hf.co/a/b",
        "https://x.com/m.gguf",
        "https://x.co/m.gguf?a",
    ):
        assert not is_server(model)
