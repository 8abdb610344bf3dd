"""Colours: all output is readable on a light and on a dark background.

A terminal's owner chose its text, its background and what the names of colours look like. So
either both are the terminal's own, or the text has a name that no usual theme draws like one of
the backgrounds. Black, white, blue (on black) and the bright ones (on white) are not among these.
"""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import BACKSPACE, CTRL_C, CTRL_R, ENTER, ESC, TAB, Glass, Paper, in_both
from test_markdown import CHAT, EXAMPLES, whole

from lcp.terminal import token_charts
from lcp.terminal.printout import Printout
from lcp.terminal.progress_bar import ProgressBar
from lcp.terminal.screen import Screen

NAMED = {31, 32, 33, 35, 36}  # red, green, yellow, magenta, cyan
ATTRIBUTES = {0, 1, 2, 3, 4, 7, 9, 22, 23, 24, 27, 29, 39, 49}


def unreadable(raw):
    """The sequences that set an unreadable colour or hide text."""
    codes = (found for found in re.findall(r"\x1b\[([\d;]*)m", raw))
    used = ((found, {int(code or 0) for code in found.split(";")}) for found in codes)
    return {found for found, numbers in used if not numbers <= NAMED | ATTRIBUTES}


def colours(raw):
    return {int(code) for code in re.findall(r"(?<=[\[;])(3[0-7]|9[0-7])(?=[;m])", raw)}


@pytest.fixture(autouse=True, params=["xterm-256color", "xterm-direct", "linux"])
def _terminal(request, monkeypatch):
    monkeypatch.setenv("TERM", request.param)
    monkeypatch.setenv("COLORTERM", "truecolor" if request.param == "xterm-direct" else "")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_the_contrast_check_itself():
    assert not unreadable("\x1b[0;1;31mx\x1b[m")
    for bad in ("30", "37", "34", "90", "97", "1;94", "47", "8", "38;5;240", "48;2;0;0;0", "107"):
        assert unreadable(f"\x1b[{bad}mx") == {bad}


@pytest.mark.slow
def test_any_answer_is_readable():
    texts = [*CHAT, *EXAMPLES]
    raw = "".join(row for text in texts for row in whole(text))
    assert not unreadable(raw)
    assert colours(raw) >= {32, 35, 36}


LANGUAGES = ["python", "c", "cpp", "java", "js", "ts", "html", "css", "json", "yaml", "toml",
    "sh", "sql", "go", "rust", "ruby", "diff", "xml", "php", "tex", "make", "lua", "pycon", "http",
]  # fmt: skip
WORDS = ["def", "class", "<a b='c'>", "#", "//", "1", '"', "'", "@x", "+", "-", "\n", " ", "$x",
    "return", "import", "[a]", "{", "}", "(", ")", ":", ";", "&amp;", "<!--", "-->", ">>> ", "%",
]  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.sampled_from(LANGUAGES), st.lists(st.sampled_from(WORDS), max_size=40))
def test_code_in_any_language_is_readable(language, words):
    rows = whole(f"```{language}\n{''.join(words)}\n```")
    assert not unreadable("".join(rows))


@pytest.mark.slow
def test_notices_and_errors_are_readable():
    glass = Glass(80, 50)
    paper = Paper(glass)
    screen = Screen(paper, paper)
    screen.notice("A notice.")
    screen.error("An error.")
    screen.table([("a", "b")])
    screen.bar([(name, 10) for name in "abcde"], 50)
    screen.show(token_charts.coloured([("a", p / 20) for p in range(21)]))
    screen.show(token_charts.bars([("1", "a", p / 20) for p in range(21)]))
    screen.show(token_charts.tokens([(n, "a\n") for n in range(1000)]))
    screen.progress("reading")
    with screen.answer():
        screen.write("Hm.", thinking=True)
        screen.write("Yes.")
    page = Printout(paper)
    page.title("left", "right")
    page.line("words", style="dim")
    page.table(["a", "b"], [["1", "2"]], marked=0)
    assert not unreadable(paper.written)
    assert colours(paper.written) >= NAMED


@pytest.mark.parametrize("done", [0, 50, 100])
def test_progress_bars_are_readable(done):
    paper = Paper(Glass(100, 20))
    with ProgressBar("a file", paper) as bar:
        bar("fetching", done, 100)
        bar.notice("A notice.")
        bar("fetching", 100, 100)
    assert "m━" in paper.written
    assert not unreadable(paper.written)


@pytest.mark.slow
@in_both("one two three", toolbar=True, size=20)
def test_the_input_line_and_toolbar_are_readable(chat):
    chat.sees("context 0/20")
    chat.type("word of" + ENTER)
    chat.sees("one two three")
    chat.sees("context 5/20")
    chat.type("wo")
    chat.waits(lambda: chat.screen().count("> word of\n") == 2, "nothing is suggested")
    chat.type(BACKSPACE * 2 + "/bra" + TAB * 3)
    chat.sees("          branches")
    chat.type(ESC + CTRL_C)
    chat.type(CTRL_R + "wor")
    chat.sees("search")
    chat.type(CTRL_C + CTRL_C)
    for words in (10, 14):
        chat.type("/system" + " a" * words + ENTER)
        chat.sees(f"context {words + 5}/20")
    chat.ends()
    assert not unreadable(chat.raw)
    for style in ("0;7", "0;2", "0;2;3", "0;33", "0;31"):  # the menu, the line, a suggestion
        assert f"\x1b[{style}m" in chat.raw
