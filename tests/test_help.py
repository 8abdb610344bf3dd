"""Help of every command and option, and an invalid value for each."""

import re

import pytest
import typer
import typer.core

from lcp.cli import app
from lcp.settings import OPTIONS

PYTHON = re.compile(r"<|\[default|\b(str|int|bool|INTEGER|FLOAT|BOOLEAN|PATH|None)\b")
ARTICLES = {"a", "an", "the", "how", "when", "what", "then", "as", "each", "every", "only", "one"}
WIDTH = 100


def commands(command=None, path=()):
    command = command or typer.main.get_command(app)
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


ALL = dict(commands())
OWN = [
    (path, param)
    for path, command in ALL.items()
    for param in command.params
    if not getattr(param, "hidden", False) and "completion" not in (param.name or "")
]


@pytest.mark.slow
@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_shows_no_python_types_and_fits(path, lcp_main, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    assert lcp_main(*path, "--help") == 0
    out = capsys.readouterr().out
    rows = out.splitlines()
    assert not [row for row in rows if PYTHON.search(row)]
    assert max(map(len, rows)) <= WIDTH
    assert "..." not in out.partition("Commands:")[2]  # no summary is cut
    for param in (p for at, p in OWN if at == path):
        assert any(row.endswith((param.help, f"{param.help}  [required]")) for row in rows), param


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_begins_with_a_verb_or_a_noun(path):
    texts = [ALL[path].help or "", *(param.help for at, param in OWN if at == path)]
    for text in texts:
        first = text.split()[0]
        assert first[0].isupper() and first.lower() not in ARTICLES, text
        assert text.rstrip().partition("\n\n")[0].endswith((".", ")")), text


SETTINGS = [p for at, p in OWN if at == ("chat",) and p.name in OPTIONS]


@pytest.mark.slow
@pytest.mark.parametrize("option", SETTINGS, ids=lambda option: option.name)
def test_help_and_error_name_the_same_choices(option, lcp_main, capsys):
    rule = OPTIONS[option.name].metadata
    words = [*rule.get("choices", ()), *rule.get("words", ())]
    if option.is_flag or not ("choices" in rule or "low" in rule):
        return  # no value, or any text
    assert set(words) <= set(option.metavar.split("|"))
    assert lcp_main("chat", option.opts[0], "rubbish", "-p", "Hi") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "rubbish" in said
    assert all(word in said for word in words)
