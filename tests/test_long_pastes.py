"""Long pastes that are folded in the input line."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from lcp import commands
from lcp.commands import command_table
from lcp.terminal.history import READ, HistoryFile
from lcp.terminal.long_pastes import CHARACTERS, HUGE, LINES, LongPastes
from lcp.terminal.tab_completion import LineCompleter

LONG = "line\n" * 20


@pytest.mark.parametrize(
    ("text", "placeholder"),
    [
        ("x\n" * LINES, None),
        ("x\n" * (LINES + 1), "[paste 1: 9 lines]"),
        ("x\n" * LINES + "x", "[paste 1: 9 lines]"),
        ("x" * CHARACTERS, None),
        ("x" * (CHARACTERS + 1), "[paste 1: 1,001 characters]"),
        ("", None),
    ],
)
def test_a_long_paste_is_folded(text, placeholder):
    assert LongPastes().fold(text) == (placeholder or text)


@pytest.mark.slow
@given(st.lists(st.one_of(st.text("[paste 1:\n]lines", max_size=20), st.just(LONG))))
def test_the_line_unfolds_to_the_typed_and_pasted_text(parts):
    pastes = LongPastes()
    line = "".join(pastes.fold(part) for part in parts)
    assert pastes.unfold(line) == "".join(parts)


@pytest.mark.slow
@given(st.text(), st.text(), st.text(max_size=10))
def test_an_unfolded_paste_folds_again(before, after, change):
    pastes = LongPastes()
    placeholder = pastes.fold(LONG)
    edited = pastes.unfold(before + placeholder + change + after)
    line = pastes.refold(edited)
    assert placeholder in line
    assert pastes.unfold(line) == edited


def test_a_huge_text_is_folded_wherever_it_comes_from():
    pastes = LongPastes()
    assert pastes.refold("x" * (HUGE + 1)) == "[paste 1: 20,001 characters]"
    assert pastes.refold("x" * HUGE) == "x" * HUGE


def test_only_our_own_placeholders_are_found():
    pastes = LongPastes()
    one, two = pastes.fold(LONG), pastes.fold(LONG)
    line = f"a {one} b {two}"
    assert pastes.at_end(line) == two
    assert pastes.at_end(line + " ") == ""
    assert pastes.at_end("[paste 9: 20 lines]") == ""
    spans = [pastes.nearest(line, cursor) for cursor in (0, 3, len(line) - 1, len(line))]
    assert [line[a:b] for a, b in spans] == [one, one, two, two]
    assert spans[0] != spans[-1]
    assert pastes.nearest("[paste 9: 20 lines]", 3) is None


# suggestions


def suggested(history, typed):
    suggestion = AutoSuggestFromHistory().get_suggestion(Buffer(history=history), Document(typed))
    return suggestion.text if suggestion else None


def test_the_newest_matching_line_is_suggested(tmp_path):
    history = HistoryFile(tmp_path / "history.jsonl")
    for text in ("What is old?", "What is new?\nSay.", "Else"):
        history.append_string(text)
    assert suggested(history, "What") == " is new?"
    assert suggested(history, "What is o") == "ld?"
    assert not suggested(history, "What is new?")
    assert suggested(history, " ") is None
    assert suggested(history, "hat") is None


def test_a_long_history_is_read_from_its_end(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(f'"{n:06} {"x" * 90}"\n' for n in range(20_000)))
    recalled = list(HistoryFile(path).load_history_strings())
    assert recalled[0].startswith("019999 ")
    assert 10_000 < len(recalled) < 11_000


def test_a_truncated_history_line_is_not_a_message(tmp_path):
    path = tmp_path / "history.jsonl"
    end = '" end"\n' + '"whole"\n' * 9
    end += " " * (READ - len(end) - 1) + "\n"
    path.write_text('"the begin and the \\' + end)  # the end of it would be JSON, too
    assert list(HistoryFile(path).load_history_strings()) == ["whole"] * 9


# completion


def completed(line, **words):
    """Possible texts of the input line."""
    words = LineCompleter(words or commands.completions(lambda: None), lambda begun: ["a b", "ab"])
    event = CompleteEvent(completion_requested=True)
    found = words.get_completions(Document(line), event)
    return [line[: len(line) + c.start_position] + c.text for c in found]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("/he", ["/help"]),
        ("/help", []),
        ("/set top_", ["/set top_k", "/set top_p"]),
        ("/set think ", ["/set think on", "/set think off", "/set think hide", "/set think reset"]),
        ("/set seed r", ["/set seed random", "/set seed reset"]),
        ("/set nothing ", []),
        ("/nothing x", []),
        ("no /he", []),
        ("see @a", ["see @a b", "see @ab"]),
        ("see\n(@a", ["see\n(@a b", "see\n(@ab"]),
        ('see @"a ', ["see @a b", "see @ab"]),
        ("user@a", []),
        ("@a b", []),
    ],
)
def test_what_tab_completes(line, found):
    assert completed(line) == found


def test_every_command_is_offered():
    assert completed("/") == [f"/{command.name}" for command in command_table.TABLE]


def test_candidates_get_the_whole_argument():
    asked = []
    completed("/go to the ", go=("", lambda begun: asked.append(begun) or []))
    assert asked == ["to the "]


def test_the_work_per_key_does_not_grow_with_the_paste(tmp_path):
    pastes, history = LongPastes(), HistoryFile(tmp_path / "history.jsonl")
    line = pastes.fold("line\n" * 200_000)
    started = time.process_time()
    for n in range(1_000):
        pastes.at_end(line + "x" * (n % 10))
        suggested(history, line)
    assert time.process_time() - started < 2  # reading the paste once takes a tenth of this
