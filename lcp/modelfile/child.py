"""Child: asks llama.cpp something in a process of its own, which may die of it."""

import json
import subprocess
import sys
from typing import Any

from lcp.errors import ModelError, NativeError

_TIMEOUT_S = 60  # the first start of a GPU's driver may take many seconds


def ask(what: str, wish: object = None) -> dict[str, Any]:
    """The answer of `python -m lcp.engine.child WHAT`, which gets `wish` as JSON.

    Raises NativeError when the child died or did not answer, ModelError when llama.cpp refused.
    """
    command = [sys.executable, "-m", "lcp.engine.child", what]
    try:
        done = subprocess.run(
            command, input=json.dumps(wish), capture_output=True, text=True, timeout=_TIMEOUT_S,
            check=False,
        )  # fmt: skip
        answer = json.loads(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise NativeError("llama.cpp does not answer here. See why with: lcp doctor") from error
    if not answer.get("ok"):
        raise ModelError(f"llama.cpp refuses this model: {answer.get('error')}.")
    return answer
