"""An unwritable disk: read-only, full, or without a folder for temporary files.

All modules of lcp that write are listed here with what happens, and tested in a real process.
"""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import terminal_environment
from test_layout import FILES, name

ROOT = Path(__file__).parents[1]
GOES_ON, SENTENCE = "goes on without", "one sentence"
WRITERS = {
    "cli/look/common.py": SENTENCE,
    "cli/quantize.py": SENTENCE,
    "downloads/hub_cache.py": SENTENCE,
    "downloads/download.py": SENTENCE,
    "downloads/pulls_and_uses.py": GOES_ON,
    "engine/cpu_check.py": GOES_ON,
    "engine/temporary_file.py": SENTENCE,  # not on Linux: it needs no folder there
    "engine/kv_cache_file.py": GOES_ON,
    "modelfile/llamacpp_answers.py": GOES_ON,
    "session/export.py": SENTENCE,
    "session/log.py": GOES_ON,
    "terminal/editor.py": SENTENCE,
    "terminal/history.py": GOES_ON,
}
CALLS = {
    "mkdir", "makedirs", "write_text", "write_bytes", "touch", "symlink_to", "copyfile", "mkstemp",
    "mkdtemp", "TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile",
    "memfd_create",
}  # fmt: skip


def writes(tree):
    """Whether a module creates or writes files: by a function above, or a mode or flag to open."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "O_CREAT":
            return True
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            values = [*node.args, *(word.value for word in node.keywords)]
            modes = [v for arg in values for v in ast.walk(arg) if isinstance(v, ast.Constant)]
            fresh = any(isinstance(v.value, str) and set(v.value) & set("wax+") for v in modes)
            if called in CALLS or (called == "open" and fresh):
                return True
    return False


@pytest.mark.slow
def test_all_modules_that_write_files_are_listed():
    found = {name(path) for path in FILES if writes(ast.parse(path.read_text("utf-8")))}
    assert found == set(WRITERS), found ^ set(WRITERS)


ALONE = """
mount --make-rprivate / || exit 99
mount -t tmpfs -o size=64k none "$ROOM" || exit 99
[ "$KIND" = full ] && head -c 200000 /dev/zero > "$ROOM/filler" 2> /dev/null
if [ "$KIND" = read-only ]; then
    awk '$4 ~ /^rw/ && $2 !~ "^/(proc|sys)(/|$)" { print $2 }' /proc/self/mounts |
        while read -r at; do mount -o remount,bind,ro "$at"; done 2> /dev/null
fi
exec "$@"
"""


def spaces():
    """Whether a process can have its own mounts here."""
    unshare = shutil.which("unshare")
    probe = [unshare, "-rm", "mount", "--make-rprivate", "/"]
    return bool(unshare) and not subprocess.run(probe, capture_output=True, check=False).returncode


@pytest.fixture(params=["read-only", "full"])
def lcp(request, tmp_path):
    """A function that runs a command line on such a disk, without a folder for temporary files."""
    if sys.platform != "linux" or not spaces():
        pytest.skip("no mounts of one's own here")
    room = tmp_path / "room"
    room.mkdir()

    def run(*words, **more):
        full = request.param == "full"
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(room), "TMPDIR": str(room if full else "/no"),
            "LCP_HOME": str(room / "home"), "HF_HOME": str(room / "hub"), "ROOM": str(room),
            "KIND": request.param, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        return subprocess.run(
            ["unshare", "-rm", "sh", "-c", ALONE, "sh", sys.executable, "-m", "lcp", *words],
            env=environment | more, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_on_an_unwritable_disk_the_chat_answers_and_reports_once(lcp):
    done = lcp("chat", "smollm2-135m", "hi", "-n", "3")
    assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr
    assert done.stderr.count("no longer saved") == 1


@pytest.mark.slow
def test_no_save_reports_nothing_on_an_unwritable_disk(lcp):
    done = lcp("chat", "smollm2-135m", "Hi", "--stop", "e", "--no-save")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_grammars_work_and_wrong_ones_are_errors_on_an_unwritable_disk(lcp):
    rules = 'root ::= "yes" | "no"'
    done = lcp("chat", "smollm2-135m", "hi", "--no-save", "--grammar", rules)
    assert (done.returncode, done.stdout.strip() in ("yes", "no")) == (0, True), done.stderr
    done = lcp("chat", "smollm2-135m", "hi", "--no-save", "--grammar", "root ::= nope")
    assert (done.returncode != 0, len(done.stderr.splitlines())) == (True, 1)


@pytest.mark.slow
def test_info_is_exact_on_an_unwritable_disk(lcp):
    done = lcp("info", "smollm2-135m", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "exact" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("words", [["list"], ["sessions"], ["doctor"]])
def test_commands_that_only_read_work_on_an_unwritable_disk(lcp, words):
    done = lcp(*words)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr
    assert 'chown -R "$USER" "/"' not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_download_to_an_unwritable_disk_is_an_error(lcp):
    from hub import Hub

    with Hub() as hub:
        hub.add("owner/model", {"model-Q4_0.gguf": b"GGUF" + bytes(20_000)})
        done = lcp("pull", "owner/model", HF_ENDPOINT=hub.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert [line[:4] for line in done.stderr.splitlines()[1:]].count("lcp:") == 1, done.stderr
    assert "HF_HOME" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["quantize", "smollm2-135m", "q8_0", "-o"], ["look", "tokens", "Some words.", "--svg"]],
    ids=lambda words: words[0],
)
def test_a_file_on_an_unwritable_disk_is_an_error(lcp, tmp_path, words):
    done = lcp(*words, str(tmp_path / "room" / "new"))
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lcp: ") and str(tmp_path / "room" / "new") in last, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "room" / "new").exists()


# a limit on the size of a file: a write fails in the middle, as on a disk that becomes full


@pytest.fixture
def limited(home):
    """A function that runs a command line which can write files of so many bytes."""
    resource = pytest.importorskip("resource")

    def run(most, *words):
        return subprocess.run(
            [sys.executable, "-m", "lcp", *map(str, words)],
            env=terminal_environment(home), capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_a_quant_that_cannot_be_written_whole_is_an_error_of_the_disk(limited, tiny, tmp_path):
    done = limited(50_000, "quantize", tiny(), "Q8_0", "-o", tmp_path / "new.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert "-o" in done.stderr and "iostream" not in done.stderr
    assert not list(tmp_path.glob("new*"))


@pytest.mark.slow
def test_a_temporary_file_that_cannot_be_written_is_neither_the_model_nor_llamacpp(limited, tiny):
    for words in (["chat", tiny(), "Hi.", "-n", "1"], ["info", tiny()]):
        done = limited(1000, *words)
        told = " ".join((done.stdout + done.stderr).split())
        assert "temporary file" in told and "TMPDIR" in told, told
        assert "pip install" not in told and "crashes" not in told
