"""Resume: what a person is told and shown of a saved chat that goes on."""

import shlex
from collections.abc import Callable

from lcp.chat.chat import Chat
from lcp.errors import ModelNotFound
from lcp.session.message import Turn
from lcp.terminal.markdown import tail
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
    """The turn that a resumed chat goes on from; of long texts the end, from where a block of
    their Markdown begins."""
    for turn in chat.conversation.turns()[-1:]:
        _show(chat, turn, lambda text: tail(text, SHOWN_LINES, SHOWN))


def show(chat: Chat, turn: Turn) -> None:
    """A turn as it was, its thinking folded."""
    if turn.answer and turn.answer.thinking:
        thought = turn.answer.thinking.strip()
        if not chat.screen.show_thinking:
            thought = f"Thinking: {len(thought.split()):,} words, shown after /think show."
        _show(chat, turn, str, thought)
    else:
        _show(chat, turn, str)


def _show(chat: Chat, turn: Turn, shown: Callable[[str], str], thought: str = "") -> None:
    text = turn.user.written.strip()
    end = shown(text)
    chat.screen.notice(f"\n> {'…' if end != text and end[:1] != '…' else ''}{end}\n")
    if thought:
        chat.screen.notice(thought)
    if turn.answer:
        text = turn.answer.content.strip()
        end = shown(text)
        if end != text and end[:1] != "…":
            chat.screen.notice("…")
        with chat.screen.answer():
            chat.screen.write(end)
        chat.screen.blank()
