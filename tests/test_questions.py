"""Questions to the person."""

import io
import os
import select
import sys

import pytest
from terminal import CTRL_C, CTRL_D, ENTER, PATIENCE_S, Pty

from lcp.terminal import questions

COUNT = """
from lcp.terminal.questions import ask
for n in range({asked}):
    try:
        print("got", ask("Which", "x"))
    except KeyboardInterrupt:
        print("left", n)
"""


@pytest.fixture
def typed(monkeypatch):
    def script(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return script


@pytest.mark.parametrize(
    ("line", "name"), [("a b\n", "a b"), (" \n", "x"), ("\n", "x"), ("y", "y")]
)
def test_a_blank_line_takes_the_default(typed, capsys, line, name):
    typed(line)
    assert questions.ask("Which", "x") == name
    assert capsys.readouterr() == ("", "Which [x]: ")


@pytest.mark.parametrize(
    ("lines", "default", "yes"),
    [("Y\n", False, True), ("no\n", True, False), ("\n", True, True), ("\n", False, False),
     ("perhaps\nyes\n", False, True)],
)  # fmt: skip
def test_yes_and_no(typed, capsys, lines, default, yes):
    typed(lines)
    assert questions.confirm("Sure?", default) is yes
    assert capsys.readouterr().err.count("Sure?") == lines.count("\n")


def test_the_end_of_the_input_is_no_answer(typed):
    typed("")
    with pytest.raises(KeyboardInterrupt):
        questions.confirm("Sure?")


@pytest.mark.slow
def test_ctrl_c_is_noticed_at_any_moment(home):
    """One that came just before the read was noticed with the next line, 3 times in 1,000."""
    with Pty(sys.executable, "-c", COUNT.format(asked=2_000), home=home) as program:
        shown, asked = b"", 0
        while asked < 2_000:  # without the emulator: the key must come at once
            assert select.select([program.master], [], [], PATIENCE_S)[0], f"{asked} were noticed"
            shown += os.read(program.master, 4096)
            if shown.endswith(b"[x]: "):
                shown, asked = b"", asked + 1
                os.write(program.master, CTRL_C.encode())
        program.sees("left 1999")
        assert program.leaves() == 0


@pytest.mark.slow
def test_lines_and_ctrl_d(home):
    with Pty(sys.executable, "-c", COUNT.format(asked=3), home=home) as program:
        for keys, seen in [("ä b" + ENTER, "got ä b"), (ENTER, "got x"), (CTRL_D, "left 2")]:
            program.type(keys)
            program.sees(seen)
        assert program.leaves() == 0
