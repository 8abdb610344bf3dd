"""Names and repositories on the Hub: huggingface_hub with a fake Hub on this machine."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys

import pytest
from hub import NO_GRANT, TOKEN, Hub
from hypothesis import given
from hypothesis import strategies as st
from terminal import terminal_environment

from lcp.downloads import hub
from lcp.downloads.model_names import Name, is_remote, parse
from lcp.downloads.repo_files import normal
from lcp.errors import DownloadError, ModelNotFound, UsageError

BIG = bytes(20_000)
FILES = {"README.md": b"small", "m-Q4_K_M.gguf": BIG, "q/m-Q8_0.gguf": BIG + b"8"}


@pytest.fixture
def server(monkeypatch):
    """A Hub with one repository, for huggingface_hub."""
    with Hub() as running:
        running.add("owner/model", FILES, info={"cardData": {"license": "mit"}})
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


# names


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("owner/repo", Name("owner/repo")),
        ("Owner.x/repo-1.5_GGUF", Name("Owner.x/repo-1.5_GGUF")),
        ("owner/repo:Q4_K_M", Name("owner/repo", "Q4_K_M")),
        ("owner/repo:UD-Q4_K_XL", Name("owner/repo", "UD-Q4_K_XL")),
        ("owner/repo@v1.0", Name("owner/repo", None, None, "v1.0")),
        ("owner/repo:Q8_0@v1", Name("owner/repo", "Q8_0", None, "v1")),
        ("owner/repo@v1:Q8_0", Name("owner/repo", "Q8_0", None, "v1")),
        ("owner/repo/a.gguf", Name("owner/repo", None, "a.gguf")),
        ("owner/repo/b/c/a.gguf@v1", Name("owner/repo", None, "b/c/a.gguf", "v1")),
        ("owner/repo@v1/b/a.gguf", Name("owner/repo", None, "b/a.gguf", "v1")),
        ("hf.co/owner/repo", Name("owner/repo")),
        ("hf.co/owner/repo:Q8_0", Name("owner/repo", "Q8_0")),
        ("huggingface.co/owner/repo/", Name("owner/repo")),
        ("https://www.huggingface.co/owner/repo", Name("owner/repo")),
        ("https://huggingface.co/owner/repo?library=x#y", Name("owner/repo")),
        ("https://huggingface.co/owner/repo/tree/main", Name("owner/repo")),
        ("https://huggingface.co/owner/repo/tree/main/", Name("owner/repo")),
        ("https://huggingface.co/owner/repo/tree/v1", Name("owner/repo", revision="v1")),
        ("https://huggingface.co/owner/repo/tree/main/Q8_0", Name("owner/repo", "Q8_0")),
        ("https://huggingface.co/owner/repo?show_file_info=b%2Fa.gguf",
         Name("owner/repo", None, "b/a.gguf")),
        ("hf://owner/repo", Name("owner/repo")),
        ("hf:owner/repo:q4_k_m", Name("owner/repo", "Q4_K_M")),
        ("owner/repo/", Name("owner/repo")),
        ("hf.co/owner/repo:latest", Name("owner/repo")),
        ("owner/repo:fp16", Name("owner/repo", "F16")),
        ("ollama run hf.co/owner/repo:Q8_0", Name("owner/repo", "Q8_0")),
        ("llama-server -hf owner/repo", Name("owner/repo")),
        ("https://huggingface.co/owner/repo/blob/main/a.gguf",
         Name("owner/repo", None, "a.gguf")),
        ("https://huggingface.co/owner/repo/resolve/main/b/a.gguf?download=true",
         Name("owner/repo", None, "b/a.gguf")),
        ("https://hf.co/owner/repo/blob/refs%2Fpr%2F3/a%20b.gguf",
         Name("owner/repo", None, "a b.gguf", "refs/pr/3")),
        ("https://hf.co/owner/repo/resolve/refs/pr/3/a.gguf",
         Name("owner/repo", None, "a.gguf", "refs/pr/3")),
        ("http://127.0.0.1:1/mirror/owner/repo/blob/main/a.gguf",
         Name("owner/repo", None, "a.gguf")),
    ],
)  # fmt: skip
def test_the_forms_of_a_name(name, parts, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1/mirror/")
    assert is_remote(name)
    assert parse(name) == parts


@pytest.mark.parametrize("name", ["hf.co/owner", "hf.co/", "https://huggingface.co/a b/c", "x/y/z"])
def test_an_invalid_name_is_a_usage_error(name):
    with pytest.raises(UsageError, match="Write owner/repo, owner/repo:QUANT or owner/repo/file"):
        parse(name)


@pytest.mark.parametrize(
    "path",
    ["./a.gguf", "../a.gguf", "../a/b.gguf", "./a", "a/..", "a/../b.gguf", "a/b/../c.gguf",
     "a/../../b/c.gguf"],
)  # fmt: skip
def test_a_path_with_dots_is_not_a_name(path):
    assert not is_remote(path)


WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True)
QUANT = WORD.map(normal).filter(lambda quant: quant != "LATEST")
NAMES = st.builds(
    lambda owner, repo, quant, path, revision: Name(
        f"{owner}/{repo}", None if path else quant, path and f"{path}.gguf", revision
    ),
    WORD, WORD, st.none() | QUANT, st.none() | WORD, st.none() | WORD,
)  # fmt: skip
FORMS = (
    "{}", "{}/", "hf.co/{}", "HF.co/{}", "hf:{}", "hf://{}", "huggingface.co/{}/",
    "https://huggingface.co/{}", "https://www.huggingface.co/{}/", "http://hf.co/{}?library=x",
    "https://huggingface.co/{}/tree/main", "https://huggingface.co/{}/tree/main/#top",
    "ollama run hf.co/{}", "ollama pull hf.co/{}:latest", "llama-cli -hf {}", " hf download {} ",
)  # fmt: skip


@pytest.mark.slow
@given(NAMES)
def test_a_printed_name_parses_to_the_same_name(name):
    assert is_remote(str(name))
    assert parse(str(name)) == name


@pytest.mark.slow
@given(WORD, WORD, st.sampled_from(FORMS))
def test_all_spellings_of_a_repository_parse_to_one_name(owner, repo, form):
    spelled = form.format(f"{owner}/{repo}")
    assert is_remote(spelled)
    assert parse(spelled) == Name(f"{owner}/{repo}")


@pytest.mark.slow
@given(WORD, WORD, st.sampled_from(["Q4_K_M", "q4_k_m", "Q4_k_M"]), st.sampled_from(FORMS[:4]))
def test_a_quant_is_the_same_in_any_letter_case(owner, repo, quant, form):
    spelled = f"{form.format(f'{owner}/{repo}').rstrip('/')}:{quant}"
    assert parse(spelled) == Name(f"{owner}/{repo}", "Q4_K_M")


@given(st.text(max_size=60))
def test_any_text_parses_or_is_a_usage_error(text):
    with contextlib.suppress(UsageError):
        parse(text)


# repositories


@pytest.mark.slow
def test_a_repository_has_sizes_and_hashes_from_its_tree(server):
    found = hub.look_up(Name("owner/model"))
    assert (found.commit, found.revision) == (server.repos["owner/model"].commit, "main")
    assert {file.path: file.size for file in found.files} == {
        path: len(content) for path, content in FILES.items()
    }
    etags = {file.path: file.etag for file in found.files}
    assert etags["m-Q4_K_M.gguf"] == hashlib.sha256(BIG).hexdigest()
    assert len(etags["README.md"]) == 40
    assert (found.licence, found.gated) == ("mit", False)
    assert found.url("q/m-Q8_0.gguf") == (
        f"{server.url}/owner/model/resolve/{found.commit}/q/m-Q8_0.gguf"
    )
    asked = [request.path.partition("?")[0] for request in server.log]
    about = "/api/models/owner/model"
    assert asked == [about, f"{about}/tree/{found.commit}"]


@pytest.mark.parametrize(
    ("info", "licence"),
    [
        ({"cardData": {"license": "other", "license_name": "lfm1.0"}}, "lfm1.0"),
        ({"cardData": {"license": "other"}}, "other"),
        ({"tags": ["gguf", "license:llama3.2"]}, "llama3.2"),
        ({}, ""),
    ],
)
def test_the_licence_of_a_repository(server, info, licence):
    server.add("owner/other", FILES, info=info)
    assert hub.look_up(Name("owner/other")).licence == licence


def test_a_large_tree_is_complete(server):
    server.add("owner/large", {f"{n}/x.gguf": b"%d" % n for n in range(1100)})
    assert len(hub.look_up(Name("owner/large")).files) == 1100


def test_a_renamed_repository_is_found(server):
    server.renamed["old/name"] = "owner/model"
    assert hub.look_up(Name("old/name")).files == hub.look_up(Name("owner/model")).files


# errors


def refusal(name, known=()):
    with pytest.raises((DownloadError, ModelNotFound)) as error:
        hub.look_up(name, known)
    assert error.value.exit_code == 1
    return str(error.value)


def test_a_missing_repository_suggests_a_similar_one(server):
    said = refusal(Name("owner/nothing"))
    assert "owner/nothing that is public" in said and "HF_TOKEN" in said
    assert "Check the spelling" in refusal(Name("a/b"), ["a/b"])  # not itself
    assert refusal(Name("owner/mode")).endswith("Did you mean owner/model?")  # the Hub's search
    known = ["bartowski/Llama-3.2-3B-Instruct-GGUF"]
    assert refusal(Name("bartowski/Llama-3.2-3B-Instrct-GGUF"), known).endswith(
        "Did you mean bartowski/Llama-3.2-3B-Instruct-GGUF?"
    )


def test_a_private_repository_needs_a_token(server, monkeypatch):
    server.add("owner/private", FILES, private=True)
    assert "set HF_TOKEN" in refusal(Name("owner/private"))
    monkeypatch.setenv("HF_TOKEN", NO_GRANT)
    assert "no repository owner/private that your token can see" in refusal(Name("owner/private"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(hub.look_up(Name("owner/private")).files) == 3


def test_a_gated_repository_names_the_page_to_accept(server, monkeypatch):
    server.add("owner/gated", FILES, gated=True)
    said = refusal(Name("owner/gated"))
    for fact in (f"{server.url}/owner/gated,", f"{server.url}/settings/tokens ", "HF_TOKEN"):
        assert fact in said
    monkeypatch.setenv("HF_TOKEN", NO_GRANT)
    said = refusal(Name("owner/gated"))
    assert "no access yet" in said and f"{server.url}/owner/gated" in said
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.look_up(Name("owner/gated")).gated


def test_an_invalid_token_is_an_error(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    sentence = refusal(Name("owner/model"))
    assert f"{server.url}/settings/tokens" in sentence and "HF_TOKEN" in sentence
    assert "hf_wrong" not in sentence


def test_a_missing_revision_is_an_error(server):
    assert "no revision v9" in refusal(Name("owner/model", revision="v9"))


def test_an_impossible_name_is_an_error(server):
    assert "owner/--x is not a valid" in refusal(Name("owner/--x"))
    assert server.log == []


def test_a_server_that_is_not_a_hub(server):
    server.fault("status", 500, where="api", times=1)
    sentence = refusal(Name("owner/model"))
    assert " answered 500 (Broken on purpose) " in sentence and "owner/model" in sentence
    server.add("owner/odd", FILES, info={"id": None, "siblings": 5})
    assert "HF_ENDPOINT" in refusal(Name("owner/odd"))


def test_a_server_that_is_down(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    sentence = refusal(Name("owner/model"))
    assert sentence.startswith("Cannot reach 127.0.0.1:")
    assert "connection refused" in sentence and "HF_ENDPOINT" in sentence


@pytest.mark.slow
def test_offline_mode_sends_no_request(server, home):
    code = (
        "from lcp.downloads import hub; from lcp.downloads.model_names import Name\n"
        "try: hub.look_up(Name('owner/model'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = terminal_environment(home) | {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("DownloadError HF_HUB_OFFLINE is set")
    assert (server.log, done.stderr) == ([], "")


def test_telemetry_and_xet_are_off(server):
    hub.look_up(Name("owner/model"))
    assert os.environ["HF_HUB_DISABLE_XET"] == os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert not [r for r in server.log if "harness" in r.path or "telemetry" in r.path]
