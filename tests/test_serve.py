"""`lcp serve`: the options that llama-server gets, where its key is, and what is refused."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from socket import create_server

import headers
import pytest
from llama_server import PROGRAM, install
from terminal import terminal_environment

from lcp import health_checks, machine, paths
from lcp.chat import memory_fit
from lcp.cli import serve
from lcp.engine import cpu_check
from lcp.engine.loading import LoadPlan
from lcp.machine import physical_cores
from lcp.settings import Settings

KEY = "s3cret-key"
CUDA = "Available devices:\n  CUDA0: NVIDIA H100 (81559 MiB, 80000 MiB free)\n"
NO_GPU = "Available devices:\n  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n"
# It records its arguments and environment, each ended by a NUL.
FAKE = """#!/bin/sh
here=$(dirname "$0")
if [ "$1" = --list-devices ]; then cat "$here/devices"; exit; fi
printf '%s\\0' "$@" > "$here/words"
env -0 > "$here/environment"
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A function: puts a fake llama-server with these devices on PATH and returns its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "llama-server").write_text(FAKE)
    (folder / "llama-server").chmod(0o755)

    def install(devices=NO_GPU):
        (folder / "devices").write_text(devices)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder

    return install


@pytest.fixture
def without_server(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.fixture
def fitted(monkeypatch):
    """A function that sets the LoadPlan of a chat and whether lcp's llama.cpp has a GPU."""

    def fit(ctx_size=2048, n_gpu_layers=-1, gpu=False, **more):
        asked = []

        def choose(path, settings, known, gpu, name):
            asked.append((gpu, settings.kv_type))
            return LoadPlan(ctx_size, n_gpu_layers, **more)

        monkeypatch.setattr(memory_fit, "choose", choose)
        monkeypatch.setattr(cpu_check, "check_once", lambda cache: gpu)
        return asked

    return fit


@pytest.fixture
def printed(lcp_main, capsys):
    """A function: arguments of `lcp serve` -> the words of the printed command line."""

    def run(*words):
        assert lcp_main("serve", *map(str, words), "--print") == 0
        return without_variables(capsys.readouterr().out)

    return run


def without_variables(line):
    words = shlex.split(line)
    return words[words.index("llama-server") :]


def value(words, option):
    return words[words.index(option) + 1]


# what llama-server gets


@pytest.mark.slow
def test_the_sizes_equal_those_of_a_chat(printed, smollm2, without_server):
    chat = memory_fit.choose(smollm2, Settings(), paths.cache() / "known", gpu=False)
    words = printed("smollm2-135m")
    assert words[0] == "llama-server"
    assert value(words, "-m") == str(smollm2)
    assert value(words, "--alias") == "smollm2-135m"
    assert int(value(words, "-c")) == chat.ctx_size
    assert value(words, "-b") == "512" and value(words, "-fa") == "off"
    assert (value(words, "--host"), value(words, "--port")) == ("127.0.0.1", "8080")
    assert "-ngl" not in words and "--rpc" not in words
    # models.toml recommends these for this model
    assert (value(words, "--temp"), value(words, "--top-p")) == ("0.2", "0.9")


@pytest.mark.slow
def test_a_model_that_does_not_fit_is_not_served(lcp_main, capsys, without_server):
    assert lcp_main("serve", "smollm2-135m", "-c", "4000000", "--print") == 1
    told = capsys.readouterr()
    assert told.out == "" and "-c " in told.err


def test_settings_are_passed_to_the_server(printed, tiny, fitted, without_server, monkeypatch):
    fitted()
    monkeypatch.setenv("LCP_REPEAT_LAST_N", "128")
    words = printed(
        tiny(), "--kv-type", "q8_0", "-t", "3", "-ngl", "7", "--temp", "0", "--seed", "random"
    )
    assert (value(words, "-ctk"), value(words, "-ctv")) == ("q8_0", "q8_0")
    assert value(words, "-fa") == "on"  # a quantized V needs it
    assert value(words, "-t") == "3"
    assert (value(words, "--temp"), value(words, "--repeat-last-n")) == ("0.0", "128")
    assert "--top-k" not in words and "--seed" not in words


def test_the_measured_speed_settings_are_used(printed, tiny, fitted, without_server):
    fitted(flash_attn="on", threads=3)
    words = printed(tiny())
    assert (value(words, "-fa"), value(words, "-t")) == ("on", "3")
    assert int(value(words, "-tb")) == physical_cores()
    words = printed(tiny(), "-t", "2", "--flash-attn", "off")
    assert (value(words, "-fa"), value(words, "-t")) == ("off", "2") and "-tb" not in words


def test_a_server_is_not_served(lcp_main, capsys, without_server):
    assert lcp_main("serve", "http://127.0.0.1:8080", "--print") == 1
    told = capsys.readouterr()
    assert told.out == "" and "is on a server" in told.err


def test_the_printed_command_is_quoted_for_a_shell(printed, tmp_path, tiny, fitted):
    fitted()
    file = tmp_path / "$(reboot) 'a' \"b\" ü; c.gguf"
    shutil.copy(tiny(), file)
    words = printed(file)
    assert value(words, "-m") == str(file)
    assert value(words, "--alias") == file.name.removesuffix(".gguf")


@pytest.mark.parametrize(
    ("ours", "theirs", "asked", "layers", "flash", "fits_a_gpu"),
    [
        (False, NO_GPU, (), None, "off", False),
        (True, NO_GPU, (), None, "off", False),  # its llama.cpp has no GPU, even if ours has
        (True, CUDA, (), "999", "auto", True),
        (False, CUDA, (), None, "auto", None),  # lcp cannot see that memory: the server fills it
        (False, CUDA, ("-ngl", "5"), "5", "auto", None),
    ],
)
def test_layers_are_offloaded_if_the_server_has_a_gpu(
    printed, server, fitted, tiny, ours, theirs, asked, layers, flash, fits_a_gpu
):
    server(theirs)
    told = fitted(gpu=ours)
    words = printed(tiny(), *asked)
    assert (value(words, "-ngl") if "-ngl" in words else None) == layers
    assert value(words, "-fa") == flash
    assert [gpu for gpu, _ in told] == ([] if fits_a_gpu is None else [fits_a_gpu])


def test_some_layers_on_the_gpu(printed, server, fitted, tiny):
    server(CUDA)
    fitted(n_gpu_layers=12, gpu=True)
    assert value(printed(tiny()), "-ngl") == "12"


def test_with_all_layers_on_the_cpu_flash_attention_is_off(printed, server, fitted, tiny):
    server(CUDA)
    fitted(n_gpu_layers=0, gpu=True)
    assert value(printed(tiny(), "-ngl", "0"), "-fa") == "off"


@pytest.mark.parametrize(
    ("cpu", "forced", "repack", "told"),
    [
        ("flags : avx2", "", True, False),
        ("flags : avx2 amx_int8", "", True, True),
        ("flags : avx2 amx_int8", "1", True, False),
        ("flags : avx2", "0", True, True),
        ("flags : avx2", "", False, True),  # copies of the weights do not fit
    ],
)
def test_weights_are_not_repacked_if_that_may_crash(
    printed, tiny, fitted, without_server, monkeypatch, cpu, forced, repack, told
):
    fitted(repack=repack)
    monkeypatch.setenv("LCP_EXTRA_BUFTS", forced)
    monkeypatch.setattr(paths, "contents", lambda path: cpu)
    assert ("--no-repack" in printed(tiny())) == told


# several machines


def test_the_memory_of_other_machines_is_not_checked(printed, tiny, fitted, without_server):
    asked = fitted()
    words = printed(tiny(), "--rpc", "box:50052, 192.168.1.7:50052", "--flash-attn", "auto")
    assert value(words, "--rpc") == "box:50052,192.168.1.7:50052"
    assert asked == []
    assert value(words, "-c") == "4096"  # as trained, at most 8192
    assert "-ngl" not in words and value(words, "-fa") == "auto"
    assert value(printed(tiny(), "--rpc", "box:1", "-c", "512"), "-c") == "512"


@pytest.mark.slow
def test_with_other_machines_the_model_is_still_checked(lcp_main, capsys, tmp_path, without_server):
    embedding = headers.write(tmp_path / "bert.gguf", "bert")
    assert lcp_main("serve", str(embedding), "--rpc", "box:1", "--print") == 1
    assert "bert.gguf" in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    ["", "box", "box:", ":50052", "box:0", "box:65536", "box:1,", "box:1,,box:2", "[::1]:1",
     "a b:1", "box:1;reboot", "-x:1", "box:１", ",".join(f"box:{n}" for n in range(1, 18))],
)  # fmt: skip
def test_invalid_machines_are_refused(lcp_main, capsys, given):
    assert lcp_main("serve", "smollm2-135m", f"--rpc={given}", "--print") == 2
    assert "--rpc" in capsys.readouterr().err


# who may use it


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"])
def test_a_local_server_needs_no_key(printed, tiny, fitted, without_server, host):
    fitted()
    assert value(printed(tiny(), "--host", host), "--host") == host.strip("[]")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box", "0", "localhost.evil.org"])
def test_a_server_for_other_machines_needs_a_key(
    lcp_main, capsys, tiny, fitted, without_server, host, monkeypatch
):
    fitted()
    words = ("serve", str(tiny()), "--host", host, "--print")
    assert lcp_main(*words) == 2
    told = capsys.readouterr()
    assert told.out == "" and "LCP_API_KEY" in told.err
    monkeypatch.setenv("LCP_API_KEY", KEY)
    assert lcp_main(*words) == 0
    told = capsys.readouterr()
    assert ' LLAMA_API_KEY="$LCP_API_KEY" llama-server ' in told.out
    assert KEY not in told.out + told.err


@pytest.mark.parametrize("key", [",", "a,b", 'a"b', "a b", "schlüssel", "a\tb"])
def test_a_key_that_llama_server_would_misread_is_refused(lcp_main, capsys, monkeypatch, key):
    monkeypatch.setenv("LCP_API_KEY", key)
    assert lcp_main("serve", "smollm2-135m", "--host", "0.0.0.0", "--print") == 2
    told = capsys.readouterr()
    assert "LCP_API_KEY" in told.err and f"{key})" not in told.err


@pytest.mark.parametrize("host", ["", "a b", "127.0.0.1,0.0.0.0", "-x", "/tmp/x.sock", "a\n"])
def test_an_invalid_address_is_refused(lcp_main, capsys, host, monkeypatch):
    monkeypatch.setenv("LCP_API_KEY", KEY)
    assert lcp_main("serve", "smollm2-135m", f"--host={host}", "--print") == 2
    assert "--host" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "-1", "8080.0", "http", "", "８０８０"])
def test_an_invalid_port_is_refused(lcp_main, capsys, port):
    assert lcp_main("serve", "smollm2-135m", f"--port={port}", "--print") == 2
    assert "--port" in capsys.readouterr().err


# llama-server itself


def run(home, *words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lcp", "serve", *map(str, words)],
        env=terminal_environment(home) | {"PATH": os.environ["PATH"]} | environment,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_lcp_becomes_the_server_and_the_key_is_not_in_its_arguments(server, home, tiny):
    folder = server()
    done = run(home, tiny(), "--port", "8123", LCP_API_KEY=KEY)
    assert done.returncode == 0 and done.stdout == ""
    assert "lcp chat --server http://127.0.0.1:8123" in done.stderr
    words = (folder / "words").read_text().split("\0")
    environment = (folder / "environment").read_text().split("\0")
    assert value(words, "--port") == "8123" and value(words, "-m") == str(tiny())
    assert f"LLAMA_API_KEY={KEY}" in environment
    assert "GGML_NO_BACKTRACE=1" in environment
    assert "LLAMA_ARG_CORS_ORIGINS=localhost" in environment
    assert KEY not in "".join(words) + done.stderr
    told = run(home, tiny(), "--port", "8123", "--print")
    shown = without_variables(told.stdout)[1:]
    assert shown == without_free_memory(words[:-1], shown)


def without_free_memory(words, others):
    """The words, with the cache size of the others, because free memory changes."""
    if "--cache-ram" in words and "--cache-ram" in others:
        at = words.index("--cache-ram") + 1
        words[at] = value(others, "--cache-ram")
    return words


def test_cors_origins_of_the_environment_are_kept(lcp_main, capsys, tiny, fitted, monkeypatch):
    fitted()
    monkeypatch.setenv("LLAMA_ARG_CORS_ORIGINS", "https://example.org")
    assert lcp_main("serve", str(tiny()), "--print") == 0
    assert capsys.readouterr().out.startswith("llama-server ")


@pytest.mark.slow
def test_a_server_that_cannot_start_is_an_error(server, home, tiny):
    (server() / "llama-server").write_text("no program\0")
    done = run(home, tiny())
    assert done.returncode == 1
    assert "cannot be started" in done.stderr and "Traceback" not in done.stderr


def test_without_llama_server_the_error_names_ways_to_get_it(lcp_main, capsys, without_server):
    assert lcp_main("serve", "smollm2-135m") == 1
    told = capsys.readouterr().err
    assert "llama-server is not on PATH" in told and "brew install llama.cpp" in told


def test_the_doctor_shows_its_path(server, monkeypatch):
    folder = server()
    found = health_checks.llama_server()
    assert found.value == str(folder / "llama-server") and not found.wrong
    monkeypatch.setattr(shutil, "which", lambda name: None)
    missing = health_checks.llama_server()
    assert "lcp serve" in missing.value and not missing.wrong


@pytest.mark.slow
def test_llama_server_knows_every_option(printed, tiny, fitted, without_server, monkeypatch):
    fitted(n_gpu_layers=1, threads=3, repack=False)
    monkeypatch.setattr(serve, "machine", lambda: machine.Machine(1 << 30, None))
    for name in serve.SAMPLING:
        monkeypatch.setenv(f"LCP_{name.upper()}", "1")
    words = printed(tiny(), "-ngl", "1")
    spelled = set(re.findall(r'"(--?[a-z][a-z-]*)"', Path(serve.__file__).read_text()))
    assert spelled <= {*words, "--print", "--rpc", "--list-devices"}
    read = "import sys, llama_server_program; llama_server_program.parse(sys.argv[1:])"
    line = [sys.executable, "-c", read]
    subprocess.run([*line, *words[1:]], check=True, cwd=PROGRAM.parent)
    assert subprocess.run([*line, "--no-such"], cwd=PROGRAM.parent, check=False).returncode == 1


@pytest.mark.slow
def test_a_real_server_takes_the_options(home, smollm2, tmp_path):
    install(tmp_path)
    path = f"{tmp_path}:{os.environ['PATH']}"
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "lcp", "serve", "smollm2-135m", "-c", "1024", "--port", str(port)],
        env=terminal_environment(home) | {"PATH": path, "LCP_API_KEY": KEY},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert ask(port, "/health", process)[0] == 200
        assert ask(port, "/props", process)[0] == 401
        status, told = ask(port, "/props", process, {"Authorization": f"Bearer {KEY}"})
        assert status == 200
        assert not allows(port, "https://evil.example") and allows(port, "http://localhost:3000")
        assert told["total_slots"] == 1
        defaults = told["default_generation_settings"]
        assert defaults["n_ctx"] == 1024
        assert defaults["params"]["temperature"] == pytest.approx(0.2)
        assert KEY not in Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        process.terminate()
        process.communicate()


def allows(port, origin):
    """Whether a browser would let a web page of this origin read the answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/health", headers={"Origin": origin})
    allowed = connection.getresponse().getheader("Access-Control-Allow-Origin")
    connection.close()
    return allowed in (origin, "*")


def ask(port, path, process, headers=None):
    """Status and JSON of an answer, once the server runs and the model is loaded."""
    while process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            told = json.loads(answer.read())
        except ConnectionError:
            answer = None
        finally:
            connection.close()
        if answer and answer.status != 503:
            return answer.status, told
        time.sleep(0.1)
    pytest.fail(f"the server has ended: {process.stderr.read().decode()[-500:]}")
