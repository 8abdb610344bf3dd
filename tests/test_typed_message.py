"""What Enter would do is shown before Enter; files that leave the window are named."""

import os
import re
import threading
import time
from pathlib import Path

import pytest
from fakes import ScriptedEngine, does, new_chat, weighed

from lcp.chat import resume_notices
from lcp.chat.attachments import ALL_BYTES, FILE_BYTES, Attached, attach
from lcp.chat.chat import Chat
from lcp.chat.error_advice import ways_to_fit
from lcp.chat.toolbar_text import ToolbarText
from lcp.chat.typed_message import TypedMessage, TypedMessages
from lcp.errors import LcpError, TooLong
from lcp.session.log import Log
from lcp.settings import Layers


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Begin a chat in a folder with files; a word is a token."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    for n in range(20):
        (tmp_path / "src" / f"{n}.py").write_text("word " * 100)
    (tmp_path / "notes.md").write_text("fact " * 60)

    def make(size=400, **choices):
        return new_chat(ScriptedEngine(size=size), Layers(flags=choices), "s")

    return make


def line(chat, text):
    """The toolbar after this text was typed and counted."""
    chat.look_ahead(text)
    weighed(chat)
    return ToolbarText(chat)()


def err(chat):
    return chat.screen._err.file.getvalue()


def too_many_files(chat):
    return "@src/* what is it?"


def one_large_file(chat):
    Path("large").write_text("word " * 900)
    return "@large what is it?"


def a_paste(chat):
    return "word " * 301


def a_system_text_without_room(chat):
    chat.keep(chat.conversation.set_system("word " * 320))
    return "Hello."


def pinned_turns_without_room(chat):
    chat.ask("word " * 250)
    chat.keep(chat.conversation.pin(chat.conversation.turns()[0].user.id))
    return "word " * 80


def a_chat_that_may_not_slide(chat):
    chat.ask("word " * 250)
    chat.set("overflow", "stop")
    return "word " * 80


@pytest.mark.parametrize(
    "case",
    [
        too_many_files,
        one_large_file,
        a_paste,
        a_system_text_without_room,
        pinned_turns_without_room,
        a_chat_that_may_not_slide,
    ],
)
def test_a_message_that_does_not_fit_is_announced_before_enter_with_the_same_numbers(begin, case):
    chat = begin()
    text = case(chat)
    (said, style), *rest = line(chat, text)
    assert not any(part.startswith("context") for part, _ in rest)
    assert style == "bad"
    assert chat.engine.looked == "", "nothing of it is read ahead"
    with pytest.raises(TooLong) as caught:
        chat.ask_with_files(text)
    error = caught.value
    why = error.why.removeprefix("this ")
    assert said == f"context {100 * error.tokens / 400:.0f} %: {why}; {ways_to_fit(error)}"
    assert f"room for {error.room:,}" in said
    assert re.search(r"--ctx-size|/set overflow slide", said)


@pytest.mark.parametrize("size", [FILE_BYTES + 1, FILE_BYTES])
def test_files_over_the_limits_are_named_before_enter_and_nothing_is_read(begin, size, tmp_path):
    for n in range(ALL_BYTES // FILE_BYTES + 1):
        (tmp_path / f"{n}.big").write_bytes(b"x" * size)
    chat = begin()
    said, style = line(chat, "@*.big")[0]
    assert style == "bad"
    assert ".big" in said
    assert chat.engine.looked == ""


def test_a_text_too_long_to_count_is_estimated(begin):
    chat = begin()
    said, style = line(chat, "word " * 200_000)[0]
    assert style == "bad"
    percent = int(re.search(r"about (\d+) %", said)[1])
    assert percent == pytest.approx(100 * 200_000 / 400, rel=0.05)
    assert chat.engine.looked == ""


def test_the_promise_that_a_message_fits_is_exact(begin):
    chat = begin(size=1000)
    chat.ask("one two")
    text = "@notes.md " + "word " * 120
    context = next(said for said, _ in line(chat, text) if said.startswith("context"))
    used, typed = map(int, re.match(r"context (\d+)\+(\d+)/1,000", context).groups())
    assert chat.engine.looked.endswith(text)
    assert chat.ask_with_files(text).stats.prompt_tokens == used + typed


@pytest.mark.parametrize("policy", ["slide", "truncate"])
def test_turns_that_enter_would_drop_are_named_before_and_after(begin, policy):
    chat = begin(overflow=policy)
    chat.ask_with_files("@notes.md Sum it up.")
    chat.ask("word " * 100)
    warned, context = (said for said, style in line(chat, "more " * 200)[:2])
    assert "turns 1-2 (notes.md)" in warned
    assert "/pin" in warned
    tokens = int(re.match(r"context (\d+)/400", context)[1])
    reply = chat.ask("more " * 200)
    assert reply.stats.prompt_tokens == tokens
    told = err(chat).splitlines()[-1]
    assert all(fact in told for fact in ("your first 2 turns", "notes.md", "/pin N"))
    assert ("only this question" in told) == (policy == "slide")


def test_counting_a_typed_message_changes_nothing(begin):
    chat = begin()
    chat.ask_with_files("@notes.md Sum it up.")
    before = chat.conversation.turns(), chat.conversation.head, chat.overflow.out
    line(chat, "more " * 290)
    assert (chat.conversation.turns(), chat.conversation.head, chat.overflow.out) == before


def test_files_that_will_leave_soon_are_named_once(begin):
    chat = begin()
    chat.ask_with_files("@notes.md Sum it up.")
    chat.warn_of_files()
    assert "leaves" not in err(chat)
    chat.ask("word " * 190)
    for _ in range(2):
        chat.warn_of_files()
    assert err(chat).count("turn 1 (notes.md)") == 1
    assert "/pin 1" in err(chat)


def test_pinned_files_are_not_announced_to_leave(begin):
    chat = begin()
    chat.ask_with_files("@notes.md Sum it up.")
    chat.ask("word " * 190)
    does(chat, "/pin 1")
    chat.warn_of_files()
    assert "leaves" not in err(chat)


def test_context_and_a_resumed_chat_say_which_files_the_model_sees(begin):
    chat = begin()
    chat.ask_with_files("@notes.md Sum it up.")
    chat.ask("word " * 190)
    assert "sees: notes.md (turn 1)" in does(chat, "/context")
    chat.ask_with_files("@src/1.py What is it?")
    said = does(chat, "/context")
    assert "sees: src/1.py (turn 3)" in said
    assert "sees: notes.md" not in said
    assert re.search(r"does not see .*notes.md.*/pin", said)
    again = Chat(chat.engine, chat.conversation, Log.nowhere(), chat.screen, "s", Layers())
    resume_notices.tell(again)
    told = err(chat).splitlines()[-1]
    assert "your first" in told
    assert "notes.md" in told
    assert "/pin" in told


def test_the_names_of_files_are_kept_with_the_question(begin):
    chat = begin(size=4000)
    chat.ask_with_files("@notes.md @src/1.py Sum them up.")
    chat.ask("No files.")
    files = [turn.user.files for turn in chat.conversation.turns()]
    assert files == [("notes.md", "src/1.py"), ()]


# the counting thread


def test_a_file_is_read_again_only_when_it_has_changed(begin, tmp_path):
    begin()
    path = tmp_path / "notes.md"
    first = attach("@notes.md", tmp_path)
    facts = path.stat()
    path.write_bytes(b"x" * facts.st_size)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert attach("@notes.md", tmp_path, first) == first
    os.utime(path)
    assert "xxx" in attach("@notes.md", tmp_path, first).text
    path.unlink()
    assert not attach("@notes.md", tmp_path, first).files


def test_typing_never_waits_for_the_count():
    going, weighed = threading.Event(), []

    def slowly(attached):
        going.wait(20)
        return TypedMessage(attached, prompt=1)

    typed = TypedMessages(lambda job: job(), slowly, weighed.append)
    for text in ("one", "two", "three"):
        typed.look(text)
    assert typed._running  # not one of them is counted yet
    going.set()
    while typed._running:
        time.sleep(0.01)
    assert typed.newest.attached.text == "three"
    assert [message.attached.text for message in weighed] == ["three"]


def test_a_count_of_a_sent_message_is_not_shown():
    going, told = threading.Event(), []

    def slowly(attached):
        going.wait(20)
        return TypedMessage(attached)

    typed = TypedMessages(lambda job: job(), slowly, told.append)
    typed.look("one")
    time.sleep(0.3)
    typed.drop()
    going.set()
    time.sleep(0.1)
    assert told == []
    assert typed.newest == TypedMessage(Attached())


def test_a_message_that_cannot_be_counted_is_shown_without_a_count():
    def fails(attached):
        raise LcpError("The template refuses.")

    typed = TypedMessages(lambda job: job(), fails, lambda message: None)
    typed.look("one")
    while typed._running:
        time.sleep(0.01)
    assert typed.newest.prompt == 0
