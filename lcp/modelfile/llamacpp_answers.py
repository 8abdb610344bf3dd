"""What llama.cpp says of a file: asked in a child process that may crash, and kept in a folder."""

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcp import child_process
from lcp.errors import ANOTHER_FILE, UPGRADE, DoesNotRun, ModelError, NativeError
from lcp.machine import Gpu
from lcp.modelfile.model_files import ModelFile
from lcp.modelfile.non_chat_models import FROM_THE_HUB

_TIMEOUT_S = 60  # the first start of a GPU's driver may take many seconds
_SPEEDS = "speed"  # a folder
_SUFFIX = ".answer"
_KILLED = -9  # SIGKILL: by a person, or by a system that is out of memory
# An assertion of llama.cpp -> what is wrong with a file that violates it
_ASSERTIONS = {
    "id_to_token.size() == token_to_id.size()": "its vocabulary has the same token twice",
}
_ABORT = re.compile(r"^.*?:\d+: (.+)|what\(\): +(.+)", re.MULTILINE)  # GGML_ASSERT, C++


def ask(
    task: str,
    wish: object = None,
    name: str = "this model",
    timeout: float | None = _TIMEOUT_S,
    waiting: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """The answer of the child to a task: "devices", "memory", "load" or "quantize".

    `waiting` is called several times a second. Raises NativeError if llama.cpp does not run here,
    ModelError if it refuses the model called `name` or crashes on it.
    """
    result = child_process.run(task, wish, timeout, waiting)
    if not result.answers:
        raise DoesNotRun("llama.cpp does not run here.")
    answer = result.answers[-1]
    if "ok" not in answer:
        # The child prints "begun" once llama.cpp runs: what ends it after that is the model.
        if not answer.get("begun") or result.status in (0, _KILLED):
            raise DoesNotRun("llama.cpp does not run here.")
        raise ModelError(_crash(name, result))
    if not answer["ok"]:
        raise ModelError(answer["error"])
    return answer


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that llama.cpp can use, without those that do not report their memory.

    Raises NativeError if llama.cpp does not run here.
    """
    answer = ask("devices")
    shared = sys.platform == "darwin"  # Metal says "gpu", too
    return tuple(
        Gpu(d["name"], d["free"], d["total"], shared or d["kind"] == "igpu", d["description"])
        for d in answer["devices"]
        if answer["gpu"] and d["kind"] in ("gpu", "igpu") and d["total"]
    )


def check_loads(model: ModelFile, folder: Path, name: str = "") -> None:
    """Raise ModelError if llama.cpp cannot load the file; `name` is what the error calls it.

    The child loads it as a chat does, but without the weights: header, vocabulary, context,
    tokenizer. A file that passed is remembered in `folder` until it changes. Files that are
    incomplete or on a server are not checked, nor is any where llama.cpp does not run.
    """
    if model.path is None or not model.complete:
        return
    if why := _cannot_compute(model.header.values):
        raise ModelError(f"{name or model.name} {why}. {ANOTHER_FILE}")
    answer = StoredAnswer(folder, b"loads", _identity(model.path, model).encode())
    if answer.read() is not None:
        return
    name = name or model.name
    try:
        answer.write(ask("load", {"path": str(model.path), "name": name}, name))
    except NativeError:
        return
    except ModelError as error:
        if not _is_ollama_blob(model.path):
            raise
        # Ollama has models that only its own engine runs: another version does not help.
        why = str(error)
        for advice in (ANOTHER_FILE, f"Upgrade: {UPGRADE}"):
            why = why.removesuffix(f" {advice}")
        raise ModelError(f"{why} {FROM_THE_HUB}") from error


def stored_speed(model: ModelFile, folder: Path, threads: int) -> "StoredAnswer":
    """Where the measured speed of a model is kept, for so many threads at most. It is measured
    again when the file changes; `folder` is of one CPU and one build of llama.cpp."""
    about = _identity(model.path, model) if model.path else model.name
    return StoredAnswer(folder / _SPEEDS, about.encode(), str(threads).encode())


def stored_speeds(folder: Path) -> dict[str, dict[str, Any]]:
    """The measured speed of each model, the newest if its file has changed."""
    files: list[Path] = []
    with suppress(OSError):
        files = sorted((folder / _SPEEDS).glob(f"*{_SUFFIX}"), key=lambda f: f.stat().st_mtime_ns)
    return {answer["model"]: answer for file in files if (answer := _answer(file))}


def _answer(file: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        digest, _, text = file.read_text().partition("\n")
        if digest == _hash(text.encode()):
            return dict(json.loads(text))
    return None


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()


class StoredAnswer:
    """One answer in a folder, in a file named by a hash of the question; nothing without a folder.

    The first line of the file is a hash of the rest. An answer that is lost or damaged, or cannot
    be written, is asked again.
    """

    def __init__(self, folder: Path | None, *question: bytes) -> None:
        name = _hash(b"\0".join(question))
        self._path = folder / f"{name}{_SUFFIX}" if folder else None

    def read(self) -> dict[str, Any] | None:
        """The answer, None if there is none."""
        return _answer(self._path) if self._path else None

    def write(self, answer: dict[str, Any]) -> bool:
        """Store the answer. Returns whether that was possible."""
        if self._path:
            text = json.dumps(answer)
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                part = self._path.with_suffix(f".{os.getpid()}.part")
                part.write_text(f"{_hash(text.encode())}\n{text}")
                part.replace(self._path)  # whole or not at all
                return True
        return False


def _crash(name: str, result: child_process.ChildResult) -> str:
    """The sentence for a model that llama.cpp crashes on, or never finishes."""
    if result.status is None:
        return f"llama.cpp did not finish loading {name} in {_TIMEOUT_S} s. {ANOTHER_FILE}"
    message = next((m[1] or m[2] for m in _ABORT.finditer(result.stderr)), "")
    for assertion, why in _ASSERTIONS.items():
        if assertion in message:
            return f"llama.cpp cannot load {name}: {why}, and this version aborts. {ANOTHER_FILE}"
    return f"llama.cpp crashes on {name} ({message[:120].strip() or result.cause}). {ANOTHER_FILE}"


def _cannot_compute(values: Mapping[str, Any]) -> str:
    """What llama.cpp loads, but aborts on when it computes (ggml: rms_norm, norm)."""
    for key, value in values.items():
        if key.endswith("_epsilon") and isinstance(value, float) and not 0 <= value < math.inf:
            return f"has {key} = {value}, which llama.cpp aborts on"
    return ""


def _is_ollama_blob(path: Path) -> bool:
    """Whether the file is in Ollama's store, where files are named by their hash."""
    return path.parent.name == "blobs" and path.name.startswith("sha256-")


def _identity(path: Path, model: ModelFile) -> str:
    """Paths, sizes and times of the files, which change when anyone changes the files."""
    stats = [(part.name, path.with_name(part.name).stat()) for part in model.parts]
    return "\n".join([str(path), *(f"{n} {s.st_size} {s.st_mtime_ns}" for n, s in stats)])
