"""`lcp info` of models that are not downloaded, with a fake Hub on this machine."""

import json
import subprocess
import sys

import pytest
from hub import Hub
from terminal import terminal_environment

pytestmark = pytest.mark.slow  # processes, servers and time-outs


@pytest.fixture
def server(tiny):
    with Hub() as running:
        running.add(
            "owner/tiny-GGUF",
            {"tiny-Q8_0.gguf": tiny("dense"), "sub/tiny-F16.gguf": tiny("swa"), "README.md": b""},
            info={"cardData": {"license": "mit"}},
        )  # fmt: skip
        yield running


@pytest.fixture
def info(home, server):
    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "lcp", "info", *words],
            env=terminal_environment(home) | {"HF_ENDPOINT": server.url},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def memory(done):
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["memory"]["source"] == "exact"
    return told["model"], told["memory"]["rows"], told["file"]


def test_figures_of_a_quant_on_the_hub_equal_those_of_the_file(info, server, tiny):
    far, here = info("owner/tiny-GGUF:Q8_0", "--json"), info(str(tiny("dense")), "--json")
    (model, rows, file), (its_model, its_rows, its_file) = memory(far), memory(here)
    assert (model | {"name": ""}, rows) == (its_model | {"name": ""}, its_rows)
    assert (file["path"], file["size"]) == (None, its_file["size"])
    sent = sum(entry.sent for entry in server.log if entry.path.endswith(".gguf"))
    assert sent <= 2 * its_file["size"] + 4096


def test_a_model_without_all_its_parts_does_not_fit(info, server, tiny):
    files = {"t-Q8_0-00001-of-00002.gguf": tiny("dense"), "t-Q4_0.gguf": tiny("dense")}
    server.add("owner/part-GGUF", files)
    rows = [line.split() for line in info("owner/part-GGUF").stdout.splitlines()]
    assert [row[-2] for row in rows if row[0] in ("Q8_0", "Q4_0")] == ["incomplete", "fits"]
    assert rows[-1][-1] == "owner/part-GGUF:Q4_0"
    told = json.loads(info("owner/part-GGUF", "--json").stdout)
    assert [one["fits"] for one in told["models"]] == [False, True]


@pytest.mark.slow
def test_a_file_in_a_folder_of_the_repository(info, tiny):
    far, here = info("owner/tiny-GGUF:F16", "--json"), info(str(tiny("swa")), "--json")
    assert memory(far)[1] == memory(here)[1]


def test_a_repository_lists_its_quants(info, server):
    done = info("owner/tiny-GGUF")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (lines[0].split(), lines[1].split()) == (
        ["owner/tiny-GGUF", "mit"],
        ["quant", "size", "here", "file"],
    )
    assert [line.split()[0] for line in lines[2:4]] == ["Q8_0", "F16"]
    assert lines[2].split()[-2:] == ["fits", "tiny-Q8_0.gguf"]
    assert not [entry for entry in server.log if entry.path.endswith(".gguf")]


@pytest.mark.slow
def test_a_repository_as_json(info):
    told = json.loads(info("owner/tiny-GGUF", "--json").stdout)
    assert told["repository"]["licence"] == "mit"
    assert {(m["name"], m["quant"], m["fits"]) for m in told["models"]} == {
        ("tiny-Q8_0.gguf", "Q8_0", True),
        ("sub/tiny-F16.gguf", "F16", True),
    }


@pytest.mark.slow
def test_a_model_that_the_hub_does_not_have_is_an_error(info):
    done = info("owner/none-GGUF:Q8_0")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
