"""The settings that a model's makers recommend, in its file or in models.toml.

Values that llama.cpp would accept are converted to what it makes of them. Others are ignored with a
notice: a wrong value never prevents a chat with the model.
"""

import math
from collections.abc import Mapping
from typing import Any

from lcp.errors import SettingsError
from lcp.settings import OPTIONS, check

# llama.cpp (llama-sampler.cpp): a value beyond a limit means the limit
_AT_LEAST = {"temp": 0, "top_k": 0, "top_p": 0, "min_p": 0}
_AT_MOST = {"top_p": 1, "min_p": 1}
_WHOLE_CONTEXT = -1  # of repeat_last_n


def usable(values: Mapping[str, Any], source: str) -> tuple[dict[str, Any], list[str]]:
    """The valid values, as settings, and a notice for each of the others."""
    found: dict[str, Any] = {}
    ignored = []
    for name, raw in values.items():
        try:
            found[name] = check(name, _as_llama_cpp(name, raw), source)
        except SettingsError as error:
            ignored.append(f"Ignored: {error}")
    return found, ignored


def _as_llama_cpp(name: str, raw: Any) -> Any:
    """The number that llama.cpp would use for this value; anything else unchanged."""
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
