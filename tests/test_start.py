"""The cost of starting: `lcp --help` imports nothing that only a chat needs."""

import subprocess
import sys

import pytest
from terminal import Pty, terminal_environment

from lcp.cli.lazy_commands import COMMANDS, LoadedCommands

HEAVY = ("rich", "numpy", "llama_cpp", "gguf", "huggingface_hub", "prompt_toolkit", "jinja2")


def imported_by(*words, home):
    """All modules that a command line imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lcp", *words],
        capture_output=True,
        text=True,
        env=terminal_environment(home),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["--help"], ["chat", "--help"], ["look", "-h"], ["--version"], ["chat", "--bogus"], []],
)
def test_help_imports_nothing_heavy(words, home):
    modules = imported_by(*words, home=home)
    assert "typer" in modules
    heavy = [m for m in modules if m.split(".")[0] in HEAVY]
    assert not heavy


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["rm", "--help"]])
def test_a_command_line_imports_no_other_command(words, home):
    ours = {m for m in imported_by(*words, home=home) if m.startswith("lcp.cli.")}
    assert not ours & {"lcp.cli.chat", "lcp.cli.look", "lcp.cli.pull", "lcp.cli.sessions"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_and_their_own_help_agree(name):
    assert LoadedCommands()[name].get_short_help_str(100) == COMMANDS[name][2]


@pytest.mark.slow
def test_an_invalid_value_is_reported_before_llama_cpp_is_loaded(home):
    modules = imported_by("chat", "--temp", "hot", home=home)
    assert not [m for m in modules if m.split(".")[0] in ("llama_cpp", "prompt_toolkit", "jinja2")]


@pytest.mark.slow
def test_a_chat_does_without_numpy(home, tiny):
    modules = imported_by("chat", "-m", str(tiny()), "-p", "Hello", "-n", "1", home=home)
    assert "lcp.engine.answering" in modules
    assert not [m for m in modules if m.split(".")[0] == "numpy"]


@pytest.mark.slow
def test_one_answer_imports_nothing_that_it_does_not_need(home, tiny):
    """typer would import pydantic for the value of an option; it takes 0.1 s."""
    modules = imported_by(
        *("chat", str(tiny("dense")), "-n", "1", "--stop", "x", "-p", "hi"), home=home
    )
    assert "llama_cpp._ctypes_extensions" in modules
    heavy = ("pydantic", "markdown_it", "prompt_toolkit", "numpy", "llguidance", "lcp.commands")
    assert not modules & {*heavy, "importlib.metadata", "lcp.terminal.markdown"}


@pytest.mark.slow
@pytest.mark.parametrize(("piped", "prepared"), [(True, False), (False, True)])
def test_the_renderer_is_imported_before_the_first_answer(home, piped, prepared):
    """And only if an answer will be rendered."""
    code = (
        "import sys; from lcp.terminal.screen import Screen; screen = Screen(); before = "
        "set(sys.modules); screen.prepare(); print(*sorted(set(sys.modules) - before))"
    )
    if piped:
        words = [sys.executable, "-c", code]
        done = subprocess.run(
            words, capture_output=True, env=terminal_environment(home), check=True
        )
        modules = done.stdout.decode().split()
    else:
        with Pty(sys.executable, "-c", code, home=home) as terminal:
            assert terminal.leaves() == 0
            modules = terminal.screen().replace("\n", "").split()
    assert ("lcp.terminal.painter" in modules) is prepared


@pytest.mark.slow
@pytest.mark.parametrize("module", ["lcp", "lcp.engine", "lcp.engine.engine", "lcp.chat.chat"])
def test_importing_does_not_start_llama_cpp(module, home):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=terminal_environment(home),
        check=True,
    )
    assert "llama_cpp" not in done.stdout.split()
    assert done.stderr == ""
    assert not home.exists()


@pytest.mark.slow
def test_a_prompt_needs_neither_markdown_nor_templates():
    """They are imported while the person types."""
    code = (
        "import sys, lcp.chat.input_loop, lcp.commands, lcp.terminal.keyboard;"
        "print({'markdown_it', 'jinja2', 'llama_cpp', 'pygments'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
def test_the_garbage_collector_costs_a_short_command_nothing(home, tiny):
    """Neither on the way nor at the end, when Python would go through all modules once more."""
    code = (
        "import atexit, gc, sys\n"
        "runs = []\n"
        "gc.callbacks.append(lambda phase, about: runs.append(about['generation']))\n"
        "atexit.register(lambda: print('whole:', runs.count(2), gc.get_freeze_count()))\n"
        "from lcp.__main__ import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "chat", str(tiny("dense")), "-n", "1", "-p", "hi"],
        capture_output=True,
        text=True,
        env=terminal_environment(home),
        stdin=subprocess.DEVNULL,
        check=True,
    )
    told = done.stdout.rpartition("whole: ")[2].split()
    assert told[0] == "0"
    assert int(told[-1]) > 10_000
