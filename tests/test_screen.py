"""Screen: what goes to stdout and stderr, and how it looks in a terminal."""

import errno
import io
import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from terminal import Glass, Paper, Pty

from lcp.terminal.clean import clean
from lcp.terminal.screen import Screen


@pytest.fixture(autouse=True)
def _a_colourful_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def in_pipes(**more):
    out, err = io.StringIO(), io.StringIO()
    return Screen(out, err, **more), out, err


def in_a_terminal(**more):
    glass = Glass(80, 24)
    out, err = Paper(glass), Paper(glass)
    return Screen(out, err, **more), out, err


def answer(screen, *pieces, thinking=()):
    with screen.answer():
        for piece in thinking:
            screen.write(piece, thinking=True)
        for piece in pieces:
            screen.write(piece)


def test_only_the_answer_goes_to_stdout():
    screen, out, err = in_pipes()
    screen.notice("A notice.")
    screen.progress("reading")
    answer(screen, "The ", "answer.", thinking=["Hm. "])
    screen.error("An error.")
    screen.table([("a", "1"), ("long name", "2")])
    screen.blank()
    assert out.getvalue() == "The answer.\n"
    assert err.getvalue() == ("A notice.\nHm. \n\nAn error.\na          1\nlong name  2\n\n")


@pytest.mark.parametrize(
    ("pieces", "written"),
    [
        (["Hi."], "Hi.\n"),
        (["Hi.\n"], "Hi.\n"),
        (["Hi.", "\n"], "Hi.\n"),
        (["Hi.\n", ""], "Hi.\n"),
        ([], ""),
        ([""], ""),
    ],
)
def test_an_answer_ends_with_one_line_end(pieces, written):
    screen, out, _ = in_pipes()
    answer(screen, *pieces)
    assert out.getvalue() == written


def test_an_answer_printed_elsewhere_is_not_printed_again():
    screen, out, err = in_pipes(answers=False)
    answer(screen, "The answer.", thinking=["Hm."])
    assert (out.getvalue(), err.getvalue()) == ("", "Hm.\n")


def test_a_truncated_answer_ends_its_line():
    screen, out, _ = in_pipes()
    with pytest.raises(KeyboardInterrupt), screen.answer():
        screen.write("It was a dark")
        raise KeyboardInterrupt
    assert out.getvalue() == "It was a dark\n"


@pytest.mark.parametrize("plain", [True, False])
def test_markup_and_emoji_names_are_text(plain):
    screen, out, err = in_a_terminal(plain=plain)
    answer(screen, "[red]x[/red] [/] :bomb: https://x.y 'quoted' 123")
    screen.notice("[b]n[/b] [/] :bomb:")
    written = out.written.replace("\x1b[K", "")
    assert written == "[red]x[/red] [/] :bomb: https://x.y 'quoted' 123\n"
    assert "[b]n[/b] [/] :bomb:" in err.written


plain = st.text(st.sampled_from("ab \n世é\u0301👩\r"), max_size=300)


@settings(deadline=None, max_examples=50)
@given(plain, st.lists(st.integers(0, 300)))
def test_a_terminal_shows_the_text_for_any_split(text, cuts):
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    screen, out, _ = in_a_terminal(plain=True)
    answer(screen, *(text[a:b] for a, b in pairwise(edges)))
    cleaned = clean(text)
    assert out.written == cleaned + ("\n" if cleaned and not cleaned.endswith("\n") else "")


def test_thinking_is_dim_and_separated():
    screen, out, err = in_a_terminal(plain=True)
    answer(screen, "Four.", thinking=["Two ", "and two."])
    assert out.glass.text() == "Two and two.\n\nFour."
    assert "\x1b[2m" in err.written
    assert out.written == "Four.\n"


def test_an_answer_in_a_terminal_is_rendered_as_markdown():
    screen, out, _ = in_a_terminal()
    answer(screen, "# Title\n\nSome **bold**", " words.")
    assert out.glass.text() == "Title\n\nSome bold words."
    screen, out, _ = in_a_terminal(plain=True)
    answer(screen, "# Title\n\nSome **bold**", " words.")
    assert out.glass.text() == "# Title\n\nSome **bold** words."


def test_progress_is_one_line_that_disappears():
    screen, out, _ = in_a_terminal()
    with screen.answer():
        screen.progress("reading 1/9")
        screen.progress("reading 5/9")
        assert out.glass.text() == "reading 5/9"
        screen.write("Here.")
        assert out.glass.text() == "Here."
    screen.progress("reading " + "long " * 40)
    assert len(out.glass.text().splitlines()) == 2  # cut, not wrapped
    screen.notice("Done.")
    assert out.glass.text() == "Here.\nDone."


def test_progress_in_a_dumb_terminal_is_silent(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    screen, _, err = in_a_terminal()
    screen.progress("reading 1/9")
    answer(screen, "Here.")
    screen.notice("Done.")
    assert "reading" not in err.written
    assert "\x1b" not in err.written


@pytest.mark.slow
def test_a_dumb_terminal_has_its_own_width(home):
    code = (
        "from lcp.terminal.screen import Screen; screen = Screen()\n"
        "screen.notice('one two ' * 20)\n"
        "with screen.answer(): screen.write('three four ' * 20)"
    )
    script = f'stty cols 40; exec {sys.executable} -c "$0"'
    with Pty("sh", "-c", script, code, home=home, env={"TERM": "dumb"}) as terminal:
        assert terminal.leaves() == 0
        rows = terminal.screen().splitlines()
    assert {word for row in rows for word in row.split()} == {"one", "two", "three", "four"}
    assert 30 < max(map(len, rows)) < 40


@pytest.mark.parametrize(("value", "red"), [("1", False), ("", True)])
def test_no_color_means_no_colour(monkeypatch, value, red):
    monkeypatch.setenv("NO_COLOR", value)
    screen, out, err = in_a_terminal()
    screen.error("An error.")
    answer(screen, "# A title, `code`")
    assert ("\x1b[31m" in err.written) is red
    assert ("35m" in out.written) is red


def test_an_error_is_red():
    screen, _, err = in_a_terminal()
    screen.error("An error.")
    assert err.written == "\x1b[31mAn error.\x1b[0m\n"


SENTENCE = "One two " + "世界 " * 8 + "three" * 30 + " end of a sentence that goes on and on."


@pytest.mark.parametrize("width", [20, 40, 80])
@pytest.mark.parametrize("say", [Screen.notice, Screen.error])
def test_notices_are_wrapped_at_words(monkeypatch, say, width):
    monkeypatch.setenv("COLUMNS", str(width))
    screen, _, err = in_a_terminal()
    say(screen, SENTENCE)
    rows = re.sub(r"\x1b\[\d*m", "", err.written).splitlines()
    assert [word for row in rows for word in row.split()] == SENTENCE.split()  # none is cut
    assert len(rows) > 2
    for row, following in pairwise(rows):
        assert cell_len(row) < width or row == "three" * 30  # can be copied whole
        assert cell_len(f"{row} {following.split()[0]}") >= width
        assert row == row.strip()


def test_notices_are_one_line_in_a_pipe():
    screen, _, err = in_pipes()
    screen.notice(SENTENCE)
    screen.error(SENTENCE)
    assert err.getvalue() == f"{SENTENCE}\n" * 2


def test_line_breaks_in_notices_are_kept():
    screen, out, _ = in_a_terminal()
    screen.notice("one\n  two\n\nthree")
    assert out.glass.text() == "one\n  two\n\nthree"


def test_a_table_has_no_trailing_spaces():
    screen, _, err = in_a_terminal()
    screen.table([("a", "short"), ("b", "much longer than that " * 6)])
    assert len(err.written.splitlines()) > 2
    assert all(line == line.rstrip() for line in err.written.splitlines())


def test_no_cell_of_a_table_is_cut():
    screen, _, err = in_a_terminal()
    screen.table([("frequency_penalty", "0.0", "less likely " * 20)] * 2 + [("x" * 60, "", "")])
    assert err.written.replace("\n", "").count("x") == 60
    assert "…" not in err.written


def test_an_answer_that_continues_in_code_is_code():
    screen, out, _ = in_a_terminal()
    with screen.answer("```py\n"):
        screen.write("    return __x__\n```\n*Done.*\n")
    with screen.answer():
        screen.write("__x__\n")
    lines = [line.rstrip() for line in out.glass.text().splitlines()]
    assert lines == ["─── py", "    return __x__", "───", "", "Done.", "x"]


def test_characters_outside_the_encoding_become_question_marks(monkeypatch):
    data = io.BytesIO()
    out = io.TextIOWrapper(data, encoding="ascii")
    monkeypatch.setattr(sys, "__stdout__", out)
    screen = Screen(out, io.StringIO())
    answer(screen, "Gr\u00fc\u00dfe \ud83d")
    assert data.getvalue() == b"Gr??e ?\n"


class Closed(io.StringIO):
    """A stream without a reader."""

    def __init__(self, tty, number):
        super().__init__()
        self.tty = tty
        self.number = number

    def isatty(self):
        return self.tty

    def write(self, text):
        raise OSError(self.number, "closed")


def test_a_closed_terminal_does_not_stop_an_answer():
    gone = Closed(tty=True, number=errno.EIO)
    screen = Screen(gone, gone)
    answer(screen, "The answer.", thinking=["Hm."])
    screen.notice("A notice.")
    screen.table([("a", "b")])
    screen.progress("reading")


def test_a_closed_pipe_stops_an_answer():
    screen = Screen(Closed(tty=False, number=errno.EPIPE), io.StringIO())
    with pytest.raises(BrokenPipeError), screen.answer():
        screen.write("The answer.")
