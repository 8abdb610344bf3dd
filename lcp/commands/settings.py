"""The slash commands for generation: settings, thinking, the system text, personas. Changes apply
from the next answer on.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcp.chat import attachments
from lcp.chat.chat import Chat
from lcp.commands.command import Candidate, command
from lcp.errors import LcpError
from lcp.formatting import either, short
from lcp.settings import EFFORTS, LIVE, OPTIONS, THINKING, Settings, persona

# Settings with their own command.
OWN = {"system": "/system TEXT", "model": "/model NAME", "persona": "/persona NAME"}
RESET = "reset"  # as a value: undo /set
THINK = ("on", "off", "show", "hide", "low", "medium", "high")
_DEFAULTS = Settings()


def candidates(chat: Chat, begun: str) -> Iterable[Candidate]:
    """Completions for /set."""
    name, blank, _ = begun.partition(" ")
    if not blank:
        return [(name, OPTIONS[name].metadata["help"]) for name in LIVE]
    if name not in OPTIONS:
        return ()
    choices = OPTIONS[name].metadata
    words = choices.get("choices", choices.get("words", ()))
    return [f"{name} {word}" for word in (*words, RESET)]


def _text_or_file(chat: Chat, begun: str) -> Iterable[str]:
    if begun[:1] != "@":
        return ("none", RESET)
    return (f"@{path}" for path in attachments.paths(begun[1:], Path()))


def personas_here(chat: Chat, _: str) -> Iterable[Candidate]:
    """Completions for /persona."""
    return [*((name, _told(table)) for name, table in chat.services.personas.items()), "none"]


def _told(table: Any) -> str:
    return ", ".join(f"{name} = {short(str(value), 40)}" for name, value in table.items())


@command("set", "[NAME [VALUE]]", "show or change settings", "/set temp 0.5", candidates)
def set_(chat: Chat, argument: str) -> None:
    """Lists all settings with value, source and default. With NAME, shows one; with VALUE,
    changes it from the next answer on; reset undoes the change."""
    argument = re.sub(r"^(\w+)\s*=", r"\1 ", argument)  # as in config.toml
    name, *rest = argument.split(maxsplit=1) or [""]
    value = "".join(rest)
    if not name:
        head = ("setting", "value", "from", "default", "meaning")
        chat.screen.table([head, *(_row(chat, n) for n in OPTIONS if n not in OWN)], head=True)
        return
    if name in OWN:
        raise LcpError(f"{name} has its own command: {OWN[name]}.")
    if value and name in OPTIONS and name not in LIVE:
        raise LcpError(
            f"{name} cannot change while the model is loaded. Restart lcp with "
            f"{OPTIONS[name].metadata['flags'][-1]}."
        )
    if value == RESET and name in OPTIONS:
        chat.use(chat.layers.without({name}))
        chat.keep(chat.conversation.set(**{name: chat.settings.value(name)}))
    elif value:
        chat.set(name, value)
    elif name not in OPTIONS:
        chat.set(name, "")  # raises with a similar name
    name, shown, source, default, meaning = _row(chat, name)
    chat.screen.table([(name, shown, source, f"default {default}", meaning)])
    if value and name in (*THINKING, "raw"):
        chat.ready()
        for notice in chat.unsupported([name]):
            chat.screen.notice(notice)


@command(
    "system",
    "[TEXT|@FILE|none|reset]",
    "show or change the system text",
    "/system Answer in one sentence.",
    _text_or_file,
)
def system(chat: Chat, text: str) -> None:
    """Shows the system text. With TEXT or @FILE, replaces it; none removes it."""
    if text:
        new = {"none": "", RESET: chat.settings.system}.get(text, text)
        if text.startswith("@"):
            new = attachments.content(text[1:].strip('"'), Path())
        chat.keep(chat.conversation.set_system(new))
    chat.ready()
    for line in _system(chat):
        chat.screen.notice(line)


def _system(chat: Chat) -> Iterable[str]:
    """Lines about the system text that the model gets, and where it comes from."""
    text, engine = chat.conversation.system, chat.engine
    if text:
        chosen = text == chat.settings.system
        source = f" (from {chat.settings.sources['system']})" if chosen else ""
        yield f"System text{source}: {text}"
        if chat.settings.raw == "off" and not engine.template.takes_system:
            yield "This chat template has no system role: lcp adds it to your first question."
    elif text is None and (own := engine.template.own_system()) and chat.settings.raw == "off":
        yield f"System text (the chat template's own): {own}"
    else:
        yield "System text: (none)"
    yield from chat.unsupported(["system"])


@command(
    "think",
    "[on|off|show|hide|low|medium|high|N]",
    "choose how much the model thinks, and what you see",
    "/think 500",
    lambda chat, begun: THINK,
)
def think(chat: Chat, word: str) -> None:
    """on and off switch thinking; show and hide say whether you see it; low, medium and high
    set the effort; a number limits the tokens."""
    if word.isdecimal():
        chat.set("reasoning_budget", word)
    elif word in THINK[4:]:
        chat.set("reasoning_effort", word)
    elif word in THINK:
        chat.set("think", "on" if word == "show" else word)
        chat.screen.show_thinking = word == "show"
    elif word:
        raise LcpError(f"/think must be {either([*THINK, 'a number of tokens'])} (got {word}).")
    if chat.settings.think == "off" and (word.isdecimal() or word in THINK[4:]):
        chat.set("think", "on")
    chat.screen.notice(f"Thinking: {_thinking(chat)}")
    answer = next((turn.answer for turn in chat.conversation.turns()[-1:]), None)
    if word == "show" and answer and answer.thinking:  # unfold the thinking
        chat.screen.notice(answer.thinking.strip())


def _thinking(chat: Chat) -> str:
    settings = chat.settings
    parts = [settings.think + (" (shown whole)" if chat.screen.show_thinking else "")]
    if settings.reasoning_effort != "auto":
        chat.ready()
        told = "" if chat.engine.template.uses(*EFFORTS) else " (not supported by this model)"
        parts.append(f"effort {settings.reasoning_effort}{told}")
    if settings.reasoning_budget is not None:
        chat.ready()
        without = " (this model's chat template has no thinking)"
        told = "" if chat.engine.template.thinks else without
        parts.append(f"at most {settings.reasoning_budget:,} tokens{told}")
    return " · ".join(parts if settings.think != "off" else parts[:1])


@command("persona", "[NAME|none]", "list personas; apply one", "/persona editor", personas_here)
def choose_persona(chat: Chat, name: str) -> None:
    """Lists the personas of config.toml. With NAME, applies its settings and its system text;
    none removes it."""
    tables, now = chat.services.personas, chat.settings.persona
    if not name:
        if not tables:
            raise LcpError("There are no personas. Add one to config.toml as [persona.NAME].")
        chat.screen.table(
            [("*" if n == now else " ", n, _told(table)) for n, table in tables.items()]
        )
        return
    old = tables.get(now or "", {})
    new = {} if name == "none" else persona(tables, name)
    # The new persona overrides earlier choices for all settings of the old and the new one.
    changed = {*old, *new}
    layers = replace(chat.layers.without(changed), persona=dict(new))
    chat.use(layers.choosing(persona=None if name == "none" else name))
    record(chat, changed)
    if "system" in new or ("system" in old and chat.conversation.system == old["system"]):
        chat.keep(chat.conversation.set_system(chat.settings.system))
    chat.screen.notice(f"Persona: {name}")
    if later := [n for n in new if n not in LIVE and n not in OWN]:
        names = ", ".join(later)
        chat.screen.notice(f"{names}: takes effect when you resume this chat.")
    if "model" in new and new["model"] != chat.model:
        chat.screen.notice(
            f"This persona uses the model {new['model']}. Switch with: /model {new['model']}"
        )


def record(chat: Chat, names: Collection[str]) -> None:
    """Log the settings that a persona set, so that a resumed chat keeps them even if config.toml
    changes."""
    values = {n: chat.settings.value(n) for n in sorted(names) if n not in OWN}
    chat.keep(chat.conversation.set(persona=chat.settings.persona, **values))


def _row(chat: Chat, name: str) -> tuple[str, ...]:
    option = OPTIONS[name]
    value, default = _word(name, chat.settings.value(name)), _word(name, _DEFAULTS.value(name))
    turns = chat.conversation.turns()
    last = turns[-1].answer.seed if turns and turns[-1].answer else None
    if name == "seed" and chat.settings.sampling.seed is None and last is not None:
        value += f" (last: {last})"  # with this seed, /retry gives the same answer
    return name, value, chat.settings.sources[name], default, option.metadata["help"]


def _word(name: str, value: Any) -> str:
    """A value as typed after /set."""
    words = OPTIONS[name].metadata.get("words", {})
    word = next((word for word, stands_for in words.items() if value == stands_for), value)
    return ", ".join(word) if isinstance(word, tuple) else str(word)
