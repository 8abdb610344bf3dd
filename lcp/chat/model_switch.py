"""Switches to another model or another saved chat in the running program.

If there is plenty of memory, the old model stays until the new one is loaded; if that fails, the
old chat continues and reads nothing again. Otherwise the old model is freed first, because the new
one would get a smaller context and fewer layers on the GPU beside it. If the new one then cannot be
loaded, the old one is loaded again and reads its chat again.
"""

from dataclasses import replace
from pathlib import Path

from lcp.chat.chat import Chat
from lcp.chat.services_interface import FoundModel
from lcp.errors import LcpError, NotEnoughMemory
from lcp.session.conversation import Conversation
from lcp.session.export import plain_name
from lcp.session.log import Log
from lcp.settings import Layers
from lcp.split_names import size_here
from lcp.terminal.signals import leave, stopping

PLENTY = 4  # free memory, in sizes of the new model's file; its context may take a quarter of it


def close(chat: Chat) -> None:
    """Free the engine and the log; may be called again."""
    chat.engine.close()
    chat.log.close()


def change(
    chat: Chat,
    found: FoundModel,
    conversation: Conversation,
    log: Log,
    layers: Layers,
    saved: Path | None = None,
) -> Chat:
    """A chat of this conversation with this model, in place of `chat`. If the model cannot be
    loaded, the error is raised and `chat` continues."""
    old = chat.engine
    back = chat.services.find(chat.model)
    both = found.path is None or _plenty(chat, found.path)
    layers = layers.with_model(found.settings)

    def begin() -> Chat:
        engine = chat.services.engine(found, layers.resolve(), conversation.created)
        new = replace(
            chat, engine=engine, conversation=conversation, log=log, model=found.name,
            layers=layers, stats=None,
        )  # fmt: skip
        _load(new, saved)
        return new

    try:
        if not both:
            old.close()
        try:
            new = begin()
        except NotEnoughMemory:
            if not both:
                raise
            both = False
            old.close()
            new = begin()
    except LcpError:
        chat.use(chat.layers)
        if not both:
            engine = chat.services.engine(back, chat.layers.resolve(), chat.conversation.created)
            chat.run_on(engine)
            _load(chat, chat.log.path and chat.log.path.with_suffix(".kv"))
        chat.screen.notice(f"Still using {plain_name(chat.model)}.")
        raise
    for notice in found.notices:
        chat.screen.notice(notice)
    old.close()
    return new


def _plenty(chat: Chat, path: Path) -> bool:
    """Whether there is memory for this model beside the loaded one."""
    free = chat.services.free_memory()
    return free is not None and PLENTY * size_here(path) < free


def _load(chat: Chat, saved: Path | None) -> None:
    """Load the chat's model and its saved KV cache; Ctrl-C stops it."""
    with stopping(chat.engine.stop) as asked:
        chat.load(saved)
        try:
            chat.ready()
        except BaseException:
            chat.engine.close()
            raise
        finally:
            leave(asked)
