"""`lcp sessions`: saved chats: list, search, show, export, replay, rename, remove."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcp import formatting, paths
from lcp.cli import shell_completion
from lcp.cli.chat_services import services
from lcp.errors import SessionError, UsageError
from lcp.settings import Layers

if TYPE_CHECKING:
    from lcp.session.store import Saved, Store

ABOUT = "List, search, show, export, replay, rename and remove saved chats."
LISTED = 40  # rows in a terminal, where more would scroll away

app = typer.Typer(help=ABOUT, rich_markup_mode=None)


def _here_or_before(ctx: typer.Context, value: bool) -> bool:
    """Accept --json before the subcommand, too."""
    return value or bool(ctx.parent and ctx.parent.params.get("as_json"))


def _at_least_one(value: int | None) -> int | None:
    if value is not None and value < 1:
        raise UsageError(f"-n must be 1 or more (got {value}).")
    return value


WHICH = "Chat id or any part of it, the chat's name, or last."
Id = Annotated[
    str,
    typer.Argument(metavar="ID|NAME|last", help=WHICH, autocompletion=shell_completion.chats),
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line.", callback=_here_or_before)
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object.", callback=_here_or_before)
]
Most = Annotated[
    int | None, typer.Option("-n", metavar="N", help="List at most N.", callback=_at_least_one)
]
All = Annotated[bool, typer.Option("--all", help="Include one-shots.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]


@app.callback(invoke_without_command=True, help=ABOUT)
def sessions(
    ctx: typer.Context, every: All = False, most: Most = None, as_json: JsonLines = False
) -> None:
    if ctx.invoked_subcommand is None:
        list_(every, most, as_json)


@app.command("list")
def list_(every: All = False, most: Most = None, as_json: JsonLines = False) -> None:
    """List the saved chats, the last used first; one-shots only if they have a name."""
    store = _store()
    person = sys.stdout.isatty() and not as_json
    most = most or (LISTED if person else None)
    saved = store.saved(most=most and most + 1, one_shots=every)
    _print(saved[:most], as_json)
    if as_json:
        return
    if most and len(saved) > most:
        sys.stderr.write(f"Older ones: lcp sessions{' --all' * every} -n {2 * most}\n")
    one_shots = 0 if every else store.count_one_shots()
    if one_shots:
        told = formatting.count(one_shots, "one-shot")
        sys.stderr.write(f"Not listed: {told}. List everything with lcp sessions --all.\n")
    elif not saved:
        sys.stderr.write("There is no saved chat yet. `lcp chat` starts one.\n")


@app.command()
def search(
    words: Annotated[
        list[str], typer.Argument(metavar="WORD", help="Words that you or the model used.")
    ],
    most: Most = None,
    as_json: JsonLines = False,
) -> None:
    """List the chats and one-shots that contain all these words."""
    found = _store().saved(words, most)
    _print(found, as_json)
    if not found:
        raise SessionError("No saved chat contains that. List them all with lcp sessions.")


@app.command()
def show(id: Id, as_json: AsJson = False) -> None:
    """Print a chat as text."""
    export(id, as_json=as_json)


@app.command()
def export(
    id: Id,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="File to write: .md, .html or .json; default: stdout."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace the file if it exists.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a chat as Markdown, HTML or JSON."""
    from lcp.chat import webpage
    from lcp.session import export
    from lcp.session.conversation import Conversation
    from lcp.session.store import load
    from lcp.terminal.printout import Printout

    conversation = Conversation.from_events(load(_store().find(id))[0])
    if file is None:
        Printout().text((export.as_json if as_json else export.as_markdown)(conversation))
        return
    try:
        export.write(conversation, file, webpage.page, force)
    except FileExistsError:
        raise SessionError(
            f"{file} already exists. Give another name, or replace it with --force."
        ) from None


@app.command()
def replay(id: Id, as_json: JsonLines = False) -> None:
    """Generate every answer again and compare the tokens.

    Each answer is generated from its own seed. The exit code is 1 if any tokens differ.
    """
    from lcp.chat.replay import Replay
    from lcp.session.store import load
    from lcp.terminal.printout import Printout
    from lcp.terminal.screen import Screen

    screen, page = Screen(), Printout()
    events, _ = load(_store().find(id))
    results: list[str] = []
    try:
        for answer in Replay(services(), Layers.of({}), events, screen.progress):
            screen.clear_progress()
            results.append(answer.result)
            page.text(json.dumps(asdict(answer)) if as_json else answer.line())
            sys.stdout.flush()  # the next answer may take minutes
    except KeyboardInterrupt:
        screen.notice(f"Stopped after {formatting.count(len(results), 'answer')}.")
        raise
    finally:
        screen.clear_progress()
    same, parted = results.count("same"), results.count("parts")
    if not same + parted:
        raise SessionError("No answer of this chat could be generated again.")
    if not as_json:
        screen.notice(f"{same} of {formatting.count(same + parted, 'answer')} came out the same.")
    if parted:
        raise typer.Exit(1)


@app.command()
def rename(
    id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help='New name; "" removes the name.')],
) -> None:
    """Give a chat a name; a one-shot with a name is a chat."""
    store = _store()
    store.rename(store.find(id), name)


@app.command()
def rm(
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID|NAME|last", help=WHICH, autocompletion=shell_completion.chats),
    ],
    yes: Yes = False,
) -> None:
    """Remove chats and their saved KV caches."""
    from lcp.session.store import describe, locked

    store = _store()
    found = dict.fromkeys(map(store.find, ids))
    for path in found:
        locked(path).close()
    _remove([describe(path) for path in found], yes)


@app.command()
def prune(
    older_than: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Chats not used for this long: 12h, 30d, 8w, 1y."),
    ] = None,
    larger_than: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Chats larger than this on disk, such as 100MB."),
    ] = None,
    one_shots: Annotated[bool, typer.Option("--one-shots", help="Remove one-shots only.")] = False,
    kv: Annotated[
        bool, typer.Option("--kv", help="Remove saved KV caches and keep the chats.")
    ] = False,
    named: Annotated[bool, typer.Option("--named", help="Include chats with a name.")] = False,
    yes: Yes = False,
    as_json: JsonLines = False,
) -> None:
    """Remove the chats that match all the options you give; shows them and asks first.

    Keeps chats that are open in another lcp, and chats with a name unless --named.
    """
    if not (older_than or larger_than or one_shots or kv):
        raise UsageError("prune needs a condition: --older-than 30d, --larger-than 100MB, "
                         "--one-shots or --kv.")  # fmt: skip
    age = _quantity("--older-than", older_than, formatting.SECONDS, "30d or 12h")
    least = _quantity("--larger-than", larger_than, formatting.BYTES, "100MB or 1G")
    before = time.time() - age
    matching = [
        saved
        for saved in _store().saved(one_shots=True)
        if saved.modified.timestamp() <= before
        and _size(saved, kv) > least
        and (saved.kind or not one_shots)
    ]
    free = [saved for saved in matching if named or not saved.name]
    if kept := len(matching) - len(free):
        sys.stderr.write(f"Kept: {formatting.count(kept, 'chat')} with a name (--named).\n")
    chosen = [saved for saved in free if not _is_open(saved)]
    if kept := len(free) - len(chosen):
        sys.stderr.write(f"Kept: {formatting.count(kept, 'chat')} open in another lcp.\n")
    _print(chosen, as_json)
    if chosen:
        _remove(chosen, yes, kv)
    else:
        sys.stderr.write("Nothing else matches.\n" if matching else "Nothing matches.\n")


def _quantity(flag: str, given: str | None, units: Mapping[str, int], such_as: str) -> int:
    found = formatting.quantity(given, units) if given else 0
    if found is None:
        raise UsageError(f'{flag} must be something like {such_as} (got "{given}").')
    return found


def _size(saved: "Saved", only_kv: bool = False) -> int:
    """Bytes on disk of the chat, or only of its KV cache."""
    return saved.kv_size if only_kv else saved.size + saved.kv_size


def _is_open(saved: "Saved") -> bool:
    from lcp.session.store import locked

    try:
        locked(saved.path).close()
    except SessionError:
        return True
    return False


def _remove(chats: "Sequence[Saved]", yes: bool, only_kv: bool = False) -> None:
    """Ask, remove the chats or only their KV caches, and print the bytes freed."""
    from lcp.session.store import remove
    from lcp.terminal.clean import clean
    from lcp.terminal.questions import confirm

    size = formatting.size(sum(_size(saved, only_kv) for saved in chats))
    what = formatting.count(len(chats), "KV cache" if only_kv else "chat")
    one = chats[0]
    alone = len(chats) == 1 and not only_kv
    told = f"{one.id} ({one.title}, {size})" if alone else f"{what} ({size})"
    if not yes and not confirm(clean(f"Remove {told}?")):
        return
    freed = sum(remove(saved, only_kv) for saved in chats)
    sys.stderr.write(f"Removed {what}: {formatting.size(freed)} freed.\n")


def _store() -> "Store":
    from lcp.session.store import Store

    return Store(paths.sessions())


def _print(chats: "Sequence[Saved]", as_json: bool) -> None:
    from lcp.session.export import plain_name
    from lcp.terminal.printout import Printout

    rows = []
    for saved in chats:
        if as_json:
            row = {
                "id": saved.id,
                "kind": saved.kind or "chat",
                "created": saved.created.isoformat(),
                "modified": saved.modified.isoformat(),
                "model": saved.model,
                "turns": saved.turns,
                "name": saved.name,
                "title": saved.title,
                "passage": saved.passage,
                "bytes": saved.size,
                "kv_bytes": saved.kv_size,
            }
            sys.stdout.write(json.dumps(row) + "\n")
            continue
        named = [saved.passage] if saved.passage else [saved.name, saved.title]
        cache = f" +{formatting.size(saved.kv_size)} KV" if saved.kv_size else ""
        rows.append((
            saved.id, f"{saved.modified:%Y-%m-%d %H:%M}", formatting.count(saved.turns, "turn"),
            plain_name(saved.model), " · ".join(filter(None, [saved.kind, *named])) + cache,
        ))  # fmt: skip
    Printout().listing(rows)
