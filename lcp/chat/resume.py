"""Resume: what a person is told and shown of a saved chat that goes on."""

import shlex

from lcp.chat.chat import Chat
from lcp.errors import ModelNotFound
from lcp.session import export
from lcp.session.message import Message
from lcp.words import count

SHOWN_LINES, SHOWN = 12, 1200  # of the last answer: its last lines, and characters at most


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
    if unseen := chat.overflow.unseen():
        chat.screen.notice(unseen)
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


def _end(message: Message) -> tuple[str, str]:
    """The end of what was said, all of it when it is short; and what stands before it."""
    text = message.written.strip()
    end = "\n".join(text.split("\n")[-SHOWN_LINES:])[-SHOWN:]
    return text[: len(text) - len(end)], end
