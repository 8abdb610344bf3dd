"""Child: asks llama.cpp something in a process of its own, which may die of it."""

import json
import re
import signal
import subprocess
import sys
from typing import Any

from lcp.errors import ModelError, NativeError

_TIMEOUT_S = 60  # the first start of a GPU's driver may take many seconds
_SILENT = "llama.cpp does not answer here. See why with: lcp doctor"
_KILLED = -9  # SIGKILL: by a person, or by a system without memory
# An assertion of llama.cpp -> what is wrong with a file that violates it
_ASSERTIONS = {
    "id_to_token.size() == token_to_id.size()": "its vocabulary has the same token twice",
}
_ABORT = re.compile(r"^.*?:\d+: (.+)|what\(\): +(.+)", re.MULTILINE)  # GGML_ASSERT, C++
ANOTHER_FILE = (
    "Use a newer conversion or another quantization of this model, "
    "or upgrade: pip install --upgrade llama-cpp-python"
)


def ask(what: str, wish: object = None, name: str = "this model") -> dict[str, Any]:
    """The answer of `python -m lcp.engine.child WHAT`, which gets `wish` as JSON.

    Raises NativeError when llama.cpp does not answer here, ModelError when it refuses the model
    called `name` or dies of it.
    """
    command = [sys.executable, "-m", "lcp.engine.child", what]
    status: int | None = None  # still at it
    try:
        done = subprocess.run(
            command, input=json.dumps(wish).encode(), capture_output=True, timeout=_TIMEOUT_S,
            check=False,
        )  # fmt: skip
        status, stdout, stderr = done.returncode, done.stdout, done.stderr
    except OSError as error:
        raise NativeError(_SILENT) from error
    except subprocess.TimeoutExpired as error:
        stdout, stderr = error.stdout or b"", b""
    try:
        answers = [json.loads(line) for line in stdout.splitlines()]
        begun, answer = answers[0].get("begun"), answers[-1]
    except (ValueError, LookupError, AttributeError) as error:
        raise NativeError(_SILENT) from error
    if "ok" not in answer:
        # The child says that it begins when llama.cpp runs: what stops it then is the model.
        if not begun or status in (0, _KILLED):
            raise NativeError(_SILENT)
        raise ModelError(_crash(name, status, stderr.decode("utf-8", "replace")))
    if not answer["ok"]:
        raise ModelError(answer["error"])
    return dict(answer)


def _crash(name: str, status: int | None, stderr: str) -> str:
    """The sentence for a model that llama.cpp dies of, or never ends with."""
    if status is None:
        return f"llama.cpp does not finish loading {name} in {_TIMEOUT_S} s. {ANOTHER_FILE}"
    said = next((m[1] or m[2] for m in _ABORT.finditer(stderr)), "")
    for assertion, why in _ASSERTIONS.items():
        if assertion in said:
            return f"llama.cpp cannot load {name}: {why}, and this version aborts. {ANOTHER_FILE}"
    number = next((s.name for s in signal.Signals if s == -status), f"exit code {status}")
    return f"llama.cpp crashes on {name} ({said[:120].strip() or number}). {ANOTHER_FILE}"
