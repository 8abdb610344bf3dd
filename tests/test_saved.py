"""Saved chats: names, lists, exported files, the clipboard, the last turn."""

import io
import json
import re

import pytest
from fakes import Said, ScriptedEngine, _done, does
from hypothesis import given, settings
from hypothesis import strategies as st
from terminal import NOW, Glass, Paper, a_console
from test_store import files_no_larger_than

from lcp import commands
from lcp.chat import resume_notices, saved_cache, webpage
from lcp.chat.chat import Chat
from lcp.chat.services_interface import Services
from lcp.commands import saved_chats
from lcp.errors import LcpError
from lcp.session import export
from lcp.session.conversation import Conversation
from lcp.session.log import Log
from lcp.session.store import Store, load
from lcp.settings import Layers
from lcp.terminal.markdown import tail
from lcp.terminal.screen import Screen

CODE = "Run:\n\n```sh\nls -l\n```\n\nor\n\n1. this\n   ```python\n   if x:\n       pass\n   ```\n"


@pytest.fixture
def begin(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    logs = []

    def begin(*answers, saved=True, **begun):
        conversation = Conversation.begin(lambda: NOW, "scripted", **begun)
        store = Store(tmp_path / "sessions", now=lambda: NOW)
        logs.append(store.create(conversation.opening) if saved else Log.nowhere())
        screen = Screen(io.StringIO(), io.StringIO())
        engine = ScriptedEngine(*answers, *["Answer."] * 5)
        services = Services(store=store)
        return Chat(engine, conversation, logs[-1], screen, "scripted", Layers(), services=services)

    yield begin
    for log in logs:
        log.close()


def refuses(chat, line):
    with pytest.raises(LcpError) as error:
        commands.run(chat, line)
    return str(error.value)


# /save, /sessions


def test_a_named_chat_is_found_by_its_name(begin):
    chat = begin()
    said = does(chat, "/save  my   trip ")
    named = "now called my trip{}. Resume it with: lcp chat --resume 'my trip'\n"
    later = " (saved after your first question)"
    assert named.format(later) in said
    assert not chat.log.path.exists()  # still without a file
    assert f"{chat.log.id}{later}" in does(chat, "/save")
    chat.ask("Where to?")
    store = chat.services.store
    assert store.find("my trip") == chat.log.path
    assert [(s.name, s.title) for s in store.saved()] == [("my trip", "Where to?")]
    assert named.format("") in does(chat, "/save my trip")
    assert f"{chat.log.id}." in does(chat, "/save")
    does(chat, "/save harbour")
    assert store.find("harbour") == chat.log.path
    with pytest.raises(LcpError, match="There is no saved chat 'my trip'"):
        store.find("my trip")


def test_an_id_precedes_a_name_and_a_name_precedes_a_part_of_an_id(begin):
    one, two = begin(), begin()
    one.ask("Hi.")
    two.ask("Hi.")
    two.keep(two.conversation.rename(one.log.id))
    store = one.services.store
    assert store.find(one.log.id) == one.log.path
    does(two, "/save 2026")
    assert store.find("2026") == two.log.path


def test_chats_with_the_same_name_are_distinguished_by_ids(begin):
    one, two = begin(), begin()
    for chat in (one, two):
        chat.ask("Hi.")
        chat.keep(chat.conversation.rename("same"))
    with pytest.raises(LcpError, match=r"'same' matches 2 chats"):
        one.services.store.find("same")


@pytest.mark.parametrize("name", ["last", "x" * 61, "a\x1b]0;b", "two\nlines\x00"])
def test_some_names_are_invalid(begin, name):
    chat = begin()
    assert "60 printable characters" in refuses(chat, f"/save {name}")
    assert chat.conversation.name == ""


def test_the_name_of_another_chat_is_refused(begin):
    one, two = begin(), begin()
    does(one, "/save trip")
    one.ask("Hi.")
    assert f"{one.log.id} already uses trip." in refuses(two, "/save trip")
    does(one, "/save trip")  # its own name again


def test_an_unsaved_chat_cannot_be_named(begin):
    assert "(--no-save)" in refuses(begin(saved=False), "/save trip")


def test_after_a_full_disk_no_command_says_that_the_chat_is_saved(begin):
    chat = begin()
    chat.log.fail(OSError(28, "No space left on device"))
    for line in ("/save", "/save trip"):
        assert refuses(chat, line) == chat.log.problem
    for unsaved in (chat, begin(saved=False)):
        assert "saves" not in refuses(unsaved, "/sessions")


def test_sessions_lists_the_saved_chats_and_marks_this_one(begin):
    one, two = begin(), begin("It is blue.")
    assert refuses(one, "/sessions").startswith("There is no saved chat yet.")
    does(one, "/save trip")
    one.ask("Where to?")
    one.ask("And then?")
    two.ask("Why is the sky so?")
    rows = sorted(does(two, "/sessions").splitlines()[:2])
    assert re.fullmatch(rf"\*  {two.log.id} +[\d-]+ [\d:]+  1 turn   Why is the sky so\?", rows[1])
    assert re.fullmatch(rf"   {one.log.id}  trip  [\d-]+ [\d:]+  2 turns  Where to\?", rows[0])


def test_one_shots_are_listed_separately_and_found(begin):
    mine, script = begin(), begin("It is blue.", kind="one-shot")
    mine.ask("Where to?")
    script.ask("The sky?")
    text = does(mine, "/sessions")
    assert script.log.id not in text and "1 one-shot (/sessions --all)" in text
    text = does(mine, "/sessions --all")
    assert mine.log.id in text and "one-shot · The sky?" in text
    assert "one-shot · It is blue." in does(mine, "/sessions blue")
    does(script, "/save trip")
    assert "trip" in does(mine, "/sessions")


def test_with_only_one_shots_the_list_says_so(begin):
    one, script = begin(), begin(kind="one-shot")
    script.ask("Hi.")
    assert "/sessions --all" in refuses(one, "/sessions")


def test_a_one_shot_that_a_person_continues_is_a_chat(begin):
    chat = begin(kind="one-shot")
    chat.ask("Hi.")
    store = chat.services.store
    assert store.count_one_shots() == 1
    chat.person = True
    chat.ask("And now?")
    chat.ask("And then?")
    assert [e["type"] for e in load(chat.log.path)[0]].count("kind") == 1
    assert (store.count_one_shots(), store.find("last")) == (0, chat.log.path)


class Saving(ScriptedEngine):
    """An engine whose cache takes long to read again, so that it is saved."""

    def seconds_to_read(self, n):
        return 60.0

    def save(self, path):
        path.write_bytes(b"kv")
        return _done(lambda _: 2)


@pytest.mark.parametrize(
    ("begun", "resumed", "kept"),
    [
        ({}, False, True),
        ({"kind": "chat"}, False, True),
        ({"kind": "one-shot"}, False, False),
        ({"kind": "one-shot"}, True, True),  # it may be continued
    ],
)
def test_the_cache_of_a_one_shot_is_saved_only_after_resuming(begin, begun, resumed, kept):
    chat = begin(**begun)
    chat.engine = Saving()
    chat.ask("Hi.")
    if resumed:
        chat.log.close()
        chat.log, *_ = chat.services.store.open(chat.log.id)
        chat.ask("And now?")
    saved_cache.save(chat)
    chat.log.close()
    assert chat.log.path.with_suffix(".kv").exists() == kept


def test_only_the_last_used_of_many_chats_are_listed(begin, monkeypatch):
    begun = [begin() for _ in range(saved_chats.LISTED + 2)]
    for chat in begun:
        chat.keep(chat.conversation.ask("Hi."))
    lines = does(begun[0], "/sessions").splitlines()
    assert len(lines) == saved_chats.LISTED + 1
    assert "/sessions TEXT" in lines[-1]


def test_sessions_searches_messages_and_names(begin):
    one, two = begin("It is blue."), begin()
    one.ask("The sky?")
    two.ask("The sea?")
    does(two, "/save Voyage")
    assert one.log.id in does(two, "/sessions BLUE sky")
    assert two.log.id not in does(two, "/sessions blue sky")
    assert two.log.id in does(one, "/sessions voyage")
    assert refuses(one, "/sessions blue sea").startswith("No saved chat contains that.")
    assert one.log.id in does(two, '/sessions "is blue" sky')
    assert refuses(one, '/sessions "blue it"').startswith("No saved chat contains that.")


def test_a_search_shows_the_text_around_the_words(begin):
    chat = begin("Because of what Rayleigh found, it is blue.")
    chat.ask("The sky?")
    assert does(chat, "/sessions rayleigh").splitlines()[0].endswith("Rayleigh found, it is blue.")


# /export


@pytest.mark.parametrize("ending", ["md", "json", "html", "HTML", "txt"])
def test_the_file_ending_selects_the_export_format(begin, tmp_path, ending):
    chat = begin("Light <b>.")
    does(chat, "/system Be brief.")
    chat.ask("Why is the sky blue?")
    file = tmp_path / f"chat.{ending}"
    assert does(chat, f'/export "{file}"') == f"Written to {file}.\n"
    form = {"json": export.as_json, "html": webpage.page}.get(ending.lower(), export.as_markdown)
    assert file.read_text("utf-8") == form(chat.conversation)


def test_an_existing_file_is_replaced_only_on_request(begin, tmp_path):
    chat = begin()
    chat.ask("Hi.")
    file = tmp_path / "my chat.md"
    file.write_text("mine")
    expected = f"{file} exists already. Give another name, or replace it: /export! {file}"
    assert refuses(chat, f"/export {file}") == expected
    assert file.read_text() == "mine"
    does(chat, f"/export! {file}")
    assert file.read_text().startswith("# Hi.")


def test_a_failed_export_says_why(begin, tmp_path):
    chat = begin()
    assert refuses(chat, "/export chat.md") == "This chat is empty. Ask something first."
    chat.ask("Hi.")
    assert refuses(chat, "/export").startswith("/export needs a file: /export chat.md")
    for command in ("/export", "/export!"):
        expected = f"{tmp_path} is a folder. Name a file in it: {tmp_path}/chat.md"
        assert refuses(chat, f"{command} {tmp_path}") == expected
    assert "exists already" in refuses(chat, "/export /dev/full")
    assert "Cannot write /dev/full: No space left" in refuses(chat, "/export! /dev/full")
    assert ": File name too long" in refuses(chat, f"/export {'x' * 999}")
    for name in ("~nobody9/chat.md", "a\0b.md"):
        assert f"Cannot write {name}: " in refuses(chat, f"/export {name}")


def test_the_old_file_stays_until_the_new_one_is_complete(begin, tmp_path):
    chat = begin("word " * 2000)
    chat.ask("Hi.")
    chat.log.close()
    file, link = tmp_path / "mine.md", tmp_path / "link.md"
    file.write_text("mine")
    file.chmod(0o600)
    link.symlink_to(file)
    before = {*tmp_path.iterdir()}
    with files_no_larger_than(1000):
        assert f"Cannot write {link}: File too large" in refuses(chat, f"/export! {link}")
    assert (file.read_text(), {*tmp_path.iterdir()}) == ("mine", before)
    does(chat, f"/export! {link}")
    assert file.read_text().startswith("# Hi.")
    assert (link.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o600)
    assert {*tmp_path.iterdir()} == before


def test_each_answer_names_its_model(begin):
    chat = begin("One.", "Two.")
    chat.ask("Hi.")
    chat.model = "/models/other.gguf"
    chat.ask("And?")
    text = export.as_markdown(chat.conversation)
    assert "## scripted\n\nOne." in text
    assert "## other\n\nTwo." in text
    assert "<h2>other</h2>" in webpage.page(chat.conversation)


# /copy


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        (CODE, ["ls -l\n", "if x:\n    pass\n"]),
        ("none `a` here", []),
        ("~~~\na\n```\nb\n~~~\n", ["a\n```\nb\n"]),
        ("````md\n```\na\n```\n````", ["```\na\n```\n"]),
        ("```py\nnot closed", ["not closed"]),
        ("```\n```\nafter", [""]),
        ("```one line```", []),
    ],
)
def test_code_blocks_are_between_fences(text, blocks):
    assert export.code_blocks(text) == blocks


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ("So:\n```py\nif x:\n    ", "```py\n"),
        ("1. a\n   ~~~\n   b", "   ~~~\n"),
        ("```py\n1\n```\n```\n2", "```\n"),
        ("```py\n1\n```", ""),
        ("```py\n1\n```\nmore", ""),
        ("- a\n  - b\n    ```\n    c", ""),
        ("none", ""),
    ],
)
def test_the_code_block_of_a_truncated_answer(text, opens):
    assert export.open_fence(text) == opens


@settings(deadline=None)
@given(st.text(st.sampled_from("`~ ab\n")))
def test_the_pieces_of_a_text_contain_all_its_characters(text):
    kept = "".join(piece for piece, *_ in export.pieces(text))
    fences = sum(1 for _, is_code, _ in export.pieces(text) if is_code)
    assert kept.count("a") + kept.count("b") <= text.count("a") + text.count("b")
    if not fences:
        assert kept == text


@pytest.mark.parametrize(
    ("argument", "text", "what"),
    [
        ("", "Last.", "The last answer"),
        ("1", "Last.", "The last answer"),
        ("3", "First.", "Answer 3 from the end"),
        ("code", "if x:\n    pass\n", "The last code block"),
    ],
)
def test_an_answer_or_its_code_is_copied(begin, tmp_path, monkeypatch, argument, text, what):
    (tmp_path / "xsel").write_text(f"#!/bin/sh\n/bin/cat > {tmp_path}/got\n")
    (tmp_path / "xsel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    chat = begin("First.", CODE, "Last.")
    for question in "123":
        chat.ask(question)
    said = does(chat, f"/copy {argument}".strip())
    assert said == f"{what}, {len(text)} characters: copied with xsel.\n"
    assert (tmp_path / "got").read_text() == text


def test_a_missing_answer_is_not_copied(begin):
    chat = begin()
    assert refuses(chat, "/copy") == "This chat is empty. Ask something first."
    chat.ask("Hi.")
    assert refuses(chat, "/copy code").startswith("No answer has a code block.")
    for argument in ("2", "0", "-1", "all", "²"):
        assert refuses(chat, f"/copy {argument}").startswith(f"{argument} is not code or ")


# the last turn


def test_the_end_of_a_long_last_turn_is_shown(begin):
    chat = begin("\n".join(f"line {n}" for n in range(40)), "x" * 3000 + "end")
    out, err = chat.screen._out.file, chat.screen._err.file
    chat.ask("Count.")
    out.truncate(0)
    resume_notices.show_last(chat)
    assert err.getvalue().endswith("\n> Count.\n\n\n")
    text = out.getvalue().lstrip("\0")
    assert text.startswith("…line 28\n")
    assert text.endswith("line 39\n")
    chat.ask("Again " * 500)
    out.truncate(0)
    resume_notices.show_last(chat)
    assert out.getvalue().count("x") == resume_notices.SHOWN - 3
    assert (out.getvalue() + err.getvalue()).count("…") == 2


def test_an_answer_that_continues_in_its_code_is_shown_as_code(begin):
    code = "\n".join(f"    line_{n} = {n}" for n in range(40))
    chat = begin(f"See:\n\n```python\n{code}\n```\nThat is all.")
    chat.ask("Count.")
    glass = Glass(60, 40)
    chat.screen._out = a_console(Paper(glass), 60, 40)
    resume_notices.show_last(chat)
    assert "   line_39 = 39\n" in glass.text()
    assert "```" not in glass.text()
    assert glass.text().rstrip().endswith("That is all.")


TABLE = "| a | b |\n|---|---|\n" + "".join(f"| {n} | x |\n" for n in range(20))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "short"),
        ("# One\n\ntwo\n\nthree", "# One\n\ntwo\n\nthree"),
        (f"Before.\n\n{TABLE}", TABLE),  # whole, however long
        (f"{TABLE}\nAfter.", "After."),  # never only its end
        (
            "\n".join(f"{n}. item" for n in range(40)),
            "\n".join(f"{n}. item" for n in range(28, 40)),
        ),
        ("- a\n- b\n" + "  more\n" * 11 + "\nEnd.", "End."),
        ("word " * 20 + "last " * 239 + "end", "…" + "last " * 239 + "end"),  # a whole word
        ("```py\n" + "x = 1\n" * 20 + "```\nEnd.", "```py\n" + "x = 1\n" * 10 + "```\nEnd."),
    ],
)
def test_the_shown_end_of_an_answer_starts_at_a_block(text, shown):
    assert tail(text.strip(), 12, 1200) == shown.strip()


def test_show_prints_a_turn(begin):
    chat = begin(Said(TABLE, thinking="Hm, hm."), "Two.")
    chat.ask("Why?\n" * 20)
    chat.ask("And?")
    chat.screen._out.file.truncate(0)
    said = does(chat, "/history 1")
    assert said.count("Why?") == 20
    assert "Thinking: 2 words" in said
    assert "Hm" not in said
    assert chat.screen._out.file.getvalue().lstrip("\0") == TABLE
    does(chat, "/think show")
    assert "Hm, hm." in does(chat, "/history 1")
    assert refuses(chat, "/history 3").startswith("3 is not a turn.")


def test_resuming_names_the_chat(begin):
    chat = begin()
    does(chat, "/save trip")
    chat.keep(chat.conversation.ask("Why?"))
    chat.screen._err.file.truncate(0)
    resume_notices.tell(chat)
    assert chat.screen._err.file.getvalue().lstrip("\0").splitlines() == [
        f"Resumed {chat.log.id} (1 turn) · trip · Why?",
        "Its last question has no answer yet; /retry answers it.",
    ]


def test_resuming_after_a_truncated_answer_names_continue(begin):
    chat = begin(Said("It", ended="length"))
    chat.ask("Why?")
    chat.screen._err.file.truncate(0)
    resume_notices.tell(chat)
    told = chat.screen._err.file.getvalue().splitlines()[-1]
    assert "/continue" in told


def test_the_log_has_the_name(begin):
    chat = begin()
    chat.ask("Hi.")
    does(chat, "/save trip")
    event = load(chat.log.path)[0][-1]
    assert (event["type"], event["name"]) == ("name", "trip")
    assert json.loads(chat.log.path.read_text().splitlines()[-1])["v"] == 1
