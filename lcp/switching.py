"""The slash commands that put another model, or another saved chat, into the running program.

Where memory is plenty the old model is kept until the new one is loaded: should that fail,
everything is as it was and nothing is read again. Where it is not, the old one is freed before:
beside it the new one would get a smaller context and fewer layers on the GPU than it could have.
Should it fail then, the old one is loaded again, and reads its conversation again.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lcp import keeping
from lcp.around import Found
from lcp.chat import Chat
from lcp.errors import LcpError, ModelNotFound, NotEnoughMemory
from lcp.filing import show_last, tell, without_model
from lcp.overflow import Overflow
from lcp.session.conversation import Conversation
from lcp.session.log import Log
from lcp.settings import OPTIONS, resolve
from lcp.terminal.signals import leave, stopping

OFFERED = 50  # saved chats, by the Tab key
PLENTY = 4  # times the new model's file; its context may be as large as a quarter of what is free


def model(chat: Chat, name: str) -> None:
    """Go on with another model; without a name, list those that are here."""
    if not name:
        here = dict(chat.around.models())
        here.setdefault(chat.model, "")
        chat.screen.table([("*" if n == chat.model else " ", n, told) for n, told in here.items()])
        return
    found = chat.around.find(name)
    if found.name == chat.model:
        raise LcpError(f"{name} is the model of this chat already. /model lists the others.")
    chat.ready()
    _change(chat, found, chat.conversation, chat.log, chat.layers)
    chat.keep(chat.conversation.set(model=found.name))
    again = "; it reads the conversation anew" if chat.conversation.turns() else ""
    chat.screen.notice(f"{Path(found.name).name} answers from here on{again}.")


def models_here(chat: Chat, _: str) -> Iterable[tuple[str, str]]:
    """What may stand after /model."""
    return chat.around.models().items()


def chats_here(chat: Chat, _: str) -> Iterable[tuple[str, str]]:
    """What may stand after /open: the chats used last."""
    saved = chat.around.store.list(most=OFFERED)
    return [(s.name or s.id, s.title) for s in saved if s.path != chat.log.path]


def open_chat(chat: Chat, name: str) -> None:
    """Go on with another saved chat; this one is left as on leaving."""
    if not name:
        raise LcpError("Say which chat: /open NAME or its id. /sessions lists them.")
    store = chat.around.store
    path = store.find(name)
    if path == chat.log.path:
        raise LcpError("This is that chat already. /sessions lists the others.")
    log, events, notices = store.open(path.stem)
    try:
        saved = log.path.with_suffix(".kv") if log.path else None
        if chat.log.path is None:  # --no-save counts for every chat of this program
            log.close()
            log = Log.nowhere()
        conversation = Conversation.from_events(events)
        try:
            found = chat.around.find(conversation.model)
        except ModelNotFound as error:
            raise without_model(error, path.stem) from None
        chat.ready()
        keeping.save(chat)
        before = chat.log
        _change(chat, found, conversation, log, _layers(chat, conversation), saved)
    except BaseException:
        log.close()
        raise
    before.close()
    for notice in notices:
        chat.screen.notice(notice)
    tell(chat)
    show_last(chat)


def close(chat: Chat) -> None:
    """Let go of what the chat stands in now."""
    chat.engine.close()
    chat.log.close()


def _layers(chat: Chat, conversation: Conversation) -> dict[str, dict[str, Any]]:
    """The settings of another conversation: nothing that was chosen in this one counts there."""
    known = {n: v for n, v in conversation.settings.items() if n in OPTIONS}
    own = {"conversation": known, "persona": {}, "/set": {"persona": known.get("persona")}}
    return {**chat.layers, **own}


def _change(
    chat: Chat,
    found: Found,
    conversation: Conversation,
    log: Log,
    layers: dict[str, dict[str, Any]],
    saved: Path | None = None,
) -> None:
    """The chat, in this conversation with this model; where that cannot be, as it was before."""
    before, old = dict(vars(chat)), chat.engine
    back = chat.around.find(chat.model)
    free = chat.around.free_memory()
    both = free is not None and PLENTY * found.path.stat().st_size < free
    chat.conversation, chat.log = conversation, log
    chat.layers = {**layers, "models.toml": dict(found.settings), "model file": {}}
    try:
        if not both:
            old.close()
        try:
            _load(chat, found, saved)
        except NotEnoughMemory:
            if not both:
                raise
            both = False
            chat.engine.close()
            old.close()
            _load(chat, found, saved)
    except BaseException as error:
        if chat.engine is not old:
            chat.engine.close()
        vars(chat).update(before)
        if isinstance(error, LcpError):  # else lcp is left
            if not both:
                _load(chat, back, chat.log.path and chat.log.path.with_suffix(".kv"))
            chat.screen.notice(f"{Path(chat.model).name} goes on.")
        raise
    old.close()


def _load(chat: Chat, found: Found, saved: Path | None) -> None:
    """Load this model for the chat, and what was saved of its KV cache; Ctrl-C stops it."""
    chat.engine = chat.around.engine(found, resolve(chat.layers), chat.conversation.created)
    chat.use(chat.layers)
    chat.model, chat.stats = found.name, None
    with stopping(chat.engine.stop) as asked:
        chat.load(saved)
        try:
            chat.ready()
        finally:
            leave(asked)
    chat.overflow = Overflow(chat.engine, chat.conversation)
