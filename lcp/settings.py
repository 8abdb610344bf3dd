"""Settings: each declared once, and the layers that a value can come from.

A declaration gives name, type, default, range, flag and one line of help. From it come the flags
of the command line, the LCP_* variables, the keys of config.toml, /set and the table in the docs.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lcp import paths
from lcp.errors import SettingsError
from lcp.formatting import either, short

# The settings that decide what the chat template and the engine are told about thinking.
THINKING = ("think", "reasoning_effort", "reasoning_budget", "chat_template_kwargs")
# The names that chat templates have for the reasoning effort.
EFFORTS = ("reasoning_effort", "thinking_effort", "reasoning_strength")


def _number(
    default: Any, help: str, low: float, high: float, flag: str = "", *, live: bool = True,
    hidden: str = "", **words: Any,
) -> Any:  # fmt: skip
    """A number from `low` to `high`, or one of `words`, such as auto. `flag` has the spellings of
    the command line, split by blanks; `hidden` are understood but not listed. `live`: /set can
    change it while a model is loaded."""
    return _declare(default, help, flag, hidden, live, low=low, high=high, words=words)


def _choice(
    help: str, flag: str, *choices: str, live: bool = True, hidden: str = "", switch: bool = False
) -> Any:
    """One of `choices`; the first is the default. The flag of a `switch` means "on"."""
    return _declare(choices[0], help, flag, hidden, live, choices=choices, switch=switch)


def _text(
    default: Any, help: str, flag: str = "", metavar: str = "TEXT", *, live: bool = False,
    **words: Any,
) -> Any:  # fmt: skip
    return _declare(default, help, flag, "", live, metavar=metavar, words=words)


def _declare(default: Any, help: str, flag: str, hidden: str, live: bool, **rule: Any) -> Any:
    spelled = {"flags": tuple(flag.split()), "hidden": tuple(hidden.split())}
    return field(default=default, metadata={"help": help, "live": live, **spelled, **rule})


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled. The defaults are llama.cpp's."""

    temp: float = _number(0.8, "Sampling temperature; 0 means no randomness.", 0, 10, "--temp")
    top_k: int = _number(
        40, "Sample from the N most likely tokens; 0 is off.", 0, 1_000_000, "--top-k"
    )
    top_p: float = _number(
        0.95, "Sample from the most likely tokens that add up to N; 1 is off.", 0, 1, "--top-p"
    )
    min_p: float = _number(
        0.05, "Drop tokens below N times the most likely one; 0 is off.", 0, 1, "--min-p"
    )
    repeat_penalty: float = _number(
        1.0, "Penalize recently used tokens; 1 is off.", 0.01, 10, "--repeat-penalty"
    )
    repeat_last_n: int = _number(
        64, "Number of recent tokens that the penalties look at.", 0, 1_000_000
    )
    frequency_penalty: float = _number(
        0.0, "Penalize a token each time it appears; 0 is off.", -10, 10, "--frequency-penalty"
    )
    presence_penalty: float = _number(
        0.0, "Penalize a token once it has appeared; 0 is off.", -10, 10, "--presence-penalty"
    )
    seed: int | None = _number(
        None, "Seed; the same seed gives the same answer.", 0, 2**32 - 2, "--seed", random=None
    )


@dataclass(frozen=True)
class Settings:
    """Everything that can be chosen for a chat. Sizes are in tokens."""

    sampling: Sampling = Sampling()
    persona: str | None = _text(
        None, "Persona: the table [persona.NAME] in config.toml.", "--persona", "NAME", none=None
    )
    model: str | None = _text(None, "Model to use if you name none.")
    server: str | None = _text(
        None, "Use a model on this server.", "--server", "URL|NAME", none=None
    )
    system: str | None = _text(
        None, "System prompt: how the model should behave.", "-s --system", "TEXT|@FILE", none=""
    )
    max_tokens: int | None = _number(
        None, "Limit an answer to N tokens, thinking included.", 1, 2**31 - 1, "-n --max-tokens",
        hidden="--predict", auto=None,
    )  # fmt: skip
    stop: tuple[str, ...] = _text(
        (), "Text that ends the answer; may be repeated.", "--stop", live=True, none=()
    )
    ctx_size: int | None = _number(
        None, "Context window in tokens.", 64, 2**31 - 1, "-c --ctx-size", live=False, auto=None
    )
    n_gpu_layers: int | None = _number(
        None, "Layers to offload to the GPU.", 0, 100_000, "-ngl --n-gpu-layers", live=False,
        auto=None, all=-1,
    )  # fmt: skip
    threads: int | None = _number(
        None, "CPU threads to use.", 1, 4096, "-t --threads", live=False, auto=None
    )
    kv_type: str = _choice(
        "Number format of the KV cache.", "--kv-type", "f16", "q8_0", "q4_0", live=False,
        hidden="-ctk -ctv",
    )  # fmt: skip
    flash_attn: str = _choice("Flash attention.", "--flash-attn", "auto", "on", "off", live=False)
    overflow: str = _choice(
        "Choose what happens when the context window is full.", "--overflow",
        "slide", "summarize", "truncate", "stop",
    )  # fmt: skip
    slide: str = _choice(
        "Move kept turns in the KV cache, or read them again.", "--slide", "move", "reread"
    )
    kv_files: int = _number(2048, "MiB of disk for saved KV caches; 0 saves none.", 0, 1 << 30)
    loop_guard: str = _choice("Stop an answer that repeats itself.", "--loop-guard", "on", "off")
    speculate: str = _choice(
        "Draft text that repeats the chat, and check it in one batch.", "--speculate", "auto", "off"
    )
    token_probs: str = _choice(
        "Ask a server for the probabilities that /probs and /fork need.", "--token-probs",
        "off", "on",
    )  # fmt: skip
    keys: str = _choice("Key bindings of the line editor.", "--keys", "emacs", "vi")
    think: str = _choice(
        "Think before answering; hide does not show the thinking.", "--think", "on", "off", "hide"
    )
    raw: str = _choice(
        "Continue text as it is, without a chat template.", "--raw", "off", "on", switch=True
    )
    reasoning_effort: str = _choice(
        "Reasoning effort, for models that support it.", "--reasoning-effort",
        "auto", "minimal", "low", "medium", "high", "xhigh", "max",
    )  # fmt: skip
    reasoning_budget: int | None = _number(
        None, "Limit the thinking to N tokens.", 0, 2**31 - 1, "--reasoning-budget", auto=None
    )
    chat_template_kwargs: str = _declare(
        "{}", "Extra variables for the chat template, as JSON.", "--chat-template-kwargs", "", True,
        metavar="JSON", json=True,
    )  # fmt: skip
    # name -> the layer its value came from
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def value(self, name: str) -> Any:
        """The value of a setting by its name."""
        return getattr(self.sampling if name in _SAMPLING else self, name)

    @property
    def chosen(self) -> frozenset[str]:
        """The names of the settings that a person chose."""
        own = ("default", "model file", "models.toml", "server")
        return frozenset(name for name, source in self.sources.items() if source not in own)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the settings that were given for this run, by a flag or the environment."""
        return tuple(name for name, s in self.sources.items() if s in ("flag", "environment"))

    @property
    def thinking_tokens(self) -> int | None:
        """The most tokens of thinking; None leaves its length to the model."""
        return 0 if self.think == "off" else self.reasoning_budget

    @property
    def template_variables(self) -> dict[str, Any]:
        """The variables of the chat template besides the messages, under all names that templates
        use for them. Without a variable, a template does what its model was trained for."""
        variables: dict[str, Any] = {"enable_thinking": self.think != "off"}
        if self.think == "off":
            variables["thinking"] = False
        if self.thinking_tokens is not None:
            variables["thinking_budget"] = self.thinking_tokens
        if self.reasoning_effort != "auto":
            variables |= dict.fromkeys(EFFORTS, self.reasoning_effort)
        return variables | json.loads(self.chat_template_kwargs)


_SAMPLING = {f.name: f for f in dataclasses.fields(Sampling)}
OPTIONS: dict[str, dataclasses.Field[Any]] = _SAMPLING | {
    f.name: f for f in dataclasses.fields(Settings) if f.metadata
}
# What /set can change: the rest is fixed with the context, or has a command of its own.
LIVE = tuple(name for name, option in OPTIONS.items() if option.metadata["live"])


def _layer(source: str) -> Any:
    """A layer, by the name that /set shows for it."""
    return field(default_factory=dict, metadata={"source": source})


@dataclass(frozen=True)
class Layers:
    """The values that were chosen, by where; each layer is stronger than those above it.

    Values are text or typed and are checked by `resolve`. Nothing is changed in place: each
    operation gives new Layers.
    """

    # What a server says that it uses; None for what it decides without saying.
    server: Mapping[str, Any] = _layer("server")
    model_file: Mapping[str, Any] = _layer("model file")  # the GGUF's own general.sampling.*
    catalog: Mapping[str, Any] = _layer("models.toml")
    config: Mapping[str, Any] = _layer("config.toml")
    conversation: Mapping[str, Any] = _layer("conversation")  # by /set, before it was resumed
    persona: Mapping[str, Any] = _layer("persona")
    environment: Mapping[str, Any] = _layer("environment")
    flags: Mapping[str, Any] = _layer("flag")
    chosen: Mapping[str, Any] = _layer("/set")

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> "Layers":
        """The layers of a command line: its flags, the environment and config.toml."""
        config = from_file(paths.config() / "config.toml")
        return cls(flags=flags, environment=from_environment(os.environ), config=config)

    def resolve(self) -> Settings:
        """The strongest value of each setting. Raises SettingsError for a value without meaning."""
        values: dict[str, Any] = {}
        sources = dict.fromkeys(OPTIONS, "default")
        for layer in dataclasses.fields(self):
            source = layer.metadata["source"]
            for name, raw in getattr(self, layer.name).items():
                sources[name] = source
                if raw is not None or layer.name != "server":
                    values[name] = check(name, raw, source)
        sampling = Sampling(**{name: values.pop(name) for name in _SAMPLING if name in values})
        return Settings(sampling=sampling, sources=sources, **values)

    def choosing(self, **values: Any) -> "Layers":
        """With these values set in the chat."""
        return replace(self, chosen={**self.chosen, **values})

    def without(self, names: Collection[str]) -> "Layers":
        """Without what was set for these names in the chat, now or before it was resumed."""

        def rest(layer: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in layer.items() if name not in names}

        return replace(self, conversation=rest(self.conversation), chosen=rest(self.chosen))

    def with_model(self, recommended: Mapping[str, Any]) -> "Layers":
        """For another model, which the catalogue has these recommendations for."""
        return replace(self, catalog=dict(recommended), model_file={}, server={})

    def resuming(self, values: Mapping[str, Any]) -> "Layers":
        """For a conversation in which these values were set."""
        # A newer lcp may have set what this one does not know.
        return replace(self, conversation={n: v for n, v in values.items() if n in OPTIONS})

    def switching_to(self, values: Mapping[str, Any]) -> "Layers":
        """For another conversation, in which these values were set: what was set in this one
        does not count there, nor does a persona of the command line."""
        chosen = {"persona": values.get("persona")}
        return replace(self.resuming(values), persona={}, chosen=chosen)


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The values of LCP_TEMP, LCP_MODEL and so on; an empty variable counts as absent."""
    found = {name: environ.get(f"LCP_{name.upper()}", "") for name in OPTIONS}
    return {name: value for name, value in found.items() if value}


def from_file(path: Path) -> dict[str, Any]:
    """The top-level values of a config.toml, unchecked; none if there is no such file.

    TOML allows no key that is both a value and a table: `persona.default` is the setting `persona`,
    and `server.default` the setting `server`.
    """
    values = toml_file(path)
    for name in ("persona", "server"):
        if isinstance(named := values.get(name), dict):
            del values[name]
            if not isinstance(default := named.get("default", {}), dict):
                values[name] = default
    return values


def personas(path: Path) -> dict[str, dict[str, Any]]:
    """The tables [persona.NAME] of a config.toml by name; their values are checked when used."""
    return {n: t for n, t in _persona_tables(toml_file(path)).items() if isinstance(t, dict)}


def _persona_tables(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    found = tables.get("persona")
    return found if isinstance(found, dict) else {}


def persona(tables: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The values of this persona. SettingsError names the one that was probably meant."""
    if name in tables:
        return tables[name]
    close = near(name, tables)
    hint = f"Did you mean {close[0]}?" if close else f"The personas are: {', '.join(tables)}."
    hint = hint if tables else "config.toml has no [persona.NAME]."
    raise SettingsError(f"There is no persona called {name}. {hint}")


def near(name: str, known: Iterable[str]) -> list[str]:
    """The known name that was probably meant, if any."""
    import difflib

    return difflib.get_close_matches(name, known, 1, cutoff=0.5)


def toml_file(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, none if it does not exist; SettingsError if it is broken."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SettingsError(f"Cannot read {path}: {why}. Correct or remove it.") from error


def check(name: str, raw: Any, source: str) -> Any:
    """The value of a setting from the text or the typed value that the layer `source` has for it.
    SettingsError says what it must be."""
    option = OPTIONS.get(name)
    if option is None:
        close = near(name, OPTIONS)
        hint = f"Did you mean {close[0]}?" if close else f"The settings are: {', '.join(OPTIONS)}."
        raise SettingsError(f"There is no setting called {name} ({source}). {hint}")
    rule = option.metadata
    if "low" in rule:
        return _number_of(name, raw, source, rule, integer="int" in str(option.type))
    if "choices" in rule:
        if raw in rule["choices"]:
            return raw
        raise _wrong(name, raw, source, either(rule["choices"]))
    if "json" in rule:
        return _json_of(name, raw, source)
    many = isinstance(option.default, tuple)
    texts = raw if many and isinstance(raw, list | tuple) else [raw]
    if any(isinstance(one, bool | list | tuple | dict) for one in texts):
        raise _wrong(name, raw, source, "text")  # but a number counts as its digits
    if many:
        return () if [*texts] == ["none"] else tuple(map(str, texts))
    text = None if raw is None else str(raw)
    return rule["words"].get(text, text)


def _wrong(name: str, raw: Any, source: str, wanted: str) -> SettingsError:
    plain = short(str(raw).lower() if isinstance(raw, bool) else str(raw), 60)
    got = f'"{plain}"' if isinstance(raw, str) else plain
    where = source if source.startswith("/") or source.endswith(".toml") else f"the {source}"
    return SettingsError(f"{name} must be {wanted} (got {got} from {where}).")


def _json_of(name: str, raw: Any, source: str) -> str:
    try:
        value = raw if isinstance(raw, dict) else json.loads(raw)
        if isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        pass
    raise _wrong(name, raw, source, 'a JSON object such as {"reasoning_effort": "low"}')


def _number_of(name: str, raw: Any, source: str, rule: Mapping[str, Any], integer: bool) -> Any:
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
        raise _wrong(name, raw, source, either([range_, *words])) from None
    return value
