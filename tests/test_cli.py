"""The command line as a script or a person uses it: `python -m lcp` in a process of its own."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import CTRL_C, CTRL_D, ENTER, UP, Pty, terminal_environment, uncut
from test_clean import EVERYTHING, MISPLACED, harmless

pytestmark = pytest.mark.usefixtures("checked")

COMMAND = [sys.executable, "-m", "lcp"]
JAPAN = "What is the capital of Japan?"
STORY = "Tell me a very long story about a cat."
STATS = [
    "prompt_tokens", "reused", "moved", "read", "reply_tokens", "dropped_turns", "ttft_s",
    "read_s", "decode_s", "tokens_per_second", "drafted", "accepted", "ctx_used", "ctx_size",
]  # fmt: skip


@pytest.fixture
def lcp(home):
    """A function that runs a command line to its end."""

    def run(*words, stdin="", **environment):
        return subprocess.run(
            [*COMMAND, *words],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=terminal_environment(home) | environment,
            check=False,
        )

    return run


@pytest.fixture
def lcp_here(lcp_main, capsys):
    """A function that runs a command line in this process; `says()` has its output."""

    def run(*words):
        return lcp_main(*words)

    run.says = capsys.readouterr
    return run


@pytest.fixture
def in_terminal(home):
    """A function that runs `lcp chat` with the real model in a real terminal."""
    return lambda *words: Pty(*COMMAND, "chat", "smollm2-135m", *words, home=home)


def log_of(home):
    """The events of the only saved chat."""
    (path,) = (home / "data" / "sessions").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def texts(home, type):
    return [event["text"] for event in log_of(home) if event["type"] == type]


# without a model


def test_version_prints_the_version(lcp):
    done = lcp("--version")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"lcp 0.")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["chat", "--help"], ["chat", "-h"]])
def test_help_goes_to_stdout(lcp_here, words):
    assert lcp_here(*words) == 0
    out, err = lcp_here.says()
    assert (out.startswith("Usage:"), err) == (True, "")


def test_lcp_without_arguments_shows_the_commands(lcp_here):
    lcp_here()
    assert "chat      Chat with a model." in "".join(lcp_here.says())


WHOLE = "must be a whole number from"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--temp", "hot"], 2, 'temp must be a number from 0 to 10 (got "hot" from the flag).'),
        (["--ctx-size", "3"], 2, f"ctx_size {WHOLE} 64 to 2,147,"),
        (["-c", "big"], 2, f"ctx_size {WHOLE}"),
        (["-n", "0"], 2, f"max_tokens {WHOLE}"),
        (["--predict", "0"], 2, f"max_tokens {WHOLE}"),
        (["-ngl", "-1"], 2, f"n_gpu_layers {WHOLE}"),
        (["-t", "0"], 2, f"threads {WHOLE}"),
        (["-ctk", "f64"], 2, "kv_type must be f16, q8_0 or q4_0 (got "),
        (["--think", "hard"], 2, "think must be on, off or hide (got "),
        (["--seed", "x"], 2, f"seed {WHOLE} 0 to 4,294,967,294 or"),
        (["smollm2-135n"], 2, "There is no model called smollm2-135n. Did you mean smollm2-135m"),
        (["missing.gguf"], 1, "There is no file missing.gguf. lcp list "),
        (["missing.gguf", "Hi."], 1, "There is no file missing.gguf."),
        (["-m", "gemma", "Hi."], 1, "There is no model called gemma. Did you mean gemma-3-1b, "),
        (["owner/repo", "Hi."], 1, "owner/repo is not here. Download it: lcp pull "),
        (["--resume", "20", "Hi."], 1, "There is no saved chat '20'."),
        (["--continue", "Hi."], 1, "There is no saved chat yet. `lcp chat`"),
        (["-s", "@nowhere", "Hi."], 2, "Cannot read the system text nowhere: "),
        (["--chat-template", "nowhere", "Hi."], 2, "Cannot read the template nowhere: "),
        (["-m", "\x1b]0;owned\x07", "Hi."], 1, "There is no model called ␛]0;owned␇."),
    ],
)
def test_errors_are_one_line_on_stderr(lcp_here, words, code, sentence):
    assert lcp_here("chat", *words) == code
    out, err = lcp_here.says()
    assert out == ""
    assert err.startswith(f"lcp: {sentence}")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "what"),
    [
        ("--system", "system text"),
        ("--chat-template", "template"),
        ("--grammar", "grammar"),
        ("--json-schema", "schema"),
    ],
)
def test_a_named_text_file_is_read_or_refused(lcp_here, tmp_path, flag, what):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    for name, why in (
        ("/dev/zero", "it is larger than 4,000,000 bytes"),
        (f"{tmp_path}/latin", "it is not UTF-8 text"),
        (f"{tmp_path}/nowhere", "No such file or directory"),
        (str(tmp_path), "Is a directory"),
        ("x" * 999, "File name too long"),
    ):
        given = f"@{name}" if flag == "--system" else name
        assert lcp_here("chat", "smollm2-135m", "Hi.", flag, given) == 2
        sentence = f"lcp: Cannot read the {what} {name}: {why}. Give another file.\n"
        assert lcp_here.says() == ("", sentence)


def test_an_unknown_option_is_a_usage_error(lcp_here):
    assert lcp_here("chat", "--bogus") == 2
    assert "No such option: --bogus" in lcp_here.says().err


def test_a_wrong_variable_is_a_usage_error(lcp_here, monkeypatch):
    monkeypatch.setenv("LCP_TEMP", "hot")
    assert lcp_here("chat", "Hi.") == 2
    assert lcp_here.says().err.startswith("lcp: temp must be a number")


def test_a_broken_config_file_is_a_usage_error(lcp_here, home):
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text("temp = ")
    assert lcp_here("chat", "Hi.") == 2
    sentence = lcp_here.says().err
    assert sentence.startswith(f"lcp: Cannot read {home}/config/config.toml: ")
    assert sentence.endswith("Correct or remove it.\n")


# with a tiny model: requests and saved chats


@pytest.mark.slow
def test_an_empty_stdin_and_no_question_is_a_usage_error(lcp, tiny):
    done = lcp("chat", str(tiny()), stdin="  \n\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"lcp: There is no question and stdin is empty. Ask one:")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "stdin", "question"),
    [
        (["one", "two", "three"], "", "one two three"),
        (["one two"], "", "one two"),
        (["-p", "one two"], "", "one two"),
        (["-p", "smollm2-135n"], "", "smollm2-135n"),
        ([], "piped\n", "piped"),
        (["Sum it up."], "piped\ntext\n", "piped\ntext\n\nSum it up."),
        (["-p", "Sum it up."], "  indented\n", "  indented\n\nSum it up."),
        (["~5", "apples"], "", "~5 apples"),
        (["x" * 300], "", "x" * 300),
    ],
)
def test_the_question_consists_of_words_and_stdin(lcp, tiny, home, words, stdin, question):
    done = lcp("chat", str(tiny()), "-n", "1", *words, stdin=stdin)
    assert (done.returncode, uncut(done.stderr)) == (0, b"")
    assert texts(home, "user") == [question]
    assert log_of(home)[0]["model"] == str(tiny())


@pytest.mark.slow
def test_files_are_attached_from_the_words_but_not_from_stdin(lcp, tiny, home, tmp_path):
    (tmp_path / "a.txt").write_text("Hum.")
    mention = f"@{tmp_path}/a.txt"
    done = lcp("chat", str(tiny()), "-n", "1", "-p", f"See {mention}", stdin=mention)
    assert done.returncode == 0
    assert f"{tmp_path}/a.txt: 4 bytes, ".encode() in done.stderr
    (question,) = texts(home, "user")
    assert question == f"{mention}\n\n{tmp_path}/a.txt\n```\nHum.\n```\n\nSee {mention}"


@pytest.mark.slow
def test_with_dash_m_all_words_are_the_question(lcp, tiny, home):
    done = lcp("chat", "-m", str(tiny()), "-n", "1", "smollm2-135n", "missing.gguf")
    assert done.returncode == 0
    assert texts(home, "user") == ["smollm2-135n missing.gguf"]


@pytest.mark.slow
def test_a_model_file_cannot_act_on_the_terminal_by_its_metadata(home, tiny):
    """Neither in lcp info nor in the log of llama.cpp."""
    line = EVERYTHING.replace("\n", " ").replace("\x00", "").encode("utf-8", "replace").decode()
    facts = {"general.name": line, "general.description": line, "general.license": line}
    for words in (["chat", "-m", "{}", "-n", "1", "Hi.", "--verbose"], ["info", "--all", "{}"]):
        model = str(tiny(facts=facts))
        with Pty(*COMMAND, *(word.format(model) for word in words), home=home) as shown:
            assert shown.leaves() == 0
            assert "<202E>txt.exe" in shown.screen().replace("\n", "")
            harmless(shown.raw, *MISPLACED)


@pytest.mark.slow
def test_without_a_model_name_the_default_model_answers(lcp, tiny, home):
    done = lcp("chat", "Hi.", "there.", "-n", "1", LCP_MODEL=str(tiny()))
    assert done.returncode == 0
    assert log_of(home)[0]["model"] == str(tiny())


@pytest.mark.slow
def test_bytes_that_are_not_utf8_are_still_a_question(lcp, tiny, home):
    done = lcp(
        "chat", str(tiny()), "-n", "1", stdin=b"caf\xe9\n", PYTHONIOENCODING="utf-8:strict"
    )  # fmt: skip
    assert (done.returncode, uncut(done.stderr)) == (0, b"")
    assert texts(home, "user") == ["caf\ufffd"]


@pytest.mark.parametrize("columns", ["0", ""])
def test_a_terminal_of_no_width_counts_as_unknown(lcp_main, capsys, tiny, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert lcp_main("look", "tokens", str(tiny()), "hi") == 0
    assert "a vocabulary of 260" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_closed_stream_counts_as_empty(home, tiny, closed):
    command = f"{' '.join(COMMAND)} chat {tiny()} -n 1 Hi. {closed}"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, env=terminal_environment(home), check=False
    )
    assert done.returncode == 0
    assert texts(home, "user") == ["Hi."]


@pytest.mark.slow
def test_a_full_disk_for_stdout_is_an_error(home, tiny):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "chat", str(tiny()), "-n", "900", "-c", "2048", "Hi."],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            env=terminal_environment(home),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"lcp: The output cannot be written: No space left on device.")
    assert done.stderr.count(b"\n") == 1
    answer = log_of(home)[-1]  # its text is kept, and nothing more is generated
    assert (answer["type"], answer["ended"]) == ("answer", "interrupted")
    assert answer["text"] and answer["stats"]["reply_tokens"] < 900


@pytest.mark.slow
def test_a_question_that_is_too_long_is_an_error_and_leaves_no_chat(lcp, tiny, home):
    done = lcp("chat", str(tiny()), "-c", "256", "x" * 500)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"room for 192" in done.stderr
    assert not list((home / "data" / "sessions").iterdir())


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_leaves_no_chat(lcp, home, tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"no model")
    done = lcp("chat", str(tmp_path / "broken.gguf"), "Hi.")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (1, b"", 1)
    assert not list(home.rglob("*.jsonl"))


@pytest.mark.slow
def test_an_unwritable_home_loses_only_the_log(lcp, tiny, home):
    (home / "data").touch()
    done = lcp("chat", str(tiny()), "-n", "3", "Hi.")
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr.startswith(b"This chat is no longer saved (Not a directory")
    assert uncut(done.stderr).count(b"\n") == 1


@pytest.mark.slow
def test_lcp_works_in_a_removed_folder(home, tiny, tmp_path):
    command = f"{' '.join(COMMAND)} chat {tiny()} -n 3 'See @notes.txt.'"
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        ["sh", "-c", f"rmdir ../gone; {command}"],
        cwd=tmp_path / "gone",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=terminal_environment(home),
        check=False,
    )
    assert done.returncode == 0
    assert b"notes.txt" in done.stderr
    assert texts(home, "user") == ["See @notes.txt."]


@pytest.mark.slow
def test_no_save_leaves_no_file(lcp, tiny, home):
    assert lcp("chat", str(tiny()), "-n", "1", "Hi.", "--no-save").returncode == 0
    left = [path for path in home.rglob("*") if path.is_file()]
    assert left and all(path.is_relative_to(home / "cache") for path in left)


@pytest.mark.slow
def test_a_setting_comes_from_the_strongest_layer(lcp, tiny, home):
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text("temp = 0.1\ntop_k = 1\nseed = 1\nmax_tokens = 2")
    lcp("chat", str(tiny()), "Hi.", "--seed", "3", LCP_SEED="2", LCP_TOP_K="2")
    answer = log_of(home)[-1]
    assert (answer["sampling"]["temp"], answer["sampling"]["top_k"]) == (0.1, 2)
    assert (answer["seed"], answer["stats"]["reply_tokens"]) == (3, 2)


@pytest.mark.slow
def test_a_resumed_chat_uses_its_own_model_not_that_of_the_config(lcp, tiny, home):
    lcp("chat", str(tiny()), "-n", "1", "Hi.")
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('model = "missing.gguf"')
    assert lcp("chat", "-n", "1", "--resume", "20", "And now?").returncode == 0
    assert texts(home, "user") == ["Hi.", "And now?"]
    assert {event["model"] for event in log_of(home) if "model" in event} == {str(tiny())}
    done = lcp("chat", "-n", "1", "--resume", "20", "And now?", LCP_MODEL="other.gguf")
    assert done.stderr.startswith(b"lcp: There is no file other.gguf.")


@pytest.mark.slow
def test_a_resumed_chat_whose_model_is_missing_uses_another(lcp, tiny, home, tmp_path):
    gone = tmp_path / "gone.gguf"
    shutil.copy(tiny(), gone)
    lcp("chat", str(gone), "-n", "1", "Hi.")
    gone.unlink()
    done = lcp("chat", "--resume", "20", "Hi.")
    (log,) = (home / "data" / "sessions").glob("*.jsonl")
    advice = f"lcp chat --resume {log.stem} -m NAME\n"
    assert done.stderr.decode().startswith(f"lcp: There is no file {gone}. ")
    assert done.stderr.decode().endswith(advice)
    assert lcp("chat", "--resume", log.stem, "-m", str(tiny()), "-n", "1", "Hi.").returncode == 0


@pytest.mark.slow
def test_a_resumed_chat_keeps_its_settings(lcp, tiny, home):
    lcp("chat", str(tiny()), "-n", "1", "Hi.")
    (path,) = (home / "data" / "sessions").glob("*.jsonl")
    with path.open("a") as log:
        log.write('{"v":1,"id":"x","parent":null,"type":"set","temp":0.25,"horoscope":"good"}\n')
    done = lcp("chat", "--resume", "20", "Hi.", "-n", "1")
    assert done.returncode == 0
    assert log_of(home)[-1]["sampling"]["temp"] == 0.25


@pytest.mark.slow
def test_the_system_text_comes_from_words_or_a_file(lcp, tiny, home, tmp_path):
    (tmp_path / "system.txt").write_text("Be brief.")
    lcp("chat", str(tiny()), "-n", "1", "-s", f"@{tmp_path}/system.txt", "Hi.")
    lcp("chat", "-n", "1", "--resume", "20", "-s", "Be kind.", "Hi.")
    lcp("chat", "-n", "1", "--resume", "20", "Hi.")
    assert texts(home, "system") == ["Be brief.", "Be kind."]


# the real model

slow = pytest.mark.slow


@slow
def test_the_answer_is_on_stdout_and_stderr_is_empty(lcp, home):
    done = lcp("chat", "smollm2-135m", JAPAN, "--temp", "0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"The capital of Japan is Tokyo.\n"
    assert texts(home, "user") == [JAPAN]
    assert texts(home, "answer") == ["The capital of Japan is Tokyo."]


@slow
def test_json_is_one_object_with_the_documented_keys(lcp):
    done = lcp("chat", "smollm2-135m", "--json", "-n", "20", stdin="hello\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1
    said = json.loads(done.stdout)
    assert list(said) == ["answer", "thinking", "ended", "stats"]
    assert list(said["stats"]) == STATS
    assert said["stats"]["read"] == said["stats"]["prompt_tokens"]
    assert said["stats"]["ctx_size"] == 8192


@slow
def test_lines_are_turns_of_one_conversation(lcp, home):
    questions = f"{JAPAN}\n\nAnd of Italy?\n"
    done = lcp("chat", "smollm2-135m", "--lines", "--json", "-n", "20", stdin=questions)
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["stats"]["reused"] == 0
    assert second["stats"]["reused"] > first["stats"]["prompt_tokens"]
    assert second["stats"]["reused"] + second["stats"]["read"] == second["stats"]["prompt_tokens"]
    assert texts(home, "user") == [JAPAN, "And of Italy?"]


@slow
def test_lines_without_json_are_answers(lcp):
    done = lcp("chat", "smollm2-135m", "--lines", "--stats", "--temp", "0", stdin=f"{JAPAN}\n" * 2)
    assert done.stdout.splitlines()[0] == b"The capital of Japan is Tokyo."
    assert len(done.stderr.splitlines()) == 2
    assert b"tokens/s" in done.stderr


@slow
def test_an_answer_ends_at_a_stop_text(lcp):
    words = [JAPAN, "--temp", "0", "--stop", "Tokyo", "--stop", "London", "--json"]
    said = json.loads(lcp("chat", "smollm2-135m", *words).stdout)
    assert (said["answer"], said["ended"]) == ("The capital of Japan is ", "stop")


@slow
def test_an_answer_ends_at_its_length(lcp):
    said = json.loads(lcp("chat", "smollm2-135m", "-p", JAPAN, "-n", "1", "--json").stdout)
    assert (said["ended"], said["stats"]["reply_tokens"]) == ("length", 1)


@slow
def test_the_same_seed_gives_the_same_answer(lcp):
    words = ["chat", "smollm2-135m", "Name a colour.", "--seed", "5", "--temp", "1", "-n", "12"]
    assert lcp(*words).stdout == lcp(*words).stdout


@slow
@pytest.mark.parametrize("flags", [["--continue"], ["--resume", "last"]])
def test_a_continued_chat_knows_its_earlier_messages(lcp, home, flags):
    greedy = ("-n", "20", "--temp", "0")  # otherwise, it sometimes spells the name differently
    name = lcp("chat", "smollm2-135m", "-s", "", "My name is Bartholomew.", *greedy)
    assert name.returncode == 0
    assert lcp("sessions", "rename", "20", "mine").returncode == 0  # otherwise, it is a one-shot
    done = lcp("chat", *flags, "What is my name?", "--temp", "0", "--json")
    assert done.stderr.decode().splitlines()[0].endswith("· My name is Bartholomew.")
    assert "Bartholomew" in json.loads(done.stdout)["answer"]
    first, second = (event for event in log_of(home) if event["type"] == "user")
    answer = next(event for event in log_of(home) if event["type"] == "answer")
    assert second["parent"] == answer["id"] != first["id"]


def started(home, *words):
    """An answer whose first bytes have arrived."""
    process = subprocess.Popen(
        [*COMMAND, "chat", "smollm2-135m", "--temp", "0", *words],
        bufsize=0,  # read only these bytes
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=terminal_environment(home),
    )
    return process, process.stdout.read(5)


@slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_an_answer_and_saves_the_partial_answer(home, number, code):
    process, begun = started(home, STORY)
    process.send_signal(number)
    out, err = process.communicate()
    assert (process.returncode, err) == (code, b"")
    answer = log_of(home)[-1]
    assert answer["ended"] == "interrupted"
    assert (begun + out).decode() == answer["text"] + "\n"


@slow
@pytest.mark.parametrize("name", ["INT", "HUP", "TERM"])
def test_an_ignored_signal_stays_ignored(home, name):
    """As under nohup or in the background of a script."""
    command = [*COMMAND, "chat", "smollm2-135m", "--temp", "0", "-n", "60", STORY]
    process = subprocess.Popen(
        ["sh", "-c", f"trap '' {name}; exec \"$@\"", "sh", *command],
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=terminal_environment(home),
    )
    begun = process.stdout.read(5)
    process.send_signal(getattr(signal, f"SIG{name}"))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, uncut(err)) == (0, b"")
    answer = log_of(home)[-1]
    assert (answer["ended"], answer["text"]) == ("length", (begun + out).decode().rstrip("\n"))


@slow
def test_ctrl_c_works_in_the_foreground_even_if_it_was_ignored(home):
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    with Pty(*ignoring, *COMMAND, "chat", "smollm2-135m", "--temp", "0", home=home) as chat:
        chat.sees("\n>")
        chat.type(STORY + ENTER)
        chat.waits(lambda: "cat" in chat.screen().partition(STORY)[2], "nothing is said")
        chat.type(CTRL_C)
        chat.sees("· stopped")
        chat.ends()


IN_THE_IMPORTS = """
import os, signal, sys
class Pressed:
    def find_spec(name, *_):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Pressed)
from lcp.__main__ import main
main()
"""


def test_ctrl_c_during_imports_prints_no_traceback(home):
    """An import takes longer than a fast Ctrl-C."""
    command = [sys.executable, "-c", IN_THE_IMPORTS]
    done = subprocess.run(command, capture_output=True, env=terminal_environment(home), check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@slow
def test_a_closed_pipe_ends_the_answer_silently(home):
    command = f"{' '.join(COMMAND)} chat smollm2-135m --temp 0 '{STORY}' | head -c 5"
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=terminal_environment(home),
        check=False,
    )
    assert done.stdout[5:] == b"141\n"
    assert done.stderr == b""
    assert log_of(home)[-1]["ended"] == "interrupted"


@slow
def test_a_closed_pipe_ends_json_lines_silently(home, tiny):
    command = f"{' '.join(COMMAND)} chat {tiny()} -n 9 --lines --json | head -1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
        input=b"Hi.\n" * 50,
        capture_output=True,
        env=terminal_environment(home),
        check=False,
    )
    assert done.stdout.splitlines()[1:] == [b"141"]
    assert done.stderr == b""


@slow
def test_a_killed_chat_can_be_resumed(lcp, home):
    process, _ = started(home, JAPAN + " " + STORY)
    process.kill()
    process.communicate()
    assert [event["type"] for event in log_of(home)] == ["begin", "system", "user"]
    with Pty(*COMMAND, "chat", "--resume", "20", home=home) as chat:
        chat.sees("Its last question has no answer yet; /retry answers it.")
        chat.sees("context ")  # the prompt has appeared
        chat.type("/set max_tokens 5" + ENTER + "/retry" + ENTER)
        chat.sees("tokens/s")
        chat.type(CTRL_D)
        assert chat.leaves() == 0
    assert [event["type"] for event in log_of(home)][3:] == ["set", "head", "kind", "answer"]


# the real model, in a real terminal


@slow
def test_a_chat_with_the_real_model(in_terminal, home):
    with in_terminal("--temp", "0", "-n", "100") as chat:
        chat.sees("smollm2-135m · /help lists commands, Ctrl-D leaves")
        chat.sees("\n>")
        chat.type(JAPAN + ENTER)
        chat.sees("\nThe capital of Japan is Tokyo.\n")
        # during an answer
        chat.type(STORY + ENTER)
        chat.sees(f"> {STORY}\n")
        before = len(chat.screen())
        chat.waits(lambda: len(chat.screen()) > before + 40, "no story is told")
        chat.type("Typed ahead: what is ")
        chat.type(CTRL_C)
        chat.sees("> Typed ahead: what is")
        chat.type("2 + 2?" + ENTER)
        chat.sees("> Typed ahead: what is 2 + 2?\n")
        chat.waits(lambda: chat.screen().count("tokens/s") == 3, "no third answer")
        chat.type(CTRL_D)
        assert chat.leaves() == 0
        assert chat.modes() == chat.modes_before
        assert "lcp chat --resume 20" in chat.screen()
    ended = [event["ended"] for event in log_of(home) if event["type"] == "answer"]
    assert ended == ["end", "interrupted", "end"]
    history = home / "data" / "history.jsonl"
    assert history.stat().st_mode & 0o777 == 0o600
    with in_terminal() as chat:
        chat.sees("\n>")
        chat.type(UP)
        chat.sees("> Typed ahead: what is 2 + 2?")


@slow
def test_ctrl_c_while_a_long_prompt_is_read(in_terminal, home):
    with in_terminal("--temp", "0") as chat:
        chat.sees("\n>")
        chat.type("\x1b[200~" + "All work and no play makes Jack a dull boy.\r" * 400 + "\x1b[201~")
        chat.sees("[paste 1: 400 lines]")
        chat.type(ENTER)
        chat.sees("reading ")
        chat.type(CTRL_C)
        chat.sees("stopped (/retry)")
        chat.type("/clear" + ENTER + JAPAN + ENTER)
        chat.sees("\nThe capital of Japan is Tokyo.\n")
    answers = [event for event in log_of(home) if event["type"] == "answer"]
    assert (answers[0]["ended"], answers[0]["text"]) == ("interrupted", "")
    assert answers[0]["stats"]["read"] < answers[0]["stats"]["prompt_tokens"]


@slow
def test_dash_dash_lines_needs_a_pipe(in_terminal):
    with in_terminal("--lines") as chat:
        assert chat.leaves() == 2
        chat.sees("lcp: --lines reads stdin. Pipe questions in: lcp chat --lines < FILE")


@slow
def test_an_answer_in_the_background_does_not_stop_for_the_terminal(home, tiny):
    answer = home / "answer"
    with Pty("bash", "--norc", "--noprofile", "-i", home=home, env={"PS1": "$ "}) as shell:
        shell.sees("$")
        command = f"{' '.join(COMMAND)} chat {tiny()} -n 9 Hi. > {answer} &"
        shell.type(f"{command}{ENTER}wait; jobs; echo waited $?{ENTER}")
        shell.sees("waited 0")
        assert "Stopped" not in shell.screen()
    assert answer.read_bytes()
