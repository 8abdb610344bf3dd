"""The slash commands of the chat, as one table; /help is printed from it."""

import difflib
from collections.abc import Callable, Iterable

from lcp.chat.chat import Chat
from lcp.commands import answer_numbers, files, model, saved_chats, settings, turns, why
from lcp.commands.command import Candidate, Command
from lcp.commands.help_texts import DETAILS
from lcp.errors import UsageError


def completions(
    chat: Callable[[], Chat],
) -> dict[str, tuple[str, Callable[[str], Iterable[Candidate]]]]:
    """For each command: its meaning, and a function that completes its argument in `chat()`."""

    def of(command: Command) -> Callable[[str], Iterable[Candidate]]:
        return lambda begun: command.candidates(chat(), begun)

    return {command.name: (command.meaning, of(command)) for command in TABLE}


def _names(_: Chat, begun: str) -> Iterable[Candidate]:
    return [*((c.name, c.meaning) for c in TABLE), ("keys", "the keys of the input line")]


def _command(name: str) -> Command:
    """Find a command by its name or by its name in other programs; UsageError suggests a similar
    one."""
    name = name.lower()
    known = SAME.get(name, name)
    command = next((c for c in TABLE if c.name == known), None)
    if command is None:
        near = difflib.get_close_matches(name, [c.name for c in TABLE], 1)
        meant = ELSEWHERE.get(name) or next(iter(near), "")
        hint = f"Did you mean /{meant}?" if meant else "/help lists the commands."
        raise UsageError(f"There is no command /{name}. {hint}")
    return command


def run(chat: Chat, line: str) -> str | Chat | None:
    """Run a line like "/set temp 0.5". Returns the text to put into the next input line, the chat
    that replaces this one, or None."""
    name, *rest = line[1:].split(maxsplit=1) or [""]  # any white space, also a non-breaking space
    command, argument = _command(name), "".join(rest).strip()
    if argument and not command.arguments:
        raise UsageError(f"/{command.name} takes no argument. Leave out {argument}.")
    return command.run(chat, argument)


def _help(chat: Chat, name: str) -> None:
    """Show all commands, the keys of the input line, or details of one command."""
    screen = chat.screen
    if name == "keys":
        from lcp.terminal.key_bindings import KEYS

        screen.table([*KEYS, ("@FILE", MENTION)])
    elif name:
        command = _command(name.lstrip("/"))
        told, example = DETAILS[command.name]
        screen.table([(f"/{command.name} {command.arguments}".rstrip(), command.meaning)])
        screen.notice(told)
        screen.notice(f"Example: {example}")
        others = (f"/{c.name}" for c in GROUPS[command.group] if c != command)
        screen.notice(f"See also: {', '.join(others)}")
    else:
        rows = [
            (title if command is group[0] else "", f"/{command.name}", command.meaning)
            for title, group in GROUPS.items()
            for command in group
        ]
        widest = [max(map(len, column)) for column in zip(*rows, strict=True)]
        wide = screen.width >= sum(widest) + 2 * len("  ")
        screen.table(rows if wide else [row[1:] for row in rows])
        screen.notice(
            "/help NAME explains one command; /help keys lists the keys of the input line."
        )


def _exit(chat: Chat, _: str) -> None:
    raise EOFError


def _doctor(chat: Chat, _: str) -> None:
    from lcp import health_checks

    health_checks.show(health_checks.examine(), chat.screen)


# Names from other programs for the same command; typing one runs it.
SAME = {
    "bye": "exit", "quit": "exit", "q": "exit", "?": "help", "h": "help", "commands": "help",
    "regen": "retry", "regenerate": "retry", "models": "model", "usage": "stats",
}  # fmt: skip
# Names from other programs for a similar command, which lcp suggests but does not run.
ELSEWHERE = {
    "pop": "undo", "new": "clear", "reset": "clear",
    "load": "open", "resume": "open", "search": "sessions", "list": "sessions", "ls": "sessions",
    "upload": "read", "file": "read", "glob": "read", "dump": "export", "write": "export",
    "temp": "set temp", "temperature": "set temp", "seed": "set seed", "parameter": "set",
    "show": "set", "info": "doctor", "prompt": "tokens", "compact": "set overflow summarize",
    "role": "persona", "reasoning": "think",
    "system-prompt": "system",
}  # fmt: skip
MENTION = 'in a message: attaches that text file; also @folder/*.py, @"my file"'

_OWN = (
    Command("lcp", "help", "[NAME|keys]", "list the commands; explain one", _help, _names),
    Command("lcp", "doctor", "", "check this computer for problems", _doctor),
    Command("lcp", "exit", "", "leave; Ctrl-D does the same", _exit),
)
_TITLES = (
    "The last turns", "The conversation", "How it answers", "The last answer as numbers",
    "Saved chats", "lcp",
)  # fmt: skip
_ALL = (
    *turns.COMMANDS, *settings.COMMANDS, *model.COMMANDS, *answer_numbers.COMMANDS,
    *why.COMMANDS, *saved_chats.COMMANDS, *files.COMMANDS, *_OWN,
)  # fmt: skip
GROUPS = {title: tuple(c for c in _ALL if c.group == title) for title in _TITLES}
TABLE = tuple(command for group in GROUPS.values() for command in group)
