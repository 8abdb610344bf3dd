"""lcp's own child process, for work that may crash, hang or exhaust the memory.

The work is in lcp/engine/child_main.py. It reads one JSON value from stdin and prints lines of
JSON.
"""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lcp.errors import DoesNotRun

_PATIENCE = 0.2  # seconds between two calls of `waiting`


@dataclass(frozen=True)
class ChildResult:
    """How a child process ended, and what it printed."""

    answers: list[dict[str, Any]]  # its lines of JSON
    status: int | None  # exit code; -N if signal N killed it; None if it ran out of time
    stderr: str

    @property
    def cause(self) -> str:
        """What ended it, for a sentence: "SIGILL", "exit code 1"."""
        status = self.status or 0
        name = next((s.name for s in signal.Signals if s == -status), f"signal {-status}")
        return name if status < 0 else f"exit code {status}"


def run(
    task: str,
    wish: object = None,
    timeout: float | None = 60,
    waiting: Callable[[], None] | None = None,
) -> ChildResult:
    """Run `python -m lcp.engine.child_main TASK` with `wish` as JSON on stdin.

    lcp kills it after `timeout` seconds, and if this thread is interrupted. `waiting` is called
    several times a second. Raises DoesNotRun if no process can be started.
    """
    command = [sys.executable, "-m", "lcp.engine.child_main", task]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise DoesNotRun(f"lcp cannot start {sys.executable}: {error.strerror}.") from error
    end = math.inf if timeout is None else time.monotonic() + timeout
    status: int | None = None
    with process:
        try:
            assert process.stdin
            # Write it all at once: after a time-out, `communicate` forgets what is not written.
            with suppress(OSError), process.stdin:  # it may have exited
                process.stdin.write(json.dumps(wish).encode())
            process.stdin = None
            while True:
                left = end - time.monotonic()
                try:
                    stdout, stderr = process.communicate(None, max(0, min(left, _PATIENCE)))
                    status = process.returncode
                    break
                except subprocess.TimeoutExpired:
                    if time.monotonic() >= end:
                        process.kill()
                        stdout, stderr = process.communicate()
                        break
                    if waiting:
                        waiting()
        finally:
            process.kill()  # does nothing if it has ended
    answers = []
    for line in stdout.splitlines():
        with suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                answers.append(answer)
    return ChildResult(answers, status, stderr.decode("utf-8", "replace"))
