"""The slash commands of the chat, as one table; /help is printed from it."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lcp import attach, choosing, editing, filing, looking, paths, switching
from lcp.chat import Chat
from lcp.errors import LcpError, UsageError
from lcp.words import count

Candidate = str | tuple[str, str]  # a word, or one with its meaning


@dataclass(frozen=True)
class Command:
    """`run` gets the chat and the text after the name; it may give what the next line begins
    with. `candidates` gives what that text may be, from its beginning."""

    name: str
    arguments: str
    meaning: str
    run: Callable[[Chat, str], str | None]
    candidates: Callable[[Chat, str], Iterable[Candidate]] = lambda chat, begun: ()


def completions(chat: Chat) -> dict[str, tuple[str, Callable[[str], Iterable[Candidate]]]]:
    """The name of each command, its meaning, and what its argument may be in this chat."""
    return {c.name: (c.meaning, partial(c.candidates, chat)) for c in TABLE}


def _paths(_: Chat, begun: str) -> Iterable[str]:
    return attach.paths(begun, Path())


def _names(_: Chat, begun: str) -> Iterable[Candidate]:
    return [(c.name, c.meaning) for c in TABLE]


def _text_or_file(_: Chat, begun: str) -> Iterable[str]:
    if begun[:1] != "@":
        return ("none",)
    return (f"@{path}" for path in attach.paths(begun[1:], Path()))


def _command(name: str) -> Command:
    """The command of this name; UsageError says which was probably meant."""
    command = next((c for c in TABLE if c.name == name), None)
    if command is None:
        near = difflib.get_close_matches(name.lower(), [c.name for c in TABLE], 1)
        meant = ELSEWHERE.get(name.lower()) or next(iter(near), "")
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


def _read(chat: Chat, name: str) -> str:
    if not name:
        raise LcpError("Say which file: /read notes.txt, or several: /read folder/*.py")
    name = name.strip('"')
    mention = attach.mention(name)
    if not attach.attach(mention, Path()).checked().files:
        here = paths.at(name)
        if here and here.is_dir():
            raise LcpError(f"{name} is a folder. Name files in it: /read {name.rstrip('/')}/*.txt")
        what = f"{name} is no file of text" if here else f"There is no file {name}"
        raise LcpError(f"{what}. Name one: /read notes.txt")
    return mention + " "


def _exit(chat: Chat, _: str) -> None:
    raise EOFError


def _clear(chat: Chat, _: str) -> None:
    chat.keep(chat.conversation.clear())
    chat.screen.notice("The conversation begins anew; the log keeps what was said.")


def _stats(chat: Chat, _: str) -> None:
    """The figures of the last answer, and the sums of all answers of this chat."""
    answers = [m for m in chat.conversation.nodes.values() if m.role == "assistant"]
    if not answers:
        raise LcpError("There is no answer yet. Ask something first.")

    def total(*names: str) -> Any:
        values = [m.stats.get(name, 0) for m in answers for name in names]
        return sum(value for value in values if isinstance(value, int | float))

    if chat.stats:
        chat.screen.table([(name, f"{value:,}") for name, value in chat.stats.as_dict().items()])
    chat.screen.notice(
        f"In this chat: {count(len(answers), 'answer')} of "
        f"{total('reply_tokens'):,} tokens, {total('read'):,} tokens read, "
        f"{total('read_s', 'decode_s'):,.1f} s."
    )


def _doctor(chat: Chat, _: str) -> None:
    from lcp import doctor

    doctor.show(doctor.examine(), chat.screen)


# What other programs call it.
ELSEWHERE = {
    "bye": "exit", "quit": "exit", "q": "exit", "?": "help", "h": "help",
    "regen": "retry", "regenerate": "retry", "pop": "undo", "new": "clear", "reset": "clear",
    "load": "open", "resume": "open", "search": "sessions", "list": "sessions", "ls": "sessions",
    "upload": "read", "file": "read", "glob": "read", "dump": "export", "write": "export",
    "temp": "set temp", "temperature": "set temp", "seed": "set seed", "parameter": "set",
    "show": "set", "info": "doctor", "prompt": "tokens", "compact": "set overflow summarize",
    "models": "model", "role": "persona", "usage": "stats", "reasoning": "think",
    "system-prompt": "system",
}  # fmt: skip
MENTION = 'in a message: puts that text file in front of it; also @folder/*.py, @"my file"'

GROUPS = {
    "The last turns": (
        Command(
            "retry",
            "[N] [xK]",
            "answer the last question, or the Nth, once more, or K times",
            editing.retry,
        ),
        Command("continue", "", "go on with an answer that was cut", editing.go_on),
        Command("undo", "[N]", "take back the last turn, or N turns", editing.undo),
        Command(
            "edit",
            "[N|answer]",
            "change the last question, or the Nth; or the last answer",
            editing.edit,
            lambda chat, begun: ("answer",),
        ),
        Command(
            "copy",
            "[N|code]",
            "the last answer, the Nth last or the last code block",
            filing.copy,
            lambda chat, begun: ("code",),
        ),
        Command("read", "FILE", "put a text file in front of the next message", _read, _paths),
    ),
    "The conversation": (
        Command("history", "", "the turns of this branch, numbered", editing.history),
        Command("branch", "[N]", "go back to after turn N; the rest stays", editing.branch),
        Command("branches", "[K]", "list the branches; go to branch K", editing.branches),
        Command("pin", "N", "keep turn N in the window, or let it go again", editing.pin),
        Command("forget", "N", "hide turn N from the model, or show it again", editing.forget),
        Command("context", "", "what fills the window", editing.context),
        Command("clear", "", "begin the conversation anew", _clear),
    ),
    "How it answers": (
        Command(
            "set",
            "[NAME [VALUE]]",
            "show or change how answers are drawn",
            choosing.set_,
            choosing.candidates,
        ),
        Command(
            "system",
            "[TEXT|@FILE|none]",
            "show or change the system text",
            choosing.system,
            _text_or_file,
        ),
        Command(
            "persona",
            "[NAME|none]",
            "list personas; take one on",
            choosing.choose_persona,
            choosing.personas_here,
        ),
        Command(
            "think",
            "[on|off|show|hide|low|medium|high|N]",
            "whether it thinks, how hard, for at most N tokens; what is shown",
            choosing.think,
            lambda chat, begun: choosing.THINK,
        ),
        Command(
            "model",
            "[NAME]",
            "list the models; go on with another",
            switching.model,
            switching.models_here,
        ),
    ),
    "The last answer as numbers": (
        Command("tokens", "", "the last prompt as the model reads it", looking.tokens),
        Command("probs", "[N]", "how sure it was; what else token N could be", looking.probs),
        Command("fork", "N K", "it anew, with alternative K at token N", looking.fork),
        Command("stats", "", "the figures of the last answer, and of all", _stats),
    ),
    "Saved chats": (
        Command("save", "[NAME]", "give this chat a name", filing.save),
        Command("sessions", "[TEXT]", "list the saved chats, or those with TEXT", filing.sessions),
        Command(
            "open",
            "NAME|ID",
            "go on with another saved chat",
            switching.open_chat,
            switching.chats_here,
        ),
        Command(
            "export", "FILE", "write the chat to a .md, .html or .json file", filing.write, _paths
        ),
        Command("export!", "FILE", "the same, over a file that is there", filing.overwrite, _paths),
    ),
    "lcp": (
        Command(
            "help",
            "[NAME]",
            "list the commands, or say what one does",
            _help,
            _names,
        ),
        Command("doctor", "", "what this computer can do, and what is wrong", _doctor),
        Command("exit", "", "leave; Ctrl-D does the same", _exit),
    ),
}
TABLE = tuple(command for group in GROUPS.values() for command in group)
