"""The slash commands that go back in a conversation, and their effect on model and log."""

import io
import re
import signal
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fakes import Said, ScriptedEngine, does, weighed
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from terminal import Glass, Paper, a_console

from lcp import commands
from lcp.chat.chat import Chat
from lcp.errors import LcpError
from lcp.session.conversation import Conversation
from lcp.session.store import Store, load
from lcp.settings import Layers
from lcp.terminal.screen import Screen
from lcp.terminal.signals import handling

NOW = datetime(2026, 11, 22, 9, 31, tzinfo=timezone.utc)


@pytest.fixture
def begin(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    logs = []

    def begin(*answers, **more):
        chat = a_chat(tmp_path, *answers, **more)
        logs.append(chat.log)
        return chat

    yield begin
    for log in logs:
        log.close()


def said_so(text):
    """A text with an ellipsis at its end was cut there."""
    return Said(text.removesuffix("…"), ended="length" if text.endswith("…") else "end")


def a_chat(folder, *answers, size=4096, **flags):
    ids = (f"id{n}" for n in count())
    conversation = Conversation.begin(lambda: NOW, "scripted", new_id=lambda: next(ids))
    log = Store(folder, now=lambda: NOW, new_tail=lambda: "tail").create(conversation.opening)
    screen = Screen(io.StringIO(), io.StringIO())
    script = (said_so(a) if isinstance(a, str) else a for a in answers)
    engine = ScriptedEngine(*script, size=size)
    return Chat(engine, conversation, log, screen, "scripted", Layers(flags=flags))


def ask(chat, *questions):
    for question in questions:
        chat.ask(question)


def refuses(chat, line):
    """The error of a refused command, which must change nothing."""
    before = said(chat)
    with pytest.raises(LcpError) as error:
        commands.run(chat, line)
    assert said(chat) == before
    return str(error.value)


def said(chat):
    """Question and answer of each turn of this branch."""
    return [(t.user.content, t.answer and t.answer.content) for t in chat.conversation.turns()]


def seen(chat):
    """The messages of the last request."""
    return [m.content for m in chat.engine.asked[-1].messages]


def resumed(chat):
    return Conversation.from_events(load(chat.log.path)[0])


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("/undo", "Ask"),
        ("/undo 2", "Ask"),
        ("/edit", "Ask"),
        ("/retry", "Ask"),
        ("/branch 1", "Ask"),
        ("/branches", "Ask"),
        ("/branches 1", "Ask"),
        ("/pin 1", "Ask"),
        ("/pin", "/pin 1"),
        ("/forget 1", "Ask"),
        ("/forget", "/forget 1"),
        ("/history", "Ask"),
        ("/continue", "Ask"),
    ],
)
def test_commands_in_an_empty_chat_name_the_next_step(begin, command, advice):
    assert advice in refuses(begin(), command)


@pytest.mark.slow
@pytest.mark.parametrize("number", ["0", "4", "-1", "1.5", "one", "²", "1 2", "9" * 5_000])
@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("/undo", "a number of turns to go back"),
        ("/edit", "a turn"),
        ("/retry", "a turn"),
        ("/branch", "a turn"),
        ("/pin", "a turn"),
        ("/forget", "a turn"),
    ],
)
def test_an_unknown_turn_number_is_refused_with_the_valid_range(begin, command, number, what):
    chat = begin()
    ask(chat, "One?", "Two?", "Three?")
    expected = f"{number} is not {what}. Give a number from 1 to 3."
    assert refuses(chat, f"{command} {number}") == expected


# undo


def test_undo_removes_the_last_turn(begin):
    chat = begin()
    ask(chat, "One?", "Two?")
    assert " 1 turn. /branches " in does(chat, "/undo")
    assert said(chat) == [("One?", "Answer 1.")]
    chat.ask("Something else?")
    assert seen(chat) == ["One?", "Answer 1.", "Something else?"]


def test_undo_n_removes_n_turns(begin):
    chat = begin()
    ask(chat, "One?", "Two?", "Three?")
    assert " 2 turns. /branches " in does(chat, "/undo 2")
    assert said(chat) == [("One?", "Answer 1.")]
    does(chat, "/undo 1")
    assert said(chat) == []
    chat.ask("Anew?")
    assert seen(chat) == ["Anew?"]


# edit


def test_edit_puts_the_question_into_the_input_line(begin):
    chat = begin()
    ask(chat, "One?", "Two\nlines?")
    assert commands.run(chat, "/edit") == "Two\nlines?"
    assert said(chat) == [("One?", "Answer 1.")]
    chat.ask("Two words?")
    assert seen(chat) == ["One?", "Answer 1.", "Two words?"]
    assert [m.content for m in chat.conversation.children("id2")] == ["Two\nlines?", "Two words?"]


def test_edit_of_an_earlier_question_keeps_the_rest_as_a_branch(begin):
    chat = begin()
    ask(chat, "One?", "Two?", "Three?")
    assert commands.run(chat, "/edit 1") == "One?"
    chat.ask("Uno?")
    assert said(chat) == [("Uno?", "Answer 4.")]
    does(chat, "/branches 1")
    assert [question for question, _ in said(chat)] == ["One?", "Two?", "Three?"]


def editor(monkeypatch, folder, script):
    """An $EDITOR that is this shell script; "$1" is the file."""
    program = folder / "editor"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", str(program))


def test_an_edited_answer_is_the_models_own_and_can_continue(begin, monkeypatch, tmp_path):
    chat = begin("It is Rome.", "It is Paris indeed.", "Yes.")
    chat.ask("The capital of France?")
    editor(monkeypatch, tmp_path, 'grep -q Rome "$1" && printf "It is Paris" > "$1"')
    assert does(chat, "/edit answer") == ("Saved as the model's answer. /continue continues it.\n")
    assert said(chat) == [("The capital of France?", "It is Paris")]
    assert "edited" in does(chat, "/history")
    commands.run(chat, "/continue")
    assert chat.engine.asked[-1].begun.content == "It is Paris"
    commands.run(chat, "/branch")  # back to after it, then continue
    chat.ask("Sure?")
    assert [m.content for m in chat.conversation.children("id1")][:2] == [
        "It is Rome.",
        "It is Paris",
    ]
    assert resumed(chat).head == chat.conversation.head
    assert does(chat, "/stats")


@pytest.mark.parametrize("script", ["true", ': > "$1"'])
def test_an_unchanged_answer_stays(begin, monkeypatch, tmp_path, script):
    chat = begin("Hello.\n\n")
    chat.ask("Hi.")
    editor(monkeypatch, tmp_path, script)
    before = chat.conversation.head
    assert does(chat, "/edit answer") == "The answer is unchanged.\n"
    assert chat.conversation.head == before


def test_a_failed_edit_keeps_the_answer(begin, monkeypatch, tmp_path):
    chat = begin()
    assert refuses(chat, "/edit answer") == "This chat is empty. Ask something first."
    chat.ask("Hi.")
    before = chat.conversation
    editor(monkeypatch, tmp_path, 'echo Other. > "$1"; exit 3')
    assert "exit code 3" in refuses(chat, "/edit answer")
    editor(monkeypatch, tmp_path, 'rm "$1"')
    told = "Cannot edit the text: No such file or directory. Is the disk full?"
    assert refuses(chat, "/edit answer") == told
    assert chat.conversation == before


def test_ctrl_c_and_fg_belong_to_the_editor(begin, monkeypatch, tmp_path):
    chat = begin()
    chat.ask("Hi.")
    editor(monkeypatch, tmp_path, 'kill -INT $PPID; kill -CONT $PPID; printf "New." > "$1"')
    came = []
    with handling({signal.SIGCONT: lambda number, frame: came.append(number)}):
        does(chat, "/edit answer")
    assert said(chat) == [("Hi.", "New.")]
    assert not came


# retry


def test_retry_answers_the_last_question_again(begin):
    chat = begin("No.", "Yes.", "Maybe.")
    chat.ask("Really?")
    assert does(chat, "/retry").startswith("Variant 2 of this answer; /branches ")
    assert (seen(chat), said(chat)) == (["Really?"], [("Really?", "Yes.")])
    assert does(chat, "/retry").startswith("Variant 3 ")
    assert [m.content for m in chat.conversation.children("id1")] == ["No.", "Yes.", "Maybe."]
    assert chat.screen._out.file.getvalue() == "No.\nYes.\nMaybe.\n"


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"temp": 0}, "temp is 0. For a different one: /set temp 0.8"),
        ({"seed": 5}, "the seed is 5. For a different one: /set seed random"),
        ({"temp": 0, "seed": 5}, "temp is 0. For a different one: /set temp 0.8"),
    ],
)
def test_retry_says_why_the_answer_is_the_same_again(begin, flags, why):
    chat = begin("No.", "No.", "Yes.", **flags)
    chat.ask("Really?")
    assert f"The same answer again: {why}\n" in does(chat, "/retry")
    assert "same" not in does(chat, "/retry")  # another answer needs no notice


def test_answers_without_text_are_compared_by_their_thinking(begin):
    chat = begin(Said(thinking="Hm."), Said(thinking="Well."), Said(), Said(), seed=5)
    chat.ask("Really?")
    assert "same" not in does(chat, "/retry x3")


def test_the_same_answer_by_chance_suggests_no_settings(begin):
    chat = begin("No.", "No.")
    chat.ask("Really?")
    assert "same" not in does(chat, "/retry")


def test_retry_of_an_earlier_question_keeps_the_rest_as_a_branch(begin):
    chat = begin()
    ask(chat, "One?", "Two?", "Three?")
    does(chat, "/retry 2")
    assert seen(chat) == ["One?", "Answer 1.", "Two?"]
    assert said(chat) == [("One?", "Answer 1."), ("Two?", "Answer 4.")]


def test_an_unanswered_question_has_no_variants(begin):
    chat = begin()
    chat.keep(chat.conversation.ask("Are you there?"))  # killed here
    chat.ask("Still?")
    does(chat, "/undo")
    assert "Variant" not in does(chat, "/retry")
    assert said(chat) == [("Are you there?", "Answer 2.")]


def test_retry_of_the_first_question_reads_nothing_again(begin):
    chat = begin("word " * 99)
    chat.ask("One?")
    assert "read again" not in does(chat, "/retry")
    does(chat, "/clear")
    chat.ask("Anew?")
    assert seen(chat) == ["Anew?"]


def test_a_failed_retry_keeps_the_answer(begin):
    chat = begin(size=64)
    ask(chat, "One?", "Two?")
    does(chat, "/system " + "word " * 60)
    assert "room for 48" in refuses(chat, "/retry 1")
    assert resumed(chat).turns() == chat.conversation.turns()


# continue


def test_continue_continues_a_truncated_answer(begin):
    chat = begin("Once upon…", " a time.")
    chat.ask("A story.")
    assert does(chat, "/continue").startswith("…Once upon\n")
    request = chat.engine.asked[-1]
    assert (request.begun.content, seen(chat)) == ("Once upon", ["A story."])
    assert said(chat) == [("A story.", "Once upon a time.")]
    assert chat.conversation.turns()[-1].answer.tokens == (0, 1, 2, 3)
    assert refuses(chat, "/continue").startswith("There is no cut answer to continue.")


def test_continue_of_an_empty_answer_generates_one(begin):
    chat = begin("…", "Once upon a time.")
    chat.ask("A story.")
    assert does(chat, "/continue").startswith("20.0 tokens/s")
    assert (chat.engine.asked[-1].begun, seen(chat)) == (None, ["A story."])
    assert said(chat) == [("A story.", "Once upon a time.")]


def test_retry_n_generates_and_keeps_n_answers(begin):
    chat = begin("No.", "Yes.", "Perhaps.", "Never.", "Later.")
    ask(chat, "Really?", "When?")
    told = does(chat, "/retry 1 x3")
    assert re.findall(r"(?m)^Variant (\d)\b.*/branches", told) == ["2", "3", "4"]
    question = chat.conversation.turns()[0].user.id
    answers = [m.content for m in chat.conversation.children(question)]
    assert answers == ["No.", "Perhaps.", "Never.", "Later."]
    assert said(chat) == [("Really?", "Later.")]


def test_several_answers_end_at_one_that_is_stopped_or_must_repeat(begin):
    chat = begin("No.", "No.", "No.")
    chat.ask("Really?")
    chat.set("seed", "5")
    assert "The same answer again" in does(chat, "/retry x5")
    assert len(chat.engine.asked) == 2


@pytest.mark.parametrize("argument", ["x0", "x10", "x", "1 x-1", "x2 1", "1 2 x2"])
def test_the_number_of_answers_is_from_one_to_nine(begin, argument):
    chat = begin()
    chat.ask("Really?")
    refused = refuses(chat, f"/retry {argument}")
    assert "Give a number from 1 to " in refused and not refused.startswith(" ")


def test_a_turn_that_leaves_no_room_is_not_pinned(begin):
    chat = begin(size=64)
    ask(chat, "One?", "word " * 30)
    does(chat, "/pin 1")
    chat.set("max_tokens", "40")
    refusal = refuses(chat, "/pin 2")
    assert "35 tokens" in refusal and "32" in refusal and "--ctx-size" in refusal
    assert len(chat.conversation.pinned) == 1


def test_retry_of_an_earlier_question_names_the_branch_of_the_rest(begin):
    chat = begin()
    ask(chat, "One?", "Two?")
    assert "Later turns stay on their branch.\n" in does(chat, "/retry 1")
    assert "Later turns" not in does(chat, "/retry")


# branches


def test_branch_goes_back_to_after_a_turn(begin):
    chat = begin()
    ask(chat, "One?", "Two?", "Three?")
    assert "/branches" in does(chat, "/branch 1")
    chat.ask("Zwei?")
    assert seen(chat) == ["One?", "Answer 1.", "Zwei?"]
    shown = "   1  turn 2  Two?   Answer 2.\n*  2  turn 2  Zwei?  Answer 4.\n"
    assert does(chat, "/branches") == shown


def test_branch_needs_an_answer_to_go_back_to(begin):
    chat = begin()
    chat.keep(chat.conversation.ask("Are you there?"))
    expected = "This question has no answer yet. /retry answers it."
    assert refuses(chat, "/branch") == expected


def test_branches_n_switches_to_that_branch(begin):
    chat = begin("No.", "Yes.")
    chat.ask("Really?")
    does(chat, "/retry")
    assert does(chat, "/branches") == "   1  turn 1  Really?  No.\n*  2  turn 1  Really?  Yes.\n"
    assert does(chat, "/branches 1") == "On branch 1: Really? · No.\n"
    assert said(chat) == [("Really?", "No.")]
    assert does(chat, "/branches") == "*  1  turn 1  Really?  No.\n   2  turn 1  Really?  Yes.\n"
    assert "from 1 to 2" in refuses(chat, "/branches 3")


def test_after_undo_the_star_marks_the_present_branch(begin):
    chat = begin("One.", "Two.", "Other.")
    ask(chat, "One?", "Two?")
    does(chat, "/branch 1")
    chat.ask("Else?")
    assert does(chat, "/branches") == ("   1  turn 2  Two?   Two.\n*  2  turn 2  Else?  Other.\n")
    does(chat, "/undo")
    *rows, notice = does(chat, "/branches").splitlines()
    assert [row[0] for row in rows] == [" ", " ", "*"]
    assert "turn 1" in rows[2] and "One?" in rows[2] and "One." in rows[2]
    assert "after turn 1 of branch 1 or 2" in notice
    does(chat, "/undo")
    *rows, notice = does(chat, "/branches").splitlines()
    assert [row[0] for row in rows] == [" ", " "]
    assert "before the first turn" in notice


@pytest.mark.parametrize("columns", ["44", "80", "200"])
def test_branches_show_where_they_differ(begin, monkeypatch, columns):
    """As after /edit of the end of a long question, with the same answer to both."""
    monkeypatch.setenv("COLUMNS", columns)
    chat = begin(f"{LONG} red.", "So.", f"{LONG} blue.", "So.")
    for end in ("dogs", "cats"):
        ask(chat, f"{LONG} and {end}?", "Go on.")
        does(chat, "/undo 2")
    dogs, cats = does(chat, "/branches").splitlines()[:2]
    assert "dogs?" in dogs and "red." in dogs
    assert "cats?" in cats and "blue." in cats


LONG = "word " * 20
CUT = " ".join(["word"] * 8) + "…"  # of 40 characters


def test_a_branch_is_shown_by_its_last_question_and_how_the_answer_begins(begin):
    chat = begin(f"A\n\n{LONG}", "So.")
    chat.ask(LONG)
    assert does(chat, "/branches") == f"*  1  {CUT}  A word word word word word word word wo…\n"
    chat.keep(chat.conversation.ask("And?"))  # killed here
    assert does(chat, "/branches") == "*  1  And?  (no answer)\n"
    does(chat, "/undo 2")
    chat.ask("Else?")
    first, second = does(chat, "/branches").splitlines()
    assert first.startswith("   1  turn 1  word word") and second.startswith("*  2  turn 1  Else?")


def in_a_window(chat, columns, line):
    """The rows that a command prints in a terminal of so many columns."""
    glass = Glass(columns, 40)
    chat.screen._err = a_console(Paper(glass), columns, 40)
    commands.run(chat, line)
    return glass.text().splitlines()


def test_a_branch_is_one_row_in_a_narrow_window(begin):
    chat = begin(LONG)
    chat.ask(LONG)
    (line,) = in_a_window(chat, 44, "/branches")
    assert line.count("word word word wo…") == 2


@pytest.mark.parametrize(("columns", "rows"), [(100, 1), (60, 1), (42, 1), (36, 2), (20, 2)])
@pytest.mark.parametrize("command", ["/branches", "/history"])
def test_wide_letters_are_counted_as_wide(begin, command, columns, rows):
    chat = begin("世界" * 40)
    chat.ask("界" * 80)
    found = in_a_window(chat, columns, command)
    assert len(found) == rows
    assert all(cell_len(row) <= columns for row in found)
    assert "".join(found).count("…") == 2


# pin and forget


def test_a_pinned_turn_stays_when_the_window_slides(begin):
    chat = begin(size=64)
    ask(chat, "one " * 10)
    assert does(chat, "/pin 1") == "Turn 1 is pinned.\n"
    ask(chat, *["more " * 10] * 5)
    assert seen(chat)[0] == "one " * 10
    assert len(chat.overflow.unseen()) > 0
    assert does(chat, "/pin 1") == "Turn 1 is no longer pinned.\n"
    ask(chat, *["more " * 10] * 3)
    assert "one " * 10 not in seen(chat)


def test_a_forgotten_turn_is_not_seen_until_it_is_shown_again(begin):
    chat = begin()
    ask(chat, "One?", "Two?")
    expected = "The model no longer sees turn 1; the log keeps it.\n"
    assert does(chat, "/forget 1") == expected
    chat.ask("Three?")
    assert seen(chat) == ["Two?", "Answer 2.", "Three?"]
    assert chat.engine.asked[-1].move, "what follows it is moved, not read again"
    assert chat.stats.dropped_turns == 1
    assert len(said(chat)) == 3

    assert does(chat, "/forget 1") == "The model sees turn 1 again.\n"
    chat.ask("Four?")
    assert seen(chat)[0] == "One?"
    assert not chat.engine.asked[-1].move


def test_tokens_to_move_are_not_read_ahead(begin):
    chat = begin()
    ask(chat, "One?", "Two?")
    chat.look_ahead("Th")
    weighed(chat)
    assert chat.engine.looked == "Th"
    does(chat, "/forget 1")
    chat.look_ahead("Three?")
    weighed(chat)
    assert chat.engine.looked is None
    does(chat, "/forget 1")
    chat.look_ahead("Three?")
    weighed(chat)
    assert chat.engine.looked == "Three?"


def test_pinning_shows_a_hidden_turn_and_hiding_unpins_it(begin):
    chat = begin("One.", "Two.")
    chat.ask("First?")
    chat.ask("Second?")
    does(chat, "/pin 1")
    does(chat, "/forget 1")
    assert not chat.conversation.pinned and chat.overflow.unseen()
    assert "/pin 1 brings it back" in does(chat, "/context")
    does(chat, "/pin 1")
    assert chat.conversation.pinned and not chat.overflow.unseen()


def test_with_reread_the_rest_is_read_again_after_forget(begin):
    chat = begin(slide="reread")
    ask(chat, "One?", "Two?")
    does(chat, "/forget 1")
    chat.ask("Three?")
    assert not chat.engine.asked[-1].move


# history


def test_history_shows_every_turn_with_its_marks(begin):
    chat = begin("Yes.", "No…", size=64)
    ask(chat, "One?", "Two?", "three " * 30, "Four?")
    does(chat, "/retry")
    chat.keep(chat.conversation.pin("id1"))
    chat.keep(chat.conversation.forget("id3"))
    ask(chat, "five " * 20)
    assert does(chat, "/history") == (
        "1  pinned             One?                                      Yes.\n"
        "2  forgotten, length  Two?                                      No\n"
        "3  out                three three three three three three thr…  Answer 1.\n"
        "4  2 answers          Four?                                     Answer 3.\n"
        "5                     five five five five five five five five…  Answer 4.\n"
    )


def test_history_shows_a_turn_on_one_row_of_a_narrow_terminal(begin):
    chat = begin("seven " * 20)
    ask(chat, "three " * 30)
    (row,) = in_a_window(chat, 60, "/history")
    assert len(row) <= 60


def test_history_shows_the_turns_of_a_note(begin):
    chat = begin()
    ask(chat, "One?", "Two?")
    chat.keep(chat.conversation.summarize("A note.", ["id1"]))
    assert (
        does(chat, "/history")
        == "1  in the note  One?  Answer 1.\n2               Two?  Answer 2.\n"
    )


def test_history_shows_a_question_without_an_answer(begin):
    chat = begin()
    chat.keep(chat.conversation.ask("Are you there?"))
    assert does(chat, "/history") == "1    Are you there?  (no answer)\n"


def test_history_is_of_this_branch_only(begin):
    chat = begin()
    ask(chat, "One?", "Two?")
    does(chat, "/undo")
    ask(chat, "Zwei?")
    assert does(chat, "/history") == "1    One?   Answer 1.\n2    Zwei?  Answer 3.\n"


# context


def test_context_shows_what_fills_the_window(begin):
    chat = begin("word " * 9, size=72)
    does(chat, "/system Be brief and to the point, please.")  # 7 words
    chat.ask("one " * 9)
    does(chat, "/pin 1")
    chat.ask("two " * 7)
    bar = "█" * 7 + "▓" * 18 + "▒" * 9 + "·" * 20 + "░" * 18
    assert does(chat, "/context") == (
        f"{bar}\n█ system 7  ▓ pinned 18  ▒ turns 9  · free 20  ░ kept for the answer 18  \n"
    )


# any commands

LINES = st.lists(
    st.one_of(
        st.text(st.sampled_from("one two\n…"), min_size=1, max_size=90).filter(str.strip),
        st.builds(
            "/{} {}".format,
            st.sampled_from(["undo", "edit", "retry", "branch", "branches", "pin", "forget"]),
            st.one_of(st.integers(0, 4).map(str), st.just("")),
        ),
        st.sampled_from(
            ["/continue", "/clear", "/history", "/context", "/system Be brief.", "/set temp 0"]
        ),
        st.sampled_from(["slide", "summarize", "truncate", "stop"]).map("/set overflow {}".format),
        st.just("/set stop END"),
    ),
    max_size=15,
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(LINES, st.sampled_from([64, 160, 4096]))
def test_the_log_keeps_everything_after_any_commands(lines, size):
    answers = ["Cut…", " and gone on with. ", "word " * 40, "Fine."] * 10
    with TemporaryDirectory() as folder:
        chat = a_chat(Path(folder), *answers, size=size)
        with chat.log:
            chat.ask("Hi.")
            ever = dict(chat.conversation.nodes)
            for line in lines:
                try:
                    text = commands.run(chat, line) if line.startswith("/") else chat.ask(line)
                    if line.startswith("/edit"):
                        chat.ask(text)
                except LcpError:
                    pass
                chat.make_room()
                assert ever.items() <= chat.conversation.nodes.items()
                ever = dict(chat.conversation.nodes)
                assert resumed(chat) == chat.conversation
