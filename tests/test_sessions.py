"""lcp sessions: saved chats from the command line."""

import io
import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path

import pytest

from lcp.session.conversation import Conversation
from lcp.session.store import Store, load

START = datetime(2026, 11, 22, 9, 31, tzinfo=timezone(timedelta(hours=1)))
ROOT = Path(__file__).parents[1]


class Chats:
    """Saved chats, and the command line for them."""

    def __init__(self, home, lcp_main, capsys):
        self.sessions = home / "data" / "sessions"
        tails = (f"{n:04x}" for n in count(1))
        self.store = Store(self.sessions, now=lambda: START, new_tail=lambda: next(tails))
        self._ages = count(1_800_000_000, 60)
        self._main = lcp_main
        self._capsys = capsys

    def chat(self, *turns, model="smollm2", system="", kv=0, name="", **begun):
        """Save a chat, used a minute after the one before. Returns its id."""
        ids = (f"id{n}" for n in count())
        chat = Conversation.begin(lambda: START, model, new_id=lambda: next(ids), **begun)
        with self.store.create(chat.opening) as log:
            if system:
                log.append(chat.set_system(system))
            for question, answer in turns:
                log.append(chat.ask(question))
                if answer is not None:
                    facts = {"ended": "end", "sampling": {}, "seed": 1, "stats": {}}
                    log.append(chat.answer(answer, model=model, **facts))
            if name:
                log.append(chat.rename(name))
        if kv:
            log.path.with_suffix(".kv").write_bytes(bytes(kv))
        os.utime(log.path, (age := next(self._ages), age))
        return log.id

    def one_shot(self, *turns, **more):
        """Save a one-shot. Returns its id."""
        return self.chat(*turns, kind="one-shot", **more)

    def listed(self, *words):
        """The ids in the list."""
        return [json.loads(row)["id"] for row in self.lcp(*words, "--json")[1].splitlines()]

    def file(self, id, ending="jsonl"):
        return self.sessions / f"{id}.{ending}"

    def used(self, id):
        """The time of use of a chat, as listed."""
        return f"{datetime.fromtimestamp(self.file(id).stat().st_mtime):%Y-%m-%d %H:%M}"

    def lcp(self, *words, typed=""):
        """Run lcp sessions with these words. Returns its exit code, stdout and stderr."""
        code = self._main("sessions", *words, typed=typed)
        return (code, *self._capsys.readouterr())


@pytest.fixture
def chats(home, lcp_main, capsys):
    return Chats(home, lcp_main, capsys)


def refused(sentence, code=1):
    return code, "", f"lcp: {sentence}\n"


# list


def test_the_list_has_the_chat_last_used_first(chats):
    one = chats.chat(("Hi.", "Hello."))
    two = chats.chat(("Why is the sky blue?", "Light."), ("Is it?", "Yes."), kv=3 << 20)
    assert chats.lcp("list") == (
        0,
        f"{two}  {chats.used(two)}  2 turns  smollm2  Why is the sky blue? +3.15 MB KV\n"
        f"{one}  {chats.used(one)}  1 turn   smollm2  Hi.\n",
        "",
    )
    assert chats.lcp() == chats.lcp("list")


def test_the_list_in_json_has_one_object_per_line(chats):
    one = chats.chat(("Grüße, 世界", "Hello."), model="/models/smol.gguf", kv=5)
    two = chats.chat(("Hi.", None))
    code, out, err = chats.lcp("list", "--json")
    first, second = map(json.loads, out.splitlines())
    modified = first.pop("modified")
    assert datetime.fromisoformat(modified).timestamp() == chats.file(two).stat().st_mtime
    assert first == {
        "id": two,
        "created": "2026-11-22T09:31:00+01:00",
        "model": "smollm2",
        "turns": 1,
        "name": "",
        "title": "Hi.",
        "passage": "",
        "kind": "chat",
        "bytes": chats.file(two).stat().st_size,
        "kv_bytes": 0,
    }
    assert (second["id"], second["title"], second["kv_bytes"]) == (one, "Grüße, 世界", 5)
    assert second["model"] == "/models/smol.gguf"
    assert (code, err) == (0, "")


def test_json_works_without_the_word_list(chats):
    chats.chat(("Hi.", "Hello."))
    assert chats.lcp("--json") == chats.lcp("list", "--json")
    assert json.loads(chats.lcp("--json")[1])["title"] == "Hi."


def test_a_chat_with_a_name_is_listed_and_found_by_it(chats):
    id = chats.chat(("Hi.", "Hello."))
    log, events, _ = chats.store.open(id)
    with log:
        log.append(Conversation.from_events(events).rename("trip"))
    used = chats.used(id)
    assert chats.lcp("list")[1] == f"{id}  {used}  1 turn  smollm2  trip · Hi.\n"
    assert json.loads(chats.lcp("--json")[1])["name"] == "trip"
    assert chats.lcp("show", "trip") == chats.lcp("show", id)
    assert chats.lcp("search", "TRIP")[1].startswith(id)


def test_without_chats_the_list_says_how_to_start_one(chats):
    code, out, err = chats.lcp("list")
    assert (code, out) == (0, "") and "`lcp chat`" in err
    assert chats.lcp("list", "--json") == (0, "", "")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2-135m", "smollm2-135m"),
        ("qwen2.5-0.5b", "qwen2.5-0.5b"),
        ("/models/Llama-3.2-1B.Q4_K_M.gguf", "Llama-3.2-1B.Q4_K_M"),
        ("owner/repo:Q4_K_M", "repo:Q4_K_M"),
    ],
)
def test_a_model_is_shown_by_its_name_without_folder_and_ending(chats, model, name):
    id = chats.chat(("Hi.", "Hello."), model=model)
    assert chats.lcp("list")[1] == f"{id}  {chats.used(id)}  1 turn  {name}  Hi.\n"
    assert f"\n## {name}\n" in chats.lcp("show", id)[1]


@pytest.mark.parametrize("command", [[], ["list"]])
def test_one_shots_are_listed_separately(chats, command):
    one = chats.chat(("Hi.", "Hello."))
    two = chats.one_shot(("Sum it up.", "It is."))
    code, out, err = chats.lcp(*command)
    assert (code, out.split()[0], out.count("\n")) == (0, one, 1)
    assert "1 one-shot" in err and "lcp sessions --all" in err
    assert chats.lcp(*command, "--all")[1].splitlines()[0].startswith(two)
    assert "one-shot · Sum it up." in chats.lcp(*command, "--all")[1]
    assert chats.listed(*command, "--all") == [two, one]
    assert chats.listed(*command) == [one]
    assert [json.loads(row)["kind"] for row in chats.lcp("--all", "--json")[1].splitlines()] == [
        "one-shot",
        "chat",
    ]


def test_a_one_shot_with_a_name_is_a_chat(chats):
    id = chats.one_shot(("Hi.", "Hello."))
    chats.chat(("Ho.", "Hello."))
    assert chats.lcp("rename", id[-4:], "  my   trip ")[0] == 0
    assert id in chats.listed()
    assert chats.lcp("show", "my trip")[0] == 0
    assert chats.lcp("rename", "my trip", "")[0] == 0
    assert id not in chats.listed()


def test_with_only_one_shots_the_command_for_the_last_is_named(chats):
    chats.one_shot(("Hi.", "Hello."))
    id = chats.one_shot(("Ho.", "Hello."))
    code, out, err = chats.lcp("show", "last")
    assert (code, out) == (1, "")
    assert f"lcp chat --resume {id}" in err and "2 one-shots" in err
    code, out, err = chats.lcp()
    assert (code, out) == (0, "") and "--all" in err


def test_as_many_chats_are_listed_as_requested(chats):
    ids = [chats.chat(("Hi.", "Hello.")) for _ in range(4)][::-1]
    assert chats.listed("-n", "2") == chats.listed("list", "-n", "2") == ids[:2]
    assert chats.listed("-n", "9") == ids
    assert chats.listed("search", "hi", "-n", "1") == ids[:1]
    assert "-n 4" in chats.lcp("-n", "2")[2]
    assert chats.lcp("-n", "0")[0] == 2


# search


def test_search_finds_the_chats_that_contain_all_words(chats):
    one = chats.chat(("Why is the SKY blue?", "Because of Rayleigh."))
    two = chats.chat(("Is the sky red?", "In the evening."))
    chats.chat(("Hi.", "Hello."))
    first, second = chats.lcp("search", "sky")[1].splitlines()
    assert [first.split()[0], second.split()[0]] == [two, one]
    assert first.endswith("Is the sky red?")
    assert chats.lcp("search", "Sky", "rayleigh")[1].split()[0] == one
    found = json.loads(chats.lcp("search", "--json", "RED?")[1])
    assert (found["id"], found["passage"]) == (two, "Is the sky red?")


def test_search_covers_one_shots_with_a_mark(chats):
    one, two = chats.chat(("The sky?", "Blue.")), chats.one_shot(("A sky!", "Red."))
    found = map(json.loads, chats.lcp("search", "sky", "--json")[1].splitlines())
    assert [(row["id"], row["kind"]) for row in found] == [(two, "one-shot"), (one, "chat")]
    assert "one-shot" in chats.lcp("search", "sky")[1].splitlines()[0]


def test_search_covers_every_branch(chats):
    id = chats.chat(("Hi.", "Hello."))
    log, events, _ = chats.store.open(id)
    with log:
        log.append(Conversation.from_events(events).clear())
    assert chats.lcp("search", "hello")[1].startswith(id)


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_search_that_finds_nothing_says_so(chats, more):
    chats.chat(("Hi.", "Hello."))
    expected = refused("No saved chat contains that. List them all with lcp sessions.")
    assert chats.lcp("search", "sky", *more) == expected


def test_search_needs_a_word(chats):
    code, out, err = chats.lcp("search")
    assert (code, out) == (2, "")
    assert "Missing argument" in err


# show and export

MARKDOWN = """\
# Why is the sky blue?

> Be brief.
> Be kind.

## You

Why is the sky blue?
Tell me.

## smol

Light.

## You

Is it?
"""


def a_long_chat(chats, **more):
    turns = ("Why is the sky blue?\nTell me.", "Light."), ("Is it?", None)
    return chats.chat(*turns, model="/m/smol.gguf", system="Be brief.\nBe kind.", **more)


@pytest.mark.parametrize("command", ["show", "export"])
def test_a_chat_is_printed_as_markdown(chats, command):
    id = a_long_chat(chats)
    assert chats.lcp(command, id) == (0, MARKDOWN, "")
    assert chats.lcp(command, "last") == (0, MARKDOWN, "")
    assert chats.lcp(command, id[:4]) == (0, MARKDOWN, "")


@pytest.mark.parametrize(
    "command",
    [
        ["show", "last", "--json"],
        ["--json", "show", "last"],
        ["export", "last", "--json"],
        ["--json", "export", "last"],
    ],
)
def test_json_can_be_before_or_after_the_subcommand(chats, command):
    a_long_chat(chats)
    code, out, err = chats.lcp(*command)
    assert (code, err) == (0, "")
    assert [m["role"] for m in json.loads(out)["messages"]] == [
        "system", "user", "assistant", "user",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [["list"], ["search", "sky"]])
def test_json_before_a_list_counts(chats, command):
    a_long_chat(chats)
    assert chats.lcp("--json", *command) == chats.lcp(*command, "--json")
    assert json.loads(chats.lcp("--json", *command)[1])["turns"] == 2


def test_a_chat_is_exported_to_a_file(chats, tmp_path):
    id, file = a_long_chat(chats), tmp_path / "chat.md"
    assert chats.lcp("export", id, str(file)) == (0, "", "")
    assert file.read_text("utf-8") == MARKDOWN


def test_a_chat_is_exported_as_json(chats, tmp_path):
    id, file = a_long_chat(chats), tmp_path / "chat.json"
    assert chats.lcp("export", id, str(file)) == (0, "", "")
    assert json.loads(file.read_text("utf-8")) == {
        "model": "/m/smol.gguf",
        "created": "2026-11-22T09:31:00+01:00",
        "messages": [
            {"role": "system", "content": "Be brief.\nBe kind."},
            {"role": "user", "content": "Why is the sky blue?\nTell me."},
            {"role": "assistant", "content": "Light."},
            {"role": "user", "content": "Is it?"},
        ],
    }


def test_an_export_overwrites_nothing(chats, tmp_path):
    id, file = a_long_chat(chats), tmp_path / "chat.md"
    file.write_text("mine")
    expected = refused(f"{file} already exists. Give another name, or replace it with --force.")
    assert chats.lcp("export", id, str(file)) == expected
    assert file.read_text() == "mine"


def test_an_export_overwrites_with_force(chats, tmp_path):
    id, file = a_long_chat(chats), tmp_path / "chat.html"
    file.write_text("mine")
    assert chats.lcp("export", id, str(file), "--force") == (0, "", "")
    assert file.read_text("utf-8").startswith("<!doctype html>")


def test_an_export_that_cannot_be_written_says_why(chats, tmp_path):
    id, file = a_long_chat(chats), tmp_path / "nowhere" / "chat.md"
    code, out, err = chats.lcp("export", id, str(file))
    assert (code, out) == (1, "") and f"{file}: No such file or directory." in err


class Window(io.TextIOWrapper):
    """A stdout that is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("command", [["show", "last"], ["export", "last"], ["list"]])
def test_escape_sequences_in_answers_do_not_reach_the_terminal(chats, monkeypatch, command):
    chats.chat(("\x1b]0;title\x07", "\x1b[31mred\u202e"))
    with monkeypatch.context() as patch, Window(io.BytesIO(), encoding="utf-8") as window:
        patch.setattr(sys, "stdout", window)
        chats.lcp(*command)
        window.flush()
        text = window.buffer.getvalue().decode()
    assert "␛]0;title␇" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


@pytest.mark.slow
def test_a_pipe_gets_only_characters_of_its_encoding(chats):
    chats.chat(("Grüße, \ud800!", "Hello."))
    run = subprocess.run(
        [sys.executable, "-m", "lcp", "sessions", "show", "last"],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.startswith(b"# Gr??e, ?!\n")


# rm


def test_rm_removes_a_chat_and_its_cache(chats):
    one, two = chats.chat(("Hi.", "Hello."), kv=10), chats.chat(("Ho.", "Hello."), kv=10)
    code, out, err = chats.lcp("rm", "--yes", one)
    assert (code, out) == (0, "") and "Removed 1 chat" in err
    left = sorted(path.name for path in chats.sessions.iterdir())
    assert left == [f"{two}.jsonl", f"{two}.kv"]
    assert chats.lcp("rm", "-y", "last")[0] == 0
    assert list(chats.sessions.iterdir()) == []


@pytest.mark.parametrize(("typed", "removed"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_rm_asks_before_it_removes(chats, typed, removed):
    id = chats.chat(("Hi \x1b[31m.", "Hello."), kv=3 << 20)
    code, out, err = chats.lcp("rm", id, typed=typed)
    assert err.startswith(f"Remove {id} (Hi ␛[31m., 3.15 MB)? [y/N]:")
    assert err.endswith("Removed 1 chat: 3.15 MB freed.\n") == removed
    assert (code, out.strip()) == (0, "")
    assert chats.file(id).exists() is chats.file(id, "kv").exists() is not removed


def test_without_a_terminal_nothing_is_removed(chats):
    id = chats.chat(("Hi.", "Hello."))
    assert chats.lcp("rm", id)[0] == 130
    assert chats.file(id).exists()


def test_a_chat_that_is_open_is_not_removed(chats):
    id = chats.chat(("Hi.", "Hello."))
    log, events, _ = chats.store.open(id)
    with log:
        code, _, err = chats.lcp("rm", "--yes", id)
        assert code == 1 and f"{id} is open in another lcp." in err
        log.append(Conversation.from_events(events).ask("Still here?"))
    assert len(load(chats.file(id))[0]) == 4


def test_a_failed_removal_says_why(chats):
    id = chats.chat(("Hi.", "Hello."))
    chats.file(id, "kv").mkdir()
    code, _, err = chats.lcp("rm", "--yes", id)
    assert code == 1
    assert f"Cannot remove {chats.file(id, 'kv')}: " in err


def test_rm_takes_several_or_none(chats):
    one, two, three = (chats.chat((text, "Hello."), kv=1 << 20) for text in ("Hi.", "Ho.", "Hu."))
    assert chats.lcp("rm", "-y", one, "nowhere")[0] == 1
    log, _, _ = chats.store.open(three)
    with log:
        assert chats.lcp("rm", "-y", one, three)[0] == 1
    assert len(list(chats.sessions.iterdir())) == 6
    code, _, err = chats.lcp("rm", one, two[-4:], one, typed="y\n")
    assert (code, err.count("2 chats"), err.count("2.10 MB")) == (0, 2, 2)
    assert chats.listed() == [three]


# rename


def test_renaming_does_not_change_the_time_of_use(chats):
    one, two = chats.chat(("Hi.", "Hello.")), chats.chat(("Ho.", "Hello."))
    assert chats.lcp("rename", one, "trip") == (0, "", "")
    assert chats.listed() == [two, one]
    assert load(chats.file(one))[0][-1]["name"] == "trip"
    assert chats.lcp("rename", "trip", "voyage")[0] == 0
    assert chats.lcp("show", "voyage")[1] == chats.lcp("show", one)[1]


def test_an_invalid_name_is_refused_and_nothing_is_written(chats):
    one, two = chats.chat(("Hi.", "Hello."), name="trip"), chats.chat(("Ho.", "Hello."))
    before = chats.file(two).read_bytes()
    for name in ("last", "x" * 61, "trip", one, "a\x1b"):
        assert chats.lcp("rename", two, name)[0] == 1
    log, _, _ = chats.store.open(two)
    with log:
        code, _, err = chats.lcp("rename", two, "harbour")
        assert code == 1 and "open in another lcp" in err
    assert chats.file(two).read_bytes() == before


def test_a_chat_with_an_incomplete_last_line_can_be_renamed(chats):
    id = chats.chat(("Hi.", "Hello."))
    with chats.file(id).open("ab") as file:
        file.write(b'{"half": ')
    assert chats.lcp("rename", id, "trip")[0] == 0
    events, unread = load(chats.file(id))
    assert (events[-1]["name"], unread) == ("trip", 1)


# prune


@pytest.fixture
def many(chats):
    """Chats of every kind, all from 2027 except `new`; and the files in the folder."""
    ids = {
        "big": chats.chat(("Hi.", "Hello."), kv=3 << 20),
        "small": chats.chat(("Hi.", "Hello."), kv=1 << 10),
        "named": chats.chat(("Hi.", "Hello."), kv=4 << 20, name="trip"),
        "script": chats.one_shot(("Hi.", "Hello.")),
        "new": chats.one_shot(("Hi.", "Hello."), kv=2 << 20),
    }
    for name, id in ids.items():
        day = time.time() - (86_000 if name == "new" else 40 * 86_400)
        os.utime(chats.file(id), (day, day))
    return ids


def left(chats, many, ending="jsonl"):
    return {name for name, id in many.items() if chats.file(id, ending).exists()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--older-than", "30d"], {"big", "small", "script"}),
        (["--older-than", "23h"], {"big", "small", "script", "new"}),
        (["--older-than", "8w"], set()),
        (["--older-than", "30d", "--named"], {"big", "small", "script", "named"}),
        (["--larger-than", "1.5MB"], {"big", "new"}),
        (["--one-shots"], {"script", "new"}),
        (["--one-shots", "--older-than", "30d"], {"script"}),
        (["--one-shots", "--larger-than", "1M"], {"new"}),
    ],
)
def test_prune_removes_chats_that_match_all_options(chats, many, options, gone):
    code, out, err = chats.lcp("prune", *options, "--yes")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} == {many[name] for name in gone}
    assert left(chats, many) == set(many) - gone
    assert not left(chats, many, "kv") & gone
    assert (f"Removed {len(gone)} chat" in err) == bool(gone)


def test_prune_can_remove_only_kv_caches(chats, many):
    code, _, err = chats.lcp("prune", "--kv", "-y")
    assert code == 0 and "3 KV caches: 5.24 MB freed" in err
    assert left(chats, many) == set(many)
    assert left(chats, many, "kv") == {"named"}
    assert chats.lcp("prune", "--kv", "--larger-than", "1M", "--named", "-y")[0] == 0
    assert left(chats, many, "kv") == set()


@pytest.mark.parametrize(("typed", "code"), [("n\n", 0), ("\n", 0), ("", 130)])
def test_prune_lists_the_chats_and_asks(chats, many, typed, code):
    done = chats.lcp("prune", "--larger-than", "2M", typed=typed)
    assert done[0] == code
    assert [line.split()[0] for line in done[1].splitlines() if line.strip()] == [
        many["new"],
        many["big"],
    ]
    assert "2 chats (5.24 MB)" in done[2]
    assert left(chats, many) == set(many)
    rows = chats.lcp("--json", "prune", "--larger-than", "2M", typed=typed)[1].splitlines()
    assert [json.loads(row)["kv_bytes"] for row in rows if row.strip()] == [2 << 20, 3 << 20]


def test_prune_never_removes_a_chat_that_is_open(chats, many):
    log, _, _ = chats.store.open(many["big"])
    with log:
        for options in (["--larger-than", "1M"], ["--kv", "--named"]):
            code, _, err = chats.lcp("prune", *options, "-y")
            assert code == 0 and "1 chat open in another lcp" in err
    assert chats.file(many["big"]).exists() and chats.file(many["big"], "kv").exists()


@pytest.mark.parametrize(
    "options",
    [[], ["--yes"], ["--older-than", "soon"], ["--older-than", "30"], ["--larger-than", "x"]],
)
def test_prune_with_invalid_options_removes_nothing(chats, many, options):
    code, out, _ = chats.lcp("prune", *options)
    assert (code, out, left(chats, many)) == (2, "", set(many))


# which chat


@pytest.mark.parametrize("command", ["show ID", "export ID", "rm --yes ID", "rename ID trip"])
@pytest.mark.parametrize("part", ["2025", "1231-23", "db58"])
def test_a_unique_part_of_an_id_is_enough(chats, command, part):
    one, two = chats.chat(("Hi.", "Hello.")), chats.chat(("Ho.", "Hello."))
    meant = chats.file(two).rename(chats.file("20251231-2359-db58"))
    before = meant.read_bytes()
    code, out, _ = chats.lcp(*command.replace("ID", part).split())
    assert code == 0
    changed = not meant.exists() or meant.read_bytes() != before
    assert changed or out.startswith("# Ho.")
    assert chats.file(one).exists()


def test_a_name_precedes_a_part_of_an_id(chats):
    chats.chat(("Hi.", "Hello."))
    chats.chat(("Ho.", "Hello."), name="0001")
    assert chats.lcp("show", "0001")[1].startswith("# 0001\n")


@pytest.mark.parametrize("command", [["show"], ["export"], ["rm", "--yes"]])
def test_an_unknown_chat_is_an_error(chats, command):
    for name, hint in (("last", "`lcp chat`"), ("x", "`lcp chat`")):
        code, out, err = chats.lcp(*command, name)
        assert (code, out) == (1, "") and "There is no saved chat " in err and hint in err
    one, two = chats.chat(("Hi.", "Hello.")), chats.chat(("Ho.", "Hello."))
    for name in ("x", "../secret", ""):
        code, out, err = chats.lcp(*command, name)
        assert (code, out) == (1, "") and f"{name!r}. " in err and f": {two}, {one}." in err


@pytest.mark.parametrize("command", [["show"], ["export"], ["rm", "--yes"]])
def test_a_part_of_several_ids_is_refused(chats, command):
    one, two = chats.chat(("Hi.", "Hello.")), chats.chat(("Ho.", "Hello."))
    code, out, err = chats.lcp(*command, "2026")
    assert (code, out) == (2, "")
    assert err.splitlines()[1:] == [f"  {two}  Ho.", f"  {one}  Hi."]
    assert len(list(chats.sessions.iterdir())) == 2


def test_an_empty_name_does_not_match_the_only_chat(chats):
    """For example, from an empty variable of a script."""
    id = chats.chat(("Hi.", "Hello."))
    assert chats.lcp("rm", "--yes", "")[0] == 1
    assert chats.file(id).exists()


def test_a_chat_with_damaged_lines_is_shown_as_far_as_it_can_be_read(chats):
    id = a_long_chat(chats)
    with chats.file(id).open("ab") as file:
        file.write(b'{"half": \n\x00\xff\n{"type":"later","v":9}\n')
    assert chats.lcp("show", id) == (0, MARKDOWN, "")
