"""What every bench needs: pairs in ABBA order, medians, a table, and a program in a real pty.

Machines are shared and noisy, so a bench never reports a time alone: it measures two sides in turn
within one run and reports the ratio of each pair. Knows no lcp and no llama.cpp (see sides.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import statistics
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

CURSOR_QUESTION, CURSOR_ANSWER = b"\x1b[6n", b"\x1b[1;1R"
ESCAPES = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[ -/]*[0-Z\\^-~])")


class BenchError(Exception):
    """One sentence on why nothing could be measured."""


# Numbers ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One comparison: paired samples of both sides, and what the median ratio should reach."""

    name: str
    unit: str
    pairs: Sequence[tuple[float, float]]  # (ours, theirs)
    target: str = ""  # ">= 0.97" or "<= 1.1"

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in self.pairs]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def best(self) -> float:
        """The best of ours over the best of theirs: other processes only ever slow a side down."""
        ours, theirs = zip(*self.pairs, strict=True)
        pick = min if self.unit == "s" else max
        return float(pick(ours) / pick(theirs))

    @property
    def reached(self) -> bool:
        """Whether the median ratio reaches the target; True where there is none."""
        sign, _, bound = self.target.partition(" ")
        return not sign or (self.ratio >= float(bound)) == (sign == ">=")


A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")


def abba(ours: Callable[[], A], theirs: Callable[[], B], pairs: int) -> list[tuple[A, B]]:
    """`pairs` pairs of (ours, theirs), measured in the order A B B A A B B A ...

    A drift of the machine over the run then favours neither side.
    """
    result: list[tuple[A, B]] = []
    for number in range(pairs):
        if number % 2:
            second = theirs()
            result.append((ours(), second))
        else:
            result.append((ours(), theirs()))
        print(f"\r  pair {number + 1} of {pairs}", end="", file=sys.stderr, flush=True)
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return result


def table(rows: Sequence[Row], theirs: str = "llama.cpp") -> str:
    """The rows as lines of text: medians of both sides, the ratio and its spread."""
    width = max(11, len(theirs) + 2)
    lines = [
        f"{'':42}{'lcp':>8}{theirs:>{width}}{'ratio':>8}{'low':>7}{'high':>7}{'best':>7}  target"
    ]
    for row in rows:
        a, b = map(statistics.median, zip(*row.pairs, strict=True))
        low, high = min(row.ratios), max(row.ratios)
        verdict = f"{row.target} {'yes' if row.reached else 'NO'}" if row.target else ""
        lines.append(
            f"{f'{row.name} [{row.unit}]':42}{a:8.4g}{b:{width}.4g}"
            f"{row.ratio:8.3f}{low:7.3f}{high:7.3f}{row.best:7.3f}  {verdict}"
        )
    return "\n".join(lines)


def report(
    rows: Sequence[Row],
    facts: Mapping[str, object],
    file: Path | None,
    theirs: str = "llama.cpp",
) -> None:
    """Print the table; with a file, write every sample there as JSON too."""
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(table(rows, theirs))
    if file:
        found = [asdict(row) | {"ratio": row.ratio, "best": row.best} for row in rows]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**facts, "rows": found}, indent=1) + "\n")


# A program in a terminal --------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A pattern that appeared on the terminal: the match and when its last byte was read."""

    match: re.Match[bytes]
    time: float

    def __getitem__(self, group: str) -> str:
        return self.match[group].decode()


class Terminal:
    """A program in a real pty; everything it prints is read at once and kept in `raw`.

    It answers one question, where the cursor is ("top left"), which line editors ask before they
    draw. `expect` looks only at what came after the last thing expected.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], columns: int = 80, lines: int = 24
    ) -> None:
        self.raw = bytearray()
        self._mark = 0
        self.pid, self._fd = pty.fork()
        if not self.pid:
            with contextlib.suppress(OSError):
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
                os.execvpe(command[0], list(command), dict(env))
            os._exit(127)

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> float:
        """Type these bytes; returns the moment before the first went out."""
        start = time.perf_counter()
        while data:
            written = os.write(self._fd, data[:512])  # a tty's input queue is 4 KB
            data = data[written:]
            self._read(0)
        return start

    def expect(self, pattern: str | re.Pattern[bytes], timeout: float = 120) -> Seen:
        """Read until the pattern appears; BenchError after `timeout` s or at the program's end."""
        regex = pattern if isinstance(pattern, re.Pattern) else re.compile(pattern.encode())
        limit = time.perf_counter() + timeout
        start = self._mark
        while not (match := regex.search(self.raw[start:])):
            if not regex.pattern.startswith(rb"\A"):  # which means the mark
                start = max(start, len(self.raw) - 4096)  # else the search grows with the answer
            if time.perf_counter() > limit or not self._read(0.1):
                raise BenchError(f"{regex.pattern!r} never came; the screen ends with:\n{self}")
        self._mark = start + match.end()
        return Seen(match, time.perf_counter())

    def settle(self, quiet: float = 0.2) -> None:
        """Read until nothing has come for `quiet` seconds."""
        size = -1
        while size < len(self.raw):
            size = len(self.raw)
            self._read(quiet)

    def watch(self, seconds: float) -> bytes:
        """What is written to the screen for so long, without escapes."""
        start, limit = len(self.raw), time.perf_counter() + seconds
        while (left := limit - time.perf_counter()) > 0 and self._read(left):
            pass
        return ESCAPES.sub(b"", bytes(self.raw[start:]))

    def skip(self) -> None:
        """Let the next `expect` look only at what comes from here on."""
        self._mark = len(self.raw)

    def close(self) -> None:
        """Hang up, as closing a terminal window does; kill what is still there after 5 s."""
        with contextlib.suppress(OSError):
            os.close(self._fd)
        for _ in range(500):
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def __str__(self) -> str:
        return ESCAPES.sub(b"", bytes(self.raw[-2000:])).decode(errors="replace")

    def _read(self, wait: float) -> bool:
        """Take what is there, waiting at most `wait` s for it; False when the program has ended."""
        if not select.select([self._fd], [], [], wait)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux says EIO once the last writer is gone
            return False
        self.raw += data
        for _ in range(data.count(CURSOR_QUESTION)):
            os.write(self._fd, CURSOR_ANSWER)
        return bool(data)
