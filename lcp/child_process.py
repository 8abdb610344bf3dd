"""lcp's own child process, for work that may crash, hang or exhaust the memory.

The work is in lcp/engine/child_main.py. It reads one JSON value from stdin and prints lines of
JSON.
"""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lcp.errors import NativeError


@dataclass(frozen=True)
class ChildResult:
    """How a child ended, and what it printed until then."""

    answers: list[dict[str, Any]]  # its lines of JSON
    status: int | None  # exit code; -N if signal N killed it; None if it ran out of time
    stderr: str

    @property
    def cause(self) -> str:
        """What ended it, for a sentence: "SIGILL", "exit code 1"."""
        status = self.status or 0
        name = next((s.name for s in signal.Signals if s == -status), f"signal {-status}")
        return name if status < 0 else f"exit code {status}"


def run(task: str, wish: object = None, timeout: float = 60) -> ChildResult:
    """Run `python -m lcp.engine.child_main TASK` with `wish` as JSON on stdin.

    It is killed after `timeout` seconds. Raises NativeError if no process can be started.
    """
    command = [sys.executable, "-m", "lcp.engine.child_main", task]
    status: int | None = None
    try:
        done = subprocess.run(
            command, input=json.dumps(wish).encode(), capture_output=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        status, stdout, stderr = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        stdout, stderr = error.stdout or b"", error.stderr or b""
    except OSError as error:
        raise NativeError(
            f"lcp cannot start {sys.executable}: {error.strerror}. Check with: lcp doctor"
        ) from error
    answers = []
    for line in stdout.splitlines():
        with suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                answers.append(answer)
    return ChildResult(answers, status, stderr.decode("utf-8", "replace"))
