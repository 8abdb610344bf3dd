"""lcp's child process as a fork of this one: it costs a hundredth of a new Python.

For tests that need hundreds of them; test_child_process.py has the real one.
"""

import faulthandler
import io
import json
import os
import sys
from tempfile import TemporaryFile

from lcp.child_process import ChildResult
from lcp.engine import child_main


def run(task: str, wish: object, timeout: float, waiting: object = None) -> ChildResult:
    """child_process.run; the caller has loaded llama.cpp, and computed nothing."""
    with TemporaryFile() as out, TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            _child(task, wish, out.fileno(), err.fileno())
        _, status = os.waitpid(pid, 0)
        out.seek(0)
        err.seek(0)
        answers = [json.loads(line) for line in out.read().splitlines()]
        return ChildResult(answers, os.waitstatus_to_exitcode(status), err.read().decode())


def _child(task: str, wish: object, out: int, err: int) -> None:
    code = 1
    try:
        faulthandler.disable()
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdin = io.StringIO(json.dumps(wish))
        sys.stdout = os.fdopen(1, "w")
        print(json.dumps(child_main._answer(task)), flush=True)
        code = 0
    finally:
        os._exit(code)
