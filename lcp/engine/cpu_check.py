"""Checks, once per build and CPU, that llama.cpp computes on this CPU, in a child process."""

import hashlib
import importlib.util
import json
import os
import platform
from contextlib import suppress
from pathlib import Path

from lcp import child_process
from lcp.errors import NativeError
from lcp.paths import contents

_TIMEOUT_S = 120  # a GPU's driver may compile kernels at first use
REBUILD = (
    "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
)
_REINSTALL = f"Build it for this machine: {REBUILD}"


def check_once(cache: Path) -> bool:
    """Whether llama.cpp has a GPU here. Raises NativeError if the library would crash this process.

    A good answer is cached in the folder `cache`, in a file for this build and this CPU.
    """
    remembered = cache / f"probe-{fingerprint()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return bool(json.loads(remembered.read_text())["gpu"])
    answer = run()
    with suppress(OSError):  # without the file, the next check takes half a second
        cache.mkdir(parents=True, exist_ok=True)
        remembered.write_text(answer)
    return bool(json.loads(answer)["gpu"])


def answers(cache: Path) -> Path:
    """The folder in `cache` for what llama.cpp answers with this build on this CPU."""
    return cache / f"memory-{fingerprint()}"


def run() -> str:
    """The child's answer as JSON; raises NativeError if it crashed or printed anything else."""
    result = child_process.run("probe", timeout=_TIMEOUT_S)
    if result.status == 0 and result.answers and result.answers[-1].get("ok"):
        return json.dumps(result.answers[-1])
    raise NativeError(_sentence(result))


def _sentence(result: child_process.ChildResult) -> str:
    if result.status is None:
        return f"llama.cpp did not finish its first computation in {_TIMEOUT_S} s. {_REINSTALL}"
    if result.status < 0:
        illegal = result.cause == "SIGILL"
        why = "it was built for another CPU" if illegal else "its computation crashed"
        return f"llama.cpp cannot run on this CPU ({result.cause}: {why}). {_REINSTALL}"
    last = (result.stderr.strip().splitlines() or [result.cause])[-1]
    if last.startswith("lcp.errors."):  # the child's own sentence, after the name of its class
        return last.partition(": ")[2]
    return f"llama.cpp does not work here ({last[:200]}). {_REINSTALL}"


def fingerprint() -> str:
    """16 hex digits for the library's files and this CPU. It loads nothing."""
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
    features = sorted({line for line in lines if line.startswith(names)})
    return "\n".join(features) or platform.processor()
