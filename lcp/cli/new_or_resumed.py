"""The conversation of `lcp chat`: a new one or a saved one, and the log that it is written to."""

from pathlib import Path
from typing import TYPE_CHECKING

from lcp import paths
from lcp.cli import first_run
from lcp.cli.chat_services import absolute, find
from lcp.settings import Settings

if TYPE_CHECKING:
    from lcp.session.conversation import Conversation
    from lcp.session.log import Log


def open_conversation(
    resume: str | None, model: str | None, settings: Settings, no_save: bool, person: bool
) -> tuple["Log", "Conversation", list[str], Path | None]:
    """The log, the saved conversation or a new one (of a `person` or a script), notices about it,
    and the file of its KV cache."""
    from lcp.session.conversation import CHAT, ONE_SHOT, Conversation, local_now
    from lcp.session.log import Log
    from lcp.session.store import Store

    store = Store(paths.sessions())
    if resume is None:
        name = model or settings.model or first_run.default_name()
        new = Conversation.begin(local_now, absolute(name), kind=CHAT if person else ONE_SHOT)
        log = Log.nowhere() if no_save else store.create(new.opening)
        return log, new, [], None
    # the model of the chat overrides config.toml, like its other settings
    chosen = settings.model if settings.sources["model"] in ("environment", "persona") else None
    found = find(model or chosen or "") if model or chosen else None
    log, events, notices = store.open(resume)
    old = Conversation.from_events(events)
    saved = log.path.with_suffix(".kv") if log.path else None
    if no_save:
        log.close()
        log = Log.nowhere()
    if found and found.name != old.model:
        log.append(old.set(model=found.name))
    return log, old, notices, saved
