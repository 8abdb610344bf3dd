"""The numbers a person can choose, and where each came from.

`Settings` is frozen; `resolve` makes it from layers of plain values (flags, environment, files),
the strongest one winning for each name. It knows neither flags' spelling nor the files' folder.
"""

import dataclasses
import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcp.errors import SettingsError
from lcp.words import either

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Weakest first. A layer that is absent changes nothing.
ORDER = (
    "default",
    "model file",  # the GGUF's own general.sampling.*
    "models.toml",
    "config.toml",
    "conversation",  # what /set changed in the chat that is resumed
    "persona",
    "environment",
    "flag",
    "/set",
)


# The settings of which template variables and the most tokens of thinking are made.
THINKING = ("think", "reasoning_effort", "reasoning_budget", "chat_template_kwargs")
# A template's variables for how hard to think.
EFFORTS = ("reasoning_effort", "thinking_effort", "reasoning_strength")


def _number(default: Any, meaning: str, low: float, high: float, **words: Any) -> Any:
    """A numeric option; `words` are spellings with a meaning of their own, as auto."""
    return field(default=default, metadata=dict(meaning=meaning, low=low, high=high, words=words))


def _choice(default: str, meaning: str, *choices: str) -> Any:
    return field(default=default, metadata=dict(meaning=meaning, choices=choices))


def _text(default: Any, meaning: str, **words: Any) -> Any:
    return field(default=default, metadata=dict(meaning=meaning, words=words))


def _json(meaning: str) -> Any:
    return field(default="{}", metadata=dict(meaning=meaning, json=True))


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Defaults are llama.cpp's."""

    temp: float = _number(0.8, "randomness; 0 always takes the likeliest token", 0, 10)
    top_k: int = _number(40, "draw from the k likeliest tokens only; 0 is off", 0, 1_000_000)
    top_p: float = _number(0.95, "draw from the likeliest tokens that sum to p; 1 is off", 0, 1)
    min_p: float = _number(0.05, "drop tokens under this share of the likeliest; 0 is off", 0, 1)
    repeat_penalty: float = _number(1.0, "above 1: tokens said before are less likely", 0.01, 10)
    repeat_last_n: int = _number(64, "how many last tokens the penalties look at", 0, 1_000_000)
    frequency_penalty: float = _number(0.0, "less likely with every time it was said", -10, 10)
    presence_penalty: float = _number(0.0, "less likely once it was said", -10, 10)
    seed: int | None = _number(
        None, "the same seed gives the same answer; random draws one each time", 0, 2**32 - 2,
        random=None,
    )  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen for a chat. Sizes in tokens."""

    sampling: Sampling = Sampling()
    persona: str | None = _text(
        None, "a table [persona.NAME] of config.toml, for a new chat", none=None
    )
    model: str | None = _text(None, "the model to talk with when none is named")
    system: str | None = _text(None, "the text that tells the model how to behave", none="")
    max_tokens: int | None = _number(
        None, "longest answer, thinking included; auto ends with the window", 1, 2**31 - 1,
        auto=None,
    )  # fmt: skip
    stop: tuple[str, ...] = _text((), "text that ends the answer when the model writes it", none=())
    ctx_size: int | None = _number(
        None, "tokens the model can see at once", 64, 2**31 - 1, auto=None
    )
    n_gpu_layers: int | None = _number(None, "layers on the GPU", 0, 100_000, auto=None, all=-1)
    threads: int | None = _number(None, "threads that compute", 1, 4096, auto=None)
    kv_type: str = _choice("f16", "number format of the KV cache", "f16", "q8_0", "q4_0")
    flash_attn: str = _choice("auto", "flash attention kernels", "auto", "on", "off")
    overflow: str = _choice(
        "slide", "what happens when the window is full", "slide", "summarize", "truncate", "stop"
    )
    slide: str = _choice("move", "how kept turns move up in the KV cache", "move", "reread")
    kv_files: int = _number(
        2048, "MiB that saved KV caches may take in all; 0 saves none", 0, 1 << 30
    )
    loop_guard: str = _choice("on", "stop an answer that repeats itself", "on", "off")
    keys: str = _choice("emacs", "keys of the line editor", "emacs", "vi")
    raw: str = _choice("off", "continue text as it is, without a chat template", "off", "on")
    think: str = _choice("on", "let thinking models think; hide: not shown", "on", "off", "hide")
    reasoning_effort: str = _choice(
        "auto", "how hard models think that can be told; auto: as they like",
        "auto", "minimal", "low", "medium", "high", "xhigh", "max",
    )  # fmt: skip
    reasoning_budget: int | None = _number(
        None, "tokens of thinking, then the answer is asked for", 0, 2**31 - 1, auto=None
    )
    chat_template_kwargs: str = _json("further variables of the chat template, a JSON object")
    # name -> the layer its value came from
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def value(self, name: str) -> Any:
        """The value of an option by its flat name."""
        return getattr(self.sampling if name in _SAMPLING else self, name)

    @property
    def thinking_tokens(self) -> int | None:
        """The most tokens of thinking; None lets the model end it."""
        return 0 if self.think == "off" else self.reasoning_budget

    @property
    def template_variables(self) -> dict[str, Any]:
        """What the chat template is told beside the messages, by the names that templates in use
        have for it. Not told, a template does as its model was made for."""
        told: dict[str, Any] = {"enable_thinking": self.think != "off"}
        if self.think == "off":
            told["thinking"] = False
        if self.thinking_tokens is not None:
            told["thinking_budget"] = self.thinking_tokens
        if self.reasoning_effort != "auto":
            told |= dict.fromkeys(EFFORTS, self.reasoning_effort)
        return told | json.loads(self.chat_template_kwargs)


_SAMPLING = {f.name: f for f in dataclasses.fields(Sampling)}
OPTIONS: dict[str, dataclasses.Field[Any]] = _SAMPLING | {
    f.name: f for f in dataclasses.fields(Settings) if f.metadata
}


def resolve(layers: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Settings from layers named as in ORDER; raises SettingsError for a value with no meaning."""
    values: dict[str, Any] = {}
    sources = dict.fromkeys(OPTIONS, "default")
    for layer in ORDER:
        for name, raw in layers.get(layer, {}).items():
            values[name] = check(name, raw, layer)
            sources[name] = layer
    sampling = Sampling(**{name: values.pop(name) for name in _SAMPLING if name in values})
    return Settings(sampling=sampling, sources=sources, **values)


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The layer of LCP_TEMP, LCP_MODEL and so on; an empty variable counts as absent."""
    found = {name: environ.get(f"LCP_{name.upper()}", "") for name in OPTIONS}
    return {name: value for name, value in found.items() if value}


def from_file(path: Path) -> dict[str, Any]:
    """The layer of a config.toml: its top-level values. An absent file is an empty one.

    TOML gives no key both a value and tables: `persona.default` is the setting `persona`.
    """
    tables = toml_file(path)
    chosen = _persona_tables(tables).get("default")
    layer = {} if chosen is None or isinstance(chosen, dict) else {"persona": chosen}
    values = (n for n, v in tables.items() if not isinstance(v, dict) or _is_json(n))
    return layer | {name: tables[name] for name in values}


def _is_json(name: str) -> bool:
    return name in OPTIONS and "json" in OPTIONS[name].metadata


def personas(path: Path) -> dict[str, dict[str, Any]]:
    """The tables [persona.NAME] of a config.toml, by name; their values are checked when used."""
    return {n: t for n, t in _persona_tables(toml_file(path)).items() if isinstance(t, dict)}


def _persona_tables(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    found = tables.get("persona")
    return found if isinstance(found, dict) else {}


def persona(tables: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The layer of this persona; SettingsError says which was meant."""
    if name in tables:
        return tables[name]
    near = difflib.get_close_matches(name, tables, 1, cutoff=0.5)
    known = f"Known are: {', '.join(tables)}." if tables else "config.toml has no [persona.NAME]."
    hint = f"Did you mean {near[0]}?" if near else known
    raise SettingsError(f"There is no persona called {name}. {hint}")


def toml_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, none of an absent one; SettingsError when it cannot be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Mend or remove it.") from error


def check(name: str, raw: Any, source: str) -> Any:
    """The value `raw` stands for under `name`, as text or typed; SettingsError when none."""
    option = OPTIONS.get(name)
    if option is None:
        near = difflib.get_close_matches(name, OPTIONS, 1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(OPTIONS)}."
        raise SettingsError(f"There is no setting called {name} ({source}). {hint}")
    rule = option.metadata
    if "low" in rule:
        return _check_number(name, raw, source, rule, integer="int" in str(option.type))
    if "choices" in rule:
        if raw in rule["choices"]:
            return raw
        raise SettingsError(
            f"{name} = {raw} ({source}) has no meaning. Choose {either(rule['choices'])}."
        )
    if "json" in rule:
        return _check_json(name, raw, source)
    if isinstance(option.default, tuple):
        given = tuple(map(str, raw)) if isinstance(raw, (list, tuple)) else (str(raw),)
        return () if given == ("none",) else given
    if isinstance(raw, str):
        return rule["words"].get(raw, raw)
    return None if raw is None else str(raw)


def _check_json(name: str, raw: Any, source: str) -> str:
    try:
        value = raw if isinstance(raw, dict) else json.loads(raw)
        if isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        pass
    raise SettingsError(
        f"{name} = {raw} ({source}) has no meaning. Give a JSON object, as "
        '{"reasoning_effort": "low"}.'
    )


def _check_number(name: str, raw: Any, source: str, rule: Mapping[str, Any], integer: bool) -> Any:
    words, low, high = rule["words"], rule["low"], rule["high"]
    if isinstance(raw, str) and raw in words:
        return words[raw]
    if raw in words.values() and isinstance(raw, int | None):
        return raw
    kind = int if integer else float
    try:
        # bool is an int to Python, not to a person; 0.5 layers are not 0 layers
        value = kind(raw)
        if isinstance(raw, bool) or value != float(raw) or not low <= value <= high:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        range_ = f"a {'whole ' if integer else ''}number from {low:,} to {high:,}"
        raise SettingsError(
            f"{name} = {raw} ({source}) has no meaning. Give {either([range_, *words])}."
        ) from None
    return value
