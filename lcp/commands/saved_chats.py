"""The slash commands for saved chats: name this one, list them, open another."""

import re
from collections.abc import Iterable

from lcp.chat import model_switch, saved_cache
from lcp.chat.chat import Chat
from lcp.chat.resume_notices import resuming, show_last, tell, without_model
from lcp.commands.command import command
from lcp.errors import LcpError, ModelNotFound
from lcp.formatting import count
from lcp.session.conversation import Conversation
from lcp.session.log import Log

OFFERED = 50  # saved chats that Tab completes
LISTED = 40  # chats; more would scroll away
ALL = "--all"


def chats_here(chat: Chat, _: str) -> Iterable[tuple[str, str]]:
    """Completions for /open: the chats used last."""
    saved = chat.services.store.saved(most=OFFERED)
    return [(s.name or s.id, s.title) for s in saved if s.path != chat.log.path]


@command("save", "[NAME]", "give this chat a name", "/save trip")
def save(chat: Chat, name: str) -> None:
    """Names this chat, for /open and lcp chat --resume. Without NAME, shows its id and name."""
    own = chat.log.path
    if own is None:
        raise LcpError("This chat is not saved (--no-save). /export FILE writes it to a file.")
    if chat.log.problem:
        raise LcpError(chat.log.problem)
    later = "" if chat.log.is_kept else " (saved after your first question)"
    if not name:
        called = chat.conversation.name
        told = f"Its name is {called}." if called else "Name it with /save NAME."
        chat.screen.notice(f"This chat is {own.stem}{later}. {told}")
        return
    name = chat.services.store.free_name(name, own)
    chat.keep(chat.conversation.rename(name))
    chat.screen.notice(f"This chat is now called {name}{later}. Resume it with: {resuming(chat)}")


@command(
    "sessions",
    "[TEXT|--all]",
    "list the saved chats, or search them for TEXT",
    "/sessions blue sky",
)
def sessions(chat: Chat, text: str) -> None:
    """Lists the saved chats, the last used first. With words or "phrases", lists those that
    contain all of them."""
    store, every = chat.services.store, text == ALL
    found = store.saved(_words("" if every else text), LISTED + 1, one_shots=every)
    one_shots = 0 if text else store.count_one_shots()
    apart = f"Not listed: {count(one_shots, 'one-shot')} (/sessions {ALL}). " if one_shots else ""
    if not found and text and not every:
        raise LcpError(f"No saved chat contains that. /sessions {ALL} lists everything.")
    if not found:
        saving = chat.log.id and not chat.log.problem
        later = " lcp saves this one after your first question." if saving else ""
        raise LcpError(f"{apart}There is no saved chat yet.{later}")
    chat.screen.table(
        [
            (
                "*" if saved.path == chat.log.path else " ",
                saved.id,
                saved.name,
                f"{saved.modified:%Y-%m-%d %H:%M}",
                count(saved.turns, "turn"),
                " · ".join(filter(None, [saved.kind, saved.passage or saved.title])),
            )
            for saved in found[:LISTED]
        ],
        cut=(5,),
    )
    more = "There are older ones: search them with /sessions TEXT. " if len(found) > LISTED else ""
    chat.screen.notice(f"{more}{apart}Continue one with /open NAME or ID.")


def _words(text: str) -> list[str]:
    """Split into words and quoted phrases; unlike in a shell, d'été is a word."""
    return [phrase or word for phrase, word in re.findall(r'"([^"]+)"|(\S+)', text)]


@command("open", "NAME|ID", "continue another saved chat", "/open trip", chats_here)
def open_chat(chat: Chat, name: str) -> Chat:
    """Saves this chat and continues another one, with its model and its settings."""
    if not name:
        raise LcpError("/open needs a chat: /open NAME or ID. /sessions lists them.")
    store = chat.services.store
    path = store.find(name)
    if path == chat.log.path:
        raise LcpError("This chat is already open. /sessions lists the others.")
    log, events, notices = store.open(path.stem)
    try:
        saved = log.path.with_suffix(".kv") if log.path else None
        if chat.log.path is None:  # --no-save applies to every chat of this process
            log.close()
            log = Log.nowhere()
        conversation = Conversation.from_events(events)
        try:
            found = chat.services.find(conversation.model)
        except ModelNotFound as error:
            raise without_model(error, path.stem) from None
        chat.ready()
        saved_cache.save(chat)
        before = chat.log
        chat = model_switch.change(
            chat, found, conversation, log, chat.layers.switching_to(conversation.settings), saved
        )
    except BaseException:
        log.close()
        raise
    before.close()
    for notice in notices:
        chat.screen.notice(notice)
    tell(chat)
    show_last(chat)
    return chat
