"""Typing, pasting, completing and recalling: each test runs in this process and in a real pty."""

import json
import signal
import termios
import time

import pytest
from fakes import Said
from terminal import (
    BACKSPACE,
    CTRL_C,
    CTRL_E,
    CTRL_J,
    CTRL_R,
    CTRL_W,
    DELETE,
    ENTER,
    ESC,
    LEFT,
    OPEN_EDITOR,
    OPEN_PASTE,
    RIGHT,
    TAB,
    UP,
    InProcess,
    Scene,
    ScriptedPty,
    in_both,
    paste,
)

from lcp.settings import Layers

LONG = "\n".join(f"line {i}" for i in range(1, 2001))
SHORT = "\n".join(f"line {i}" for i in range(1, 10))  # just long enough to be folded
VI = {"layers": Layers(config={"keys": "vi"})}
CLUSTERS = {
    "family": "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "flag": "\U0001f1e9\U0001f1ea",
    "tone": "\U0001f44d\U0001f3fd",
    "heart": "\u2764\ufe0f",
    "keycap": "1\ufe0f",
    "accent": "e\u0301",
}
EDITOR = {"env": {"VISUAL": "", "EDITOR": "{home}/editor"}}


def asked(chat):
    """The questions in the log, as the model gets them."""
    return [event["text"] for event in chat.events() if event["type"] == "user"]


def presses_escape(chat):
    """Press Escape and wait a moment: with the next key at once, it would be Alt."""
    chat.type(ESC)
    time.sleep(0.3)


def has_editor(chat, script):
    """An editor as a shell script, which gets the name of the file."""
    path = chat.home / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


# pastes


@in_both("Read.", size=8192)
def test_a_paste_of_2000_lines_is_folded_and_sent_whole(chat):
    chat.type("What is this? " + paste(LONG) + " Say.")
    chat.sees("> What is this? [paste 1: 2,000 lines] Say.")
    assert "line 7" not in chat.screen()
    chat.type(ENTER)
    chat.sees("Read.")
    chat.ends()
    assert asked(chat) == [f"What is this? {LONG} Say."]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["one\ntwo", SHORT, LONG], ids=["short", "long", "very long"])
@in_both(Said("Once upon a time", forever=True), "Read.", size=8192)
def test_a_paste_during_an_answer_is_one_paste_in_the_next_line(chat, text):
    chat.type("A story." + ENTER)
    chat.sees("Once upon a time")
    # a terminal marks pastes only on request
    assert chat.raw.rfind("\x1b[?2004h") > chat.raw.rfind("\x1b[?2004l")
    chat.type(paste(text))
    chat.type(CTRL_C)
    shown = {SHORT: "[paste 1: 9 lines]", LONG: "[paste 1: 2,000 lines]"}
    chat.sees("> " + shown.get(text, "one\n  two"))
    chat.type("?" + ENTER)
    chat.sees("Read.")
    chat.ends()
    assert asked(chat) == ["A story.", f"{text}?"]
    assert chat.raw.rfind("\x1b[?2004l") > chat.raw.rfind("\x1b[?2004h")


@in_both("Read.")
def test_escape_sequences_in_a_paste_are_text(chat):
    text = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J"
    chat.type(paste(text) + ENTER)
    chat.sees("Read.")
    assert "\x1b]0;" not in chat.raw
    assert "\x1b[2J" not in chat.raw
    chat.ends()
    assert asked(chat) == [text]


@in_both("Read.")
def test_a_folded_paste_unfolds_and_can_be_edited(chat):
    chat.type("Is " + paste(SHORT) + " good?")
    chat.sees("> Is [paste 1: 9 lines] good?")
    chat.type(OPEN_PASTE)
    chat.sees("> Is line 1\n  line 2\n")
    chat.sees("  line 9 good?")
    chat.type("!" + ENTER)  # the cursor is after the unfolded text
    chat.sees("Read.")
    chat.ends()
    assert asked(chat) == [f"Is {SHORT}! good?"]


@pytest.mark.slow
@pytest.mark.parametrize("key", [BACKSPACE, CTRL_W], ids=["Backspace", "Ctrl-W"])
@in_both("Fine.")
def test_one_key_removes_a_folded_paste_whole(chat, key):
    chat.type("not " + paste(SHORT))
    chat.sees("> not [paste 1: 9 lines]")
    chat.type(key + "this" + ENTER)
    chat.sees("Fine.")
    chat.ends()
    assert asked(chat) == ["not this"]


@in_both("Two.", "Again.")
def test_folded_pastes_are_numbered_and_recalled(chat):
    other = SHORT.replace("line", "row")
    chat.type(paste(SHORT) + " or " + paste(other) + "?")
    chat.sees("[paste 1: 9 lines] or [paste 2: 9 lines]?")
    chat.type(ENTER)
    chat.sees("Two.")
    chat.type(UP + ENTER)
    chat.sees("Again.")
    chat.ends()
    assert asked(chat) == [f"{SHORT} or {other}?"] * 2


@in_both("Short enough.", size=64)
def test_a_message_that_is_too_long_returns_folded(chat):
    chat.type("Hm: " + paste(SHORT.replace("\n", " word word word\n") * 9) + ENTER)
    chat.sees("371 tokens, room for 48")
    chat.waits(lambda: chat.screen().count("> Hm: [paste 1: 73 lines]") == 2, "it is not offered")
    chat.type(BACKSPACE + "fine" + ENTER)
    chat.sees("Short enough.")
    chat.ends()
    assert asked(chat)[-1] == "Hm: fine"


@pytest.mark.parametrize("place", [InProcess, pytest.param(ScriptedPty, marks=pytest.mark.slow)])
def test_the_history_on_disk_has_the_pasted_text(place, tmp_path):
    def first(chat):
        chat.type("See " + paste(SHORT) + ENTER)
        chat.sees("One.")
        chat.type(paste("word " * 20_000) + ENTER)  # too long for the context
        chat.sees("Two.")

    def second(chat):
        chat.type(UP)
        chat.sees("> See line 1\n  line 2\n")
        chat.type(ENTER)
        chat.sees("Three.")

    place(Scene(["One.", "Two."], saved=False, size=1 << 17), tmp_path).live(first)
    place(Scene(["Three."], saved=False), tmp_path).live(second)
    lines = (tmp_path / "data" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [f"See {SHORT}"]


# what is a command


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (paste("/exit"), "/exit"),
        ("/exit" + CTRL_J + "or not?", "/exit\nor not?"),
        ("/etc/passwd is what?", "/etc/passwd is what?"),
        ("/ is the root?", "/ is the root?"),
        (paste("/usr\n/bin"), "/usr\n/bin"),
    ],
    ids=["pasted", "several lines", "a path", "a blank behind it", "pasted lines"],
)
@in_both("Asked.", "Again.")
def test_not_every_slash_is_a_command(chat, keys, text):
    chat.type(keys + ENTER)
    chat.sees("Asked.")
    chat.type(UP + ENTER)  # nor is it a command when recalled
    chat.sees("Again.")
    chat.ends()
    assert asked(chat) == [text, text]


@in_both()
def test_a_slash_and_a_blank_ask_the_model_nothing(chat):
    chat.type("/ " + ENTER)
    chat.sees("/help")
    chat.ends()
    assert not list((chat.home / "data" / "sessions").glob("*"))


@in_both("Asked.", "Edited.")
def test_an_edited_question_with_a_slash_is_not_a_command(chat):
    chat.type(paste("/exit") + ENTER)
    chat.sees("Asked.")
    chat.type("/edit" + ENTER)
    chat.waits(lambda: chat.screen().count(">  /exit") == 2, "it is not offered")
    chat.type("?" + ENTER)
    chat.sees("Edited.")
    chat.ends()
    assert asked(chat) == ["/exit", "/exit?"]


@in_both()
def test_a_pasted_argument_is_part_of_a_command(chat):
    chat.type("/system " + paste("Be brief.") + ENTER)
    chat.sees("System text: Be brief.")


@in_both()
def test_a_recalled_command_is_a_command(chat):
    chat.type("/system Be brief." + ENTER)
    chat.sees("System text: Be brief.")
    chat.type(UP + ENTER)
    chat.waits(lambda: chat.screen().count("System text: Be brief.") == 2, "it did not run")


# the editor


@in_both("Sent.", **EDITOR)
def test_an_editor_returns_the_line_without_sending(chat):
    has_editor(chat, "printf ', edited\n' >> \"$1\"")
    chat.type("a draft" + OPEN_EDITOR)
    chat.sees("> a draft, edited")
    assert not list((chat.home / "data").glob("sessions/*"))
    chat.type(" and sent" + ENTER)
    chat.sees("Sent.")
    chat.ends()
    assert asked(chat) == ["a draft, edited and sent"]


@pytest.mark.slow
@in_both("Sent.", **EDITOR)
def test_an_editor_shows_a_folded_paste_whole(chat):
    has_editor(chat, 'cp "$1" seen; chmod a+r seen; ls -l "$1" > mode; printf , >> "$1"')
    chat.type("Is this: " + paste(SHORT) + OPEN_EDITOR)
    chat.sees("[paste 1: 9 lines],")
    assert (chat.home / "seen").read_text() == f"Is this: {SHORT}"
    mode, *_, name = (chat.home / "mode").read_text().split()
    assert mode.startswith("-rw-------")
    assert not (chat.home / name).exists()
    chat.type(ENTER)
    chat.sees("Sent.")
    chat.ends()
    assert asked(chat) == [f"Is this: {SHORT},"]


@pytest.mark.parametrize(
    ("script", "told"),
    [(None, "No such file or directory"), ("exit 3", "exit code 3")],
)
@in_both("Sent.", **EDITOR)
def test_a_failing_editor_is_reported_and_the_line_kept(chat, script, told):
    if script:
        has_editor(chat, script)
    chat.type("a draft" + OPEN_EDITOR)
    chat.sees(told)
    chat.type("!")
    chat.waits(lambda: told not in chat.screen().split("> a draft!")[-1], "it is told for ever")
    chat.type(ENTER)
    chat.sees("Sent.")
    chat.ends()
    assert asked(chat) == ["a draft!"]


@pytest.mark.slow
def test_an_editor_that_was_stopped_still_has_the_terminal(tmp_path):
    with ScriptedPty(Scene(["Sent."], **EDITOR), tmp_path) as chat:
        has_editor(chat, 'touch open; until [ -e go ]; do sleep 0.05; done; printf ! >> "$1"')
        chat.sees(">")
        chat.type("a draft" + OPEN_EDITOR)
        chat.waits(lambda: (tmp_path / "open").exists(), "it was not opened")
        chat.kill(signal.SIGCONT)  # as fg does to both
        time.sleep(0.3)
        assert chat.modes()[3] & termios.ICANON
        (tmp_path / "go").touch()
        chat.sees("> a draft!")


# vi


@pytest.mark.slow
@in_both("Moved.", **VI)
def test_vi_keys(chat):
    chat.type("three words here")
    presses_escape(chat)
    chat.type("0dwA!" + ENTER)
    chat.sees("Moved.")
    chat.ends()
    assert asked(chat) == ["words here!"]


@in_both("Sent.", **VI)
def test_escape_and_enter_send_with_vi_keys(chat):
    chat.type("one" + CTRL_J + "two" + ESC + ENTER)
    chat.sees("Sent.")
    chat.ends()
    assert asked(chat) == ["one\ntwo"]


@pytest.mark.slow
@in_both("Sent.", **VI, **EDITOR)
def test_v_opens_the_editor_with_vi_keys(chat):
    has_editor(chat, "printf ', edited' >> \"$1\"")
    chat.type("a draft")
    presses_escape(chat)
    chat.type("v")
    chat.sees("> a draft, edited")
    chat.type(ENTER)
    chat.sees("Sent.")
    chat.ends()
    assert asked(chat) == ["a draft, edited"]


@in_both("Sent.")
def test_vi_keys_can_be_set_in_the_chat(chat):
    chat.type("/set keys vi" + ENTER)
    chat.sees("keys  vi  /set")
    chat.type("one two")
    presses_escape(chat)
    chat.type("0dw" + ENTER)
    chat.sees("Sent.")
    chat.ends()
    assert asked(chat) == ["two"]


# history


@in_both("An animal.", "Still an animal.")
def test_an_earlier_message_is_suggested_and_right_takes_it(chat):
    chat.type("What is a llama?" + ENTER)
    chat.sees("An animal.")
    chat.type("What")
    chat.waits(lambda: chat.screen().count("> What is a llama?") == 2, "it is not suggested")
    chat.type(RIGHT + ENTER)
    chat.sees("Still an animal.")
    chat.ends()
    assert asked(chat) == ["What is a llama?"] * 2


@in_both("An animal.", "Sure.")
def test_a_suggestion_is_not_sent(chat):
    chat.type("What is a llama?" + ENTER)
    chat.sees("An animal.")
    chat.type("What")
    chat.waits(lambda: chat.screen().count("> What is a llama?") == 2, "it is not suggested")
    chat.type(ENTER)
    chat.sees("Sure.")
    assert chat.screen().count("llama") == 1
    chat.ends()
    assert asked(chat)[-1] == "What"


@in_both("One.", "Two.", "Three.")
def test_ctrl_r_finds_an_earlier_message_and_enter_accepts_it(chat):
    chat.type("What is a llama?" + ENTER)
    chat.sees("One.")
    chat.type("And a tapir?" + ENTER)
    chat.sees("Two.")
    chat.type(CTRL_R + "llama")
    chat.waits(lambda: chat.screen().count("> What is a llama?") == 2, "it is not found")
    chat.type(ENTER + CTRL_E + " Say." + ENTER)
    chat.sees("Three.")
    chat.ends()
    assert asked(chat)[-1] == "What is a llama? Say."


# completion


@in_both()
def test_tab_completes_a_command_and_its_arguments(chat):
    chat.type("/sy" + TAB)
    chat.sees("> /system")
    chat.type(" Hi." + ENTER)
    chat.sees("System text: Hi.")
    chat.type("/set thi" + TAB)
    chat.sees("> /set think")
    chat.type(" hi" + TAB)
    chat.sees("> /set think hide")
    chat.type(ENTER)
    chat.sees("think  hide  /set")


@in_both()
def test_tab_shows_candidates_and_enter_accepts_one(chat):
    chat.type("/st" + CTRL_C + "/pi" + BACKSPACE * 2 + "bra" + TAB)
    chat.sees("> /branch\n")
    chat.sees("          branches")
    chat.type(TAB * 2 + ENTER)
    chat.sees("> /branches")
    chat.type(" 1" + ENTER)  # the first Enter sent nothing
    chat.sees("> /branches 1\nThere are no branches")


@in_both()
def test_tab_describes_the_candidates(chat):
    chat.type("/co" + TAB + TAB)
    chat.sees("what fills the context window")
    chat.sees("cut")  # /continue
    chat.type(CTRL_C + "/set top_" + TAB + TAB)
    chat.sees("Sample from the N most likely")


@in_both()
def test_tab_completes_folders_with_spaces(chat):
    folder = chat.home / "my folder"
    folder.mkdir()
    (folder / "a.txt").touch()
    chat.type("See @my" + TAB)
    chat.sees('> See @"my folder/')
    chat.type(TAB)
    chat.sees('> See @"my folder/a.txt"')


@in_both("Read.")
def test_tab_completes_paths_after_an_at(chat):
    (chat.home / "papers").mkdir()
    (chat.home / "papers" / "my notes.txt").write_text("Llamas hum.")
    (chat.home / "papers" / ".secret").write_text("Hidden.")
    chat.type("/system @pap" + TAB)
    chat.sees("> /system @papers/")
    chat.type(TAB)
    chat.sees("> /system @papers/my notes.txt")
    chat.type(ENTER)
    chat.sees("System text: Llamas hum.")
    chat.type("/system none" + ENTER)
    chat.sees("System text: (none)")
    chat.type("See @pap" + TAB)
    chat.sees("> See @papers/")
    chat.type(TAB)
    chat.sees('> See @"papers/my notes.txt"')
    chat.type(ENTER)
    chat.sees("Read.")
    chat.ends()
    assert "Llamas hum." in asked(chat)[0]


# files


@in_both("They hum.")
def test_a_file_is_placed_before_the_message_and_announced(chat):
    (chat.home / "notes.txt").write_text("Llamas hum.\n")
    chat.type("What do they do, @notes.txt?" + ENTER)
    chat.sees("notes.txt: 12 bytes, 5 tokens, 0 % of the context of 4,096")
    chat.sees("They hum.")
    chat.ends()
    (event,) = [event for event in chat.events() if event["type"] == "user"]
    text = "notes.txt\n```\nLlamas hum.\n```\n\nWhat do they do, @notes.txt?"
    assert event["text"] == text
    assert event["typed"] == "What do they do, @notes.txt?"


@in_both("They hum.", toolbar=True)
def test_a_file_is_counted_before_it_is_sent(chat):
    (chat.home / "notes.txt").write_text("Llamas hum.\n")
    chat.type("See @notes.tx")
    chat.sees("> See @notes.tx\nThere is no file notes.tx; it stays plain text · context")
    chat.type("t")
    chat.sees("> See @notes.txt\nnotes.txt: 12 bytes, 5 tokens · context")
    chat.type(ENTER)
    chat.sees("They hum.")
    chat.sees("\n>\ncontext")


@in_both("Without it.")
def test_a_file_that_is_not_text_is_refused_and_the_message_returned(chat):
    (chat.home / "photo.png").write_bytes(b"\x89PNG\0")
    chat.type("See @photo.png" + ENTER)
    chat.sees("photo.png is not a UTF-8 text file")
    chat.waits(lambda: chat.screen().count("> See @photo.png") == 2, "it is not offered")
    chat.type(CTRL_W + "nothing" + ENTER)
    chat.sees("Without it.")
    chat.ends()
    assert asked(chat) == ["See nothing"]


@in_both("They hum.", "Again.")
def test_read_and_edit_keep_the_line_short(chat):
    (chat.home / "my notes.txt").write_text("Llamas hum.")
    chat.type("/read my notes.txt" + ENTER)
    chat.sees('> @"my notes.txt"')
    chat.type("Do they?" + ENTER)
    chat.sees("They hum.")
    chat.type("/edit" + ENTER)
    chat.waits(lambda: chat.screen().count('> @"my notes.txt" Do they?') == 2, "not offered")
    chat.type(ENTER)
    chat.sees("Again.")
    chat.ends()
    assert [text.count("Llamas hum.") for text in asked(chat)] == [1, 1]


# the screen


@in_both("Wide.")
def test_wide_characters_take_two_columns(chat):
    chat.type("世界👍x" + LEFT * 2 + "!")
    chat.sees("> 世界!👍x")
    chat.type(BACKSPACE * 2 + ENTER)
    chat.sees("Wide.")
    chat.ends()
    assert asked(chat) == ["世👍x"]


@pytest.mark.slow
@pytest.mark.parametrize("one", CLUSTERS.values(), ids=CLUSTERS.keys())
@in_both("Wide.")
def test_a_grapheme_is_one_character(chat, one):
    """For keys that move and keys that delete, from both sides."""
    chat.type(f"a{one}b{one}c" + LEFT * 4 + "<" + RIGHT + ">" + RIGHT + DELETE + "!" + ENTER)
    chat.sees("Wide.")
    chat.type(f"a{one}{one}b" + LEFT + BACKSPACE + "!" + ENTER)
    chat.waits(lambda: chat.screen().count("tokens/s") == 2, "there is no second answer")
    chat.ends()
    assert asked(chat) == [f"a<{one}>b!c", f"a{one}!b"]


@in_both()
def test_characters_of_uncertain_width_are_separated(chat):
    chat.type("".join(CLUSTERS.values()) + "|" + LEFT * 3 + "#")
    chat.sees("> 👩👩👧👦DE👍❤#1\u00e9|")
    chat.type(CTRL_C + "a\u202eb\u200bc")
    chat.sees("> a<202E>b<200B>c")


@in_both("Wide.", **VI)
def test_vi_keys_treat_graphemes_as_one_character(chat):
    flag = CLUSTERS["flag"]
    chat.type(f"a{flag}b{flag}c")
    presses_escape(chat)
    chat.type("hhhllxhhx" + ENTER)
    chat.sees("Wide.")
    chat.ends()
    assert asked(chat) == ["abc"]


@in_both("Wrapped.")
def test_a_long_line_wraps_at_40_columns(chat):
    chat.resize(40, 24)
    chat.type("word " * 20)
    chat.sees("> word word word word word word word wor\n  d word")
    assert all(len(row) <= 40 for row in chat.screen().split("\n"))
    chat.type(ENTER)
    chat.sees("Wrapped.")


@pytest.mark.slow
def test_a_dumb_terminal_gets_a_plain_input_line(tmp_path):
    scene = Scene(["Hello.", "Bye."], toolbar=True, env={"TERM": "dumb"})
    with ScriptedPty(scene, tmp_path) as chat:
        chat.sees(">")
        chat.type("Hi." + ENTER)
        chat.sees("> Hi.\nHello.")
        chat.type("/stats" + ENTER)
        chat.sees("ctx_used")
        chat.ends()
        assert "\x1b" not in chat.raw.partition(">")[2]


@in_both("Hello.", Said("Bye."), toolbar=True)
def test_the_toolbar_is_below_the_prompt(chat):
    chat.sees("\ncontext 0/4,096 (0 %) · scripted · 2")
    assert "\x1b[6n" not in chat.raw  # the position of the cursor is not requested
    chat.type("one" + CTRL_J + "two")
    chat.sees("> one\n  two\ncontext 0/4,096 (0 %)")
    chat.type(BACKSPACE * 4)
    chat.sees("> one\ncontext 0/4,096 (0 %)")
    chat.type(CTRL_J + "two")
    chat.type(ENTER)
    chat.sees("20.0 tokens/s · first token 0.25 s · context 3/4,096 (0 %)\n\n>\ncontext 3/4,096")
    chat.sees("(0 %) · scripted · 20.0 tokens/s · 20261122-0931-tail")
    assert chat.screen().count("scripted") == 1  # no old one stays above
    chat.type("/undo" + ENTER)
    chat.sees(">\ncontext 0/4,096")


@in_both("Hello.", toolbar=True)
def test_the_toolbar_drops_what_does_not_fit(chat):
    chat.resize(40, 24)
    chat.type("Hi." + ENTER)
    chat.sees("Hello.")
    chat.waits(lambda: chat.screen().endswith("(0 %) · scripted"), "it does not end so")
