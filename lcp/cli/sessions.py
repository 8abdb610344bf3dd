"""`lcp sessions`: saved chats: list, search, show, export, replay, remove."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcp import paths, words
from lcp.cli import completion
from lcp.errors import SessionError

if TYPE_CHECKING:
    from lcp.session.conversation import Conversation
    from lcp.session.store import Saved, Store

app = typer.Typer(
    help="Saved chats: list, search, show, export, replay, remove.", rich_markup_mode=None
)

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID|NAME|last",
        help="Chat id, its beginning, the chat's name, or last.",
        autocompletion=completion.chats,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


@app.callback(invoke_without_command=True)
def sessions(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Saved chats: list, search, show, export, replay, remove."""
    if ctx.invoked_subcommand is None:
        list_(as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the saved chats, the one last used first."""
    saved = _store().list()
    _print(saved, as_json)
    if not saved and not as_json:
        sys.stderr.write("There is no saved chat yet; `lcp chat` begins one.\n")


@app.command()
def search(
    words: Annotated[
        list[str], typer.Argument(metavar="WORD", help="Words that you or the model used.")
    ],
    as_json: AsJson = False,
) -> None:
    """List the chats that contain all these words."""
    found = _store().list(words)
    _print(found, as_json)
    if not found:
        raise SessionError("No saved chat contains that. lcp sessions lists them all.")


@app.command()
def show(id: Id) -> None:
    """Print a chat as text."""
    from lcp.session.export import as_markdown

    _write(as_markdown(_load(_store().find(id))))


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
) -> None:
    """Write a chat as Markdown, HTML or JSON."""
    from lcp.chat import webpage
    from lcp.session import export

    conversation = _load(_store().find(id))
    if file is None:
        _write(export.as_markdown(conversation))
        return
    try:
        export.write(conversation, file, webpage.page, force)
    except FileExistsError:
        raise SessionError(
            f"{file} exists already. Give another name, or --force to replace it."
        ) from None


@app.command()
def replay(id: Id, as_json: AsJson = False) -> None:
    """Generate every answer again and compare the tokens.

    Each answer is generated from its own seed. The exit code is 1 if any tokens differ.
    """
    from lcp.chat.replay import Replay
    from lcp.cli import reach
    from lcp.session.store import load
    from lcp.settings import from_environment, from_file
    from lcp.terminal.screen import Screen

    screen = Screen()
    layers = {
        "environment": from_environment(os.environ),
        "config.toml": from_file(paths.config() / "config.toml"),
    }
    events, _ = load(_store().find(id))
    results: list[str] = []
    try:
        for answer in Replay(reach.services(), layers, events, screen.progress):
            screen.clear_progress()
            results.append(answer.result)
            _write((json.dumps(asdict(answer)) if as_json else answer.line()) + "\n")
            sys.stdout.flush()  # the next one may take minutes
    except KeyboardInterrupt:
        screen.notice(f"Stopped after {words.count(len(results), 'answer')}.")
        raise
    finally:
        screen.clear_progress()
    same, parted = results.count("same"), results.count("parts")
    if not same + parted:
        raise SessionError("No answer of this chat could be drawn again.")
    if not as_json:
        screen.notice(f"{same} of {words.count(same + parted, 'answer')} came out the same.")
    if parted:
        raise typer.Exit(1)


@app.command()
def rm(
    id: Id, yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False
) -> None:
    """Remove a chat, and what was saved of its KV cache."""
    from lcp.session.log import Log
    from lcp.terminal.clean import clean

    path = _store().find(id)
    try:
        Log.of(path).close()
    except BlockingIOError:
        raise SessionError(
            f"The chat {path.stem} is open in another lcp. Leave it first."
        ) from None
    files = [f for f in (path, path.with_suffix(".kv")) if f.exists()]
    size = words.size(sum(f.stat().st_size for f in files))
    question = f"Remove {path.stem} ({_load(path).title()}, {size})?"
    if not yes and not typer.confirm(clean(question), err=True):
        return
    try:
        for file in files:
            file.unlink()
    except OSError as error:
        sentence = f"{file} cannot be removed: {error.strerror}. Remove it by hand."
        raise SessionError(sentence) from error


def _store() -> "Store":
    from lcp.session.store import Store

    return Store(paths.sessions())


def _load(path: Path) -> "Conversation":
    from lcp.session.conversation import Conversation
    from lcp.session.store import load

    return Conversation.from_events(load(path)[0])


def _print(chats: "Sequence[Saved]", as_json: bool) -> None:
    from lcp.session.export import plain_name
    from lcp.terminal.table import lines

    rows = []
    for saved in chats:
        kv = saved.path.with_suffix(".kv")
        size = kv.stat().st_size if kv.exists() else 0
        if as_json:
            row = {
                "id": saved.id,
                "created": saved.created.isoformat(),
                "modified": saved.modified.isoformat(),
                "model": saved.model,
                "turns": saved.turns,
                "name": saved.name,
                "title": saved.title,
                "passage": saved.passage,
                "kv_bytes": size,
            }
            sys.stdout.write(json.dumps(row) + "\n")
        else:
            when = f"{saved.modified:%Y-%m-%d %H:%M}"
            cache = f" +{words.size(size)} KV" if size else ""
            turns = words.count(saved.turns, "turn")
            model = plain_name(saved.model)
            title = " · ".join(filter(None, [saved.name, saved.title]))
            rows.append((saved.id, when, turns, model, (saved.passage or title) + cache))
            if sys.stdout.isatty():
                continue
            _write(f"{saved.id}  {when}  {turns:>8}  {model}  {title}{cache}\n")
            if saved.passage:
                _write(f"    {saved.passage}\n")
    if rows and sys.stdout.isatty():  # each as wide as the terminal
        for line in lines(rows, shutil.get_terminal_size().columns, cut=(4,)):
            _write(f"{line}\n")


def _write(text: str) -> None:
    # A pipe may have an encoding that cannot spell everything; better a "?" than no text.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stdout.write(_clean(text))


def _clean(text: str) -> str:
    from lcp.terminal.clean import clean

    return clean(text) if sys.stdout.isatty() else text
