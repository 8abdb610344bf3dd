"""`lcp sessions`: saved chats: list, search, show, export, remove."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcp import paths
from lcp.errors import SessionError

if TYPE_CHECKING:
    from lcp.session.conversation import Conversation
    from lcp.session.store import Saved, Store

app = typer.Typer(help="Saved chats: list, search, show, export, remove.", rich_markup_mode=None)

Id = Annotated[str, typer.Argument(help="A chat's id, the beginning of it, or last.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.callback(invoke_without_command=True)
def sessions(ctx: typer.Context) -> None:
    """Saved chats: list, search, show, export, remove."""
    if ctx.invoked_subcommand is None:
        list_()


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the saved chats, the one last used first."""
    saved = _store().list()
    _print(saved, as_json)
    if not saved and not as_json:
        sys.stderr.write("There is no saved chat yet; `lcp chat` begins one.\n")


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="What was said, by you or the model.")],
    as_json: AsJson = False,
) -> None:
    """List the chats in which all these words were said."""
    wanted = [word.casefold() for word in words]
    found = []
    for saved in _store().list():
        said = "\n".join(m.content for m in _load(saved.path).nodes.values()).casefold()
        if all(word in said for word in wanted):
            found.append(saved)
    _print(found, as_json)
    if not found:
        raise SessionError("No saved chat contains that. lcp sessions lists them all.")


@app.command()
def show(id: Id) -> None:
    """Print a chat as text."""
    _write(_markdown(_load(_store().find(id))))


@app.command()
def export(
    id: Id,
    file: Annotated[
        Path | None, typer.Argument(help="A .md or .json file; without one, Markdown on stdout.")
    ] = None,
) -> None:
    """Write a chat as Markdown or JSON."""
    conversation = _load(_store().find(id))
    as_json = file is not None and file.suffix == ".json"
    text = _json(conversation) if as_json else _markdown(conversation)
    if file is None:
        _write(text)
        return
    try:
        with file.open("x", encoding="utf-8", errors="replace") as out:
            out.write(text)
    except FileExistsError:
        raise SessionError(f"{file} exists already. Give another name.") from None
    except OSError as error:
        sentence = f"{file} cannot be written: {error.strerror}. Give another name."
        raise SessionError(sentence) from error


@app.command()
def rm(
    id: Id, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
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
    size = sum(f.stat().st_size for f in files) / 2**20
    question = f"Remove {path.stem} ({_load(path).title()}, {size:.1f} MiB)?"
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
                "title": saved.title,
                "kv_bytes": size,
            }
            sys.stdout.write(json.dumps(row) + "\n")
        else:
            when = f"{saved.modified:%Y-%m-%d %H:%M}"
            cache = f" +{size / 2**20:.0f} MiB KV" if size else ""
            turns = "1 turn" if saved.turns == 1 else f"{saved.turns} turns"
            model = _name(saved.model)
            _write(f"{saved.id}  {when}  {turns:>8}  {model}  {saved.title}{cache}\n")


def _markdown(conversation: "Conversation") -> str:
    parts = [f"# {conversation.title()}\n"]
    if conversation.system:
        parts.append(f"> {conversation.system}\n".replace("\n", "\n> ").removesuffix("> "))
    for turn in conversation.turns():
        parts.append(f"## You\n\n{turn.user.content}\n")
        if turn.answer:
            parts.append(f"## {_name(conversation.model)}\n\n{turn.answer.content}\n")
    return "\n".join(parts)


def _json(conversation: "Conversation") -> str:
    said = [{"role": "system", "content": conversation.system}] if conversation.system else []
    for turn in conversation.turns():
        said.append({"role": "user", "content": turn.user.content})
        if turn.answer:
            said.append({"role": "assistant", "content": turn.answer.content})
    facts = {"model": conversation.model, "created": conversation.created.isoformat()}
    return json.dumps(facts | {"messages": said}, ensure_ascii=False, indent=2) + "\n"


def _name(model: str) -> str:
    """A model's name or file, without folder and ending; qwen2.5-0.5b has none."""
    return Path(model).name.removesuffix(".gguf")


def _write(text: str) -> None:
    # A pipe may have an encoding that cannot spell everything; better a "?" than no text.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    sys.stdout.write(_clean(text))


def _clean(text: str) -> str:
    from lcp.terminal.clean import clean

    return clean(text) if sys.stdout.isatty() else text
