"""Trial: would llama.cpp load this file here, or take lcp with it when it aborts?

A process of its own loads the file as a chat does, without the weights: header, vocabulary,
layout, context, tokenizer. A file that passed is not tried again with this llama.cpp.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcp.errors import ModelError, NativeError
from lcp.modelfile.child import ANOTHER_FILE, ask
from lcp.modelfile.known import Known
from lcp.modelfile.parts import ModelFile
from lcp.modelfile.purpose import FROM_THE_HUB


def check_loads(model: ModelFile, known: Path, name: str = "") -> None:
    """Raise ModelError for a file that llama.cpp refuses or dies of; `name` is for the sentence.

    `known`: the folder of what this llama.cpp has said. Says nothing of a file that is not whole
    or not here, nor where llama.cpp does not run.
    """
    if model.path is None or not model.complete:
        return
    if why := _cannot_compute(model.header.values):
        raise ModelError(f"{name or model.name} {why}. {ANOTHER_FILE}")
    place = Known(known, b"loads", _identity(model.path, model).encode())
    if place.recall() is None:
        name = name or model.name
        try:
            place.keep(ask("load", {"path": str(model.path), "name": name}, name))
        except NativeError:
            return
        except ModelError as error:
            if not _in_ollamas_store(model.path):
                raise
            # Ollama has models that only its own engine runs: another version does not help.
            why = re.split(r"\. (?=Use a newer|Upgrade)", str(error))[0]
            raise ModelError(f"{why}. {FROM_THE_HUB}") from error


def _cannot_compute(values: Mapping[str, Any]) -> str:
    """What llama.cpp loads, but aborts on when it computes (ggml: rms_norm, norm)."""
    for key, value in values.items():
        if key.endswith("_epsilon") and isinstance(value, float) and not 0 <= value < math.inf:
            return f"has {key} = {value}, which llama.cpp aborts on"
    return ""


def _in_ollamas_store(path: Path) -> bool:
    """Whether it is a blob of Ollama's: a file named by its hash."""
    return path.parent.name == "blobs" and path.name.startswith("sha256-")


def _identity(path: Path, model: ModelFile) -> str:
    """Which files these are, as long as nobody changes them."""
    stats = [(part.name, path.with_name(part.name).stat()) for part in model.parts]
    return "\n".join([str(path), *(f"{n} {s.st_size} {s.st_mtime_ns}" for n, s in stats)])
