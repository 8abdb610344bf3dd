"""Switch: another model, or another saved chat, in the running program.

Where memory is plenty the old model is kept until the new one is loaded: should that fail,
everything is as it was and nothing is read again. Where it is not, the old one is freed before:
beside it the new one would get a smaller context and fewer layers on the GPU than it could have.
Should it fail then, the old one is loaded again, and reads its conversation again.
"""

from pathlib import Path

from lcp import paths
from lcp.chat.chat import Chat
from lcp.chat.overflow import Overflow
from lcp.chat.services import Found
from lcp.errors import LcpError, NotEnoughMemory
from lcp.session.conversation import Conversation
from lcp.session.log import Log
from lcp.settings import Layers
from lcp.terminal.signals import leave, stopping

PLENTY = 4  # times the new model's file; its context may be as large as a quarter of what is free


def close(chat: Chat) -> None:
    """Let go of what the chat stands in now."""
    chat.engine.close()
    chat.log.close()


def change(
    chat: Chat,
    found: Found,
    conversation: Conversation,
    log: Log,
    layers: Layers,
    saved: Path | None = None,
) -> None:
    """The chat, in this conversation with this model; where that cannot be, as it was before."""
    before, old = dict(vars(chat)), chat.engine
    back = chat.services.find(chat.model)
    free = chat.services.free_memory()
    both = free is not None and PLENTY * paths.model_size(found.path) < free
    chat.conversation, chat.log = conversation, log
    chat.layers = layers.with_model(found.settings)
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
    chat.engine = chat.services.engine(found, chat.layers.resolve(), chat.conversation.created)
    chat.use(chat.layers)
    chat.model, chat.stats = found.name, None
    with stopping(chat.engine.stop) as asked:
        chat.load(saved)
        try:
            chat.ready()
        finally:
            leave(asked)
    for notice in found.notices:
        chat.screen.notice(notice)
    chat.overflow = Overflow(chat.engine, chat.conversation)
