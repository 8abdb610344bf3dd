"""Pages: titles, lines and tables in any width, with colours only in a terminal."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lcp.terminal.printout import PICTURE, Printout


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def drawn(monkeypatch):
    """A function: the lines that `draw` prints on a page with so many columns."""

    def lines(draw, width=40, out=None):
        monkeypatch.setenv("COLUMNS", str(width))
        out = out or io.StringIO()
        draw(Printout(out))
        return out.getvalue().splitlines()

    return lines


def test_the_right_side_of_a_title_is_at_the_margin(drawn):
    (line,) = drawn(lambda page: page.title("left", "right"))
    assert line == "left" + " " * 31 + "right"
    assert drawn(lambda page: page.title("alone")) == ["alone"]


def test_a_title_that_is_too_wide_has_two_lines(drawn):
    assert drawn(lambda page: page.title("l" * 30, "r" * 30)) == ["l" * 30, "  " + "r" * 30]


def test_items_are_kept_whole(drawn):
    lines = drawn(lambda page: page.items(["one two", "", "three four", "five six", "seven"]), 24)
    assert lines == ["  one two · three four", "  five six · seven"]
    assert drawn(lambda page: page.items([])) == []


def test_lines_are_wrapped_at_words(drawn):
    assert drawn(lambda page: page.line("one two three four"), 12) == ["  one two", "  three four"]


ROWS = (["context", "KV", "compute", "total", ""], [["1", "22", "333", "4444", "fits"]])


def test_a_table(drawn):
    assert drawn(lambda page: page.table(*ROWS), 60) == [
        "  context  KV  compute  total",
        "        1  22      333   4444  fits",
    ]


@pytest.mark.parametrize(
    ("width", "head"),
    [(60, "context KV compute total"), (34, "context KV total"), (24, "context total")],
)
def test_columns_that_do_not_fit_are_left_out_in_their_order(drawn, width, head):
    lines = drawn(lambda page: page.table(*ROWS, drop=(2, 1)), width)
    assert lines[0].split() == head.split()
    assert lines[1].endswith("fits")


def test_a_table_with_no_room_for_a_row_is_a_list(drawn):
    rows = ["context", ""], [["1,024", "a long remark"]]
    assert drawn(lambda page: page.table(*rows), 20) == ["  1,024", "      a long remark"]


def test_a_listing_is_truncated_at_the_margin_of_a_terminal_only(drawn):
    rows = [["key", "x" * 50], ["longer key", "y"]]
    assert drawn(lambda page: page.listing(rows), 40, Terminal()) == [
        "key         " + "x" * 27 + "…", "longer key  y"
    ]  # fmt: skip
    assert drawn(lambda page: page.listing(rows), 20, Terminal()) == [
        "key", "    " + "x" * 15 + "…", "longer key", "    y"
    ]  # fmt: skip
    assert drawn(lambda page: page.listing(rows), 20)[0] == "key         " + "x" * 50
    assert drawn(lambda page: page.listing([])) == []


def test_colours_only_in_a_terminal(drawn, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")

    def draw(page):
        page.title("left", "right")
        page.table(*ROWS, marked=0)

    assert any("\x1b[1m" in line for line in drawn(draw, out=Terminal()))
    assert not any("\x1b" in line for line in drawn(draw))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any("\x1b[3" in line for line in drawn(draw, out=Terminal()))


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_foreign_text_cannot_move_the_cursor(drawn, out, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    evil = "a\x1b]0;x\x07\r\nb\u202e[red]\x9b"

    def draw(page):
        page.title(evil, evil)
        page.items([evil])
        page.line(evil)
        page.table(["", ""], [[evil, evil]])
        page.listing([[evil, evil]])

    text = "\n".join(drawn(draw, 100, out()))
    assert not set("\x1b\x07\r\u202e\x9b") & set(text)
    assert "[red]" in text


def test_a_long_text_is_cleaned_for_a_terminal_but_not_for_a_pipe(drawn):
    assert drawn(lambda page: page.text("a\x1bb\n\nc")) == ["a\x1bb", "", "c"]
    assert drawn(lambda page: page.text("a\x1bb"), out=Terminal()) == ["a␛b"]


@pytest.mark.slow
@given(
    st.integers(20, 120),
    st.lists(st.text(max_size=30), max_size=8),
    st.lists(st.lists(st.text(max_size=12), min_size=4, max_size=4), max_size=5),
)
def test_no_line_is_wider_than_the_page(width, items, rows):
    out = Terminal()
    page = Printout(out)
    page._console.width, page._console._color_system = width, None
    page.items([item[: width - 2] for item in items])
    page.line(" ".join(items))
    page.table(["a", "b", "c", ""], rows, drop=(2, 1))
    page.listing(rows)
    first = {cell_len(row[0]) for row in rows}
    room = width - max(first, default=0)
    if room > 6:
        assert all(cell_len(line) <= width for line in out.getvalue().split("\n"))


def test_an_svg_keeps_leading_spaces():
    """librsvg drops spaces at the start of a text, so no text starts with one."""
    page = Printout(picture=True)
    page.title("left", "right")
    page.table(["a", "b"], [["1", "x"], ["1000", "y"]])
    page.grid(["row"], [[0.0, 0.5, 1.0]], "layer")
    svg = page.svg("lcp look")
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", svg)
    assert not [text for text in texts if text.startswith("&#160;")]
    placed = dict(re.findall(r'<text [^>]*x="([\d.]+)"[^>]*>(right|1000)', svg))
    width = float(re.search(r'<text [^>]*textLength="([\d.]+)"[^>]*>left<', svg)[1]) / 4
    assert sorted(placed.values()) == ["1000", "right"]
    columns = {text: round(float(x) / width) for x, text in placed.items()}
    assert columns == {"1000": 2, "right": PICTURE - len("right")}


def test_a_grid_draws_shares_as_heights(drawn):
    head, first, second = drawn(
        lambda page: page.grid(["one", "two"], [[0, 0.5, 1], [1, 0, -3]], "layer", ["n", "m"])
    )
    assert head.split() == ["layer", "0"]
    assert first.split() == ["one", "▄█", "n"] and second.split() == ["two", "█", "m"]
    many = drawn(lambda page: page.grid(["one"], [[0.5] * 200], "layer"))
    assert max(map(len, many)) <= 40
