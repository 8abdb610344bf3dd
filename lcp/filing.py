"""The slash commands for what is kept: the chat's name, saved chats, files, the clipboard."""

import re
import shlex
from pathlib import Path

from lcp.chat import Chat
from lcp.errors import LcpError, ModelNotFound, SessionError
from lcp.session import export
from lcp.session.message import Message
from lcp.terminal import clipboard
from lcp.words import count, number

LONGEST_NAME = 60
LISTED = 40  # chats; more scroll away
SHOWN_LINES, SHOWN = 12, 1200  # of the last answer of a chat that is gone on with


def save(chat: Chat, name: str) -> None:
    """Give this chat a name that --resume and /open know."""
    name, own = " ".join(name.split()), chat.log.path
    if own is None:
        raise LcpError("This chat is not kept (--no-save). /export FILE writes it to a file.")
    later = "" if chat.log.is_kept else ", kept from its first question on"
    if not name:
        called = chat.conversation.name
        told = f"called {called}" if called else "without a name: /save NAME gives one"
        chat.screen.notice(f"This chat is {own.stem}{later}, {told}.")
        return
    if name == "last" or len(name) > LONGEST_NAME or not name.isprintable():
        raise SessionError(
            f"A chat cannot be called that. Give a name of up to {LONGEST_NAME} letters; "
            "last is the one used last."
        )
    taken = [s.id for s in chat.around.store.list() if name in (s.id, s.name) and s.path != own]
    if taken:
        raise SessionError(f"{taken[0]} is called {name} already. Give another name.")
    chat.keep(chat.conversation.rename(name))
    chat.screen.notice(f"This chat is now called {name}{later}: {resuming(chat)}")


def sessions(chat: Chat, text: str) -> None:
    """The saved chats; with words and "phrases", those in which all of them were said."""
    found = chat.around.store.list(_words(text))
    if not found:
        raise LcpError(
            "No saved chat contains that. /sessions lists all."
            if text
            else "There is no saved chat yet. This one is kept from its first question on."
        )
    chat.screen.table(
        [
            (
                "*" if saved.path == chat.log.path else " ",
                saved.id,
                saved.name,
                f"{saved.modified:%Y-%m-%d %H:%M}",
                count(saved.turns, "turn"),
                saved.passage or saved.title,
            )
            for saved in found[:LISTED]
        ]
    )
    more = f"{len(found) - LISTED} more: /sessions TEXT searches. " if len(found) > LISTED else ""
    chat.screen.notice(f"{more}/open NAME or ID goes on with one.")


def _words(text: str) -> list[str]:
    """Words, and phrases in quotes; not as a shell splits: d'été is a word."""
    return [phrase or word for phrase, word in re.findall(r'"([^"]+)"|(\S+)', text)]


def write(chat: Chat, name: str) -> None:
    """The chat into a new file."""
    _write(chat, name, replace=False)


def overwrite(chat: Chat, name: str) -> None:
    """The chat into a file, whatever was in it."""
    _write(chat, name, replace=True)


def copy(chat: Chat, argument: str) -> None:
    """The last answer, the n-th from the end, or the last code block into the clipboard."""
    answers = [turn.answer.content for turn in chat.conversation.said() if turn.answer]
    if not answers:
        raise LcpError("There is no answer to copy. Ask something first.")
    if argument == "code":
        blocks = [block for answer in answers for block in export.code_blocks(answer)]
        if not blocks:
            raise LcpError("No answer has a code block. /copy takes the last answer.")
        text, what = blocks[-1], "The last code block"
    else:
        n = number(argument or "1", len(answers), "an answer, the last being 1, nor code")
        text, what = answers[-n], "The last answer" if n == 1 else f"Answer {n} from the end"
    how = clipboard.copy(text, chat.screen.send)
    chat.screen.notice(f"{what}, {len(text):,} characters: {how}.")


def resuming(chat: Chat) -> str:
    """The command that goes on with this chat."""
    return f"lcp chat --resume {shlex.quote(chat.conversation.name or chat.log.id)}"


def without_model(error: ModelNotFound, id: str) -> ModelNotFound:
    """The error for a saved chat whose model is not here."""
    return type(error)(f"{error} Or go on with another one: lcp chat --resume {id} -m NAME")


def tell(chat: Chat) -> None:
    """Which saved chat goes on."""
    talk, said = chat.conversation, chat.conversation.turns()
    called = " · ".join(filter(None, [f"({count(len(said), 'turn')})", talk.name, talk.title()]))
    chat.screen.notice(f"Resumed {chat.log.id or 'a chat'} {called}")
    if said and said[-1].answer is None:
        chat.screen.notice("Its last question has no answer yet; /retry answers it.")
    elif said and said[-1].answer and said[-1].answer.ended in ("interrupted", "length"):
        chat.screen.notice("Its last answer was cut; /continue goes on with it.")


def show_last(chat: Chat) -> None:
    """The turn that a resumed chat goes on from; of long texts the end."""
    for turn in chat.conversation.turns()[-1:]:
        before, end = _end(turn.user)
        chat.screen.notice(f"\n> {before and '…'}{end}\n")
        if turn.answer:
            before, end = _end(turn.answer)
            fence = export.open_fence(before)
            if before and fence:
                chat.screen.notice("…")
            with chat.screen.answer(fence):
                chat.screen.write(f"{'' if fence else before and '…'}{end}")
            chat.screen.blank()


def _write(chat: Chat, name: str, replace: bool) -> None:
    if not name:
        raise LcpError("Say where: /export chat.md, or a name that ends in .html or .json.")
    file = Path(name.strip('"'))
    chat.conversation.said()
    try:
        export.write(chat.conversation, file, replace)
    except FileExistsError:
        raise SessionError(
            f"{file} exists already. Give another name, or replace it: /export! {name}"
        ) from None
    chat.screen.notice(f"Written to {file.expanduser().resolve()}.")


def _end(message: Message) -> tuple[str, str]:
    """The end of what was said, all of it when it is short; and what stands before it."""
    text = message.written.strip()
    end = "\n".join(text.split("\n")[-SHOWN_LINES:])[-SHOWN:]
    return text[: len(text) - len(end)], end
