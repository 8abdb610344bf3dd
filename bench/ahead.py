"""What reading ahead gives when Enter comes, and what it costs while a person types.

    python -m bench.ahead [MODEL.gguf] [-t N] [--pairs N] [--tokens N] [--wait S] [--json FILE]

An interactive `lcp chat` in a pty, which saves its chat as people have it; `--tokens` short words
(1500, about a token each) are pasted into its first prompt. Every sample is a process of its own.

enter  seconds from Enter to the first text, `--wait` s (15) after the paste, over the same with
       `--no-ahead`. "Said" is `ttft_s` as saved with the answer, "seen" is at the pty
echo   seconds from a key to its letter, 60 letters at 20 a second: while the paste is read ahead;
       with `--no-ahead` over the same paste (the editor's own cost of a long line); over none
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from functools import partial
from pathlib import Path

from bench import sides
from bench.measure import ESCAPES, BenchError, Row, Terminal, abba

KEYS, PAUSE, LIMIT, OFF = 60, 0.05, 0.02, "--no-ahead"  # letters, s between two, s allowed
LETTERS = (b"z", b"q", b"x", b"j")  # in no word of prose(), nor in a line about what is going on


class Typist(Terminal):
    """`lcp chat` in a pty, a text pasted into its prompt after two seconds to load the model."""

    def __init__(self, model: sides.Model, text: str, *flags: str) -> None:
        self.home = tempfile.TemporaryDirectory()
        line = [w for w in sides.lcp_chat(model, "-n", "16", *flags) if w != "--no-save"]
        super().__init__(line, sides.lcp_env(self.home.name))
        self.expect(sides.READY)
        self.watch(2)
        self.send(b"\x1b[200~" + text.encode() + b"\x1b[201~")
        self.watch(0.3)

    def close(self) -> None:
        super().close()
        self.home.cleanup()

    def key(self, letter: bytes) -> float:
        """Seconds from a key to its letter on the screen."""
        start, pressed = len(self.raw), self.send(letter)
        while letter not in ESCAPES.sub(b"", bytes(self.raw[start:])):
            if time.perf_counter() > pressed + 10 or not self._read(0.1):
                raise BenchError(f"A letter never came; the screen ends with:\n{self}")
        return time.perf_counter() - pressed


def enter(model: sides.Model, text: str, wait: float, *flags: str) -> tuple[float, float, int]:
    """Seconds from Enter to the first text: said, seen; tokens that were still to be read."""
    with Typist(model, text, *flags) as typist:
        typist.watch(wait)
        entered = typist.send(b"\r")
        typist.expect(sides.SENT)
        seen = typist.expect(sides.FIRST_TEXT, 600).time - entered
        typist.expect(sides.STATS)  # the answer stands in the log by now
        log = next(Path(typist.home.name, "data", "sessions").glob("*.jsonl")).read_text()
    stats = json.loads(log.splitlines()[-1])["stats"]
    return stats["ttft_s"], seen, stats["read"]


def echo(model: sides.Model, text: str, *flags: str) -> tuple[float, float, float]:
    """Seconds from a key to its letter: median, 95th percentile and maximum."""
    with Typist(model, text, *flags) as typist:
        begun, found = time.perf_counter(), []
        for i in range(KEYS):
            typist.watch(begun + i * PAUSE - time.perf_counter())
            found.append(typist.key(LETTERS[i % len(LETTERS)]))
        if OFF not in flags and not typist.watch(3).strip():  # the line "reading ahead"
            raise BenchError("The paste was read before the typing ended: give more --tokens.")
    return statistics.median(found), statistics.quantiles(found, n=20)[-1], max(found)


def measure(options: Namespace, model: sides.Model, known: dict[str, object]) -> list[Row]:
    text, rows, limits = sides.prose(options.tokens), [], []
    press, typing = partial(enter, model, text, options.wait), partial(echo, model, text)
    entered = abba(press, partial(press, OFF), options.pairs)
    known["tokens read after Enter"] = statistics.median(a[2] for a, _ in entered)
    for i, name in enumerate(("said", "seen")):
        rows.append(Row(f"enter, {name}", "s", [(a[i], b[i]) for a, b in entered], "<= 0.1"))
    for other, line in (("same paste", text), ("no paste", "")):
        typed = abba(typing, partial(echo, model, line, OFF), options.pairs)
        for i, name in enumerate(("median", "p95", "max")):
            rows.append(Row(f"echo {name}, {other}", "s", [(a[i], b[i]) for a, b in typed]))
        limits += [(a[1], LIMIT) for a, _ in typed]
    return [*rows, Row(f"echo p95, beside {LIMIT} s", "s", limits, "<= 1")]


def main() -> int:
    parser = sides.arguments((__doc__ or "").partition("\n")[0])
    parser.set_defaults(pairs=5)
    parser.add_argument("--tokens", type=int, default=1500, help="to paste (default 1500)")
    parser.add_argument("--wait", type=float, default=15, help="s before Enter (default 15)")
    return sides.run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
