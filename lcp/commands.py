"""The slash commands of the chat, as one table; /help is printed from it."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from lcp.chat import LIVE, Chat
from lcp.errors import LcpError, UsageError
from lcp.settings import OPTIONS, Sampling


@dataclass(frozen=True)
class Command:
    """`run` gets the chat and the text after the name; only /exit answers False."""

    name: str
    arguments: str
    meaning: str
    run: Callable[[Chat, str], bool | None]


def run(chat: Chat, line: str) -> bool:
    """Do what a line like "/set temp 0.5" says; whether the chat goes on."""
    name, _, argument = line[1:].partition(" ")
    command = next((c for c in TABLE if c.name == name.strip()), None)
    if command is None:
        near = difflib.get_close_matches(name, [c.name for c in TABLE], 1)
        hint = f"Did you mean /{near[0]}?" if near else "/help lists the commands."
        raise UsageError(f"There is no command /{name.strip()}. {hint}")
    return command.run(chat, argument.strip()) is not False


def _help(chat: Chat, _: str) -> None:
    chat.screen.table([(f"/{c.name} {c.arguments}".rstrip(), c.meaning) for c in TABLE])
    chat.screen.notice(
        "Enter sends; Alt-Enter or Ctrl-J makes a new line.\nCtrl-C stops an answer; Ctrl-D leaves."
    )


def _exit(chat: Chat, _: str) -> bool:
    return False


def _clear(chat: Chat, _: str) -> None:
    chat.keep(chat.conversation.clear())
    chat.screen.notice("The conversation begins anew; the log keeps what was said.")


def _system(chat: Chat, text: str) -> None:
    if text:
        chat.keep(chat.conversation.set_system(text))
    chat.screen.notice(f"System text: {chat.conversation.system or '(none)'}")


def _set(chat: Chat, argument: str) -> None:
    names = (*Sampling.__dataclass_fields__, *LIVE)
    name, _, value = argument.partition(" ")
    if not name:
        chat.screen.table([_row(chat, n) for n in names])
        return
    if name == "system":
        raise LcpError("The system text has a command of its own: /system TEXT.")
    if name in OPTIONS and name not in names:
        raise LcpError(
            f"{name} is fixed while the model is loaded. Start again with "
            f"--{name.replace('_', '-')}."
        )
    if value:
        chat.set(name, value.strip())
    elif name not in OPTIONS:
        chat.set(name, "")  # says which name was meant
    chat.screen.table([_row(chat, name)])


def _row(chat: Chat, name: str) -> tuple[str, ...]:
    value = chat.settings.value(name)
    words = OPTIONS[name].metadata.get("words", {})
    shown = next((word for word, stands_for in words.items() if value == stands_for), value)
    text = ", ".join(value) or "(none)" if isinstance(value, tuple) else str(shown)
    return name, text, chat.settings.sources[name], OPTIONS[name].metadata["meaning"]


def _stats(chat: Chat, _: str) -> None:
    if chat.stats is None:
        raise LcpError("There is no answer yet. Ask something first.")
    chat.screen.table([(name, f"{value:,}") for name, value in chat.stats.as_dict().items()])


def _retry(chat: Chat, _: str) -> None:
    chat.retry()
    chat.say_status()


TABLE = (
    Command("help", "", "list the commands", _help),
    Command("set", "[NAME [VALUE]]", "show or change how answers are drawn", _set),
    Command("system", "[TEXT]", "show or change the system text", _system),
    Command("retry", "", "answer the last question once more", _retry),
    Command("clear", "", "begin the conversation anew", _clear),
    Command("stats", "", "the figures of the last answer", _stats),
    Command("exit", "", "leave; Ctrl-D does the same", _exit),
)
