"""`lcp info` as a person or a script uses it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ggufs
import headers
import pytest
from ggufs import ARRAY, F32, I32, STRING, U16, U32, described, gguf, pair
from hub import Hub
from terminal import terminal_environment
from typer.testing import CliRunner

from lcp import paths
from lcp.cli import app
from lcp.errors import ModelNotFound

pytestmark = pytest.mark.slow  # processes, servers and time-outs

NAME = "Smollm2 135M 8k Lc100K Mix1 Ep2"


@pytest.fixture
def info(monkeypatch):
    """A function that runs a command line and returns its result; `width` in columns."""

    def run(*words, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        return CliRunner().invoke(app, ["info", *map(str, words)])

    return run


@pytest.fixture
def file(tmp_path):
    """A function that writes a GGUF file."""

    def write(*args, name="m.gguf", cut=0, extra=b"", **options):
        data = gguf(*args, **options) + extra
        path = tmp_path / name
        path.write_bytes(data[: len(data) - cut])
        return path

    return write


LLAMA = described("llama", block_count=2, context_length=4096, embedding_length=64)


def test_the_page_of_the_real_model(info):
    done = info("smollm2-135m")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].startswith(NAME) and lines[0].endswith("SmolLM2-135M-Instruct.Q4_1.gguf")
    text = " ".join(done.output.split())
    for part in (
        "llama · 134.5 M parameters · Q4_1 (5.74 bits/weight) · 98.4 MB · apache-2.0",
        "30 layers · embedding 576 · 9 heads (3 kv) · trained for 8,192 tokens",
        "vocabulary 49,152 (gpt2)",
        "chat template: yes (tools: no, thinking: no) · complete · GGUF v3",
        "Dense: each token uses all weights.",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("width", "more"),
    [(40, []), (60, []), (80, []), (40, ["--all"]), (80, ["--all"]), (40, ["--tensors"])],
)
def test_no_line_is_wider_than_the_terminal(info, width, more, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    done = info("smollm2-135m", *more, width=width)
    assert done.exit_code == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", done.output).splitlines()
    assert max(map(len, lines)) <= width
    assert not any(line.endswith(" ") for line in lines)


def test_at_40_columns_only_columns_of_the_table_are_lost(info):
    narrow, wide = (info("smollm2-135m", width=width).output for width in (40, 80))
    words = set(wide.partition("Memory (")[0].replace("·", " ").split())
    assert words <= set(narrow.split())
    assert re.search(r"^  context +total$", narrow, re.MULTILINE)
    assert re.search(r"^    8,192 +\d+ MB  fits ← default$", narrow, re.MULTILINE)


def test_without_a_name_the_default_model_is_shown(info):
    assert info().output.startswith(NAME)


def test_info_of_a_path(info, file):
    done = info(file(LLAMA))
    assert done.exit_code == 0
    assert done.output.startswith("m ") and "m.gguf" in done.output


def test_info_of_an_installed_model(info):
    paths.models().mkdir(parents=True)
    (paths.models() / "mine.gguf").write_bytes(gguf(LLAMA))
    assert "mine.gguf" in info("mine").output


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "There is no file"),
        (lambda path: path.write_bytes(b""), "m.gguf is empty"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html>"), "web page"),
        (lambda path: path.mkdir(), "is a folder without a .gguf file"),
        (lambda path: path.symlink_to("nowhere"), "There is no file"),
    ],
)
def test_an_unreadable_file_is_one_line_and_code_1(home, tmp_path, make, sentence):
    path = tmp_path / "m.gguf"
    make(path)
    done = subprocess.run(
        [sys.executable, "-m", "lcp", "info", str(path)],
        capture_output=True, text=True, env=terminal_environment(home), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("lcp: ") and sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_name(info):
    done = info("gemma")
    assert done.exit_code == 1
    assert "There is no model called gemma." in str(done.exception)


def test_an_unknown_option(info):
    assert info("--nonsense").exit_code == 2


def test_an_incomplete_file_is_shown_with_code_3(info, file):
    done = info(file(LLAMA, [("a", (1024, 1024), 0)], cut=1 << 20))
    assert done.exit_code == 3
    assert "incomplete" in done.output
    assert "3.15 MB of 4.19 MB" in done.output
    last = info(file(LLAMA, [("a", (1024, 1024), 0)], cut=1))
    assert (last.exit_code, "(missing: 1 byte)" in last.output) == (3, True)


def test_a_header_alone_is_shown_with_code_3(info, file):
    done = info(file(LLAMA, data=False))
    assert done.exit_code == 3
    assert "Only its header is here" in done.output


def test_missing_parts_are_named_with_code_3(info, file):
    split = [pair("split.no", U16, 0), pair("split.count", U16, 3)]
    done = info(file([*LLAMA, *split], name="m-00001-of-00003.gguf"))
    assert done.exit_code == 3
    assert "3 parts, incomplete" in done.output
    assert "Missing: m-00002-of-00003.gguf, m-00003-of-00003.gguf." in " ".join(done.output.split())


def test_unused_bytes_are_mentioned(info, file):
    done = info(file(LLAMA, extra=bytes(12)))
    assert (done.exit_code, "12 bytes after its last tensor" in done.output) == (0, True)


def test_escape_sequences_never_reach_the_terminal(info, file):
    evil = "\x1b]0;owned\x07\x1b[31mred\u202e"
    pairs = [
        pair("general.architecture", STRING, evil),
        pair("general.name", STRING, evil),
        pair("general.license", STRING, evil),
        pair(f"{evil}.block_count", U32, 2),
        pair("tokenizer.chat_template", STRING, evil),
        pair("general.tags", ARRAY, (STRING, [evil])),
    ]
    path = file(pairs, [(evil, (32,), 0)])
    for words in ([], ["--all"], ["--tensors"], ["--json", "--all", "--tensors"]):
        done = info(path, *words)
        assert done.exit_code == 0
        assert not set("\x1b\x07\u202e") & set(done.output)


def test_colours_only_in_a_terminal(info, monkeypatch):
    assert "\x1b" not in info("smollm2-135m").output


# more of it


def test_all_shows_every_key(info, file):
    pairs = [
        *LLAMA,
        pair("tokenizer.ggml.tokens", ARRAY, (STRING, [f"t{i}" for i in range(5000)])),
        pair("tokenizer.ggml.scores", ARRAY, (I32, [1, 2, 3])),
        pair("general.description", STRING, "long " * 100),
        pair("x.eps", F32, 1e-5),
        pair("x.yes", ggufs.BOOL, True),
    ]
    output = info(file(pairs), "--all").output
    rows = {line.split()[0]: line for line in output.splitlines() if line.count(".")}
    assert rows["llama.block_count"].split()[1:] == ["2"]
    assert "[5,000] t0, t1, t2" in rows["tokenizer.ggml.tokens"]
    assert rows["tokenizer.ggml.scores"].endswith("[3] 1, 2, 3")
    assert rows["general.description"].count("long") == 100  # a pipe gets all of it
    assert rows["x.eps"].endswith(" 1e-05")
    assert rows["x.yes"].endswith(" yes")


def test_tensors_are_listed(info, file):
    path = file(LLAMA, [("a.weight", (64, 2), ggufs.Q8_0_TENSOR), ("b.bias", (64,), 0)])
    rows = [line.split() for line in info(path, "--tensors").output.splitlines()[-2:]]
    assert rows == [
        ["a.weight", "Q8_0", "64", "x", "2", "136", "bytes"],
        ["b.bias", "F32", "64", "256", "bytes"],
    ]


def test_template_prints_only_the_template(info, file):
    template = "{% for m in messages %}\n{{ m.content }}{% endfor %}"
    path = file([*LLAMA, pair("tokenizer.chat_template", STRING, template)])
    assert info(path, "--template").output == template + "\n"
    done = info(file(LLAMA, name="n.gguf"), "--template")
    assert done.exit_code == 1
    assert "n.gguf has no chat template." in str(done.exception)


# what it needs


def test_the_table_of_contexts(info):
    lines = info("smollm2-135m").output.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:1] == ["context"])
    assert "exact, by llama-cpp-python" in lines[head - 2]
    assert lines[head].split() == ["context", "KV", "f16", "KV", "q8_0", "compute", "total"]
    rows = [line.split() for line in lines[head + 1 : head + 4]]
    assert [row[:5] for row in rows] == [
        ["2,048", "47.2", "MB", "25.1", "MB"],
        ["4,096", "94.4", "MB", "50.1", "MB"],
        ["8,192", "189", "MB", "100", "MB"],
    ]
    assert rows[2][-3:] == ["fits", "←", "default"]
    rest = "\n".join(lines[head + 4 :])
    assert "Largest context that fits: 8,192" in rest
    assert "Not counted: " in rest


def test_contexts_beyond_the_training_are_marked(info, tmp_path):
    path = headers.write(tmp_path / "m.gguf", "llama", vocabulary=True, context_length=1000)
    lines = info(path, "-c", "2000").output.splitlines()
    rows = [line.split() for line in lines if line.startswith("    ")]
    assert rows[0][0] == "1,024" and "beyond" not in rows[0]
    assert rows[1][0] == "2,048" and rows[1][-5:] == ["fits,", "beyond", "training", "←", "-c"]


def test_a_requested_context_and_kv_type_are_shown(info):
    output = info("smollm2-135m", "-c", "3000", "--kv-type", "q4_0", width=100).output
    assert "KV cache q4_0" in output
    (row,) = (line for line in output.splitlines() if line.startswith("    3,072"))
    assert row.endswith("fits ← -c")
    assert "KV f16" in output and "KV q4_0" in output and "KV q8_0" in output
    small = json.loads(info("smollm2-135m", "-c", "300", "--json").output)["memory"]
    assert small["context"] == small["rows"][0]["context"] == 512  # as llama.cpp rounds it
    monkey = json.loads(info("smollm2-135m", "-c", "16384", "--json").output)["memory"]
    assert (monkey["context"], monkey["rows"][-1]["context"]) == (16_384, 16_384)


def test_a_kv_type_that_the_model_cannot_have_has_its_reason(info, tiny):
    """Heads of 16 numbers are half a block of q8_0: memory has nothing to do with it."""
    done = info(tiny(), "--kv-type", "q8_0", "--check")
    text = " ".join(done.output.split())
    assert done.exit_code == 3
    assert "block size 32" in text and "--kv-type f16" in text
    assert "free memory" not in text and "no reason" not in text and "total" not in text
    memory = json.loads(info(tiny(), "--kv-type", "q8_0", "--json").output)["memory"]
    assert "block size 32" in memory["why"]


def test_settings_come_from_the_environment_as_in_a_chat(info, monkeypatch):
    monkeypatch.setenv("LCP_KV_TYPE", "q8_0")
    monkeypatch.setenv("LCP_CTX_SIZE", "2048")
    memory = json.loads(info("smollm2-135m", "--json").output)["memory"]
    assert (memory["kv_type"], memory["context"]) == ("q8_0", 2048)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-c", "big"], "ctx_size must be"),
        (["-ngl", "-1"], "n_gpu_layers must be"),
        (["--kv-type", "f64"], "kv_type must be"),
        (["--gpu-mem", "much"], "--gpu-mem must be a size such as 24G or 8192M (got much)."),
    ],
)
def test_invalid_options(info, words, sentence):
    done = info("smollm2-135m", *words)
    assert sentence in str(done.exception)
    assert done.exception.exit_code == 2


@pytest.mark.slow
def test_memory_on_a_gpu_that_is_not_here(info, tmp_path):
    """8 GB hold some layers of a model of 30B, 24 GiB all of them."""
    path = headers.write(tmp_path / "m.gguf", "qwen3moe", vocabulary=True)
    small = json.loads(info(path, "--gpu-mem", "8192M", "--json").output)["memory"]
    assert small["source"] == "about"
    assert 0 < small["n_gpu_layers"] < 48
    assert 4 << 30 < small["weights_gpu"] < 8 << 30
    output = info(path, "--gpu-mem", "24G").output
    assert "GPU (25.8 GB free): all 49 layers." in output
    assert "3.4 B active" in output


@pytest.mark.slow
def test_check_exits_with_a_code_for_whether_it_fits(info, tmp_path):
    assert info("smollm2-135m", "--check").exit_code == 0
    path = headers.write(tmp_path / "m.gguf", "deepseek2", vocabulary=True)  # 352 GiB
    done = info(path, "--check")
    assert (done.exit_code, "from disk ← default" in done.output) == (3, True)


def test_check_of_a_model_that_cannot_run(info, file):
    path = file([pair("general.name", STRING, "x")])
    done = info(path)
    assert done.exit_code == 0
    assert "no text under the key general.architecture" in " ".join(done.output.split())
    assert info(path, "--check").exit_code == 3


# on a server


@pytest.fixture
def hub():
    with Hub() as hub:
        yield hub


def split(number, tensors):
    """Part `number` of three."""
    pairs = [pair("split.no", U16, number - 1), pair("split.count", U16, 3)]
    return gguf(LLAMA + pairs if number == 1 else pairs, tensors)


def test_a_file_on_a_server(info, hub, smollm2):
    repo = hub.add("owner/model", {"model-Q4_1.gguf": smollm2})
    done = info(hub.url_of(repo, "model-Q4_1.gguf"))
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].endswith("model-Q4_1.gguf")
    assert lines[1] == "  Not downloaded: 98.4 MB to fetch."
    assert "exact, by llama-cpp-python" in done.output
    told = json.loads(info(hub.url_of(repo, "model-Q4_1.gguf"), "--json").output)
    here = json.loads(info(smollm2, "--json").output)
    assert told["file"]["path"] is None
    assert told["model"] == here["model"]
    assert told["memory"]["rows"] == here["memory"]["rows"]
    assert sum(r.sent for r in hub.log if r.where == "cdn") < 10 << 20


def test_a_model_in_parts_on_a_server(info, hub):
    files = {f"m-{n:05}-of-00003.gguf": split(n, [(f"t{n}", (32, 2), 0)]) for n in (1, 2, 3)}
    repo = hub.add("owner/model", files)
    told = json.loads(info(hub.url_of(repo, "m-00003-of-00003.gguf"), "--json").output)
    assert (told["file"]["parts"], told["file"]["complete"]) == (list(files), True)
    assert told["model"]["parameters"] == 3 * 64
    repo = hub.add("owner/less", {k: v for k, v in files.items() if "00002" not in k})
    done = info(hub.url_of(repo, "m-00001-of-00003.gguf"))
    assert done.exit_code == 3
    assert "Missing: m-00002-of-00003.gguf." in done.output


def test_a_cut_file_on_a_server_was_not_downloaded_in_part(info, hub):
    data = gguf(LLAMA, [("a", (1024, 1024), 0)])
    repo = hub.add("owner/model", {"m.gguf": data[:-1000]})
    done = info(hub.url_of(repo, "m.gguf"))
    assert (done.exit_code, "(missing: 1.00 kB)" in done.output) == (3, True)
    assert "interrupted" not in done.output


def test_an_address_without_a_model(info, hub):
    repo = hub.add("owner/model", {"page.gguf": b"<!DOCTYPE html>" + bytes(99)})
    assert "web page" in str(info(hub.url_of(repo, "page.gguf")).exception)
    done = info(hub.url_of(repo, "nothing.gguf"))
    assert done.exit_code == 1
    assert "404" in str(done.exception)


# for scripts

FILE = [
    "path", "name", "size", "size_expected", "complete", "parts", "missing", "gguf_version",
    "endian",
]  # fmt: skip
MODEL = [
    "name", "architecture", "licence", "parameters", "active_parameters", "quant", "mix",
    "bits_per_weight", "layers", "heads", "kv_heads", "embedding", "experts", "experts_used",
    "expert_bytes", "context_length", "window", "vocabulary", "tokenizer", "template", "tools",
    "thinking", "kinds", "problems",
]  # fmt: skip


def test_json_of_a_model(info, smollm2):
    told = json.loads(info("smollm2-135m", "--json").output)
    assert list(told["file"]) == FILE
    assert list(told["model"]) == MODEL
    assert told["file"]["path"] == str(smollm2)
    assert told["file"]["size"] == smollm2.stat().st_size == told["file"]["size_expected"]
    assert told["file"]["complete"] is True
    assert told["model"]["parameters"] == 134_515_008
    assert told["model"]["context_length"] == 8192


MEMORY = [
    "source", "why", "weights_file", "weights_anon", "weights_gpu", "free", "gpus", "n_gpu_layers",
    "context", "kv_type", "largest_context", "fits", "rows",
]  # fmt: skip
ROW = [
    "context", "kv_type", "weights", "kv", "compute", "output", "total", "fits", "verdict",
]  # fmt: skip


def test_json_of_memory(info):
    memory = json.loads(info("smollm2-135m", "--json").output)["memory"]
    assert list(memory) == MEMORY
    assert (memory["source"], memory["fits"], memory["largest_context"]) == ("exact", True, 8192)
    assert [list(row) for row in memory["rows"]] == [ROW] * 6
    for row in memory["rows"]:
        assert row["total"] == row["weights"] + row["kv"] + row["compute"] + row["output"]
        assert row["fits"] is (row["verdict"] == "fits")
    kv = {(row["context"], row["kv_type"]): row["kv"] for row in memory["rows"]}
    assert kv[8192, "f16"] == 180 << 20


def test_json_without_memory(info, file):
    memory = json.loads(info(file([]), "--json").output)["memory"]
    assert (memory["source"], memory["rows"]) == (None, [])
    assert "general.architecture" in memory["why"]


def test_json_with_all_keys(info, file):
    pairs = [*LLAMA, pair("x.nan", F32, float("nan")), pair("x.inf", F32, float("-inf"))]
    told = json.loads(info(file(pairs), "--json", "--all", "--tensors").output)
    assert told["metadata"]["llama.block_count"] == 2
    assert (told["metadata"]["x.nan"], told["metadata"]["x.inf"]) == ("nan", "-inf")
    assert told["tensors"][0] == {"name": "a", "shape": [32], "quant": "F32", "bytes": 128}


def test_json_of_an_incomplete_file_has_code_3(info, file):
    done = info(file(LLAMA, data=False), "--json")
    assert done.exit_code == 3
    assert json.loads(done.output)["file"]["complete"] is False


def test_info_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['lcp', 'info', 'smollm2-135m']\n"
        "from lcp.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted({'numpy', 'jinja2', 'llama_cpp'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=True,
    )
    assert done.stdout.splitlines()[-1] == ""


def test_the_docs_show_this_page_and_name_every_key(info):
    docs = (Path(__file__).parents[1] / "docs/info.md").read_text("utf-8")
    shown = docs.split("\n\n```\n")[1]
    printed = info("smollm2-135m").output
    assert shown.partition("Memory (")[0] == printed.partition("Memory (")[0]
    for key in [*FILE, *MODEL, *MEMORY, *ROW]:
        assert re.search(rf"[`.]{key}`", docs), key


@pytest.mark.parametrize("name", ["m" * 999, "m" * 999 + ".gguf", "a\0b"])
def test_a_name_that_is_too_long_is_an_error(info, name):
    assert isinstance(info(name).exception, ModelNotFound)
