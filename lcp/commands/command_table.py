"""The slash commands of the chat, as one table; /help is printed from it."""

import difflib
from collections.abc import Callable, Iterable

from lcp.chat.chat import Chat
from lcp.commands import answer_tokens, files, model, saved_chats, settings, turns, why
from lcp.commands.command import Candidate, Command, command
from lcp.errors import UsageError, refused


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
    try:
        return command.run(chat, argument)
    except OSError as error:
        if error.filename is None:  # of stdout, which ends the chat
            raise
        raise refused(error) from error


@command("help", "[NAME|keys]", "list the commands; explain one", "/help retry", _names)
def help_(chat: Chat, name: str) -> None:
    """Lists the commands. With NAME, explains one; /help keys lists the keys of the input line."""
    screen = chat.screen
    if name == "keys":
        from lcp.terminal.key_bindings import KEYS

        screen.table([*KEYS, ("@FILE", MENTION)])
    elif name:
        found = _command(name.lstrip("/"))
        screen.table([(f"/{found.name} {found.arguments}".rstrip(), found.meaning)])
        screen.notice(found.help)
        screen.notice(f"Example: {found.example}")
        (group,) = (group for group in GROUPS.values() if found in group)
        others = (f"/{c.name}" for c in group if c != found)
        screen.notice(f"See also: {', '.join(others)}")
    else:
        rows = [
            (title if command is group[0] else "", f"/{command.name}", command.meaning)
            for title, group in GROUPS.items()
            for command in group
        ]
        screen.table(rows, drop=(0,))
        screen.notice(
            "/help NAME explains one command; /help keys lists the keys of the input line."
        )


@command("exit", "", "leave; Ctrl-D does the same", "/exit")
def exit_(chat: Chat, _: str) -> None:
    """Saves the chat with its KV cache and leaves lcp."""
    raise EOFError


@command("doctor", "", "check this computer for problems", "/doctor")
def doctor(chat: Chat, _: str) -> None:
    """Checks CPU, memory, GPU, folders and models, and says how to fix problems."""
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

# What /help lists: title -> commands.
GROUPS: dict[str, tuple[Command, ...]] = {
    "The last turns": (turns.retry, turns.go_on, turns.undo, turns.edit, files.copy, files.read),
    "The conversation": (
        turns.history, turns.branch, turns.branches, turns.pin, turns.forget, turns.context,
        turns.clear,
    ),
    "How it answers": (
        settings.set_, settings.system, settings.choose_persona, settings.think, model.model,
    ),
    "The last answer as numbers": (
        answer_tokens.tokens, answer_tokens.probs, answer_tokens.fork, answer_tokens.stats,
        why.why,
    ),
    "Saved chats": (
        saved_chats.save, saved_chats.sessions, saved_chats.open_chat, files.write,
        files.overwrite,
    ),
    "lcp": (help_, doctor, exit_),
}  # fmt: skip
TABLE = tuple(command for group in GROUPS.values() for command in group)
