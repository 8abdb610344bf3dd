"""lcp beside other local chats, each in a real pty, with the same file and the same settings.

    python -m bench.peers [MODEL.gguf] [-t N] [--pairs N] [--peers FOLDER] [--peer NAME]
                          [--only PART ...]

The peers are llama-cli (bench.build_tools) and, where FOLDER has them, node-llama-cpp and llm:

    cd FOLDER && npm install node-llama-cpp
    python3 -m venv FOLDER/llm && FOLDER/llm/bin/pip install llm llm-gguf

Each sample is a process of its own, of a program that has run before. Parts, and what they measure:

chat      prompt: from exec until a typed letter is echoed; first text: from Enter of the first
          question; conversation: 4 questions, from the first Enter to the end of the last answer of
          128 tokens; memory: the most that its processes ever held, with the model file; resume:
          from exec of a command that continues this chat, a question typed at once, to first text
paste     1,500 words are pasted, Enter comes 10 s later: from Enter to first text
overflow  9 questions in a context of 1,024 tokens, which 7 fill: the longest wait for first text

What a peer cannot do is listed, not measured.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import sides
from bench.build_tools import tool
from bench.measure import ESCAPES, BenchError, Row, Terminal, abba
from bench.sides import Model
from lcp.engine.llama_library import extra_bufts

PARTS = ("chat", "paste", "overflow")
TOKENS, CONTEXT, SMALL = 128, 8192, 1024  # of an answer; of a context; of one that overflows
WORDS, WAIT = 1500, 10.0
QUESTIONS = (
    "Tell me a long story about a lighthouse and its keeper.",
    "Tell me in detail how bread is made, step by step.",
    "Describe a long walk through a forest in autumn.",
    "Write a long letter from a sailor to his sister.",
)
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TEXT = re.compile(rb"\A(?:\s|%b)*[^\s\x1b]" % ESCAPES.pattern)
Found = dict[str, float]


@dataclass(frozen=True)
class Peer:
    """A program to chat with, and how a bench recognizes what it prints."""

    name: str
    command: Callable[[int], list[str]]  # for a context of so many tokens
    ready: str  # its prompt
    sent: str  # after Enter; the next text is the answer
    env: dict[str, str]
    resume: list[str] | None = None  # what follows the command to continue the last chat
    cannot: dict[str, str] = field(default_factory=dict)  # row -> why it has no figure
    first_text: re.Pattern[bytes] = TEXT

    @contextmanager
    def running(self, context: int = CONTEXT, *words: str) -> Iterator[Terminal]:
        """The program at its prompt."""
        with Terminal([*self.command(context), *words], self.env) as terminal:
            self.prompt(terminal)
            yield terminal

    def prompt(self, terminal: Terminal) -> float:
        """Wait for the prompt; the moment when it came."""
        return terminal.expect(self.ready, 600).time

    def ask(self, terminal: Terminal, text: str, pause: float = 0.2) -> tuple[float, float, float]:
        """Paste a question, press Enter after a pause: the moments of Enter, first text, end."""
        return *self.begin(terminal, text, pause), self.prompt(terminal)

    def begin(self, terminal: Terminal, text: str, pause: float = 0.2) -> tuple[float, float]:
        """As `ask`, but without waiting for the end of the answer."""
        terminal.send(text.encode())
        terminal.settle(0.3)
        terminal.watch(pause)
        terminal.skip()
        entered = terminal.send(b"\r")
        terminal.expect(self.sent, 600)
        return entered, terminal.expect(self.first_text, 600).time


def lcp(model: Model, home: str) -> Peer:
    def command(context: int) -> list[str]:
        line = sides.lcp_chat(model, "-c", str(context), "-n", str(TOKENS), "-s", SYSTEM)
        line.remove("--no-save")
        return line

    return Peer("lcp", command, sides.READY, sides.SENT, sides.lcp_env(home), ["--continue"],
                first_text=sides.FIRST_TEXT)  # fmt: skip


def llama_cli(model: Model, home: str) -> Peer:
    repack = "--repack" if extra_bufts() else "--no-repack"
    fixed = ["-m", str(model.path), "-t", str(model.threads), "-fa", model.flash_attn, repack]
    fixed += ["-n", str(TOKENS), "--temp", "0", "-sys", SYSTEM]
    cannot = {"resume": "it saves no chats", "overflow": "an error ends the chat"}
    return Peer(
        "llama-cli", lambda context: [str(tool("llama-cli")), *fixed, "-c", str(context)],
        "\n> ", r"\n", environment(home), cannot=cannot,
    )  # fmt: skip


def node(model: Model, home: str, folder: Path) -> Peer | None:
    program = folder / "node_modules/.bin/node-llama-cpp"
    fixed = ["chat", "--model", str(model.path), "--threads", str(model.threads), "--gpu", "false"]
    fixed += ["--maxTokens", str(TOKENS), "--temperature", "0", "--repeatPenalty", "1"]
    fixed += ["--noHistory", "-s", SYSTEM, "--fa" if model.flash_attn == "on" else "--no-fa"]
    return Peer(
        "node-llama-cpp", lambda context: [str(program), *fixed, "-c", str(context)],
        "\x1b\\[33m> ", "AI: ", environment(home), cannot={"resume": "it saves no chats"},
    ) if program.exists() else None  # fmt: skip


def llm(model: Model, home: str, folder: Path) -> Peer | None:
    program = folder / "llm/bin/llm"
    if not program.exists():
        return None
    env = environment(home) | {"LLM_USER_PATH": home}
    for context in (CONTEXT, SMALL):
        words = ["gguf", "register-model", str(context), str(model.path), "--n-ctx", str(context)]
        subprocess.run([str(program), *words], env=env, check=True)
    why = "its plugin has no limit on the answer, which this model does not end"
    cannot = dict.fromkeys(("conversation", "overflow", "resume"), why)
    return Peer(
        "llm", lambda context: [str(program), "chat", "-m", f"gguf/{context}", "-s", SYSTEM],
        "\n> ", r"\n", env, cannot=cannot,
    )  # fmt: skip


def environment(home: str) -> dict[str, str]:
    return os.environ | sides.SPIN | {"HOME": home, "TERM": "xterm-256color"}


# The parts ----------------------------------------------------------------------------------------


def chat(peer: Peer) -> Found:
    """Prompt, first text, conversation, memory and resume of one chat."""
    found: Found = {}
    begun = time.perf_counter()
    with peer.running() as terminal:
        terminal.send(b"z")
        found["prompt"] = terminal.expect("z").time - begun
        terminal.send(b"\x7f")
        if "conversation" in peer.cannot:
            entered, first = peer.begin(terminal, QUESTIONS[0])
            terminal.watch(5)
        else:
            told = [peer.ask(terminal, question) for question in QUESTIONS]
            (entered, first, _), (_, _, ended) = told[0], told[-1]
            found["conversation"] = ended - entered
        found["first text"] = first - entered
        found["memory"] = peak(terminal.pid) / 2**20
        leave(terminal)
    if peer.resume:
        begun = time.perf_counter()
        with peer.running(CONTEXT, *peer.resume) as terminal:
            found["resume"] = peer.ask(terminal, "And then?")[1] - begun
    return found


def paste(peer: Peer) -> Found:
    """A long text, read while its writer still thinks, or not."""
    with peer.running() as terminal:
        entered, first = peer.begin(terminal, sides.prose(WORDS), WAIT)
        return {"paste": first - entered}


def overflow(peer: Peer) -> Found:
    """A chat that goes on when its context is full."""
    if "overflow" in peer.cannot:
        return {}
    with peer.running(SMALL) as terminal:
        told = [peer.ask(terminal, question) for question in (QUESTIONS * 3)[:9]]
    return {"overflow": max(first - entered for entered, first, _ in told[5:])}


def leave(terminal: Terminal) -> None:
    """End the program as a person does, so that it saves what it saves."""
    terminal.send(b"\x04")
    with suppress(BenchError):
        terminal.expect("nothing prints this", 10)


def peak(pid: int) -> int:
    """The most bytes that a process and its children ever held (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    held = int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) << 10
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return held + sum(peak(int(child)) for child in children)


def sample(peer: Peer, parts: list[str]) -> Found:
    """All figures of a peer."""
    found: Found = {}
    for part in parts:
        found |= {"chat": chat, "paste": paste, "overflow": overflow}[part](peer)
    return found


def warm_up(peer: Peer) -> Peer:
    """The peer, after a first start: what it does once for a model or a user is done."""
    with peer.running() as terminal:
        terminal.watch(5)
    return peer


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    rows = []
    parts = options.only or list(PARTS)
    with ExitStack() as life:

        def home() -> str:
            return life.enter_context(tempfile.TemporaryDirectory())

        ours = warm_up(lcp(model, home()))
        theirs = (
            llama_cli(model, home()),
            node(model, home(), options.peers),
            llm(model, home(), options.peers),
        )
        for peer in filter(None, theirs):
            if options.peer not in (None, peer.name):
                continue
            found = abba(
                partial(sample, ours, parts), partial(sample, warm_up(peer), parts), options.pairs
            )
            for row in found[0][0]:
                if row in found[0][1]:
                    unit = "MiB" if row == "memory" else "s"
                    pairs = [(a[row], b[row]) for a, b in found]
                    rows.append(Row(f"{row}, beside {peer.name}", unit, pairs))
                else:
                    mine = statistics.median(a[row] for a, _ in found)
                    why = peer.cannot.get(row, "not measured")
                    known[f"{row}: lcp {mine:.3g}, {peer.name}"] = why
    return rows


def main() -> int:
    parser = sides.arguments((__doc__ or "").partition("\n")[0])
    parser.set_defaults(pairs=5)
    parser.add_argument("--peers", type=Path, default=Path("bench/.build/peers"), metavar="FOLDER")
    parser.add_argument("--peer", choices=("llama-cli", "node-llama-cpp", "llm"))
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=" ".join(PARTS))
    return sides.run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
