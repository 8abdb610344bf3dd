"""From exec to a prompt that takes keys: interactive `lcp chat` beside llama-cli, on the same file.

    python -m bench.start [MODEL.gguf] [-t N] [--pairs N] [--json FILE]

prompt  seconds from just before fork and exec until the "> " of the prompt is seen at the pty
usable  seconds until a letter, typed the moment that "> " is seen, is echoed as well: what the
        target of 0.5 s is about

Both start as a person starts them: `lcp` saves its chat and has run before (the first start ever
probes llama.cpp in a process of its own, once per installation), llama-cli warms the model up as it
always does. `lcp` draws the prompt first and loads the model behind it; llama-cli loads first. Both
run once before anything is timed, so the file is in the page cache.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from argparse import Namespace
from functools import partial

from bench.build_tools import tool
from bench.measure import Row, Terminal, abba
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


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    with tempfile.TemporaryDirectory() as home:
        ours, theirs = partial(lcp, model, home), partial(llama_cli, model)
        ours(), theirs()
        found = abba(ours, theirs, options.pairs)
    return [
        Row("prompt, beside llama-cli", "s", [(a[0], b[0]) for a, b in found]),
        Row("usable, beside llama-cli", "s", [(a[1], b[1]) for a, b in found]),
        Row(f"usable, beside {LIMIT} s", "s", [(a[1], LIMIT) for a, _ in found], "<= 1"),
    ]


def main() -> int:
    return run(arguments((__doc__ or "").partition("\n")[0]), measure)


if __name__ == "__main__":
    sys.exit(main())
