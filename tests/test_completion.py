"""What the Tab key of a shell offers, and what it costs."""

import subprocess
import sys

import pytest
from terminal import NOW, terminal_environment
from test_start import HEAVY

from lcp.session.conversation import Conversation
from lcp.session.store import Store

pytestmark = pytest.mark.slow  # processes, servers and time-outs

LCP = "import sys; sys.argv[0] = 'lcp'; from lcp.cli import main; main()"


@pytest.fixture
def stocked(home):
    """A home with a persona, models and chats; some have names that a shell would run."""
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('[persona.cook]\n[persona."$(id)"]\n')
    models = home / "data" / "models"
    models.mkdir(parents=True)
    for name in ("small-model", "$(touch x)", "a'b", "two words", "-n"):
        (models / f"{name}.gguf").touch()
    for name in ("trip", "`id`", ""):
        chat = Conversation.begin(lambda: NOW, "scripted")
        store = Store(home / "data" / "sessions", now=lambda: NOW)
        with store.create(chat.opening) as log:
            log.append(chat.ask("Hi $(id)"))
            log.append(chat.rename(name))
    return home


def complete(home, shell, line, *python):
    """What is offered behind a line, and what Python said of its imports."""
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


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("line", ["lcp chat -m ", "lcp chat --resume ", "lcp chat --persona "])
def test_a_shell_gets_nothing_that_it_could_run(stocked, shell, line):
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


def test_a_config_that_cannot_be_read_offers_nothing(stocked):
    (stocked / "config" / "config.toml").write_text("[persona")
    assert complete(stocked, "bash", "lcp chat --persona ") == ("\n", "")


def test_bash_completes(stocked, tmp_path):
    """The script that --install-completion installs, run by bash."""
    command = tmp_path / "bin" / "lcp"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{LCP}" "$@"\n')
    command.chmod(0o755)
    env = terminal_environment(stocked)
    env["PATH"] = f"{command.parent}:{env['PATH']}"
    script = (
        'eval "$(lcp --show-completion)"; COMP_WORDS=(lcp chat --persona c); COMP_CWORD=3; '
        '_lcp_completion lcp; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout == "cook\n"
