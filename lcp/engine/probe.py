"""Does llama.cpp compute on this CPU? Asked once per build and CPU, in a process that may die."""

import hashlib
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from lcp.errors import NativeError
from lcp.paths import contents

_TIMEOUT_S = 120  # a GPU's kernels may be compiled at first use


def check_once(cache: Path) -> bool:
    """Whether there is a GPU for llama.cpp; raises NativeError with a sentence where the library
    would kill this process.

    A good answer is remembered in the folder `cache`, under the build's and the CPU's names.
    """
    remembered = cache / f"probe-{fingerprint()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads(remembered.read_text())["gpu"])
    answer = run()
    with suppress(OSError):  # asked again next time; half a second
        cache.mkdir(parents=True, exist_ok=True)
        remembered.write_text(answer)
    return bool(json.loads(answer)["gpu"])


def run() -> str:
    """The child's line of JSON; raises NativeError when it died or said anything else."""
    command = [sys.executable, "-m", "lcp.engine.child", "probe"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise NativeError(
            f"llama.cpp did not finish its first computation in {_TIMEOUT_S} s. {_REINSTALL}"
        ) from None
    try:
        if done.returncode == 0 and json.loads(done.stdout)["ok"]:
            return done.stdout
    except (ValueError, KeyError, TypeError):
        pass
    raise NativeError(_sentence(done.returncode, done.stderr))


_REINSTALL = (
    "Build it for this machine: "
    "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
)


def _sentence(status: int, stderr: str) -> str:
    if status < 0:
        name = next((s.name for s in signal.Signals if s == -status), f"signal {-status}")
        why = "it was built for another CPU" if name == "SIGILL" else "its computation crashed"
        return f"llama.cpp cannot run on this CPU ({name}: {why}). {_REINSTALL}"
    last = (stderr.strip().splitlines() or [f"exit code {status}"])[-1]
    if last.startswith("lcp.errors."):  # the child's own sentence, behind the name of its class
        return last.partition(": ")[2]
    return f"llama.cpp does not compute here ({last[:200]}). {_REINSTALL}"


def fingerprint() -> str:
    """Which library files on which CPU, without loading them. 16 hex digits."""
    digest = hashlib.blake2b(platform.machine().encode(), digest_size=8)
    digest.update(os.environ.get("LCP_EXTRA_BUFTS", "").encode())
    spec = importlib.util.find_spec("llama_cpp")
    for folder in (spec and spec.submodule_search_locations) or []:
        for file in sorted(Path(folder, "lib").glob("*")):
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    digest.update(_cpu().encode())
    return digest.hexdigest()


def _cpu() -> str:
    lines = contents(Path("/proc/cpuinfo")).splitlines()
    names = ("model name", "flags", "Features")
    told = sorted({line for line in lines if line.startswith(names)})
    return "\n".join(told) or platform.processor()
