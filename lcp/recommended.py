"""Recommended: the settings that a model's makers give, in its file or in models.toml.

They are advice of strangers: what llama.cpp gives a meaning becomes that, and the rest is left
out with a notice. A value that is wrong never keeps anybody from the model.
"""

import math
from collections.abc import Mapping
from typing import Any

from lcp.errors import SettingsError
from lcp.settings import OPTIONS, check

# llama.cpp (llama-sampler.cpp): what is at or beyond a limit counts as the limit
_AT_LEAST = {"temp": 0, "top_k": 0, "top_p": 0, "min_p": 0}
_AT_MOST = {"top_p": 1, "min_p": 1}
_WHOLE_CONTEXT = -1  # of repeat_last_n


def usable(values: Mapping[str, Any], source: str) -> tuple[dict[str, Any], list[str]]:
    """Those of the values that have a meaning, as settings; a notice for each of the others."""
    found: dict[str, Any] = {}
    ignored = []
    for name, raw in values.items():
        try:
            found[name] = check(name, _as_llama_cpp(name, raw), source)
        except SettingsError as error:
            ignored.append(f"Ignored from the {source}: {error}")
    return found, ignored


def _as_llama_cpp(name: str, raw: Any) -> Any:
    """The number that llama.cpp would take this one for; what is no number as it is."""
    if name not in OPTIONS or "low" not in OPTIONS[name].metadata or isinstance(raw, bool):
        return raw
    try:
        number = float(raw)
    except (TypeError, ValueError):
        return raw
    if name == "repeat_last_n" and number < 0:
        return OPTIONS[name].metadata["high"] if number == _WHOLE_CONTEXT else 0
    if math.isfinite(number):
        number = max(number, _AT_LEAST.get(name, number))
        number = min(number, _AT_MOST.get(name, number))
        return int(number) if number == int(number) else number
    return raw
