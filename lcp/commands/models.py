"""The slash command that puts another model into the running program."""

from collections.abc import Iterable
from pathlib import Path

from lcp.chat import switch
from lcp.chat.chat import Chat
from lcp.commands.command import Command
from lcp.errors import LcpError


def model(chat: Chat, name: str) -> None:
    """Go on with another model; without a name, list those that are here."""
    if not name:
        here = dict(chat.services.models())
        here.setdefault(chat.model, "")
        chat.screen.table([("*" if n == chat.model else " ", n, told) for n, told in here.items()])
        return
    found = chat.services.find(name)
    if found.name == chat.model:
        raise LcpError(f"{name} is the model of this chat already. /model lists the others.")
    chat.ready()
    switch.change(chat, found, chat.conversation, chat.log, chat.layers)
    chat.keep(chat.conversation.set(model=found.name))
    again = "; it reads the conversation anew" if chat.conversation.turns() else ""
    chat.screen.notice(f"{Path(found.name).name} answers from here on{again}.")


def models_here(chat: Chat, _: str) -> Iterable[tuple[str, str]]:
    """What may stand after /model."""
    return chat.services.models().items()


COMMANDS = (
    Command(
        "How it answers",
        "model",
        "[NAME]",
        "list the models; go on with another",
        model,
        models_here,
    ),
)
