"""Saved chats: what is on the disk after any events."""

import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcp.errors import NoSavedChat, SessionError
from lcp.session.conversation import Conversation
from lcp.session.log import Log
from lcp.session.store import Store, is_one_shot, load

START = datetime(2026, 11, 22, 9, 31, tzinfo=timezone(timedelta(hours=1)))


def a_store(folder):
    tails = (f"{n:04x}" for n in count(1))
    return Store(folder, now=lambda: START, new_tail=lambda: next(tails))


def a_chat(**begun):
    ids = (f"id{n}" for n in count())
    return Conversation.begin(lambda: START, "smollm2", new_id=lambda: next(ids), **begun)


def reply(chat, text="Hello."):
    facts = {"ended": "end", "model": "smollm2", "sampling": {}, "seed": 1, "stats": {}}
    return chat.answer(text, tokens=[1, 2], **facts)


def save(store, *questions, **begun):
    """Save a finished chat. Returns its id and its events."""
    chat = a_chat(**begun)
    events = [chat.opening]
    with store.create(chat.opening) as log:
        for question in questions:
            events += [chat.ask(question), reply(chat, f"You said {question}")]
            log.append(events[-2], sync=True)
            log.append(events[-1], sync=True)
    assert log.problem is None
    return log.id, events


def aged(store, name, seconds):
    os.utime(store.folder / f"{name}.jsonl", (seconds, seconds))


@contextmanager
def files_no_larger_than(size):
    """A full disk: the kernel refuses larger files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_chat_is_one_line_per_event(tmp_path):
    name, events = save(a_store(tmp_path), "Hi.", "Grüße, 世界")
    path = tmp_path / "20261122-0931-0001.jsonl"
    assert name == path.stem
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == events
    assert "Grüße, 世界" in lines[3]


def test_a_chat_without_a_question_leaves_no_file(tmp_path):
    folder = tmp_path / "data" / "sessions"
    chat = a_chat()
    with a_store(folder).create(chat.opening) as log:
        log.append(chat.set_system("Be brief."))
        log.append(chat.set(temp=0.2), sync=True)
    assert not folder.exists()


def test_events_before_the_first_question_are_written_with_it(tmp_path):
    chat = a_chat()
    with a_store(tmp_path).create(chat.opening) as log:
        events = [chat.opening, chat.set_system("Be brief."), chat.ask("Hi.")]
        log.append(events[1])
        log.append(events[2], sync=True)
        assert load(log.path) == (events, 0)


def test_a_chat_of_failed_questions_leaves_no_file(tmp_path):
    chat = a_chat()
    with a_store(tmp_path).create(chat.opening) as log:
        events = [chat.opening, chat.set_system("Be brief.")]
        log.append(events[1])
        for refused in ("Too long.", "Too long again."):
            events += [chat.ask(refused), chat.go(None)]
            log.append(events[-2], sync=True)
            log.append(events[-1])
            assert log.is_kept
            log.take_back()
            assert (log.is_kept, list(tmp_path.iterdir())) == (False, [])
        events += [chat.ask("Hi."), reply(chat)]
        log.append(events[-2], sync=True)
        assert load(log.path) == (events[:-1], 0)  # the refused event is not lost
        log.append(events[-1])
        log.take_back()
        assert load(log.path) == (events, 0)


def test_a_resumed_chat_is_never_removed(tmp_path):
    store = a_store(tmp_path)
    name, events = save(store, "Hi.")
    log, _, _ = store.open(name)
    with log:
        log.append(Conversation.from_events(events).ask("Too long."), sync=True)
        log.take_back()
    assert len(load(log.path)[0]) == len(events) + 1


def test_only_the_owner_can_read_a_chat(tmp_path):
    folder = tmp_path / "data" / "sessions"
    name, _ = save(a_store(folder), "Hi.")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / f"{name}.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_chat_continues_in_its_own_file(tmp_path):
    store = a_store(tmp_path)
    name, events = save(store, "Hi.")
    log, found, notices = store.open(name)
    chat = Conversation.from_events(found)
    with log:
        events += [chat.ask("And now?"), reply(chat)]
        log.append(events[-2], sync=True)
        log.append(events[-1], sync=True)
    assert (log.id, notices) == (name, [])
    assert load(log.path) == (events, 0)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_chat_that_is_not_saved_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chat = a_chat()
    with Log.nowhere() as log:
        log.append(chat.ask("Hi."), sync=True)
    assert (log.id, log.path, log.problem) == ("", None, None)
    assert list(tmp_path.iterdir()) == []


def test_a_closed_log_refuses_events(tmp_path):
    log = a_store(tmp_path).create(a_chat().opening)
    log.close()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(a_chat().ask("Hi."))


def test_a_taken_file_name_is_not_reused(tmp_path):
    save(a_store(tmp_path), "Hi.")
    name, _ = save(a_store(tmp_path), "Another.")
    assert name == "20261122-0931-0002"


def test_the_list_has_the_chat_last_used_first(tmp_path):
    store = a_store(tmp_path)
    old, _ = save(store, "Why is the sky blue?", "Is it?")
    new, _ = save(store, "Hi.")
    aged(store, new, 1_000)
    aged(store, old, 2_000)

    first, second = store.saved()
    assert [first.id, second.id] == [old, new]
    assert (first.title, first.turns, first.model) == ("Why is the sky blue?", 2, "smollm2")
    assert (first.created, first.modified.timestamp()) == (START, 2_000)
    assert first.path == tmp_path / f"{old}.jsonl"


@pytest.mark.parametrize(
    "words",
    [
        ["besancon"],
        ["BESANÇON", "zoe"],
        ["Besanc\u0327on"],  # as a Mac spells it
        ["très bon"],
        ["bon  à"],  # across a line end
        ["STRASSE"],
        ["и\u0306од"],
    ],
)
def test_a_search_ignores_case_accents_and_line_ends(tmp_path, words):
    store = a_store(tmp_path)
    name, _ = save(store, "Le café est très bon\nà Besançon, dit Zoë. Straße. Йод.")
    save(store, "Rien.")
    assert [saved.id for saved in store.saved(words)] == [name]


@pytest.mark.parametrize("words", [["bon très"], ["Zoë", "Rien"], ["か"], ["one. Two"]])
def test_a_search_does_not_match_across_messages(tmp_path, words):
    store = a_store(tmp_path)
    save(store, "Le café est très bon à Besançon, dit Zoë. が", "One.", "Two.")
    assert list(store.saved(words)) == []


def test_a_search_returns_the_words_around_the_match(tmp_path):
    store = a_store(tmp_path)
    save(store, "Hello.", f"{'Well then. ' * 9}And what of\nÎle-de-Bréhat, {'you know, ' * 20}?")
    (saved,) = store.saved(["brehat", "hello"])
    assert saved.passage.startswith("…And what of Île")
    assert "And what of Île-de-Bréhat, you know," in saved.passage
    assert saved.passage.endswith("…")
    assert len(saved.passage) <= 81
    assert store.saved(["hello"])[0].passage == "Hello."
    assert store.saved()[0].passage == ""


def test_the_list_ignores_other_files_in_the_folder(tmp_path):
    store = a_store(tmp_path)
    name, _ = save(store, "Hi.")
    aged(store, name, 10**10)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "zeros.jsonl").write_bytes(bytes(4096))
    (tmp_path / "deep.jsonl").write_bytes(b"[" * 100_000)
    (tmp_path / "other.jsonl").write_bytes(b'{"type":"user"}\n[1]\n7\n"\xff\xfe"\n{"a":1}\n')
    assert store.saved()[0].id == name
    assert {saved.id for saved in store.saved()} == {name, "zeros", "deep", "other"}


def test_a_chat_is_found_by_id_by_a_part_of_it_or_as_last(tmp_path):
    store = a_store(tmp_path)
    old, _ = save(store, "Hi.")
    new, _ = save(store, "Hi again.")
    (tmp_path / f"{new}-more.jsonl").write_text("{}\n")
    aged(store, old, 10**10)
    assert store.find(old).stem == old
    assert store.find("20261122-0931-0001").stem == old
    assert store.find(new).stem == new, "an exact id is not ambiguous"
    assert store.find("last").stem == old


ONE_SHOT = {"kind": "one-shot"}


def test_a_log_records_whether_a_person_or_a_script_asked(tmp_path):
    store = a_store(tmp_path)
    old, events = save(store, 'Hi, "kind":"one-shot".')
    assert "kind" not in events[0]  # as in older logs
    new, _ = save(store, "Hi.", kind="chat")
    later, _ = save(store, "Hi.", kind="from a later version")
    script, events = save(store, 'Not yet: "type":"kind", "type":"name".', **ONE_SHOT)
    assert [*map(is_one_shot, store.newest())].count(True) == 1
    assert {saved.id for saved in store.saved()} == {old, new, later}
    assert {s.id: s.kind for s in store.saved(one_shots=True)}[script] == "one-shot"
    log, _, _ = store.open(script)
    with log:
        log.append(Conversation.from_events(events).become_chat())
    assert {saved.id for saved in store.saved()} == {old, new, later, script}
    assert store.count_one_shots() == 0


def test_last_is_the_last_chat_of_a_person(tmp_path):
    store = a_store(tmp_path)
    mine, _ = save(store, "Hi.")
    scripts = [save(store, "Hi.", **ONE_SHOT)[0] for _ in range(3)]
    aged(store, mine, 1_000)
    assert store.find("last").stem == mine
    assert [saved.id for saved in store.saved(most=1)] == [mine]
    assert store.find(scripts[1][-4:]).stem == scripts[1]
    store.find(mine).unlink()
    with pytest.raises(NoSavedChat, match="only 3 one-shots") as caught:
        store.find("last")
    assert caught.value.one_shot == store.newest()[0].stem


def test_a_one_shot_that_is_damaged_is_listed_not_lost(tmp_path):
    store = a_store(tmp_path)
    name, _ = save(store, "Hi.", **ONE_SHOT)
    path = store.find(name)
    path.write_bytes(path.read_bytes()[20:])
    assert [saved.id for saved in store.saved()] == [name]


def test_listing_skips_only_the_token_ids(tmp_path):
    store = a_store(tmp_path)
    name, events = save(store, 'A ,"tokens":[1,2] and ,\\"sampled\\":[3]', "Hi.")
    (saved,) = store.saved(["tokens:[1,2]".replace(":", '":')])
    assert (saved.id, saved.turns, saved.size) == (name, 2, store.find(name).stat().st_size)
    assert saved.title == events[1]["text"]
    assert load(store.find(name))[0] == events


def test_an_unknown_chat_is_an_error_with_the_next_step(tmp_path):
    store = a_store(tmp_path)
    for name in ("last", "x"):
        with pytest.raises(NoSavedChat) as caught:
            store.find(name)
        assert not caught.value.one_shot
    for _ in range(7):
        save(store, "Hi.")
    with pytest.raises(SessionError, match=r"no saved chat 'x'\. .*: 2026"):
        store.find("x")
    with pytest.raises(SessionError, match=r"no saved chat '\.\./secret'"):
        store.find("../secret")
    with pytest.raises(SessionError) as caught:
        store.find("2026")
    _, *rows = str(caught.value).splitlines()
    assert rows == [*(f"  20261122-0931-000{n}  Hi." for n in (7, 6, 5, 4, 3)), "  and 2 more"]
    assert caught.value.exit_code == 2


def test_events_of_a_later_version_survive(tmp_path):
    store = a_store(tmp_path)
    name, events = save(store, "Hi.")
    pin = {"v": 2, "id": "p", "parent": "id1", "type": "pin", "why": [1, {"a": None}]}
    log, _, _ = store.open(name)
    with log:
        log.append(pin)
    assert load(log.path) == ([*events, pin], 0)


ANYTHING = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)


ODD = st.sampled_from(["\u2028\x85\r\n\0", "\ud800", "\\\udfff"])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(ANYTHING | ODD, min_size=1, max_size=8))
def test_any_text_is_read_back_unchanged(texts):
    chat = a_chat()
    events = [chat.opening, *map(chat.ask, texts)]
    with TemporaryDirectory() as folder, a_store(Path(folder)).create(chat.opening) as log:
        for event in events[1:]:
            log.append(event)
        found, unread = load(log.path)
        log.path.read_text(encoding="utf-8")  # for tools such as jq
    assert unread == 0
    # JSON has one spelling for a character and for its two surrogates, so that a pair heals.
    assert [e.get("text") for e in found] == [healed(e.get("text")) for e in events]


def healed(text):
    return text and text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@pytest.mark.slow
def test_a_log_truncated_at_any_byte_loads_and_continues(tmp_path):
    store = a_store(tmp_path)
    name, events = save(store, "Grüße", "zwei\u2028")
    path = store.find(name)
    whole = path.read_bytes()
    ends = [n for n, byte in enumerate(whole) if byte == ord("\n")]
    more = {"type": "user", "id": "more", "parent": None, "text": "more"}

    for cut in range(1, len(whole) + 1):  # an empty file is not a chat
        path.write_bytes(whole[:cut])
        complete = [event for event, end in zip(events, ends, strict=True) if end <= cut]
        half = cut not in ends and whole[cut - 1] != ord("\n")
        log, found, notices = store.open(name)
        assert found == complete
        assert len(notices) == half
        with log:
            log.append(more)
            log.append(more)
        assert load(path) == ([*complete, more, more], int(half))


def test_unreadable_lines_are_counted_in_one_notice(tmp_path):
    store = a_store(tmp_path)
    name, events = save(store, "Hi.")
    path = store.find(name)
    path.write_bytes(b"\x00\x00\n\n" + path.read_bytes() + b'{"half": ')
    log, found, notices = store.open(name)
    log.close()
    assert found == events
    (notice,) = notices
    assert f"2 damaged lines of {name}.jsonl" in notice


HOLD = """
import sys
from pathlib import Path
from lcp.session.store import Store
log, events, notices = Store(Path(sys.argv[1])).open("last")
print(len(notices), flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process_in(folder):
    command = [sys.executable, "-c", HOLD, str(folder)]
    root = Path(__file__).parent.parent
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": root}
    with subprocess.Popen(command, **pipes) as process:
        try:
            assert process.stdout.readline().strip() == b"0"
            yield process
        finally:
            process.kill()


def test_a_chat_open_elsewhere_continues_in_a_copy(tmp_path):
    store = a_store(tmp_path)
    name, events = save(store, "Hi.")
    before = store.find(name).read_bytes()
    with another_process_in(tmp_path):
        log, found, notices = store.open(name)
        (notice,) = notices
        assert f"{name} is open in another lcp" in notice
        assert "a copy, 20261122-0931-0002." in notice
        assert not log.path.exists(), "nothing is written before something is said"
        chat = Conversation.from_events(found)
        with log:
            again = chat.go(chat.turns()[-1].user.id)
            log.append(again, sync=True)
    assert found == [{**events[0], "from": name}, *events[1:]]
    assert load(log.path) == ([*found, again], 0)
    assert chat.created == START
    assert store.find(name).read_bytes() == before


def test_a_killed_process_leaves_its_chat_unlocked(tmp_path):
    store = a_store(tmp_path)
    name, _ = save(store, "Hi.")
    with another_process_in(tmp_path) as process:
        process.kill()
        process.wait()
        log, _, notices = store.open(name)
        log.close()
    assert (log.id, notices) == (name, [])


def test_a_new_chat_is_locked(tmp_path):
    store = a_store(tmp_path)
    chat = a_chat()
    with store.create(chat.opening) as log:
        log.append(chat.ask("Hi."))
        other, _, (notice,) = store.open(log.id)
        other.close()
    assert other.id != log.id
    assert "open in another lcp" in notice


def test_a_copy_reports_unreadable_lines(tmp_path):
    store = a_store(tmp_path)
    name, _ = save(store, "Hi.")
    with store.find(name).open("ab") as file:
        file.write(b"{half")
    with store.open(name)[0]:
        log, _, notices = store.open(name)
        log.close()
    assert len(notices) == 2 and " 1 damaged line " in notices[1]


def impossible_folders(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return [tmp_path / "file" / "sessions", tmp_path / ("x" * 300), tmp_path / "loop" / "sessions"]


def test_if_writing_fails_the_chat_continues_with_a_notice(tmp_path):
    for folder in impossible_folders(tmp_path):
        chat = a_chat()
        store = a_store(folder)
        assert list(store.saved()) == []
        with store.create(chat.opening) as log:
            assert log.problem is None
            log.append(chat.ask("Hi."), sync=True)
            problem = log.problem
            log.append(reply(chat), sync=True)
        assert problem.startswith("This chat is no longer saved (")
        assert str(folder) in problem
        assert log.problem is problem


def test_after_a_full_disk_nothing_more_is_written(tmp_path):
    store = a_store(tmp_path)
    name, events = save(store, "Hi.")
    path = store.find(name)
    log, found, _ = store.open(name)
    chat = Conversation.from_events(found)
    with log:
        with files_no_larger_than(path.stat().st_size + 50):
            log.append(chat.ask("And now?" * 100), sync=True)
        assert "File too large" in log.problem
        half = path.read_bytes()
        log.append(reply(chat), sync=True)
        assert path.read_bytes() == half

    log, found, (notice,) = store.open(name)
    chat = Conversation.from_events(found)
    with log:
        log.append(chat.ask("Once more."), sync=True)
    assert " 1 damaged line " in notice
    assert found == events
    assert [event.get("text") for event in load(path)[0]][-1] == "Once more."


def test_a_disk_full_from_the_first_byte_leaves_no_chat_in_the_list(tmp_path):
    store = a_store(tmp_path)
    chat = a_chat()
    with store.create(chat.opening) as log, files_no_larger_than(0):
        log.append(chat.ask("Hi."), sync=True)
    assert log.problem
    assert list(store.saved()) == []
    with pytest.raises(SessionError, match="no saved chat yet"):
        store.find("last")


def test_a_disk_that_fails_while_writing_is_a_problem_not_an_error():
    with Log.of(Path("/dev/full")) as log:
        log.append(a_chat().ask("Hi."))
    assert log.problem.startswith("This chat is no longer saved (No space left on device")
