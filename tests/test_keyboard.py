"""Keyboard: editing, the history, and the terminal's modes, also under a shell with jobs."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest
from fakes import Said
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from terminal import (
    CTRL_C,
    CTRL_D,
    CTRL_Z,
    ENTER,
    UNDO,
    UP,
    InProcess,
    Pty,
    Scene,
    ScriptedPty,
)

from lcp.errors import ModelError
from lcp.terminal import keyboard as keyboard_module
from lcp.terminal.history import HistoryFile
from lcp.terminal.keyboard import Keyboard, KeyboardOptions
from lcp.terminal.signals import handling

ENDLESS = Said("Once upon a time", forever=True)


@pytest.fixture
def press(tmp_path):
    """The message that these keys type."""

    def press(keys, text=""):
        with create_pipe_input() as input:
            input.send_text(keys)
            path = tmp_path / "data" / "history.jsonl"
            return Keyboard(path, input=input, output=DummyOutput()).read(text).text

    return press


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("Hi.\r", "Hi."),
        ("Grüße, 世界\r", "Grüße, 世界"),
        ("Hu\x7fi.\r", "Hi."),  # Backspace
        ("two\x01one \r", "one two"),  # Ctrl-A
        ("one\ntwo\r", "one\ntwo"),  # Ctrl-J
        ("one\x1b\rtwo\r", "one\ntwo"),  # Alt-Enter
        ("\x1b[200~a\rb\r\x1b[201~c\r", "a\nb\nc"),
        ("\x1b[200~a\r\nb\x1b[201~\r", "a\nb"),
        ("a b c\x17\x17\r", "a "),  # Ctrl-W
        ("\r", ""),
    ],
)
def test_a_message_is_the_typed_text(press, keys, message):
    assert press(keys) == message


def test_the_input_line_can_start_with_a_text(press):
    assert press(" and more\r", text="This") == "This and more"


def test_ctrl_d_on_an_empty_line_is_end_of_file(press):
    with pytest.raises(EOFError):
        press(CTRL_D)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["made", "raw", "cooked", "watched", "closed"])
def test_ctrl_c_while_the_prompt_opens_or_closes_is_an_interrupt(
    tmp_path, monkeypatch, when, capfd
):
    """Then it is a signal, not a key. No coroutine, loop or terminal mode may be left."""
    due = [when]

    def strike(now):
        if now in due:
            due.clear()
            signal.raise_signal(signal.SIGINT)

    def new_event_loop(make=asyncio.new_event_loop):
        loop = make()
        strike("made")
        monkeypatch.setattr(loop, "close", lambda close=loop.close: (strike("closed"), close()))
        return loop

    def state():  # what asks for it is cancelled at the end
        if asyncio.current_task() and not watching:
            watching.append(asyncio.current_task())
            watching[0].add_done_callback(lambda _: strike("watched"))
        return ()

    @contextmanager
    def modes():
        strike("raw")
        yield
        strike("cooked")

    watching = []
    monkeypatch.setattr(asyncio.events, "new_event_loop", new_event_loop)
    with create_pipe_input() as input:
        input.raw_mode = modes
        input.send_text("Hi.\r")
        path = tmp_path / "history.jsonl"
        keyboard = Keyboard(path, KeyboardOptions(state=state), input=input, output=DummyOutput())
        with pytest.raises(KeyboardInterrupt):
            keyboard.read()
        assert not due
        gc.collect()
        input.send_text("\x15Again.\r")
        assert keyboard.read().text in ("Again.", "Hi.")
    assert capfd.readouterr().err == ""


def test_ctrl_c_clears_the_line_and_is_an_interrupt_on_an_empty_one(press):
    assert press("half a line" + CTRL_C + "another\r") == "another"
    assert press("two\nlines" + CTRL_C + "another" + CTRL_C + UNDO + "!\r") == "another!"
    with pytest.raises(KeyboardInterrupt):
        press("half a line" + CTRL_C + CTRL_C)


def test_the_line_below_an_idle_prompt_is_checked_less_often(tmp_path, monkeypatch):
    monkeypatch.setattr(keyboard_module, "REFRESH_S", 0.01)
    monkeypatch.setattr(keyboard_module, "_REST_S", 0.08)
    checked = []
    with create_pipe_input() as input:

        def state():
            checked.append(time.monotonic())
            if len(checked) == 12:
                input.send_text("done\r")
            return ()

        options = KeyboardOptions(state=state)
        keyboard = Keyboard(tmp_path / "history.jsonl", options, input=input, output=DummyOutput())
        assert keyboard.read().text == "done"
    idle = checked[7:12]
    assert min(b - a for a, b in pairwise(idle)) >= 0.05


def test_idle_work_runs_once_while_a_person_thinks(tmp_path):
    done = []
    with create_pipe_input() as input:

        def meanwhile():
            done.append(threading.current_thread())
            input.send_text("typed later\r")

        options = KeyboardOptions(meanwhile=meanwhile)
        keyboard = Keyboard(tmp_path / "h", options, input=input, output=DummyOutput())
        assert keyboard.read().text == "typed later"
        input.send_text("next\r")
        assert keyboard.read().text == "next"
    assert len(done) == 1 and done[0] is not threading.main_thread()


# history


def test_the_history_recalls_earlier_messages(press):
    press("first\r")
    press("second,\nof two lines\r")
    assert press(UP + "\r") == "second,\nof two lines"
    assert press(UP + UP + UP + "\r") == "first"


@pytest.mark.slow
def test_only_the_owner_can_read_the_history(press, tmp_path):
    press("a secret\r")
    path = tmp_path / "data" / "history.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.read_text() == '"a secret"\n'


def test_a_damaged_history_gives_its_valid_lines(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'"one"\n{"a": 1}\nhalf a li\n\xff\xfe\n[]\n"two\\nlines"\n"cut')
    assert list(HistoryFile(path).load_history_strings()) == ["two\nlines", "one"]


def test_an_unwritable_history_does_no_other_harm(tmp_path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with create_pipe_input() as input:
        input.send_text("Hi.\r")
        keyboard = Keyboard(tmp_path / "data" / "h.jsonl", input=input, output=DummyOutput())
        assert keyboard.read().text == "Hi."


def test_signal_handlers_are_restored():
    def mine(number, frame):
        raise AssertionError

    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(ZeroDivisionError), handling({signal.SIGUSR1: mine}):
        assert signal.getsignal(signal.SIGUSR1) is mine
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGUSR1) is before


@pytest.mark.parametrize("place", [InProcess, pytest.param(ScriptedPty, marks=pytest.mark.slow)])
def test_the_second_run_recalls_the_messages_of_the_first(place, tmp_path):
    def first(chat):
        chat.type("What is a llama?" + ENTER)
        chat.sees("An animal.")

    def second(chat):
        chat.type(UP)
        chat.sees("> What is a llama?")
        chat.type(ENTER)
        chat.sees("Still an animal.")

    place(Scene(["An animal."], saved=False), tmp_path).live(first)
    place(Scene(["Still an animal."], saved=False), tmp_path).live(second)
    lines = (tmp_path / "data" / "history.jsonl").read_text().splitlines()
    # recalled and sent again, it is not kept twice
    assert [json.loads(line) for line in lines] == ["What is a llama?"]


# the terminal's modes


def local(modes):
    return tuple(bool(modes[3] & flag) for flag in (termios.ECHO, termios.ICANON, termios.ISIG))


@pytest.mark.slow
def test_during_an_answer_nothing_is_echoed_and_ctrl_c_works(tmp_path):
    with ScriptedPty(Scene([ENDLESS]), tmp_path) as chat:
        assert local(chat.modes_before) == (True, True, True)
        chat.sees(">")
        assert local(chat.modes()) == (False, False, False)
        chat.type("A story." + ENTER)
        chat.sees("Once upon a time")
        assert local(chat.modes()) == (False, False, True)
        chat.type("not seen yet")
        chat.type(CTRL_C)
        chat.sees("> not seen yet")
        assert chat.screen().count("not seen yet") == 1


@pytest.mark.slow
def test_the_prompt_does_not_go_into_a_pipe(tmp_path):
    chat = " ".join(ScriptedPty.command(Scene(["The answer."]), tmp_path))
    command = f"{chat} | tee {tmp_path}/answers"
    with Pty("sh", "-c", command, home=tmp_path) as chat:
        chat.sees(">")
        chat.type("A question." + ENTER)
        chat.sees("The answer.")
        chat.type(CTRL_D)
        assert chat.leaves() == 0
    assert (tmp_path / "answers").read_text() == "The answer.\n"


def test_a_terminal_that_lcp_has_lost_ends_the_chat(tmp_path, monkeypatch):
    def lost():
        raise termios.error(5, "Input/output error")

    with create_pipe_input() as input:
        monkeypatch.setattr(input, "raw_mode", lost)
        with pytest.raises(EOFError):
            Keyboard(tmp_path / "history.jsonl", input=input, output=DummyOutput()).read()


# a shell with job control


@pytest.fixture
def shell(tmp_path):
    """An interactive bash; `run` starts a scripted chat in it, `back` waits for its end."""
    environment = {"PS1": "$ ", "HISTFILE": ""}
    bash = ("bash", "--norc", "--noprofile", "-i")
    with Pty(*bash, home=tmp_path, env=environment) as shell:
        shell.sees("$")

        def run(*answers):
            command = ScriptedPty.command(Scene(list(answers)), tmp_path)
            shell.type(f"clear; {' '.join(command)}{ENTER}")
            shell.waits(lambda: shell.screen().endswith(">"), "no prompt was seen")

        def back():
            shell.type(CTRL_D)
            shell.waits(lambda: shell.screen().endswith("$"), "the chat goes on")
            shell.type("echo back $?" + ENTER)
            shell.sees("back 0")

        shell.run, shell.back = run, back
        yield shell


@pytest.mark.slow
def test_ctrl_z_and_fg_at_the_prompt(shell):
    shell.run("The answer.")
    shell.type("half a question")
    shell.sees("> half a question")
    shell.type(CTRL_Z)
    shell.sees("Stopped")
    shell.type("echo between" + "'' ;fg" + ENTER)
    shell.sees("between\n")
    shell.type(", and the rest" + ENTER)
    shell.sees("The answer.")
    assert "\n> half a question, and the rest" in shell.screen()  # the prompt is there once
    shell.back()


@pytest.mark.slow
def test_ctrl_z_and_fg_during_an_answer(shell):
    shell.run(ENDLESS, "Another answer.")
    shell.type("A story." + ENTER)
    shell.sees("Once upon a time")
    shell.type(CTRL_Z)
    shell.sees("Stopped")
    shell.type("echo between" + "'' ; stty -a | tr ' ' '\\n' | grep -x -e -*echo; fg" + ENTER)
    shell.sees("between\necho\n")  # the shell has echo again
    shell.type("typed ahead")
    shell.waits(lambda: local(shell.modes()) == (False, False, True), "the terminal is not quiet")
    shell.type(CTRL_C)
    shell.sees("> typed ahead")
    shell.type(ENTER)
    shell.sees("Another answer.")
    shell.back()


QUESTION = """
from lcp.terminal.questions import confirm
from lcp.terminal.signals import echoing, quiet
with quiet(), echoing():
    yes = confirm("Sure?")
print("got", yes)
"""


@pytest.mark.slow
def test_ctrl_z_and_fg_in_a_question(shell, tmp_path):
    (tmp_path / "ask.py").write_text(QUESTION)
    shell.type(f"PYTHONPATH=. {sys.executable} {tmp_path}/ask.py{ENTER}")
    shell.sees("Sure? [y/N]:")
    shell.type(CTRL_Z)
    shell.sees("Stopped")
    shell.type("clear" + ENTER)
    shell.waits(lambda: "Sure?" not in shell.screen(), "the screen is not cleared")
    shell.type("fg" + ENTER)
    shell.sees("Sure? [y/N]:")
    shell.type("y" + ENTER)
    shell.sees("got True")


@pytest.mark.slow
def test_sigstop_and_fg_at_the_prompt(shell, tmp_path):
    shell.run("The answer.")
    shell.type("half a question")
    shell.sees("> half a question")
    os.kill(child_of(shell.process.pid), signal.SIGTSTP)
    shell.sees("Stopped")
    shell.type("echo between" + "'' ;fg" + ENTER)
    shell.sees("between\n")
    shell.waits(lambda: local(shell.modes()) == (False, False, False), "the terminal is not raw")
    shell.type(", and the rest" + ENTER)
    shell.sees("The answer.")
    shell.back()


def child_of(pid):
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    return int(children.stdout.split()[0])


def test_an_error_from_another_thread_ends_the_prompt(tmp_path):
    with create_pipe_input() as input:
        keyboard = Keyboard(tmp_path / "history.jsonl", input=input, output=DummyOutput())
        threading.Timer(0.2, lambda: keyboard.fail(ModelError("It cannot be loaded."))).start()
        with pytest.raises(ModelError):
            keyboard.read()


def test_an_error_before_the_prompt_ends_it(tmp_path):
    with create_pipe_input() as input:
        keyboard = Keyboard(tmp_path / "history.jsonl", input=input, output=DummyOutput())
        keyboard.fail(ModelError("It cannot be loaded."))
        with pytest.raises(ModelError):
            keyboard.read()
