"""The slash commands: their output and their effects."""

import inspect
import os
import re
from contextlib import suppress
from dataclasses import replace

import pytest
from fakes import Said, ScriptedEngine, does, new_chat
from terminal import Glass, Paper, a_console

from lcp import commands
from lcp.cli.chat import chat as command_line
from lcp.commands import command_table, settings
from lcp.engine_interface import PromptMessage
from lcp.errors import LcpError
from lcp.settings import LIVE, OPTIONS, Layers


@pytest.fixture
def chat(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    engine = ScriptedEngine("One.", Said("Two.", thinking="Hm."), "Three.")
    return new_chat(engine, Layers(flags={"temp": "0.2"}, catalog={"top_p": 0.9}))


def refused(chat, line):
    """The error of a refused command."""
    with pytest.raises(LcpError) as error:
        commands.run(chat, line)
    return str(error.value)


def test_help_lists_every_command(chat):
    text = does(chat, "/help")
    for command in command_table.TABLE:
        assert f"/{command.name}" in text
        assert command.meaning in text
    assert "Alt-Enter" in does(chat, "/help keys")


@pytest.mark.parametrize(("columns", "rows"), [(120, 33), (100, 33), (80, 33), (60, 45)])
def test_help_fits_a_screen(chat, columns, rows):
    glass = Glass(columns, 100)
    chat.screen._err = a_console(Paper(glass), columns, 100)
    commands.run(chat, "/help")
    lines = glass.text().splitlines()
    assert len(lines) <= rows
    assert max(map(len, lines)) <= columns
    shown = " ".join(" ".join(lines).split())
    for word in ["/retry", "/continue", "answer", "list", "alternative"]:
        assert word in shown  # none is broken


def test_help_of_each_command_has_details(chat):
    for command in command_table.TABLE:
        text = does(chat, f"/help {command.name}")
        told, example = command.help, command.example
        assert told in text
        assert len(told) > len(command.meaning) // 2
        assert example.split()[0] == f"/{command.name}"
        assert f"Example: {example}" in text
        assert f"/{command.name} {command.arguments}".rstrip() in text
        assert "See also: /" in text


@pytest.mark.slow
def test_only_exit_ends_the_chat(chat):
    chat.ask("Hi.")
    for command in command_table.TABLE:
        if command.name != "exit":
            with suppress(LcpError):
                commands.run(chat, f"/{command.name}")
    with pytest.raises(EOFError):
        commands.run(chat, "/exit")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("/exti", "Did you mean /exit?"),
        ("/sets temp 0.5", "Did you mean /set?"),
        ("/new", "Did you mean /clear?"),
        ("/load", "Did you mean /open?"),
        ("/wxyz", "/help lists the commands."),
        ("/", "/help lists the commands."),
        ("/etc/hosts is a file", "/help lists the commands."),
    ],
)
def test_an_unknown_command_gets_a_hint(chat, line, hint):
    assert refused(chat, line).endswith(hint)


def test_help_of_one_command(chat):
    assert does(chat, "/help pin").startswith("/pin N  keep turn N in the window, ")
    assert does(chat, "/help /pin") == does(chat, "/help pin")
    assert refused(chat, "/help pinn").endswith("Did you mean /pin?")


def test_names_of_commands_in_other_programs_work(chat):
    names = {command.name for command in command_table.TABLE}
    assert not names & {*command_table.ELSEWHERE, *command_table.SAME}
    assert not command_table.ELSEWHERE.keys() & command_table.SAME.keys()
    assert {meant.split()[0] for meant in command_table.ELSEWHERE.values()} <= names
    assert set(command_table.SAME.values()) <= names


@pytest.mark.parametrize("line", ["/quit", "/bye", "/q", "/QUIT", "/Exit"])
def test_aliases_of_exit_end_the_chat(chat, line):
    with pytest.raises(EOFError):
        commands.run(chat, line)


def test_aliases_run_their_command(chat):
    for word in ("/?", "/h", "/HELP"):
        assert does(chat, word) == does(chat, "/help")
    assert does(chat, "/help quit") == does(chat, "/help exit")
    assert does(chat, "/models") == does(chat, "/model")


def test_an_argument_for_a_command_without_arguments_is_an_error(chat):
    chat.ask("Hi.")
    for command in command_table.TABLE:
        if not command.arguments:
            expected = f"/{command.name} takes no argument. Leave out all of it."
            assert refused(chat, f"/{command.name} all of it") == expected
    assert len(chat.conversation.turns()) == 1


def test_errors_of_read_differ_by_cause(chat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    os.mkfifo(tmp_path / "pipe")  # which would be waited for
    assert refused(chat, "/read").startswith("/read needs a file: /read notes.txt")
    for name in ("notes", "notes/"):
        expected = f"{name} is a folder. Give files in it: /read notes/*.txt"
        assert refused(chat, f"/read {name}") == expected
    for name in ("pipe", "/dev/zero"):
        assert refused(chat, f"/read {name}").startswith(f"{name} is not a text file. ")
    missing = f"There is no file {'x' * 999}. "
    assert refused(chat, f"/read {'x' * 999}").startswith(missing)


def test_each_fixed_setting_names_an_existing_flag(chat):
    flags = {parameter.name for parameter in inspect.signature(command_line).parameters.values()}
    for name in set(OPTIONS) - {*LIVE, *settings.OWN}:
        flag = f"--{name.replace('_', '-')}"
        assert refused(chat, f"/set {name} 1").endswith(f"Restart lcp with {flag}.")
        assert name in flags


def test_white_space_around_a_command_is_ignored(chat):
    assert does(chat, "/system   Be brief.  ") == "System text: Be brief.\n"


def test_set_shows_every_setting_with_its_source(chat):
    head, *rows = [line.split() for line in does(chat, "/set").splitlines()]
    assert head == ["setting", "value", "from", "default", "meaning"]
    assert [row[0] for row in rows] == [name for name in OPTIONS if name not in settings.OWN]
    assert rows[0][:4] == ["temp", "0.2", "flag", "0.8"]
    assert rows[2][:4] == ["top_p", "0.9", "models.toml", "0.95"]
    assert rows[3][:4] == ["min_p", "0.05", "default", "0.05"]
    (stop,) = (row for row in rows if row[0] == "stop")
    assert stop[:4] == ["stop", "none", "default", "none"]


def test_set_shows_one_setting(chat):
    text = does(chat, "/set temp")
    assert text == f"temp  0.2  flag  default 0.8  {OPTIONS['temp'].metadata['help']}\n"
    assert does(chat, "/set ctx_size").startswith("ctx_size  auto  default  default auto  ")


@pytest.mark.parametrize(
    ("line", "name", "value", "word"),
    [
        ("/set temp 0", "temp", 0, "0.0"),
        ("/set temp=0.5", "temp", 0.5, "0.5"),
        ("/set temp = 0.5", "temp", 0.5, "0.5"),
        ("/set seed 7", "seed", 7, "7"),
        ("/set seed random", "seed", None, "random"),
        ("/set max_tokens 9", "max_tokens", 9, "9"),
        ("/set max_tokens auto", "max_tokens", None, "auto"),
        ("/set stop THE END", "stop", ("THE END",), "THE END"),
        ("/set stop none", "stop", (), "none"),
        ("/set think off", "think", "off", "off"),
    ],
)
def test_set_changes_the_next_answer(chat, line, name, value, word):
    assert does(chat, line).startswith(f"{name}  {word}  /set  ")
    assert chat.settings.value(name) == value
    assert chat.settings.sources[name] == "/set"
    assert chat.conversation.settings == {name: value}


def test_the_last_value_of_a_setting_counts(chat):
    commands.run(chat, "/set temp 0.5")
    commands.run(chat, "/set top_k 3")
    commands.run(chat, "/set temp 0.6")
    chat.ask("Hi.")
    sampling = chat.engine.asked[-1].sampling
    assert (sampling.temp, sampling.top_k) == (0.6, 3)


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("/set temp hot", r"temp .* 0 to 10 .*hot.* /set"),
        ("/set think maybe", r"think .* on, off or hide .*maybe.* /set"),
        ("/set tmep 1", "tmep .*temp"),
        ("/set tmep", "tmep .*temp"),
        ("/set ctx_size 64", "ctx_size .*--ctx-size"),
        ("/set model other", "/model NAME"),
        ("/set persona cook", "/persona NAME"),
        ("/set system Be brief.", "/system TEXT"),
    ],
)
def test_a_refused_setting_keeps_its_value(chat, line, facts):
    before = chat.settings
    assert re.search(facts, refused(chat, line))
    assert chat.settings == before
    assert chat.conversation.settings == {}


@pytest.mark.parametrize(
    ("name", "value", "counted", "source"),
    [("temp", "0.9", 0.2, "flag"), ("top_p", "0.1", 0.9, "models.toml"), ("seed", "7", None, "")],
)
def test_set_reset_removes_the_value_set_in_the_chat(chat, name, value, counted, source):
    before = chat.settings
    commands.run(chat, f"/set {name} {value}")
    assert chat.settings != before
    assert does(chat, f"/set {name} reset").split()[2] == (source or "default")
    assert chat.settings == before
    assert chat.conversation.settings == {name: counted}  # a resumed chat has it, too


def test_set_reset_removes_the_value_of_the_resumed_chat(chat):
    chat.layers = replace(chat.layers, conversation={"temp": 0.9, "top_k": 5})
    commands.run(chat, "/set temp reset")
    assert (chat.settings.sampling.temp, chat.settings.sampling.top_k) == (0.2, 5)


def test_reset_of_an_unknown_setting_is_an_error(chat):
    assert refused(chat, "/set tmep reset").endswith("Did you mean temp?")
    assert "Restart lcp with --ctx-size." in refused(chat, "/set ctx_size reset")


def test_set_shows_the_seed_of_the_last_answer(chat):
    assert does(chat, "/set seed").startswith("seed  random  default  ")
    chat.ask("Hi.")
    assert does(chat, "/set seed").startswith("seed  random (last: 7)  default  ")
    commands.run(chat, "/set seed 3")
    assert does(chat, "/set seed").startswith("seed  3  /set  ")


def test_a_valid_value_works_after_an_invalid_one(chat):
    refused(chat, "/set temp hot")
    commands.run(chat, "/set top_k 3")
    assert (chat.settings.sampling.temp, chat.settings.sampling.top_k) == (0.2, 3)


def test_the_system_text_is_shown_and_changed(chat):
    assert does(chat, "/system") == "System text: (none)\n"
    assert does(chat, "/system Be brief.") == "System text: Be brief.\n"
    assert does(chat, "/system") == "System text: Be brief.\n"
    chat.ask("Hi.")
    assert chat.engine.asked[-1].messages[0] == PromptMessage("system", "Be brief.")


def test_the_system_text_can_be_removed(chat):
    commands.run(chat, "/system Be brief.")
    assert does(chat, "/system none") == "System text: (none)\n"
    chat.ask("Hi.")
    # an empty one, which removes the template's own
    assert chat.engine.asked[-1].messages[0] == PromptMessage("system", "")
    assert does(chat, "/system reset") == "System text: (none)\n"
    chat.ask("Hi.")
    assert chat.engine.asked[-1].messages[0].role == "user"


def test_the_system_text_can_come_from_a_file(chat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "be brief.txt").write_bytes(b"\xef\xbb\xbfBe brief.\r\nBe kind.")
    for line in ("/system @be brief.txt", '/system @"be brief.txt"'):
        commands.run(chat, "/system none")
        assert does(chat, line) == "System text: Be brief.\nBe kind.\n"
    assert chat.conversation.system == "Be brief.\nBe kind."


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/system @nobody.txt", "There is no file nobody.txt."),
        ("/system @", "There is no file without a name."),
        ("/system @*", "There is no file *."),
        ("/system @pipe", "There is no file pipe."),
        ("/system @photo", "photo is not a UTF-8 text file."),
    ],
)
def test_a_system_text_that_cannot_be_read_changes_nothing(
    chat, tmp_path, monkeypatch, line, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo").write_bytes(b"\x89PNG")
    os.mkfifo(tmp_path / "pipe")
    commands.run(chat, "/system Be brief.")
    assert refused(chat, line).startswith(sentence)
    assert chat.conversation.system == "Be brief."


def test_a_system_text_of_many_lines_is_kept(chat):
    commands.run(chat, "/system Be brief.\nBe kind.")
    assert chat.conversation.system == "Be brief.\nBe kind."


def test_retry_generates_another_answer(chat):
    chat.ask("Hi.")
    text = does(chat, "/retry")
    assert text.startswith("Variant 2 of this answer; /branches lists the others.\nHm.\n")
    assert "20.0 tokens/s" in text
    assert chat.screen._out.file.getvalue() == "One.\nTwo.\n"


def test_retry_after_clear_is_an_error(chat):
    chat.ask("Hi.")
    commands.run(chat, "/clear")
    sentence = "This chat is empty. Ask something; /branches lists the earlier turns."
    for command in (
        "/retry",
        "/history",
        "/undo",
        "/copy",
        "/export chat.md",
        "/probs",
        "/fork 1 1",
    ):
        assert refused(chat, command) == sentence


def test_clear_starts_a_new_conversation_and_the_log_keeps_the_old_one(chat):
    chat.ask("Hi.")
    commands.run(chat, "/system Be brief.")
    assert "new conversation" in does(chat, "/clear")
    chat.ask("Who are you?")
    assert [m.content for m in chat.engine.asked[-1].messages] == ["Be brief.", "Who are you?"]
    assert len(chat.conversation.nodes) == 4


def test_stats_shows_the_statistics_of_the_last_answer(chat):
    assert refused(chat, "/stats") == "There is no answer yet. Ask something first."
    chat.ask("Hi there.")
    *rows, sums = does(chat, "/stats").splitlines()
    rows = dict(line.split() for line in rows)
    assert rows["prompt_tokens"] == "2"
    assert rows["ctx_size"] == "4,096"
    assert list(rows) == list(chat.stats.as_dict())
    assert sums == "In this chat: 1 answer of 1 tokens, 2 tokens read, 1.2 s."
    chat.ask("And now?")
    assert does(chat, "/stats").endswith("2 answers of 2 tokens, 7 tokens read, 2.4 s.\n")


def test_a_file_that_the_system_refuses_does_not_end_the_chat(chat):
    def models():
        raise PermissionError(13, "Permission denied", "/models")

    chat.services = replace(chat.services, models=models)
    assert "/models: Permission denied" in refused(chat, "/model")
