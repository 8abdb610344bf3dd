"""`lcp chat --server` beside `lcp chat` and beside curl on the same server, file and machine.

    python -m bench.remote [MODEL.gguf] [-t N] [--pairs N] [--json FILE]

The server is llama.cpp's own, out of the wheel xllamacpp, with the same threads, flash attention
and repacking. All sides answer the same kind of question, one answer of 128 tokens each, at
temperature 0; each question is a new prompt of about 60 tokens. One answer of each side comes
before what is measured.

write       tokens/s of an answer: from its first token to its last
first       seconds from the question to the first text, less those that the model read the prompt
            (which other processes disturb): of curl, from its start
processor   CPU seconds of the client for each token of an answer, from a scripted server that sends
            one every 3 ms: they hardly depend on what else runs
re-read     tokens that 20 turns in a window of 1024 read beyond the new question and the tokens
            around it, while turns leave: of those, the ones that no line on stderr told
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from argparse import Namespace
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from subprocess import DEVNULL, PIPE, Popen
from subprocess import run as run_
from typing import Any

from bench.build_tools import HERE
from bench.measure import BenchError, Row, abba
from bench.sides import Model, arguments, lcp_chat, lcp_env, run
from lcp.engine.llama_library import extra_bufts

sys.path.insert(0, str(HERE.parent / "tests"))
from llama_server import llama_server
from scripted_server import Page, ScriptedServer, delta, usage
from scripted_server import serving as scripted

TOKENS, TURNS, WINDOW, AROUND = 128, 20, 1024, 24
PACED, GAP_S = 1000, 0.003
QUESTION = "Question {}. Tell me about the sea, the ships, the wind and the people who live by it. "
_NUMBER = count(1)


def serving(model: Model, size: int) -> AbstractContextManager[str]:
    """The address of a server of this model."""
    options = ["-t", str(model.threads), "-fa", "on" if model.flash_attn == "on" else "off"]
    options += ["--repack"] if extra_bufts() else []
    return llama_server(model.path, size, *options)


class Lines:
    """`lcp chat --lines --json`, asked line by line."""

    def __init__(self, line: list[str], home: str, stderr: Any) -> None:
        self._process = Popen(line, env=lcp_env(home), stdin=PIPE, stdout=PIPE, stderr=stderr)

    def ask(self, question: str) -> dict[str, Any]:
        """The stats of its answer."""
        process = self._process
        assert process.stdin and process.stdout
        process.stdin.write(f"{question}\n".encode())
        process.stdin.flush()
        row = process.stdout.readline()
        if not row:
            raise BenchError("lcp ended without an answer.")
        return dict(json.loads(row)["stats"])

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def curl_line(address: str, question: str) -> list[str]:
    """The command line that asks with curl."""
    body = {
        "messages": [{"role": "user", "content": question}], "stream": True, "temperature": 0,
        "max_tokens": TOKENS,
    }  # fmt: skip
    return ["curl", "-sN", f"{address}/v1/chat/completions", "-d", json.dumps(body)]


def curl(address: str, question: str) -> dict[str, float]:
    """The same numbers from curl's stream."""
    line = curl_line(address, question)
    begun = time.perf_counter()
    times, read_s = [], 0.0
    with Popen(line, stdout=PIPE) as process:
        assert process.stdout
        for event in process.stdout:
            if b'"delta":{"content":"' in event:
                times.append(time.perf_counter())
            if b'"timings"' in event:
                read_s = json.loads(event[len("data: ") :])["timings"]["prompt_ms"] / 1000
    if len(times) < 2:
        raise BenchError("curl got no answer.")
    return {
        "first_s": times[0] - begun - read_s,
        "tokens_per_second": (len(times) - 1) / (times[-1] - times[0]),
    }


def one_shot(line: list[str], question: str) -> dict[str, float]:
    """The stats of one answer in a process of its own."""
    whole = [*line, "-p", question]
    with tempfile.TemporaryDirectory() as home:
        told = run_(whole, env=lcp_env(home), stdout=PIPE, stderr=DEVNULL, check=True).stdout
    stats = dict(json.loads(told)["stats"])
    return stats | {"first_s": stats["ttft_s"] - stats["read_s"]}


def paced(tokens: int) -> Page:
    """An answer of so many tokens, one after another."""

    def page(connection: Any) -> None:
        connection.head(Content_Type="text/event-stream")
        for n in range(tokens):
            connection.events(delta(f" word {n}"))
            time.sleep(GAP_S)
        connection.events(delta(ended="stop"), usage(9, tokens), "[DONE]")

    return page


def cpu_s(line: list[str]) -> float:
    """The CPU seconds of a program."""
    with tempfile.TemporaryDirectory() as home:
        process = Popen(line, env=lcp_env(home), stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise BenchError(f"{line[0]} ended with {process.returncode}.")
    return used.ru_utime + used.ru_stime


def cpu_a_token(server: ScriptedServer, line: list[str]) -> float:
    """The CPU seconds of a client for each token: of a long answer, less those of a short one."""
    used = []
    for tokens in (1, PACED + 1):
        server.pages |= scripted(chat=paced(tokens))
        used.append(cpu_s(line))
    return max(used[1] - used[0], 1e-6) / PACED


def asked() -> str:
    """A question that no side has been asked: nothing of it is cached."""
    return QUESTION.format(next(_NUMBER)) * 2


def reread(model: Model, address: str) -> tuple[int, int]:
    """The tokens that were read twice in 20 turns with slides, and those that nobody told."""
    flags = ("--server", address, "--lines", "--json", "-n", "32", "--temp", "0")
    twice = unsaid = 0
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as stderr:
        chat = Lines(remote(*flags), home, stderr)
        before = 0
        for number in range(TURNS):
            said = stderr.seek(0, 2)
            stats = chat.ask(QUESTION.format(f"{number} of the long chat") * 2)
            new = stats["prompt_tokens"] - before if stats["prompt_tokens"] > before else 60
            over = max(0, stats["read"] - new - AROUND)
            stderr.seek(said)
            twice += over
            unsaid += over if b"re-read" not in stderr.read() else 0
            before = stats["ctx_used"]
        chat.close()
    return twice, unsaid


def remote(*flags: str) -> list[str]:
    """The command line of a chat with a server."""
    return [sys.executable, "-m", "lcp", "chat", *flags]


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    rows = []
    flags = ("--json", "-n", str(TOKENS), "--temp", "0", "--no-save")
    with serving(model, 2048) as address:

        def ours() -> dict[str, float]:
            return one_shot(remote("--server", address, *flags), asked())

        def local() -> dict[str, float]:
            return one_shot(lcp_chat(model, *flags), asked())

        for side in (ours, local):
            side()
        curl(address, asked())
        beside_curl = abba(ours, lambda: curl(address, asked()), options.pairs)
        beside_chat = abba(ours, local, options.pairs)
    for name, pairs, speed in (("curl", beside_curl, ">= 0.97"), ("lcp chat", beside_chat, "")):
        for what, key, unit, target in (
            ("write", "tokens_per_second", "tokens/s", speed), ("first", "first_s", "s", ""),
        ):  # fmt: skip
            both = [(a[key], b[key]) for a, b in pairs]
            rows.append(Row(f"{what} over {name}", unit, both, target))
    with ScriptedServer(scripted()) as paces:
        lines = remote("--server", paces.address, "--no-save", "Hi"), curl_line(paces.address, "Hi")
        client, theirs = (partial(cpu_a_token, paces, line) for line in lines)
        rows.append(Row("processor a token over curl", "s", abba(client, theirs, options.pairs)))
    later = sorted(a["first_s"] - b["first_s"] for a, b in beside_curl)
    known["first text after curl's (s, median)"] = round(later[len(later) // 2], 4)
    with serving(model, WINDOW) as address:
        twice, unsaid = reread(model, address)
    known[f"tokens read twice in {TURNS} turns"] = twice
    known["of these unsaid"] = unsaid
    return rows


if __name__ == "__main__":
    sys.exit(run(arguments(__doc__ or ""), measure))
