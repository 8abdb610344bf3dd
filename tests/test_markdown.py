"""Streamed Markdown: any split of a text gives the same result in the end."""

import io
import re
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.segment import Segment
from rich.style import Style
from terminal import a_console

from lcp.terminal.clean import clean
from lcp.terminal.markdown import Node, Splitter, blocks, parser
from lcp.terminal.markdown_rows import Renderer, row_text
from lcp.terminal.painter import AnswerPainter

TALL = 10_000  # rows: nothing scrolls
SPEC = (Path(__file__).parent / "commonmark.txt").read_text("utf-8")
EXAMPLES = SPEC.split("␞\n")[1:]
# Typical content of chats, and blocks that stay open for long.
CHAT = [
    "Some **bold words**, `code`, a [link](https://example.org/a_b) and Vec<T>.\nA second line.\n",
    "# A title\n",
    "A title\n===\n",
    "1. **First**\n\n   Its text.\n\n2. Second\n   - deeper\n     - and deeper\n3. Third\n",
    "- one\n- two\n\n  more\n- three\n",
    "9. nine\n10. ten\n11. eleven\n",
    "1. one\n1. two\n1. three\n",
    "| Name | Size |\n|---|--:|\n| a | 1 |\n| b `x` | 22 |\n",
    "> quoted\nlazily\n> > twice\n",
    "The area is\n\\[\na\n- b_1\n= c*d*\n\\]\nand $x_1 + y_1$ costs $5.\n",
    "$$\nx\n\nno more maths\n",
    "***\n",
    "    indented\n\n    code\n",
    "~~~\nplain ```\n~~~~\n",
    "```python\ndef f(x):\n"
    + '    """A text\n\n    of lines.\n    """\n    # why\n' * 5
    + "\tpass\n```\n",
    "```c\n" + "/* words\n * more\n */\nint a = 'b';\n" * 8 + "```\n",
    "```json\n{\n" + '  "key": [1, "x"],\n' * 20 + '  "end": {}\n}\n```\n',
    "```html\n<script>\n" + "let a = `b`;\n" * 12 + "</script>\n```\n",
    " ```sh\n ls *.py\n  cd ..\n ```\n",
    "```\nno end\n",
    "```\n```\n",
    "日本語 " * 30 + "\n",
    "\n",
    "",
]


class Roll(io.StringIO):
    """A terminal of unlimited height: its styled rows."""

    def __init__(self):
        super().__init__()
        self.rows, self.at, self.highest = [], 0, 0

    def write(self, text):
        for up, row in re.findall(r"\x1b\[(\d+)A\r|([^\n]*?)\x1b\[K\n", text):
            if up:
                self.at -= int(up)
                assert self.at >= 0
            else:
                self.rows[self.at : self.at + 1] = [row]
                self.at += 1
        return len(text)

    def text(self):
        return self.rows[: self.at]


def streamed(pieces, width=60):
    """The rows of a text that arrives in pieces and is painted after each."""
    roll = Roll()
    painter = AnswerPainter(a_console(roll, width, TALL), clock=count().__next__)
    for piece in pieces:
        painter.feed(piece)
    painter.finish()
    return roll.text()


def whole(text, width=60, **more):
    """The rows of a text that is parsed and rendered once."""
    console = a_console(io.StringIO(), width, TALL, **more)
    root = Node(parser().parse(clean(text)))
    rows = Renderer(console).rows(blocks(root), width - 1)
    return [row_text(console, row)[0] for row in rows]


def plain(text, width=60):
    """The same without colours."""
    return [re.sub(r"\x1b\[[\d;]*m", "", row) for row in whole(text, width)]


def cut(text, at):
    edges = [0, *sorted(position % (len(text) + 1) for position in at), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


# the stream and the whole

cuts = st.lists(st.integers(0, 10_000), max_size=25)
pieces_of_spec = st.lists(st.sampled_from(EXAMPLES), min_size=1, max_size=5)
pieces_of_chat = st.lists(st.sampled_from([*CHAT, *EXAMPLES[:80]]), min_size=1, max_size=12)


def test_all_commonmark_examples_are_read():
    assert len(EXAMPLES) == 652
    assert all(text.endswith("\n") for text in EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_every_example_of_commonmark_streams_letter_by_letter(part):
    wrong = [text for text in EXAMPLES[part::8] if streamed(text) != whole(text)]
    assert not wrong


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(pieces_of_spec, st.sampled_from(["", "\n"]), cuts)
def test_examples_one_after_another_stream(texts, between, at):
    text = between.join(texts)
    assert streamed(cut(text, at)) == whole(text)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(pieces_of_chat, st.sampled_from(["", "\n"]), cuts, st.sampled_from([20, 40, 80]))
def test_long_answers_stream(texts, between, at, width):
    text = between.join(texts)
    assert streamed(cut(text, at), width) == whole(text, width)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.text(st.sampled_from("ab *_`~#>-+1.|$\\[]()!<&\t\n\n\r\u202e"), max_size=120), cuts)
def test_any_text_streams(text, at):
    assert streamed(cut(text, at)) == whole(text)


def test_line_ends_of_any_kind_can_be_split():
    text = "```\r\na\rb\r\n\r\n```\rc"
    assert streamed(text) == whole(text) == whole("```\na\nb\n\n```\nc")


@pytest.mark.slow
@pytest.mark.parametrize("text", CHAT)
def test_typical_answers_stream_letter_by_letter(text):
    assert streamed("Before.\n\n" + text + "\nAfter.") == whole("Before.\n\n" + text + "\nAfter.")


def test_blocks_are_finished_as_soon_as_they_can_be():
    splitter = Splitter()
    done = []
    for line in ("One.\n", "Still one.\n", "\n", "- a\n", "- b\n", "1. c\n", "```py\n", "x\n"):
        splitter.feed(line)
        done.append([block.node.type for block in splitter.take()])
    assert done == [
        [], [], ["paragraph"], [], ["list_item"], ["list_item"], ["list_item", "fence"], []
    ]  # fmt: skip


# what it looks like


def test_links_show_where_they_lead():
    assert plain("A [link](https://a.b/c), <https://d.e> and <me@f.g>.") == [
        "A link (https://a.b/c), https://d.e and me@f.g."
    ]
    assert plain("![A cat](cat.png) and [![x](y.png)](https://z)") == [
        "A cat (cat.png) and x (y.png) (https://z)"
    ]
    assert "\x1b]" not in "".join(whole("[link](https://a.b/c)"))  # no OSC 8


def test_a_definition_of_a_link_is_text():
    """It would change what was row_text before; so its address is not lost either."""
    assert plain("See [docs].\n\n[docs]: https://a.b") == [
        "See [docs].", "", "[docs]: https://a.b"
    ]  # fmt: skip


def test_html_is_text():
    text = "Use Vec<T>, </kbd> and <b>this</b>.\n\n<div>\nhello\n</div>"
    assert plain(text) == [
        "Use Vec<T>, </kbd> and <b>this</b>.", "", "<div>", "hello", "</div>"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        r"Inline \(a_1 * b_2 * c\) and \[x \, y\] and $a_1 *b* c_2$.",
        "\\[\na\n- b\n+ c\n= d\n\\]",
        "$$\n\\frac{a}{b} \\\\\n# 1\n$$",
        "It costs $5 or $6.",
    ],
)
def test_formulas_are_unchanged(text):
    assert plain(text) == text.split("\n")


def test_a_dollar_sign_does_not_hide_bold_text():
    assert plain("It costs $5, **really**, in US$ too.") == ["It costs $5, really, in US$ too."]


def test_lists():
    assert plain("9. nine\n10. ten\n\n    more\n11. eleven\n    - a\n      1) b\n- [ ] do") == [
        " 9. nine",
        "10. ten",
        "",
        "    more",
        "",
        "11. eleven",
        "     • a",
        "        1) b",
        "",
        " • [ ] do",
    ]


def test_a_list_number_has_room_for_two_digits():
    nine = plain("".join(f"{n}. x\n" for n in range(1, 10)))
    assert plain("".join(f"{n}. x\n" for n in range(1, 12)))[:9] == nine


def test_quotes():
    assert plain("> a\n> b\n>\n> > c\n>\n> - d") == ["│ a", "│ b", "│", "│ │ c", "│", "│  • d"]


def test_line_breaks_are_kept():
    assert plain("Roses are red  \nViolets\\\nare\nblue") == [
        "Roses are red", "Violets", "are", "blue"
    ]  # fmt: skip


def test_a_table():
    text = "| Name | Size |\n|---|--:|\n| a **b** | 1 |\n| c | 222 |\n"
    assert plain(text) == ["Name   Size", "───────────", "a b       1", "c       222"]


def test_a_table_that_is_too_wide_becomes_a_list():
    head = "| Name | Colour | Size | Weight | Place |\n|---|---|---|---|---|\n"
    assert plain(head + "| apple | red | 1 | 2 | tree |\n| pear | green | 3 | 4 | |\n", 40)[:7] == [
        "Name: apple", "Colour: red", "Size: 1", "Weight: 2", "Place: tree", "", "Name: pear"
    ]  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(pieces_of_chat, st.sampled_from([8, 20, 40, 80]))
def test_no_row_is_wider_than_the_window_and_none_is_padded(texts, width):
    console = a_console(io.StringIO(), width, TALL)
    root = Node(parser().parse(clean("\n".join(texts))))
    for row in Renderer(console).rows(blocks(root), width - 1):
        text, cells = row_text(console, row)
        assert cells < width
        assert re.sub(r"\x1b\[[\d;]*m", "", text) == re.sub(r"\x1b\[[\d;]*m", "", text).rstrip()


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["*" * 5000 + "a" + "*" * 5000, "*a **b " * 400 + "c** d* " * 400, ">" * 500 + "a", "- " * 300],
    ids=["stars", "marks", "quotes", "lists"],
)
def test_any_nesting_depth_is_rendered(text):
    assert streamed(cut(text, range(0, len(text), 900))) == whole(text)


def test_no_text_is_lost_in_a_very_narrow_window():
    deep = "".join("  " * n + "- " + "abcdefgh"[n] * 3 + "\n" for n in range(8))
    text = "".join(plain(deep, 20))
    assert all(letter * 3 in text for letter in "abcdefgh")


# colours


def test_colours_are_the_terminals_own():
    """Colours have names: there are no fixed colours and no backgrounds."""
    allowed = {"0", "1", "2", "3", "4", "9", "31", "32", "35", "36"}
    text = "".join(row for text in CHAT for row in whole(text))
    used = {code for codes in re.findall(r"\x1b\[([\d;]*)m", text) for code in codes.split(";")}
    assert {"1", "35", "36"} <= used <= allowed


def test_no_color_leaves_the_other_styles():
    text = "".join(row for text in CHAT for row in whole(text, no_color=True))
    used = {code for codes in re.findall(r"\x1b\[([\d;]*)m", text) for code in codes.split(";")}
    assert {"1", "2"} <= used <= {"0", "1", "2", "3", "4", "9"}


def test_code_has_a_label_and_colours():
    assert plain("```python title=x\ndef f():\n\n\tpass\n```") == [
        "─── python", "def f():", "", "    pass", "───"
    ]  # fmt: skip
    assert "\x1b[35mdef\x1b[0m \x1b[1mf\x1b[0m():" in whole("```python\ndef f():\n```")
    assert plain("```\nx\n```") == plain("    x") == ["───", "x", "───"]
    assert whole("```nosuchlanguage\ndef\n```")[1] == "def"


def test_code_in_a_long_quote_keeps_its_colour():
    lines = "".join(f"    for {n} in the text\n" for n in range(60))
    rows = whole(f'```python\ndef f():\n    """\n{lines}    """\n    return 1\n```')
    assert all("\x1b[32m" in row for row in rows[2:63])
    assert "\x1b[35mreturn\x1b[0m" in rows[64]


LANGUAGES = st.sampled_from(
    """bash c cmake console cpp css diff docker go html ini java js json jsx kotlin latex lua make
    markdown nginx perl php powershell pycon python pytb rb rs rst scala sql swift toml ts vim xml
    yaml""".split()  # noqa: SIM905
)
snippets = st.sampled_from(
    ["$ ls", ">>> 1", '"""', "/*", "'", "<?php", "<b>", "a: b", "", "- a", "{"]
)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(LANGUAGES, st.lists(snippets, min_size=1, max_size=40))
def test_all_lines_of_code_are_shown_in_any_language(language, lines):
    lines = ["#", *lines, "#"]
    assert plain("\n".join([f"```{language}", *lines, "```"])) == [
        f"─── {language}", *lines, "───"
    ]  # fmt: skip


def test_a_very_long_line_of_code_is_not_highlighted():
    row = "".join(whole("```python\n" + "None;" * 1000 + "\n```")[1:-1])
    assert row == "None;" * 1000


def test_decoded_entities_are_cleaned():
    text = "a &#8238; &lrm; &ZeroWidthSpace; &shy; &#xE0041; &#x9b; &#27; b"
    shown = plain(text)[0]
    assert shown == "a <202E> <200E> <200B> <00AD> � � � b"
    rows = plain("&#8238;" * 9, 20)
    assert (max(map(len, rows)), "".join(rows)) == (19, "<202E>" * 9)
    assert plain(f"[x](<https://a.b/{text}>)")[0].isprintable()
    assert plain(f"```{text}\nx\n```")[0].isprintable()
    assert plain(f"![{text}](a.png)")[0].isprintable()


def test_rendered_rows_cannot_act_on_the_terminal():
    console = a_console(io.StringIO(), 60, TALL)
    row = [Segment("\x1b[2J\x9b\u202e\n", Style(bold=True)), Segment(" \x07 ")]
    assert row_text(console, row)[0] == "\x1b[1m␛[2J�<202E>␊\x1b[0m ␇"
