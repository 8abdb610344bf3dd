"""Files that a message names with an @, and words that are not files."""

import os
import re

import pytest
from fakes import ScriptedEngine, new_chat, weighed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcp import commands
from lcp.chat.attachments import ALL_BYTES, FILE_BYTES, attach, completions, mention, paths
from lcp.errors import LcpError


@pytest.fixture
def folder(tmp_path):
    """A folder with notes."""
    for name, text in {
        "notes.txt": "Llamas hum.\n",
        "my notes.txt": "Tapirs do not.",
        "src/a.py": "a = 1\n",
        "src/b.py": "b = 2\r\n",
        "src/.hidden.py": "h = 0\n",
        "[id].ts": "let id",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    return tmp_path


NOTES = "notes.txt\n```\nLlamas hum.\n```"


@pytest.mark.parametrize(
    "text",
    [
        "@notes.txt",
        "Read @notes.txt and @notes.txt again.",
        "What is in @notes.txt?",
        "(see @notes.txt)",
        "one\n@notes.txt\ntwo",
        'in quotes: @"notes.txt"',
    ],
)
def test_a_file_is_placed_once_before_the_typed_message(folder, text):
    attached = attach(text, folder)
    assert attached.text == f"{NOTES}\n\n{text}"
    assert [(f.path, f.size) for f in attached.files] == [("notes.txt", 12)]
    assert attached.problems == ()


@pytest.mark.parametrize(
    "text",
    [
        "mail user@notes.txt please",
        "@someone and @nobody.txt",
        "@src and @src/",  # a folder is not a file
        "@ notes.txt",
        "@nothing/*.py",
        "@~nobody/notes.txt",
        "@" + "x" * 5_000,
        "@bad\0name",
        "@" * 100,
        "@[",
    ],
)
def test_a_word_that_is_not_a_file_stays_text(folder, text):
    assert attach(text, folder).text == text
    assert not attach(text, folder).problems


def test_file_names_with_spaces_brackets_and_patterns(folder):
    assert attach('@"my notes.txt"', folder).files[0].path == "my notes.txt"
    assert attach("@[id].ts", folder).files[0].path == "[id].ts"
    found = attach("@src/*.py", folder)
    assert [f.path for f in found.files] == ["src/a.py", "src/b.py"]
    assert found.text.startswith("src/a.py\n```\na = 1\n```\n\nsrc/b.py\n```\nb = 2\n```\n\n")
    assert attach(f"@{folder}/notes.txt", folder / "src").files[0].size == 12
    assert len(attach(f"@{folder}/*.txt", folder / "src").files) == 2


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert attach("@~/notes.txt", folder / "src").files[0].path == "~/notes.txt"
    assert list(paths("~", folder)) == ["~/"]
    assert list(paths("~/no", folder)) == ["~/notes.txt"]


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("`\n a", max_size=60))
def test_a_file_cannot_close_its_code_fence(tmp_path, text):
    (tmp_path / "f").write_bytes(text.encode())
    title, fence, *lines = attach("@f", tmp_path).files[0].block.split("\n")
    assert title == "f"
    assert re.fullmatch("`{3,}", fence)
    assert [line for line in lines if fence in line] == [fence]
    assert "\n".join(lines[:-1]) == text.removesuffix("\n")


def test_a_file_name_cannot_break_its_title_line(tmp_path):
    (tmp_path / "a\n```\nb").write_text("text")
    assert attach("@a*", tmp_path).files[0].block.startswith("a?```?b\n```\ntext\n")


def test_a_file_that_cannot_be_attached_is_an_error(folder):
    (folder / "photo").write_bytes(b"\x89PNG")
    (folder / "nul").write_bytes(b"text\0")
    (folder / "big").write_bytes(b"x" * (FILE_BYTES + 1))
    (folder / "wide").write_bytes("ä".encode("utf-16"))
    attached = attach("@photo @nul @big @wide @notes.txt", folder)
    assert [f.path for f in attached.files] == ["notes.txt"]
    assert [p.split(".")[0] for p in attached.problems] == [
        "photo is not a UTF-8 text file",
        "nul is not a UTF-8 text file",
        "big is larger than 1",
        "wide is not a UTF-8 text file",
    ]
    with pytest.raises(LcpError, match=r"photo .*\nnul "):
        attached.checked()


def test_the_total_size_of_files_is_limited(folder):
    (folder / "all").mkdir()
    for n in range(5):
        (folder / "all" / f"{n}").write_bytes(b"x" * FILE_BYTES)
    attached = attach("@all/*", folder)
    assert sum(f.size for f in attached.files) == ALL_BYTES
    (problem,) = attached.problems
    assert "all/4" in problem and "4.00 MB" in problem


def test_a_pattern_that_matches_too_many_files_reads_none(folder):
    for n in range(101):
        (folder / "src" / f"{n}.md").touch()
    attached = attach("@src/*.md", folder)
    assert not attached.files
    (problem,) = attached.problems
    assert "src/*.md" in problem and "100 files" in problem


def test_a_named_pipe_does_not_block(folder):
    os.mkfifo(folder / "pipe")
    assert not attach("@pipe", folder).files


def test_each_file_and_its_share_of_the_window_is_shown(folder):
    one = attach("@notes.txt", folder).told(len, 200)
    assert one == "notes.txt: 12 bytes, 29 tokens, 14 % of the context of 200"
    two = attach("@src/*.py", folder).told(len, 1_000)
    assert two == (
        "src/a.py: 6 bytes, 22 tokens\nsrc/b.py: 7 bytes, 22 tokens\n"
        "2 files: 44 tokens, 4 % of the context of 1,000"
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("@nobody.txt?", ["nobody.txt"]),
        ("@src/c.py", ["src/c.py"]),
        ("@nothing/*.py", ["nothing/*.py"]),
        ('@"your notes"', ["your notes"]),
        ("what is in @src/, please", ["type @src/*"]),
        ("@src", ["type @src/*"]),
        ("@notes.txt and @zzz.txt", ["zzz.txt"]),
        ("@someone, user@example.com @ 3.14 @property @f(x) @ ... @... @! (@)", []),
    ],
)
def test_a_word_that_looks_like_a_file_gets_a_hint(folder, text, parts):
    attached = attach(text, folder)
    assert all(part in hint for part, hint in zip(parts, attached.hints, strict=True))
    assert attached.told(len, 200).splitlines()[len(attached.files) :] == list(attached.hints)


def test_only_three_hints_are_shown(folder):
    *told, last = attach(" ".join(f"@{n}/{'x' * 99}" for n in range(9)), folder).hints
    assert "6 more" in last
    assert len(told) == 3
    assert max(map(len, told)) < 100


def test_the_chat_shows_the_hint(folder, monkeypatch):
    monkeypatch.chdir(folder)
    chat = new_chat(ScriptedEngine())
    chat.ask_with_files("What is in @note.txt?")
    assert "note.txt" in chat.screen._err.file.getvalue()
    assert chat.engine.asked[0].messages[0].content == "What is in @note.txt?"


# completion


def test_completed_folders_end_in_a_slash_and_hidden_files_are_left_out(folder):
    assert list(paths("", folder)) == ["[id].ts", "my notes.txt", "notes.txt", "src/"]
    assert list(paths("src/", folder)) == ["src/a.py", "src/b.py"]
    assert list(paths("src/.", folder)) == ["src/.hidden.py"]
    assert list(paths("nothing/", folder)) == []
    assert list(paths("bad\0/", folder)) == []


@pytest.mark.parametrize(
    ("begun", "found"),
    [
        ("no", ["notes.txt"]),
        ("my", ['"my notes.txt"']),
        ('"no', ['"notes.txt"']),
        ('"sr', ['"src/']),  # continues inside the quotes
        ("s", ["src/"]),
    ],
)
def test_completions_are_quoted_if_necessary(folder, begun, found):
    assert list(completions(begun, folder)) == found


def test_a_completed_path_attaches_that_file(folder):
    for name in ("at 1\u202fpm.txt", "a\tb", "f(1).py"):
        (folder / name).write_text("x")
    names = [name for name in paths("", folder) if not name.endswith("/")]
    offered = [f"@{name}" for name in completions("", folder) if not name.endswith("/")]
    assert offered == [mention(name) for name in names]
    for name in names:
        assert attach(mention(name), folder).files[0].path == name


# in the chat


@pytest.fixture
def chat(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return new_chat(ScriptedEngine("Fine."))


def test_files_are_read_ahead_while_the_question_is_typed(chat):
    chat.look_ahead("What is @notes.txt")
    weighed(chat)
    assert chat.engine.looked == f"{NOTES}\n\nWhat is @notes.txt"


def test_the_title_and_the_history_show_what_was_typed(chat):
    chat.ask_with_files("What is @notes.txt?")
    assert chat.engine.asked[-1].messages[-1].content == f"{NOTES}\n\nWhat is @notes.txt?"
    assert chat.conversation.title() == "What is @notes.txt?"
    commands.run(chat, "/history")
    assert "1    What is @notes.txt?  Fine.\n" in chat.screen._err.file.getvalue()
    assert commands.run(chat, "/edit") == "What is @notes.txt?"


def test_text_that_nobody_typed_is_not_searched_for_files(chat):
    chat.ask_with_files("Sum it up.", "see @notes.txt\n\n")
    assert chat.engine.asked[-1].messages[-1].content == "see @notes.txt\n\nSum it up."


@pytest.mark.parametrize(
    ("name", "line"),
    [("notes.txt", "@notes.txt "), ("my notes.txt", '@"my notes.txt" '), ("src/*", "@src/* ")],
)
def test_read_puts_the_file_into_the_next_line(chat, name, line):
    assert commands.run(chat, f"/read {name}") == line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "/read notes.txt"),
        ("nothing.txt", "There is no file nothing.txt"),
        ("src", "/read src/*.txt"),
    ],
)
def test_read_without_a_file_is_an_error(chat, name, said):
    with pytest.raises(LcpError, match=re.escape(said)):
        commands.run(chat, f"/read {name}")
