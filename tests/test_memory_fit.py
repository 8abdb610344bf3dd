"""The chat chooses sizes that fit, and refuses before it runs out of memory."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import ggufs
import pytest
from terminal import terminal_environment

from bench.info import write
from lcp import formatting
from lcp.chat.memory_fit import choose
from lcp.cli.chat_services import services
from lcp.engine.loading import LoadPlan
from lcp.errors import ModelError, NotEnoughMemory
from lcp.settings import Settings
from lcp.split_names import size_here

pytestmark = pytest.mark.slow  # processes, servers and time-outs

GIB = 1 << 30


def fit(path, tmp_path, **wishes):
    return choose(path, Settings(**wishes), tmp_path / "known", gpu=False)


def test_a_small_model_gets_its_whole_trained_context(smollm2, tmp_path):
    assert fit(smollm2, tmp_path) == LoadPlan(8192, -1)
    assert fit(smollm2, tmp_path, ctx_size=512) == LoadPlan(512, -1)


def test_answers_of_llama_cpp_are_cached(tiny, tmp_path, monkeypatch):
    path = tiny("dense")
    first = fit(path, tmp_path)
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    assert fit(path, tmp_path) == first
    unknown = fit(path, tmp_path, ctx_size=512)  # without llama.cpp
    assert (unknown.ctx_size, unknown.n_gpu_layers, len(unknown.notices)) == (512, -1, 1)


def test_a_model_that_cannot_fit_is_refused_with_what_would_fit(smollm2, tmp_path):
    with pytest.raises(NotEnoughMemory) as caught:
        fit(smollm2, tmp_path, ctx_size=4_000_000)
    sentence = str(caught.value)
    assert "does not fit here. A context of 4000000 needs " in sentence
    assert "Use -c " in sentence


def test_a_truncated_file_is_incomplete(smollm2, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(smollm2.read_bytes()[: 60 << 20])
    with pytest.raises(
        ModelError, match=r"cut\.gguf is incomplete: 62\.9 MB of 98\.\d MB are here"
    ):
        fit(cut, tmp_path)


@pytest.mark.parametrize("architecture", ["gemma4-assistant", "eagle3", "clip"])
def test_a_draft_model_is_refused_by_its_kind(tmp_path, architecture):
    path = tmp_path / "m-Q8_0-MTP.gguf"
    path.write_bytes(ggufs.gguf([ggufs.pair("general.architecture", 8, architecture)]))
    with pytest.raises(ModelError, match=r"(draft|projector)"):
        fit(path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["32768", "auto"])
def test_under_a_memory_limit_a_chat_refuses_or_uses_less(smollm2, home, size):
    """1 GiB of address space for the file, the cache, the libraries and the threads."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))

    done = subprocess.run(
        [sys.executable, "-m", "lcp", "chat", str(smollm2), "Hi", "-n", "3", "-c", size],
        env=terminal_environment(home),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if size == "auto":
        assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr
    else:
        assert done.returncode == 1
        assert done.stdout == ""
        assert "does not fit here. A context of 32768 needs" in done.stderr
        assert len(done.stderr.splitlines()) == 1


ASKS = """
import resource, sys
from pathlib import Path
from lcp.chat.memory_fit import choose
from lcp.cli.chat_services import services
from lcp.settings import Settings

resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
print(choose(Path(sys.argv[1]), Settings(ctx_size=512), Path(sys.argv[2]), gpu=False))
"""


@pytest.mark.slow
def test_weights_are_not_repacked_if_the_copies_do_not_fit(tmp_path):
    """4.3 GiB of Q4_0, which most CPUs repack, under a limit of 2 GiB."""
    write(tmp_path / "large.gguf")
    done = subprocess.run(
        [sys.executable, "-c", ASKS, str(tmp_path / "large.gguf"), str(tmp_path / "known")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "ctx_size=512" in done.stdout
    assert "reread from disk" in done.stdout


@pytest.mark.parametrize(
    ("n", "told"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.00 kB"),
        (98_400_416, "98.4 MB"), (999_600, "1.00 MB"), (2_019_377_696, "2.02 GB"),
        (9_996_000_000, "10.0 GB"), (145_000_000, "145 MB"), (999_900_000, "1.00 GB"),
    ],
)  # fmt: skip
def test_a_size_has_three_digits(n, told):
    assert formatting.size(n) == told


def test_the_size_of_a_split_model_is_the_sum_of_its_parts(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / f"m-Q8_0-0000{number}-of-00003.gguf").write_bytes(bytes(100 * number))
    (tmp_path / "m-Q4_0.gguf").write_bytes(bytes(7))
    assert size_here(tmp_path / "m-Q8_0-00001-of-00003.gguf") == 600
    assert size_here(tmp_path / "m-Q4_0.gguf") == 7


def test_all_commands_show_the_same_size_of_a_model(home, lcp_main, capsys):
    """A file, a split model and a blob of Ollama in lcp list, lcp info and /model."""
    hub = Path("~/.cache/huggingface/hub/models--a--b/snapshots/1").expanduser()
    hub.mkdir(parents=True)
    data = ggufs.gguf(ggufs.described("llama", block_count=1), [("t", (32, 40_000), 0)])
    (hub / "one-Q8_0.gguf").write_bytes(data)
    split = [ggufs.pair("split.count", 2, 2), ggufs.pair("split.no", 2, 0)]
    for number in (0, 1):
        split[1] = ggufs.pair("split.no", 2, number)
        pairs = ggufs.described("llama", block_count=1) if number == 0 else []
        part = ggufs.gguf([*pairs, *split], [(f"t{number}", (32, 50_000), 0)])
        (hub / f"two-Q4_0-0000{number + 1}-of-00002.gguf").write_bytes(part)
    blobs = Path("~/.ollama/models/blobs").expanduser()
    manifest = blobs.parent / "manifests" / "registry.ollama.ai" / "library" / "three" / "latest"
    for folder in (blobs, manifest.parent):
        folder.mkdir(parents=True)
    (blobs / "sha256-1").write_bytes(data + bytes(32))
    (blobs / "sha256-2").write_text('{"model_format": "gguf", "file_type": "Q8_0"}')
    layer = {"mediaType": "x.model", "digest": "sha256:1", "size": len(data) + 32}
    manifest.write_text(json.dumps({"config": {"digest": "sha256:2"}, "layers": [layer]}))
    assert lcp_main("list") == 0
    rows = {row.split()[0]: row for row in capsys.readouterr().out.splitlines()}
    shown = {name: re.search(r"[\d.]+ [kMG]B", row)[0] for name, row in rows.items()}
    assert {"a/b:Q8_0", "a/b:Q4_0", "three:latest"} <= shown.keys()
    for name, size in shown.items():
        assert services().models()[name].endswith(size)
        lcp_main("info", name)
        assert f" {size} " in capsys.readouterr().out.partition("Memory")[0].replace("\n", " "), (
            name
        )
