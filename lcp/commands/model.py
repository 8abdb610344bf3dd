"""The slash command /model: switch to another model."""

from collections.abc import Iterable
from pathlib import Path

from lcp.chat import attachments, model_switch
from lcp.chat.chat import Chat
from lcp.chat.services_interface import FoundModel
from lcp.commands.command import Candidate, command
from lcp.errors import LcpError
from lcp.session.export import plain_name


def candidates(chat: Chat, begun: str) -> Iterable[Candidate]:
    """Completions for /model: the installed models, and paths of GGUF files."""
    yield from chat.services.models().items()
    for path in attachments.paths(begun, Path()):
        if path.lower().endswith((".gguf", "/")):
            yield path


@command("model", "[NAME]", "list the models; switch to another", "/model smollm2-135m", candidates)
def model(chat: Chat, name: str) -> Chat | None:
    """Lists the models on this computer. With NAME, loads that one and keeps the conversation."""
    if not name:
        here = dict(chat.services.models())
        here.setdefault(chat.model, "")
        chat.screen.table([("*" if n == chat.model else " ", n, told) for n, told in here.items()])
        return None
    found = _found(chat, name)
    if found.name == chat.model:
        raise LcpError(f"This chat already uses {name}. /model lists the others.")
    chat.ready()
    chat = model_switch.change(chat, found, chat.conversation, chat.log, chat.layers)
    chat.keep(chat.conversation.set(model=chat.model))
    again = "; it is reading the conversation" if chat.conversation.turns() else ""
    chat.screen.notice(f"Switched to {plain_name(chat.model)}{again}.")
    return chat


def _found(chat: Chat, name: str) -> FoundModel:
    """Find the model; if it is not installed, offer to download it."""
    try:
        return (chat.services.offer or chat.services.find)(name)
    except KeyboardInterrupt:
        raise LcpError(
            f"Stopped; this chat is unchanged. Download the model with: /model {name}"
        ) from None
