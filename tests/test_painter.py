"""What is painted, when, and what stays in the scrollback."""

import io
import re
import signal
from itertools import count

import pytest
from fakes import Said
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from terminal import CTRL_C, ENTER, Glass, Paper, Scene, ScriptedPty, a_console, in_both
from test_clean import EVERYTHING, FAMILY, HEART, harmless
from test_markdown import whole

from lcp.terminal.painter import AnswerPainter
from lcp.terminal.screen import Screen


def painting(width=60, height=12):
    glass = Glass(width, height)
    console = a_console(Paper(glass), width, height)
    return AnswerPainter(console, clock=count().__next__, reflows=False), glass


def letters(text, n=3):
    return [text[i : i + n] for i in range(0, len(text), n)]


def plain(text, width=60):
    return [re.sub(r"\x1b\[[\d;]*m", "", row) for row in whole(text, width)]


FENCE = "```python\n" + "".join(f"row{n:02} = {n}\n" for n in range(40)) + "```\n"
TALL = {
    "fence": "Before.\n\n" + FENCE + "\nAfter.",
    "paragraph": "Before.\n\n" + "".join(f"row{n:02} and so on\n" for n in range(40)),
    "quote": "".join(f"> row{n:02}\n" for n in range(40)) + "\nAfter.",
    "table": "| n | m |\n|---|---|\n" + "".join(f"| row{n:02} | {n} |\n" for n in range(40)),
    "nested list": "- a\n" + "".join(f"  - row{n:02}\n" for n in range(40)) + "- b\n",
    "list": "".join(f"{n}. row{n:02}\n" for n in range(40)),
}


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 60])
@pytest.mark.parametrize("text", TALL.values(), ids=TALL.keys())
def test_a_block_taller_than_the_screen_is_shown_once(text, width):
    painter, glass = painting(width)
    for piece in letters(text):
        painter.feed(piece)
    painter.finish()
    assert glass.text() == "\n".join(plain(text, width)).rstrip()
    assert re.findall(r"row\d\d", glass.text()) == [f"row{n:02}" for n in range(40)]


@pytest.mark.parametrize("text", TALL.values(), ids=TALL.keys())
def test_while_a_tall_block_arrives_its_end_is_visible(text):
    painter, glass = painting()
    painter.feed(text[: text.index("row30")])
    assert "row29" in glass.text().splitlines()[-1] or "row29" in glass.text().splitlines()[-2]


VERY_TALL = {
    "fence in an item": "- a\n  ```python\n" + "".join(f"  row{n:03} = None\n" for n in range(150)),
    "table": "| n | m |\n|---|---|\n" + "".join(f"| row{n:03} | {n} |\n" for n in range(150)),
    "nested list": "1. a\n" + "".join(f"   - row{n:03}\n" for n in range(150)),
    "lines": "".join(f"row{n:03} and so on\n" for n in range(150)),
    "one line": " ".join(f"row{n:03}" for n in range(600)) + "\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", VERY_TALL.values(), ids=VERY_TALL.keys())
def test_the_end_of_a_very_long_block_keeps_its_style(text):
    painter, glass = painting()
    for piece in letters(text, 50):
        painter.feed(piece)
    end = plain(text)[-6:-1]
    shown = glass.text().splitlines()
    if len(text.splitlines()) > 1:  # the rows of a very long line may be cut elsewhere
        assert end[0] in shown and end[-1] in shown
    assert 8 <= len(shown) <= 11
    painter.finish()
    assert glass.text() == "\n".join(plain(text)).rstrip()


@pytest.mark.slow
def test_finished_rows_are_shown_before_the_block_ends():
    """A long code block is in the scrollback while it arrives; only its last lines may change."""
    painter, glass = painting()
    for piece in letters(FENCE.removesuffix("```\n")):
        painter.feed(piece)
    assert re.findall(r"row\d\d", glass.text()) == [f"row{n:02}" for n in range(40)]


@pytest.mark.slow
def test_wide_characters():
    text = f"{'日本語のテキスト' * 20}\n\n{f'{FAMILY} {HEART} ' * 20}\n\n```\n{'世界' * 40}\n```"
    painter, glass = painting(40)
    for piece in letters(text, 1):
        painter.feed(piece)
    painter.finish()
    assert glass.text().replace("\n", "").replace(" ", "").count("日本語のテキスト") == 20
    assert glass.text().count("世界") == 40 or "".join(glass.text().split()).count("世界") == 40
    assert len(glass.text().splitlines()) == len(plain(text, 40))


# a window that changes its size


class Window(io.StringIO):
    """A terminal with a scrollback. When it gets narrower, it rewraps lines that are too wide, or
    cuts it off on the screen."""

    def __init__(self, width, height, reflows):
        super().__init__()
        self.width, self.height, self.reflows = width, height, reflows
        self.rows = []  # (text, whether the next row goes on with it)
        self.at = 0

    def isatty(self):
        return True

    def write(self, text):
        for up, row in re.findall(r"\x1b\[(\d+)A\r|([^\n]*?)\x1b\[K\n", text):
            if up:
                top = max(0, len(self.rows) + 1 - self.height)
                self.at = max(top, self.at - int(up))
            else:
                self.rows[self.at : self.at + 1] = [(re.sub(r"\x1b\[[\d;]*m", "", row), False)]
                self.at += 1
        del self.rows[self.at :]  # what is below was erased
        return len(text)

    def resize(self, width, height):
        if self.reflows:
            lines, line = [], ""
            for text, goes_on in self.rows:
                line += text
                if not goes_on:
                    lines, line = [*lines, line], ""
            self.rows = [row for line in lines for row in _wrapped(line, width)]
            self.at = len(self.rows)
        self.width, self.height = width, height

    def text(self):
        return "".join(text + ("" if goes_on else "\n") for text, goes_on in self.rows)


def _wrapped(line, width):
    parts = [line[i : i + width] for i in range(0, len(line), width)] or [""]
    return [(part, number < len(parts) - 1) for number, part in enumerate(parts)]


sizes = st.lists(st.tuples(st.integers(0, 2000), st.integers(20, 100), st.integers(8, 40)))


@pytest.mark.slow
@pytest.mark.parametrize("reflows", [True, False])
@settings(deadline=None, max_examples=25)
@given(sizes, st.lists(st.sampled_from(["fence", "list", "words"]), min_size=1, max_size=4))
def test_nothing_is_lost_when_the_window_changes(reflows, sizes, kinds):
    words = iter(f"w{n:04}" for n in count())

    def block(kind):
        if kind == "fence":
            return "```\n" + "".join(f"{next(words)} {next(words)}\n" for _ in range(15)) + "```\n"
        if kind == "list":
            return "".join(f"- {next(words)} {next(words)}\n" for _ in range(15))
        return " ".join(next(words) for _ in range(40)) + "\n"

    text = "\n".join(map(block, kinds))
    window = Window(60, 12, reflows)
    console = a_console(window, 60, 12)
    painter = AnswerPainter(console, clock=count().__next__, reflows=reflows)
    changes = {at % len(text) // 3: size for at, *size in sizes}
    for number, piece in enumerate(letters(text)):
        painter.feed(piece)
        if number in changes:
            console.size = tuple(changes[number])
            window.resize(*changes[number])
    painter.finish()
    seen = re.findall(r"w\d{4}", window.text().replace("\n", " "))
    assert sorted(set(seen)) == sorted(re.findall(r"w\d{4}", text))
    if all(width >= 60 and height >= 30 for width, height in changes.values()):
        assert seen == re.findall(r"w\d{4}", text)


@pytest.mark.parametrize("reflows", [True, False])
def test_a_narrower_window_with_room_shows_everything_once(reflows):
    window = Window(80, 30, reflows)
    console = a_console(window, 80, 30)
    painter = AnswerPainter(console, clock=count().__next__, reflows=reflows)
    text = " ".join(f"w{n:04}" for n in range(60)) + "\n"
    for number, piece in enumerate(letters("Finished.\n\n" + text)):
        painter.feed(piece)
        if number == 80:
            console.size = (45, 30)
            window.resize(45, 30)
    painter.finish()
    assert window.text().split() == ["Finished.", *text.split()]


# how often


class Hours:
    """A clock that a test advances; `slow` is the delay of the terminal."""

    def __init__(self, slow=0.0):
        self.now, self.slow, self.paints = 0.0, slow, []

    def __call__(self):
        return self.now

    def isatty(self):
        return True

    def write(self, text):
        self.now += self.slow
        self.paints.append(self.now)

    def flush(self):
        pass


def fed(hours, seconds, hz):
    painter = AnswerPainter(a_console(hours, 60, 24), clock=hours)
    for n in range(int(seconds * hz)):
        hours.now = max(hours.now, n / hz)
        painter.feed(f"word{n}\n\n")
    return painter


@pytest.mark.slow
def test_at_most_fifteen_paints_a_second():
    hours = Hours()
    fed(hours, seconds=10, hz=100)
    assert 100 < len(hours.paints) <= 151


def test_painting_takes_at_most_two_percent_of_the_time():
    hours = Hours(slow=0.004)
    painter = fed(hours, seconds=60, hz=10)
    assert painter.spent <= 0.02 * 60 + 0.01
    assert len(hours.paints) > 250  # and uses them


def test_at_least_two_paints_a_second_on_a_slow_terminal():
    hours = Hours(slow=0.1)
    fed(hours, seconds=30, hz=10)
    pauses = [b - a for a, b in zip(hours.paints, hours.paints[1:], strict=False)]
    assert max(pauses) <= 0.5 + 0.1 + 0.1 + 0.001  # a piece, and the paint itself
    assert min(pauses[3:]) >= 0.5


def test_the_end_is_painted_at_once():
    hours = Hours()
    painter = fed(hours, seconds=1, hz=1000)
    painter.finish()
    assert hours.now == hours.paints[-1]


# dumb terminals, and other output


def test_a_dumb_terminal_gets_finished_rows_and_no_escapes():
    paper = Paper(Glass(60, 12))
    console = Console(file=paper, width=60, height=12, _environ={"TERM": "dumb"})
    painter = AnswerPainter(console, clock=count().__next__)
    text = TALL["fence"] + "\n\nThe **end**.\n\n- a\n- b\n"
    for piece in letters(text):
        painter.feed(piece)
    assert paper.written.endswith("The end.\n\n • a\n")
    painter.finish()
    assert paper.written == "".join(f"{row}\n" for row in plain(text))
    assert "\x1b" not in paper.written


def test_after_a_stop_the_open_rows_are_painted_again():
    painter, glass = painting()
    painter.feed("Done.\n\nOpen")
    glass.write("$ fg\r\n")
    painter.displaced()
    painter.feed(" and closed.")
    painter.finish()
    assert glass.text() == "Done.\n\nOpen\n$ fg\n\nOpen and closed."


@pytest.mark.slow
def test_after_ctrl_z_the_chat_paints_below_the_shell(tmp_path):
    def body(chat):
        chat.type("A story." + ENTER)
        chat.sees("Once upon a time")
        chat.kill(signal.SIGCONT)
        chat.type(CTRL_C)
        chat.waits(lambda: chat.screen().count("Once upon a time") == 2, "it was painted over")

    ScriptedPty(Scene([Said("Once upon a time", forever=True)]), tmp_path).live(body)


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    glass = Glass(80, 25)
    out, err = Paper(glass), Paper(glass)
    screen = Screen(out, err, clock=count().__next__)
    screen.glass = glass
    return screen


def test_a_notice_during_an_answer_appears_before_the_open_block(screen):
    with screen.answer():
        screen.write("First.\n\nSecond ")
        screen.notice("The window slides.")
        assert screen.glass.text() == "First.\nThe window slides."
        screen.progress("reading")
        screen.write("goes on.")
    assert screen.glass.text() == "First.\nThe window slides.\n\nSecond goes on."


def test_progress_paints_pending_text_first():
    glass = Glass(80, 25)
    screen = Screen(Paper(glass), Paper(glass), clock=lambda: 0.0)
    with screen.answer():
        screen.write("One ")
        screen.write("two.")
        assert glass.text() == "One"
        screen.progress("reading")
        assert glass.text() == "One two.\nreading"


# the thinking


@pytest.mark.slow
def test_thinking_shows_its_last_rows_and_folds_to_one_line(screen):
    with screen.answer():
        for n in range(100):
            screen.write(f"thought{n:02} is\x1b[2J long.\n\n" * (n % 2) + "word " * 5, True, 3)
            assert len(screen.glass.text().splitlines()) <= 3
        assert "thought99" in screen.glass.text()
        assert "␛[2J" in screen.glass.text()
        screen.write("The answer.")
    assert re.fullmatch(r"thought for \d+ s, 300 tokens\nThe answer\.", screen.glass.text())


def test_a_fold_counts_the_seconds():
    glass, hours = Glass(80, 25), Hours()
    screen = Screen(Paper(glass), Paper(glass), clock=hours)
    with screen.answer():
        screen.write("Hm.", thinking=True)
        hours.now = 12.4
        screen.write("Yes.")
    assert glass.text() == "thought for 12 s\nYes."


def test_thinking_of_white_space_is_not_shown(screen):
    with screen.answer():
        screen.write("\n\n", thinking=True)
        screen.write("Yes.")
    assert screen.glass.text() == "Yes."


def test_truncated_thinking_folds(screen):
    with pytest.raises(KeyboardInterrupt), screen.answer():
        screen.write("Hm, ", thinking=True)
        raise KeyboardInterrupt
    assert re.fullmatch(r"thought for \d s", screen.glass.text())


def test_thinking_that_is_shown_does_not_fold(screen):
    screen.show_thinking = True
    with screen.answer():
        screen.write("Two and\n**two**.", thinking=True)
        screen.write("Four.")
    assert screen.glass.text() == "Two and\n**two**.\n\nFour."


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(st.sampled_from("ab  \n世🙂\t")), max_size=30), st.integers(4, 30))
def test_the_thinking_window_leaves_no_rows(pieces, width):
    window = Window(width, 12, False)
    console = a_console(window, width, 12)
    from lcp.terminal.painter import ThinkingPainter

    thinking = ThinkingPainter(console, clock=count().__next__)
    for piece in pieces:
        thinking.feed(piece)
        assert len(window.rows) <= 3
    thinking.finish()
    assert len(window.rows) == bool("".join(pieces).strip())


def test_words_in_the_thinking_window_are_not_split():
    window = Window(20, 12, False)
    from lcp.terminal.painter import ThinkingPainter

    thinking = ThinkingPainter(a_console(window, 20, 12), clock=count().__next__)
    text = " ".join(f"word{n:02}" for n in range(40))
    for piece in letters(text, 1):
        thinking.feed(piece)
        shown = window.text().split()
        assert set(shown[:-1]) <= set(text.split())


# foreign text

MARKED = "\n\n".join(
    [
        "# \x1b]0;owned\x07 **\x1b[31mred** `\x1b[2J\x1b[H`",
        "[\x1b]52;c;x\x07](<http://a/\x1b]8;;b>) ![\x9b31m](\u202ea)",
        "&#27;[31m &#x9b;31m &#8238; &lrm; &ZeroWidthSpace; &shy; &#xE0041; &#7;",
        "```\x1b[31mpython\n\x1b[31mred = '\u202e'\n" + EVERYTHING + "\n```",
        "| \x1b[31mred | &rlm; |\n|---|---|\n| \x9b31m | \x07 |",
        "- \x1b[31mred\n  > \x1b]0;x\x07",
        "\\[ \x1b[31mred \\]",
        EVERYTHING,
        "That was all.",
    ]
)


@pytest.mark.slow
@in_both(Said(MARKED, thinking=MARKED))
def test_no_part_of_an_answer_can_act_on_the_terminal(chat):
    chat.type("Hack me." + ENTER)
    chat.sees("That was all.")
    harmless(chat.raw)
    assert "\u200e" not in chat.raw
    assert "\u00ad" not in chat.raw
