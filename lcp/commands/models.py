"""The slash command that puts another model into the running program."""

from collections.abc import Iterable
from pathlib import Path

from lcp.chat import attachments, switch
from lcp.chat.chat import Chat
from lcp.chat.services import FoundModel
from lcp.commands.command import Candidate, Command
from lcp.errors import LcpError


def model(chat: Chat, name: str) -> Chat | None:
    """Go on with another model; without a name, list those that are here."""
    if not name:
        here = dict(chat.services.models())
        here.setdefault(chat.model, "")
        chat.screen.table([("*" if n == chat.model else " ", n, told) for n, told in here.items()])
        return None
    found = _found(chat, name)
    if found.name == chat.model:
        raise LcpError(f"{name} is the model of this chat already. /model lists the others.")
    chat.ready()
    chat = switch.change(chat, found, chat.conversation, chat.log, chat.layers)
    chat.keep(chat.conversation.set(model=found.name))
    again = "; it reads the conversation anew" if chat.conversation.turns() else ""
    chat.screen.notice(f"{Path(found.name).name} answers from here on{again}.")
    return chat


def _found(chat: Chat, name: str) -> FoundModel:
    """The model of this name, downloaded if it is not here and the person agrees."""
    try:
        return (chat.services.offer or chat.services.find)(name)
    except KeyboardInterrupt:
        raise LcpError(
            f"Stopped; this chat is unchanged. /model {name} goes on where it stopped."
        ) from None


def candidates(chat: Chat, begun: str) -> Iterable[Candidate]:
    """What may stand after /model: the models here, and GGUF files by their paths."""
    yield from chat.services.models().items()
    for path in attachments.paths(begun, Path()):
        if path.lower().endswith((".gguf", "/")):
            yield path


COMMANDS = (
    Command(
        "How it answers",
        "model",
        "[NAME]",
        "list the models; go on with another",
        model,
        candidates,
    ),
)
