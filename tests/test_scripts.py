"""lcp in pipes and scripts: what is read from stdin, grammars, -i, and every exit code."""

import fcntl
import io
import json
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from terminal import CTRL_C, CTRL_D, ENTER, ESC, Pty, paste, terminal_environment, uncut

from lcp.cli.script_output import ScriptOutput
from lcp.cli.stdin import MOST
from lcp.engine_interface import Reply
from lcp.engine_notices import ThinkingEnded
from lcp.session.store import is_one_shot
from lcp.terminal.screen import Screen

pytestmark = pytest.mark.usefixtures("checked")

COMMAND = [sys.executable, "-m", "lcp"]
ROOT = Path(__file__).parents[1]
slow = pytest.mark.slow


@pytest.fixture
def start(home, tiny):
    """A function that starts `lcp chat` with a tiny model."""
    processes = []

    def started(*words, model=None, **options):
        options = {"stdin": subprocess.PIPE, "bufsize": 0} | options
        processes.append(
            subprocess.Popen(
                [*COMMAND, "chat", str(model or tiny()), "-n", "3", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=terminal_environment(home),
                **options,
            )
        )
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def unread(pipe):
    """How many bytes in a pipe were not read yet."""
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0]


@pytest.fixture
def shell(home, tiny):
    """A function that runs a shell command, in which `lcp` is `lcp chat` with a tiny model."""
    lcp = " ".join([*COMMAND, "chat", str(tiny()), "-n", "3"])

    def run(script, **options):
        return subprocess.run(
            ["bash", "-c", f'lcp() {{ {lcp} "$@"; }}; {script}'],
            capture_output=True,
            env=terminal_environment(home),
            check=False,
            timeout=60,
            **({"stdin": subprocess.DEVNULL} | options),
        )

    return run


def asked(home):
    (path,) = (home / "data" / "sessions").glob("*.jsonl")
    events = map(json.loads, path.read_text("utf-8").splitlines())
    return [event["text"] for event in events if event["type"] == "user"]


# what is read from stdin

NOTHING_CAME = "Nothing arrived on stdin; "


@slow
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not tell")
def test_a_silent_inherited_stdin_is_not_read(start, home):
    """As under ssh, cron and test runners, stdin stays open and nothing arrives."""
    process = start("-p", "Hi.")
    assert process.wait(timeout=60) == 0
    assert process.stderr.read().decode().startswith(NOTHING_CAME)
    assert asked(home) == ["Hi."]


@slow
def test_after_a_first_byte_all_of_stdin_is_read(start, home):
    process = start("-p", "Sum it up.")
    process.stdin.write(b"The ")
    time.sleep(3)
    _, err = process.communicate(b"end.\n", timeout=60)
    assert (process.returncode, uncut(err)) == (0, b"")
    assert asked(home) == ["The end.\n\nSum it up."]


@slow
@pytest.mark.parametrize(
    "pipeline",
    [
        "(sleep 3; echo The end.) | lcp -p 'Sum it up.'",
        # in a group of its own, as under timeout
        "(sleep 3; echo The end.) | (set -m; lcp -p 'Sum it up.')",
    ],
)
def test_lcp_waits_for_a_slow_command(shell, home, pipeline):
    done = shell(pipeline)
    assert (done.returncode, uncut(done.stderr)) == (0, b"")
    assert asked(home) == ["The end.\n\nSum it up."]


@slow
@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (b"One.\r\nTwo.\r\n", ["One.", "Two."]),
        (b"One.\nTwo.", ["One.", "Two."]),  # without a final line end
        (b"\xef\xbb\xbfOne.\r\n\r\n \r\nTwo.\r\n", ["One.", "Two."]),
        (b"\xef\xbb\xbf\nOne.", ["One."]),
        (b"a\rb\r\n", ["a\rb"]),  # a CR inside a line is not a line end
        (b"One. \nTwo\xff.\n", ["One. ", "Two\ufffd."]),
    ],
)
def test_line_ends_and_byte_order_marks_of_other_systems(start, home, given, lines):
    process = start("--lines")
    _, err = process.communicate(given, timeout=60)
    assert (process.returncode, uncut(err)) == (0, b"")
    assert asked(home) == lines


@slow
def test_a_nul_ends_the_lines_with_an_error(start, home):
    process = start("--lines")
    _, err = process.communicate(b"One.\n\0\n", timeout=60)
    assert (process.returncode, uncut(err).count(b"\n")) == (2, 1)
    assert asked(home) == ["One."]


@slow
def test_a_prompt_from_windows_is_text(start, home):
    process = start("-p", "Sum it up.")
    _, err = process.communicate(b"\xef\xbb\xbfThe\r\nend.\r\n", timeout=60)
    assert (process.returncode, uncut(err)) == (0, b"")
    assert asked(home) == ["The\nend.\n\nSum it up."]


@slow
def test_without_a_question_lcp_always_waits_for_stdin(start, home):
    process = start()
    time.sleep(3)
    assert process.poll() is None
    _, err = process.communicate(b"Late.\n", timeout=60)
    assert (process.returncode, uncut(err)) == (0, b"")
    assert asked(home) == ["Late."]


@slow
@pytest.mark.parametrize("text", ["", "The end.\n"])
def test_a_file_is_read_at_once(start, home, tmp_path, text):
    (tmp_path / "text").write_text(text)
    with (tmp_path / "text").open() as file:
        process = start("-p", "Sum it up.", stdin=file)
        assert (process.wait(timeout=60), uncut(process.stderr.read())) == (0, b"")
    assert asked(home) == [f"{text}\nSum it up." if text else "Sum it up."]


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["", "--lines", "-p Hm."])
def test_stdin_that_is_not_text_is_refused(shell, flags):
    done = shell(f"printf 'PNG\\0\\1' | lcp {flags}")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"lcp: stdin is not text.")


@slow
@pytest.mark.parametrize("flags", [("-p", "Sum it up."), ("--lines",)])
def test_stdin_larger_than_any_window_is_refused(start, tmp_path, flags):
    """Before an endless stdin uses up the memory."""
    with (tmp_path / "zeros").open("w+b") as file:
        file.truncate(MOST + 1)
        process = start(*flags, stdin=file)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith(b"lcp: stdin has more than 16,777,216 characters")


# chats of a person


def saved(home):
    (path,) = (home / "data" / "sessions").glob("*.jsonl")
    return path


@slow
@pytest.mark.parametrize("command", ["lcp Hi.", "echo Hi. | lcp", "echo Hi. | lcp --lines"])
def test_a_one_shot_is_not_a_chat_to_continue(shell, home, command):
    assert shell(command).returncode == 0
    assert is_one_shot(saved(home))
    done = shell("lcp --continue And now?")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"lcp chat --resume {saved(home).stem}" in done.stderr.decode()
    assert shell(f"lcp --resume {saved(home).stem[-4:]} And now?").returncode == 0
    assert is_one_shot(saved(home))
    assert asked(home) == ["Hi.", "And now?"]


@slow
def test_a_one_shot_that_a_person_continues_is_a_chat(shell, home, tiny):
    shell("lcp Hi.")
    words = ["-m", str(tiny()), "-n", "3", "--resume", saved(home).stem[-4:]]
    with Pty(*COMMAND, "chat", *words, home=home) as chat:
        chat.sees("/help lists commands")
        chat.type(CTRL_D)  # only looked at, not continued
        assert chat.leaves() == 0
    assert is_one_shot(saved(home))
    with Pty(*COMMAND, "chat", *words, home=home) as chat:
        chat.sees("/help lists commands")
        chat.type("And now?" + ENTER)
        chat.sees("tokens/s")
        chat.type(CTRL_D)
        assert chat.leaves() == 0
    assert not is_one_shot(saved(home))
    assert shell("lcp --continue And then?").returncode == 0


@slow
def test_a_one_shot_that_is_too_long_leaves_no_chat(shell, home):
    done = shell("printf 'word %.0s' {1..3000} | lcp -c 256")
    assert (done.returncode, done.stdout) == (1, b"")
    assert not list((home / "data" / "sessions").glob("*"))


# lines that cannot be answered


@slow
def test_a_line_that_fails_is_reported_and_the_next_one_is_answered(shell, home):
    lines = "(echo Hi.; echo; printf 'word %.0s' {1..3000}; echo; echo Ho.)"
    done = shell(f"{lines} | lcp -c 256 --lines")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) >= 2
    assert b"line 3: " in done.stderr
    assert asked(home)[::2] == ["Hi.", "Ho."]
    done = shell(f"{lines} | lcp -c 256 --lines --json --no-save")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, [row["ended"] == "error" for row in rows]) == (1, [False, True, False])
    assert "--ctx-size" in rows[1]["error"] and "error" not in rows[0]


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_fails_at_the_first_line(start, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"no model")
    process = start("--lines", model=tmp_path / "broken.gguf")
    _, err = process.communicate(b"Hi.\nHo.\n", timeout=60)
    assert (process.returncode, err.count(b"\n"), b"line" in err) == (1, 1, False)


# grammars


@slow
def test_an_answer_matches_its_schema_or_grammar(shell, tmp_path):
    (tmp_path / "s.json").write_text('{"enum": ["red", "green"]}')
    (tmp_path / "g.gbnf").write_text('root ::= "yes" | "no"')
    done = shell(f"lcp Hi. -n 20 --json-schema {tmp_path}/s.json")
    assert (done.returncode, uncut(done.stderr)) == (0, b"")
    assert json.loads(done.stdout) in ("red", "green")
    done = shell(f"echo One. | lcp Hi. -n 20 --json --grammar {tmp_path}/g.gbnf")
    assert json.loads(done.stdout)["answer"] in ("yes", "no")
    done = shell(f"printf 'One.\\nTwo.\\n' | lcp --lines -n 20 --grammar {tmp_path}/g.gbnf")
    assert re.fullmatch(rb"(yes|no)\n(yes|no)\n", done.stdout)
    # as text, too
    done = shell("""lcp Hi. -n 20 --json-schema ' {"enum": ["red", "green"]}'""")
    assert json.loads(done.stdout) in ("red", "green")
    done = shell("""lcp Hi. -n 20 --grammar 'root ::= "yes" | "no"'""")
    assert done.stdout in (b"yes\n", b"no\n")
    done = shell("""lcp Hi. -n 20 --regex '[a-c]{4}'""")
    assert re.fullmatch(rb"[a-c]{4}\n", done.stdout)
    done = shell("""lcp Hi. -n 20 --json-schema '{"enum": ["red"], "uniqueItems": true}'""")
    assert (done.returncode, done.stdout) == (0, b'"red"\n')
    assert b"uniqueItems" in done.stderr


@pytest.mark.parametrize(("ended", "cut"), [("end", 0), ("stop", 0), ("length", 1), ("full", 1)])
def test_an_answer_after_ended_thinking_is_complete(ended, cut):
    report = ScriptOutput(
        Screen(io.StringIO(), io.StringIO()), False, False, whole=True, person=False
    )
    reply = Reply(0)
    reply.ended, reply.notice = ended, ThinkingEnded(5)
    report(reply)
    assert report.cut == cut


@slow
def test_a_truncated_answer_is_a_failure(shell, tmp_path):
    (tmp_path / "g.gbnf").write_text("root ::= [ab]{9}")
    done = shell(f"lcp Hi. --grammar {tmp_path}/g.gbnf")
    assert done.returncode == 1
    assert re.fullmatch(rb"[ab]{3}\n", done.stdout)
    assert b"--max-tokens" in done.stderr
    assert done.stderr.count(b"\n") == 1
    done = shell(f"printf 'One.\\nTwo.\\n' | lcp --lines --json --grammar {tmp_path}/g.gbnf")
    assert done.returncode == 1  # all lines were answered
    assert [json.loads(line)["ended"] for line in done.stdout.splitlines()] == ["length"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--grammar", "{}/nowhere"], "Cannot read the grammar {}/nowhere: "),
        (["--json-schema", "{}/nowhere"], "Cannot read the schema {}/nowhere: "),
        (["--json-schema", "{}/g"], "{}/g is not JSON: "),
        (["--json-schema", "{{"], "The schema is not JSON: "),
        (["--json-schema", '{{"enum": []}}'], "The schema allows no answer: "),
        (["--regex", "("], "The regular expression ( cannot be enforced: unclosed group"),
        (["--grammar", 'root ::= "a'], "The grammar is not a GBNF grammar: "),
        (
            ["--grammar", "{}/g"],
            "{}/g is not a GBNF grammar: expecting ::= at '= \"a\"'",
        ),
        (["--grammar", "{}/g", "--regex", "a"], "--regex and --grammar cannot be combined."),
        (["--grammar", ""], "--grammar is empty. "),
        (["--json-schema", ""], "--json-schema is empty. "),
        (["--regex", ""], "--regex is empty. "),
        (["--json", "-i"], "--json "),
    ],
)
def test_invalid_options_are_reported_before_loading(start, tmp_path, words, sentence):
    (tmp_path / "g").write_text('root = "a"')
    (tmp_path / "broken.gguf").write_bytes(b"no model")
    process = start(
        "Hi.",
        *(w.format(tmp_path) for w in words),
        model=tmp_path / "broken.gguf",
        stdin=subprocess.DEVNULL,
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.decode().startswith("lcp: " + sentence.format(tmp_path, tmp_path))
    assert err.count(b"\n") == 1


# -i


@slow
@pytest.mark.parametrize(
    ("command", "first"),
    [
        ("lcp -i 'The first.'", "The first."),
        ("echo Piped. | lcp -i", "Piped."),
        ("echo Piped. | lcp -i -p 'The first.'", "Piped.\n\nThe first."),
        ("printf 'One.\\nTwo.\\n' | lcp --lines -i", "One."),
    ],
)
def test_with_dash_i_a_chat_continues_after_the_answer(home, tiny, command, first):
    lcp = " ".join([*COMMAND, "chat", str(tiny()), "-n", "3"])
    script = f'lcp() {{ {lcp} "$@"; }}; {command}'
    with Pty("bash", "-c", script, home=home) as chat:
        chat.sees("/help lists commands")
        chat.sees("\n>")
        chat.type("The next." + ENTER)
        chat.sees("> The next.\n")
        chat.waits(lambda: "tokens/s" in chat.screen().partition("> The next.")[2], "no answer")
        chat.sees("\n>")
        chat.type(CTRL_D)
        assert chat.leaves() == 0
        assert chat.modes() == chat.modes_before
    assert asked(home)[0] == first
    assert asked(home)[-1] == "The next."


@slow
def test_text_pasted_during_the_first_answer_is_in_the_input_line(home, tiny):
    long = "x" * 20_000  # more than a terminal buffers
    words = ["-m", str(tiny()), "-n", "300", "-i", "-p", "A story."]
    with Pty(*COMMAND, "chat", *words, home=home) as chat:
        chat.sees("/help lists commands")
        chat.waits(lambda: "\x1b[?2004h" in chat.raw, "pastes are not marked")
        assert "tokens/s" not in chat.raw.partition("\x1b[?2004h")[0]
        chat.type(paste(long) + " Why?")
        chat.sees("> [paste 1: 20,000 characters] Why?")
        chat.type(CTRL_C)
        chat.waits(lambda: not chat.screen().rpartition("\n>")[2].startswith(" ["), "it stays")
        chat.type(CTRL_D)
        assert chat.leaves() == 0


@slow
def test_the_keys_can_be_chosen_on_the_command_line(home, tiny):
    with Pty(*COMMAND, "chat", str(tiny()), "--keys", "vi", home=home) as chat:
        chat.sees("context 0/")
        chat.type(ESC)
        chat.sees("vi: normal")
        chat.type("i" + CTRL_D)
        assert chat.leaves() == 0


@slow
def test_dash_i_needs_a_terminal(start):
    process = start("-i", "-p", "Hi.", start_new_session=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == b"lcp: -i needs a terminal, and there is none here. Leave out -i.\n"


# exit codes


@slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_while_waiting_for_stdin(start, number, code):
    process = start()
    process.stdin.write(b"x")
    while unread(process.stdin):
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, b"")


@slow
def test_a_closed_stderr(shell):
    done = shell("{ lcp Hi. --stats 2>&1 >&3 | true; } 3>&1; echo ${PIPESTATUS[0]}")
    assert (done.stdout.splitlines()[-1], uncut(done.stderr)) == (b"141", b"")


def codes():
    table = (ROOT / "docs/usage.md").read_text("utf-8").split("### Exit codes")[1].split("\n## ")[0]
    return {int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for code in
            cell.split(",")}  # fmt: skip


def test_every_exit_code_is_documented():
    """All of them are tested: 130, 143, 129, 141 in test_cli.py, the others in many files."""
    assert codes() == {0, 1, 2, 3, 129, 130, 141, 143}


@pytest.mark.parametrize(
    ("ended", "said"), [("length", "-n"), ("full", "-c"), ("end", ""), ("stop", "")]
)
def test_an_answer_truncated_by_a_limit_is_reported(capsys, ended, said):
    reply = Reply(1)
    reply.ended = ended
    for as_json, person, told in ((False, False, said), (True, False, ""), (False, True, "")):
        ScriptOutput(Screen(), as_json, False, False, person)(reply)
        out, err = capsys.readouterr()
        assert err.count("\n") == bool(told) and told in err
        assert as_json or not out
