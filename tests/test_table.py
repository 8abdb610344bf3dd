"""Tables: in columns if they fit, otherwise below each other; no word is broken."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from terminal import NOW, Pty

from lcp.session.conversation import Conversation
from lcp.session.store import Store
from lcp.terminal.table import lines

SET = [
    ("setting", "value", "from", "default", "meaning"),
    ("temp", "0.2", "flag", "0.8", "randomness; 0 always takes the likeliest token"),
    ("frequency_penalty", "0.0", "default", "0.0", "less likely each time"),
]


def test_rows_that_fit_are_in_columns():
    assert lines([("a", "1"), ("long name", "2")], 80) == ["a          1", "long name  2"]
    assert lines([], 80) == []


def test_a_last_column_is_wrapped_between_words():
    wide = lines(SET, 78, head=True)
    assert [len(line) - len(line.lstrip()) for line in wide] == [0, 0, 44, 0]
    assert wide[1].endswith("randomness; 0 always takes the")


def test_a_word_that_is_too_wide_for_its_column_stays_whole():
    path = f"/models/{'folder/' * 5}model.gguf"
    for value in (path, f"{path} (98 MB)", f"in {path} and more"):
        found = lines([("wheel", value), ("GPU", "none")], 40)
        assert " ".join(line.strip() for line in found).split() == ["wheel", *value.split(), "GPU",
                                                                    "none"]  # fmt: skip


def test_if_columns_do_not_fit_cells_are_below_each_other():
    assert lines(SET, 40, head=True) == [
        "temp",
        "    value 0.2 · from flag · default 0.8",
        "    randomness; 0 always takes the",
        "    likeliest token",
        "frequency_penalty",
        "    value 0.0 · from default · default",
        "    0.0",
        "    less likely each time",
    ]


def test_marks_are_before_the_names():
    rows = [("*", "20261122-0931-0001", "2 turns", "title"), (" ", "20261122-0931-0002", "", "x")]
    assert lines(rows, 24) == [
        "* 20261122-0931-0001", "    2 turns", "    title", "  20261122-0931-0002", "    x"
    ]  # fmt: skip


def test_a_cut_row_ends_with_an_ellipsis_at_the_margin():
    assert lines([("1", "世" * 30)], 30, cut=(1,)) == ["1  " + "世" * 13 + "…"]
    assert lines([("1", "q" * 30, "a" * 10)], 40, cut=(1, 2)) == [
        "1  " + "q" * 24 + "…  " + "a" * 10
    ]  # fmt: skip
    assert lines([("1", "q" * 30, "a" * 30)], 20, cut=(1, 2)) == [
        "1 " + "q" * 17 + "…", "    " + "a" * 15 + "…"
    ]  # fmt: skip


def test_a_pipe_gets_whole_rows():
    assert lines([("a", "word " * 60), ("bb", "x" * 300)], None, cut=(1,)) == [
        "a   " + ("word " * 60).strip(), "bb  " + "x" * 300
    ]  # fmt: skip


words = st.text(st.sampled_from("abc世é"), min_size=1, max_size=12)


@pytest.mark.slow
@given(
    st.integers(30, 120),
    st.lists(st.lists(st.lists(words, max_size=12).map(" ".join), min_size=4, max_size=4)),
    st.booleans(),
)
def test_no_word_is_broken_and_no_line_is_too_wide(width, rows, head):
    found = lines(rows, width, head=head)
    told = [word for line in found for word in line.replace("·", " ").split()]
    columns = any("  " in line.strip() for line in found)
    for row in rows[head and not columns :]:
        for cell in row:
            assert all(word in told for word in cell.split())
    assert all(cell_len(line) <= width for line in found)


@pytest.mark.parametrize("width", [30, 45, 60, 80, 120])
def test_rows_that_may_be_cut_are_one_line_or_one_for_each_message(width):
    rows = [("1", "pinned", "word " * 30, "wort " * 30)]
    found = lines(rows, width, cut=(2, 3))
    assert len(found) in (1, 3)
    assert all(cell_len(line) <= width for line in found)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [44, 60, 100])
def test_the_lists_of_the_command_line_fit_the_terminal(columns, home, smollm2):
    """With whole words at any width."""
    store = Store(home / "data" / "sessions")
    chat = Conversation.begin(lambda: NOW, "smollm2-135m")
    with store.create(chat.opening) as log:
        log.append(chat.ask("世界 why is the sky as blue as it is, and the sea as well? Tell me."))
    for command, word in ((["list"], "smollm2-135m"), (["sessions"], "smollm2-135m")):
        with Pty(sys.executable, "-m", "lcp", *command, home=home) as terminal:
            terminal.resize(columns, 20)
            assert terminal.leaves() == 0
            rows = terminal.screen().splitlines()
        assert word in " ".join(rows).split()
        assert all(cell_len(row) <= columns for row in rows)
        assert len(rows) <= (1 if columns == 100 else 4)
