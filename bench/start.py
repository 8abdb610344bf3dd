"""From exec to a prompt that takes keys: interactive `lcp chat` beside llama-cli, on the same file.

    python -m bench.start [MODEL.gguf] [-t N] [--pairs N] [--json FILE]

prompt  seconds from just before fork and exec until the "> " of the prompt is seen at the pty
usable  seconds until a letter, typed the moment that "> " is seen, is echoed as well: what the
        target of 0.5 s is about

one token  seconds of a one-shot whose answer has one token, from just before exec to its end
help    CPU seconds of `lcp --help`, beside `python -c "import typer"`

Both start as a person starts them: `lcp` saves its chat and has run before (the first start ever
probes llama.cpp in a process of its own, once per installation), llama-cli warms the model up as it
always does. `lcp` draws the prompt first and loads the model behind it; llama-cli loads first. Both
run once before anything is timed, so the file is in the page cache.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from functools import partial
from subprocess import DEVNULL

from bench.build_tools import tool
from bench.measure import BenchError, Row, Terminal, abba
from bench.sides import READY, SPIN, Model, arguments, lcp_chat, lcp_env, run
from lcp.engine.llama_library import extra_bufts

LIMIT = 0.5  # seconds, the target
LETTER = "z"  # in no banner and no line about what is going on
LCP_PROMPT = READY + "(?s:.*)\x1b\\[0m>"
CLI_PROMPT = "\n> "  # its list of commands has a "<file> "


def start(command: list[str], env: dict[str, str], prompt: str) -> tuple[float, float]:
    """Seconds to the prompt, and to the echo of the first letter behind it."""
    begun = time.perf_counter()
    with Terminal(command, env) as terminal:
        seen = terminal.expect(prompt).time
        terminal.send(LETTER.encode())
        return seen - begun, terminal.expect(LETTER).time - begun


def lcp(model: Model, home: str) -> tuple[float, float]:
    """One start of `lcp chat` in a home that has been used before."""
    command = lcp_chat(model)
    command.remove("--no-save")
    return start(command, lcp_env(home), LCP_PROMPT)


def llama_cli(model: Model) -> tuple[float, float]:
    """One start of llama-cli."""
    repack = "--repack" if extra_bufts() else "--no-repack"
    how = f"-t {model.threads} -fa {model.flash_attn} {repack}"
    command = [str(tool("llama-cli")), "-m", str(model.path), *how.split()]
    return start(command, os.environ | SPIN | {"TERM": "xterm-256color"}, CLI_PROMPT)


def spent(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds of a command that prints into nothing: on the clock, and of CPU time."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=env, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    taken, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"{command[0]} ended with {done.returncode}.")
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def one_token(model: Model, home: str, pairs: int) -> Row:
    """A one-shot of lcp beside one of llama-cli."""
    repack = "--repack" if extra_bufts() else "--no-repack"
    how = f"-t {model.threads} -fa {model.flash_attn} {repack} --temp 0 -n 1 -st -p Hi"
    theirs = [str(tool("llama-cli")), "-m", str(model.path), *how.split()]
    ours = lcp_chat(model, "-n", "1", "-p", "Hi")
    ours.remove("--no-save")
    found = abba(
        lambda: spent(ours, lcp_env(home))[0],
        lambda: spent(theirs, os.environ | SPIN)[0],
        pairs,
    )
    return Row("one token, beside llama-cli", "s", found, "<= 1")


def help_text(home: str, pairs: int) -> Row:
    """`lcp --help` beside the import of the package that reads command lines."""
    python, env = sys.executable, lcp_env(home)
    found = abba(
        lambda: spent([python, "-m", "lcp", "--help"], env)[1],
        lambda: spent([python, "-c", "import typer"], env)[1],
        pairs,
    )
    return Row("help, beside import typer (CPU)", "s", found, "<= 1.35")


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    with tempfile.TemporaryDirectory() as home:
        ours, theirs = partial(lcp, model, home), partial(llama_cli, model)
        ours(), theirs()
        found = abba(ours, theirs, options.pairs)
        more = [one_token(model, home, options.pairs), help_text(home, options.pairs)]
    return [
        Row("prompt, beside llama-cli", "s", [(a[0], b[0]) for a, b in found]),
        Row("usable, beside llama-cli", "s", [(a[1], b[1]) for a, b in found]),
        Row(f"usable, beside {LIMIT} s", "s", [(a[1], LIMIT) for a, _ in found], "<= 1"),
        *more,
    ]


def main() -> int:
    return run(arguments((__doc__ or "").partition("\n")[0]), measure)


if __name__ == "__main__":
    sys.exit(main())
