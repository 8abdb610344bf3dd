"""What a chat costs while nobody types: CPU time of `lcp chat` at its prompt.

    python -m bench.idle [MODEL.gguf] [-t N] [--pairs N] [--turns N] [--seconds N] [--json FILE]

A saved chat of `--turns` short turns (default 500) is resumed in a pty. The bench waits until lcp
has read the chat and comes to rest, then adds up the CPU time of all its threads over `--seconds`
(default 30): milliseconds of one core in each second, beside the target of 2 ms (0.2 %). CPU time
does not depend on what else the machine does. Linux only: it reads /proc.
"""

from __future__ import annotations

import sys
import tempfile
import time
from argparse import Namespace
from datetime import datetime, timezone
from pathlib import Path

from bench.measure import BenchError, Row, Terminal
from bench.sides import READY, Model, arguments, lcp_chat, lcp_env, run
from lcp.session.conversation import Conversation
from lcp.session.store import Store

LIMIT = 2.0  # ms of CPU time a second: 0.2 % of one core
RESTS = 5.0  # ms of CPU time a second, all threads but the main one: nothing is read any more
PATIENCE_S = 1200  # to read the chat


def build(model: Model, home: Path, turns: int) -> None:
    """Save a chat of that many turns."""
    conversation = Conversation.begin(lambda: datetime.now(timezone.utc), str(model.path))
    log = Store(home / "data" / "sessions").create(conversation.opening)
    for turn in range(turns):
        log.append(conversation.ask(f"{turn}?"))
        log.append(conversation.answer(f"{turn}.", "end", str(model.path)))
    log.close()


def cpu(pid: int) -> tuple[float, float]:
    """Milliseconds of CPU time that a process has used: its main thread, and all others."""
    files = Path(f"/proc/{pid}/task").glob("*/schedstat")
    used = {int(f.parent.name): int(f.read_text().split()[0]) / 1e6 for f in files}
    main = used.pop(pid)
    return main, sum(used.values())


def spent(terminal: Terminal, seconds: float) -> tuple[float, float]:
    """Milliseconds of CPU time a second, over the next `seconds`: the main thread, all others."""
    begun, (main, others) = time.perf_counter(), cpu(terminal.pid)
    while time.perf_counter() - begun < seconds:
        terminal.settle(1)
    lasted, (main_now, others_now) = time.perf_counter() - begun, cpu(terminal.pid)
    return (main_now - main) / lasted, (others_now - others) / lasted


def idle(model: Model, home: str, seconds: float) -> float:
    """One chat that is resumed, comes to rest, and is left alone for `seconds`."""
    command = [*lcp_chat(model, "--resume", "last"), "-c", "8192"]
    command.remove("--no-save")
    command.remove(str(model.path))
    with Terminal(command, lcp_env(home)) as terminal:
        terminal.expect(READY)
        limit = time.perf_counter() + PATIENCE_S
        time.sleep(5)
        while spent(terminal, 5)[1] > RESTS:
            if time.perf_counter() > limit:
                raise BenchError(f"lcp did not come to rest in {PATIENCE_S} s:\n{terminal}")
        return sum(spent(terminal, seconds))


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    with tempfile.TemporaryDirectory() as home:
        build(model, Path(home), options.turns)
        found = [idle(model, home, options.seconds) for _ in range(options.pairs)]
    name = f"{options.turns} turns, idle, beside {LIMIT:g} ms"
    return [Row(name, "ms/s", [(ours, LIMIT) for ours in found], "<= 1")]


def main() -> int:
    parser = arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=500, help="of the saved chat (default 500)")
    parser.add_argument("--seconds", type=float, default=30, help="at the prompt (default 30)")
    parser.set_defaults(pairs=3)
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
