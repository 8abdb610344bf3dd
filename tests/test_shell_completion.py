"""What the Tab key of a shell offers, and how fast."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from terminal import ENTER, NOW, Pty, terminal_environment
from test_start import HEAVY

from lcp.cli import app
from lcp.session.conversation import Conversation
from lcp.session.store import Store
from lcp.settings import OPTIONS

pytestmark = pytest.mark.slow  # processes, servers and time-outs

LCP = "import sys; sys.argv[0] = 'lcp'; from lcp.cli import main; main()"


@pytest.fixture
def stocked(home):
    """A home with a persona, models and chats; a shell would run the names of some."""
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('[persona.cook]\n[persona."$(id)"]\n')
    models = home / "data" / "models"
    models.mkdir(parents=True)
    for name in ("small-model", "$(touch x)", "a'b", "two words", "-n", "tagged:1b", "tagged:4b"):
        (models / f"{name}.gguf").touch()
    theirs = Path(os.environ["HOME"]) / ".lmstudio/models/owner/repo"
    theirs.mkdir(parents=True)
    (theirs / "repo-Q8_0.gguf").touch()
    for name in ("trip", "`id`", ""):
        chat = Conversation.begin(lambda: NOW, "scripted")
        store = Store(home / "data" / "sessions", now=lambda: NOW)
        with store.create(chat.opening) as log:
            log.append(chat.ask("Hi $(id)"))
            log.append(chat.rename(name))
    return home


def complete(home, shell, line, *python):
    """The completions of a line, and Python's log of its imports."""
    words = line.split(" ")
    asked = {
        "_LCP_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line.replace(" ", "\n"),
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, *python, "-c", LCP],
        capture_output=True,
        text=True,
        env=terminal_environment(home) | asked,
        check=False,
    )
    return done.stdout, done.stderr


def offered(home, line):
    return complete(home, "bash", line)[0].splitlines()


def test_names_of_models_chats_and_personas_are_offered(stocked):
    assert offered(stocked, "lcp chat --persona ") == ["cook"]
    models = offered(stocked, "lcp chat -m ")
    assert {"small-model", "smollm2-135m"} <= set(models)
    assert "-n" not in models
    assert offered(stocked, "lcp chat small") == ["small-model"]
    chats = offered(stocked, "lcp chat --resume ")
    ids = sorted(path.stem for path in (stocked / "data" / "sessions").glob("*.jsonl"))
    assert (set(chats[:2]), sorted(chats[2:])) == ({"trip", "last"}, ids)
    assert offered(stocked, "lcp sessions show tr") == ["trip"]


def test_models_are_offered_where_a_model_is_expected(stocked):
    assert "qwen3-0.6b" in offered(stocked, "lcp pull q")
    assert {"small-model", "smollm2-135m"} <= set(offered(stocked, "lcp info sm"))
    assert "qwen3-0.6b" not in offered(stocked, "lcp rm ")
    assert {"small-model", "tagged:1b"} <= set(offered(stocked, "lcp rm "))
    assert offered(stocked, "lcp verify small") == ["small-model"]


def test_the_values_of_every_setting_are_offered(stocked):
    """The words that lcp.settings declares, for every option of a setting with words."""
    command = typer.main.get_command(app)
    asked = 0
    for name in ("chat", "info"):
        for option in command.commands[name].params:
            rule = OPTIONS[option.name].metadata if option.name in OPTIONS else {}
            words = rule.get("choices") or rule.get("words")
            if words and option.name != "persona" and not option.is_flag:
                ctx = typer.Context(command.commands[name])
                found = [item.value for item in option.shell_complete(ctx, "")]
                assert found == list(words), option.name
                asked += 1
    assert asked > 12
    assert offered(stocked, "lcp chat --overflow s") == ["slide", "summarize", "stop"]


def test_chats_come_before_one_shots(stocked):
    sessions = stocked / "data" / "sessions"
    mine = {path.stem for path in sessions.glob("*.jsonl")}
    for _ in range(60):
        script = Conversation.begin(lambda: NOW, "scripted", kind="one-shot")
        with Store(sessions, now=lambda: NOW).create(script.opening) as log:
            log.append(script.ask("Hi."))
    chats = offered(stocked, "lcp chat --resume ")
    assert set(chats[:2]) == {"trip", "last"}
    assert set(chats[2 : 2 + len(mine)]) == mine
    assert len(chats) > 2 + len(mine)
    assert offered(stocked, "lcp sessions rm ") == chats
    assert offered(stocked, "lcp sessions rename ") == chats


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("line", ["lcp chat -m ", "lcp chat --resume ", "lcp chat --persona "])
def test_completions_contain_nothing_that_a_shell_could_run(stocked, shell, line):
    out, err = complete(stocked, shell, line)
    assert out and err == ""
    assert not set("$`") & set(out)
    assert "touch" not in out and "two words" not in out


@pytest.mark.parametrize("line", ["lcp chat --", "lcp chat -m s", "lcp chat --resume 2"])
def test_completing_imports_nothing_heavy(stocked, line):
    out, err = complete(stocked, "zsh", line, "-X", "importtime")
    modules = {row.rpartition("|")[2].strip() for row in err.splitlines()}
    assert out and "typer" in modules
    assert not [m for m in modules if m.split(".")[0] in HEAVY]


def test_an_unreadable_config_offers_nothing(stocked):
    (stocked / "config" / "config.toml").write_text("[persona")
    assert complete(stocked, "bash", "lcp chat --persona ") == ("\n", "")


@pytest.mark.parametrize(
    "shell",
    [
        "bash",  # the checks themselves run in it
        *(
            pytest.param(
                name,
                marks=pytest.mark.skipif(
                    not shutil.which(name), reason=f"the system has no {name}"
                ),
            )
            for name in ("zsh", "fish")
        ),
    ],
)
def test_tab_completes_in_the_real_shell(stocked, tmp_path, shell):
    """As set up by `lcp --install-completion`, from the first Tab on."""
    path = shutil.which(shell)
    assert path
    command = tmp_path / "bin" / "lcp"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{LCP}" "$@"\n')
    command.chmod(0o755)
    person = tmp_path / "person"
    person.mkdir(exist_ok=True)
    (person / f".{shell}rc").write_text("PS1='$ '\n")  # zsh asks a new user questions
    (person / ".config/fish").mkdir(parents=True)
    (person / ".config/fish/config.fish").write_text("set -g fish_autosuggestion_enabled 0\n")
    env = {
        "HOME": str(person),
        "SHELL": path,  # needed if the parent programs cannot be seen
        "PATH": f"{command.parent}:{os.environ['PATH']}",
    }
    (tmp_path / "model.gguf").touch()
    with Pty(path, "-i", home=stocked, env=env, cwd=tmp_path) as shell_before:
        shell_before.waits(lambda: shell_before.screen() != "", "no prompt")
        shell_before.type(f"lcp --install-completion{ENTER}")
        shell_before.sees("completion installed in")
    with Pty(path, "-i", home=stocked, env=env, cwd=tmp_path) as at:
        at.waits(lambda: at.screen() != "", "no prompt")
        time.sleep(1)  # keys before the line editor starts are lost
        for typed, completed in (
            ("lcp chat --persona c\t", "lcp chat --persona cook"),
            ("lcp chat --pers\t", "lcp chat --persona"),
            ("lcp sess\t", "lcp sessions"),
            ("lcp sessions show tr\t", "lcp sessions show trip"),
            ("lcp chat -m tag\t", "lcp chat -m tagged:"),
            ("lcp chat -m tagged:1\t", "lcp chat -m tagged:1b"),
            ("lcp chat -m owner/re\t", "lcp chat -m owner/repo:Q8_0"),
            ("lcp chat -m ./mod\t", "lcp chat -m ./model.gguf"),
            ("lcp pull qwen3-0\t", "lcp pull qwen3-0.6b"),
            ("lcp info small-\t", "lcp info small-model"),
            ("lcp info ./mod\t", "lcp info ./model.gguf"),
            ("lcp rm small\t", "lcp rm small-model"),
            ("lcp chat --kv-type q8\t", "lcp chat --kv-type q8_0"),
            ("lcp chat --loop-guard of\t", "lcp chat --loop-guard off"),
        ):
            at.type(typed)
            at.sees(completed)
            at.type("\x15")  # clear the line
            at.waits(lambda line=completed: line not in at.screen(), "it stays")
