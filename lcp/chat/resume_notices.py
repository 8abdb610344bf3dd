"""What a person sees when a saved chat is resumed."""

import shlex
from collections.abc import Callable

from lcp.chat import window_notices
from lcp.chat.chat import Chat
from lcp.chat.error_advice import with_advice
from lcp.errors import ModelNotFound
from lcp.formatting import count
from lcp.session.message import Turn

SHOWN_LINES, SHOWN = 12, 1200  # of the last answer: its last lines, and characters at most


def resuming(chat: Chat) -> str:
    """The command that resumes this chat."""
    return f"lcp chat --resume {shlex.quote(chat.conversation.name or chat.log.id)}"


def without_model(error: ModelNotFound, id: str) -> ModelNotFound:
    """The error for a saved chat whose model is not on this computer."""
    return ModelNotFound(f"{with_advice(error)} Or use another one: lcp chat --resume {id} -m NAME")


def tell(chat: Chat) -> None:
    """Say which saved chat was resumed."""
    talk, said = chat.conversation, chat.conversation.turns()
    called = " · ".join(filter(None, [f"({count(len(said), 'turn')})", talk.name, talk.title()]))
    chat.screen.notice(f"Resumed {chat.log.id or 'a chat'} {called}")
    if unseen := window_notices.unseen(chat.overflow):
        chat.screen.notice(unseen)
    if said and said[-1].answer is None:
        chat.screen.notice("Its last question has no answer yet; /retry answers it.")
    elif said and said[-1].answer and said[-1].answer.ended in ("interrupted", "length"):
        chat.screen.notice("Its last answer was cut; /continue continues it.")


def show_last(chat: Chat) -> None:
    """Show the last turn of a resumed chat; of long texts the end, from the beginning of a Markdown
    block."""
    from lcp.terminal.markdown import tail  # a script's command does not wait for it

    for turn in chat.conversation.turns()[-1:]:
        _show(chat, turn, lambda text: tail(text, SHOWN_LINES, SHOWN))


def show(chat: Chat, turn: Turn) -> None:
    """Show a turn, its thinking folded."""
    if turn.answer and turn.answer.thinking:
        thought = turn.answer.thinking.strip()
        if not chat.screen.show_thinking:
            thought = f"Thinking: {count(len(thought.split()), 'word')}, shown after /think show."
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
