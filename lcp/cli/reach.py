"""What a command line means by the names in it: texts, models, saved chats; and what a chat of it
can turn to later.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lcp import paths
from lcp.cli import lookup, memory
from lcp.errors import SettingsError, UsageError
from lcp.words import short

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lcp.chat.services import Found, Services
    from lcp.downloads.library import Installed
    from lcp.engines import Constraint, Engine
    from lcp.session.conversation import Conversation
    from lcp.session.log import Log
    from lcp.settings import Settings

MOST = 4_000_000  # bytes of a text that is named; no window holds so many


def services(template: str | None = None, verbose: bool = False) -> "Services":
    """`template` is Jinja source for the model that the chat begins with, and for no other."""
    from lcp.chat.services import Services
    from lcp.settings import personas

    first: list[Path] = []

    def engine(found: "Found", settings: "Settings", now: "datetime") -> "Engine":
        from lcp.chat import sizes
        from lcp.downloads import records
        from lcp.engine import native, probe
        from lcp.engine.engine import LlamaEngine

        native.log.echo = _echo if verbose else None
        gpu = probe.check_once(paths.cache())
        shown = title(found.path.name, found.name)
        fit = sizes.fitting(found.path, settings, memory.figures_folder(), gpu, shown)
        if first:  # that one was noted when it was looked for
            records.note_use(found.name)
        first[:] = first or [found.path]
        own = template if found.path == first[0] else None
        return LlamaEngine(found.path, settings, now=now, template=own, fit=fit, name=shown)

    return Services(
        find=find,
        offer=_offer,
        models=_models,
        engine=engine,
        free_memory=memory.free,
        personas=personas(paths.config() / "config.toml"),
    )


def conversation(
    resume: str | None, model: str | None, settings: "Settings", no_save: bool, person: bool
) -> tuple["Log", "Conversation", list[str], Path | None]:
    """The saved conversation that was named, or a new one of a `person` or a script, with the log
    to write it to, what should be said of it, and where its KV cache may lie."""
    from lcp.cli import first_run
    from lcp.session.conversation import CHAT, ONE_SHOT, Conversation, local_now
    from lcp.session.log import Log
    from lcp.session.store import Store

    store = Store(paths.sessions())
    if resume is None:
        name = model or settings.model or first_run.default_name()
        new = Conversation.begin(local_now, absolute(name), kind=CHAT if person else ONE_SHOT)
        log = Log.nowhere() if no_save else store.create(new.opening)
        return log, new, [], None
    # what the chat was talking with is stronger than config.toml, as all its settings are
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


def find(name: str, look: "Callable[[str], Installed] | None" = None) -> "Found":
    """The model of this name or path, as `look` finds it; ModelNotFound says what to type."""
    from lcp.chat.services import Found
    from lcp.recommended import usable

    model = (look or lookup.find)(name)
    settings, notices = usable(model.entry.settings if model.entry else {}, "models.toml")
    again = model.name if model.stored else absolute(name)
    return Found(again, model.path, settings, tuple(notices))


def _offer(name: str) -> "Found":
    """The model of this name; where it is not here, a person is asked whether to download it."""
    import typer

    from lcp.cli.pull import find_or_pull

    try:
        return find(name, lambda wanted: find_or_pull(wanted, remember=False))
    except typer.Abort:  # Ctrl-C or Ctrl-D at the question
        raise KeyboardInterrupt from None


def absolute(model: str) -> str:
    """A path is kept so that it is found from any folder; a name as it is."""
    path = paths.at(model)
    return str(path.absolute()) if path and path.is_file() else model


def constraint(
    schema: str | None, regex: str | None, grammar: str | None
) -> tuple["Constraint | None", list[str]]:
    """The form that was asked for, and what should be said of it. A schema and a grammar are names
    of files, or the text itself."""
    given = {"--json-schema": schema, "--regex": regex, "--grammar": grammar}
    given = {flag: value for flag, value in given.items() if value is not None}
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} cannot be combined. Give one of them.")
    for flag, value in given.items():
        if not value:  # "$SCHEMA" of a script that has none
            raise UsageError(f"{flag} is empty. Give it a value, or leave it out.")
    from lcp.engine.constraint import check
    from lcp.engines import Constraint

    if schema:
        written = schema.lstrip().startswith("{")
        source = schema if written else text(Path(schema), "schema")
        asked = Constraint("schema", source, "The schema" if written else schema)
    elif grammar:
        written = "::=" in grammar
        source = grammar if written else text(Path(grammar), "grammar")
        asked = Constraint("grammar", source, "The grammar" if written else grammar)
    elif regex:
        asked = Constraint("regex", regex, f"The regular expression {short(regex, 60)}")
    else:
        return None, []
    return asked, check(asked)


def _echo(line: str) -> None:
    """A line of llama.cpp's log, which has names and texts out of the GGUF in it."""
    from lcp.terminal.clean import clean

    sys.stderr.write(f"{clean(line)}\n")


def _models() -> dict[str, str]:
    """The models that are here, with quant and size."""
    from lcp.downloads import library
    from lcp.words import size

    found = {name: model.stored for name, model in library.installed().items()}
    return {n: f"{f.quant or ''} {size(f.size)}".strip() if f else "" for n, f in found.items()}


def title(file: str, name: str | None) -> str:
    """What sentences call a model: its file, but for those that Ollama names by their hash."""
    return file if name is None or file.lower().endswith(".gguf") else name


def system(given: str) -> str:
    """A system text, or the file @FILE it stands in."""
    return text(Path(given[1:]), "system text") if given[:1] == "@" else given


def template(given: Path) -> str:
    """The source of a chat template in a file; or the name of one that llama.cpp has."""
    from lcp.engine import probe, template_builtin

    if paths.at(str(given)) is None and given.name == str(given):
        probe.check_once(paths.cache())  # llama.cpp knows its names
        if given.name in template_builtin.names():
            return given.name
    return text(given, "template")


def text(file: Path, what: str) -> str:
    """What stands in a file that was named; SettingsError where that cannot be read."""
    try:
        with file.expanduser().open("rb") as opened:
            data = opened.read(MOST + 1)  # /dev/zero has no end
        if len(data) <= MOST:
            return data.decode("utf-8-sig").replace("\r\n", "\n")
        why = f"it has more than {MOST:,} bytes"
    except UnicodeDecodeError:
        why = "it is no UTF-8 text"
    except (OSError, RuntimeError) as error:  # "~nobody" has no home
        why = getattr(error, "strerror", None) or str(error)
    raise SettingsError(f"The {what} {file} cannot be read: {why}. Name another file.")
