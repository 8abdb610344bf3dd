"""The slash commands of the chat, as one table; /help is printed from it."""

import difflib
from collections.abc import Callable, Iterable
from functools import partial

from lcp.chat.chat import Chat
from lcp.commands import chats, files, inspect, models, settings, turns
from lcp.commands.command import Candidate, Command
from lcp.errors import UsageError


def completions(chat: Chat) -> dict[str, tuple[str, Callable[[str], Iterable[Candidate]]]]:
    """The name of each command, its meaning, and what its argument may be in this chat."""
    return {c.name: (c.meaning, partial(c.candidates, chat)) for c in TABLE}


def _names(_: Chat, begun: str) -> Iterable[Candidate]:
    return [(c.name, c.meaning) for c in TABLE]


def _command(name: str) -> Command:
    """The command of this name, or that other programs call so; UsageError says which was
    probably meant."""
    name = name.lower()
    known = SAME.get(name, name)
    command = next((c for c in TABLE if c.name == known), None)
    if command is None:
        near = difflib.get_close_matches(name, [c.name for c in TABLE], 1)
        meant = ELSEWHERE.get(name) or next(iter(near), "")
        hint = f"Did you mean /{meant}?" if meant else "/help lists the commands."
        raise UsageError(f"There is no command /{name}. {hint}")
    return command


def run(chat: Chat, line: str) -> str | None:
    """Do what a line like "/set temp 0.5" says; what the next line begins with, if anything."""
    name, _, argument = line[1:].partition(" ")
    command, argument = _command(name.strip()), argument.strip()
    if argument and not command.arguments:
        raise UsageError(f"/{command.name} takes nothing after it. Leave out {argument}.")
    return command.run(chat, argument)


def _help(chat: Chat, name: str) -> None:
    from lcp.terminal.keys import TABLE as KEYS

    if name:
        command = _command(name.lstrip("/"))
        chat.screen.table([(f"/{command.name} {command.arguments}".rstrip(), command.meaning)])
        return
    rows: list[tuple[str, ...]] = []
    for title, group in GROUPS.items():
        names = [(f"  /{c.name} {c.arguments}".rstrip(), c.meaning) for c in group]
        rows += [(title, ""), *names]
    rows += [("Keys", ""), *((f"  {key}", does) for key, does in KEYS), ("  @FILE", MENTION)]
    chat.screen.table(rows)


def _exit(chat: Chat, _: str) -> None:
    raise EOFError


def _doctor(chat: Chat, _: str) -> None:
    from lcp import doctor

    doctor.show(doctor.examine(), chat.screen)


# What other programs call a command that does the same; the name runs it.
SAME = {
    "bye": "exit", "quit": "exit", "q": "exit", "?": "help", "h": "help", "commands": "help",
    "regen": "retry", "regenerate": "retry", "models": "model", "usage": "stats",
}  # fmt: skip
# What they call something like it: it is only named, as it may be more or less than was meant.
ELSEWHERE = {
    "pop": "undo", "new": "clear", "reset": "clear",
    "load": "open", "resume": "open", "search": "sessions", "list": "sessions", "ls": "sessions",
    "upload": "read", "file": "read", "glob": "read", "dump": "export", "write": "export",
    "temp": "set temp", "temperature": "set temp", "seed": "set seed", "parameter": "set",
    "show": "set", "info": "doctor", "prompt": "tokens", "compact": "set overflow summarize",
    "role": "persona", "reasoning": "think",
    "system-prompt": "system",
}  # fmt: skip
MENTION = 'in a message: puts that text file in front of it; also @folder/*.py, @"my file"'

_OWN = (
    Command("lcp", "help", "[NAME]", "list the commands, or say what one does", _help, _names),
    Command("lcp", "doctor", "", "what this computer can do, and what is wrong", _doctor),
    Command("lcp", "exit", "", "leave; Ctrl-D does the same", _exit),
)
_TITLES = (
    "The last turns", "The conversation", "How it answers", "The last answer as numbers",
    "Saved chats", "lcp",
)  # fmt: skip
_ALL = (
    *turns.COMMANDS, *settings.COMMANDS, *models.COMMANDS, *inspect.COMMANDS, *chats.COMMANDS,
    *files.COMMANDS, *_OWN,
)  # fmt: skip
GROUPS = {title: tuple(c for c in _ALL if c.group == title) for title in _TITLES}
TABLE = tuple(command for group in GROUPS.values() for command in group)
