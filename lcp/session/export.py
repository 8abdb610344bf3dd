"""Export: write a conversation to a file, as Markdown, JSON or an HTML page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

from lcp.errors import SessionError
from lcp.session.conversation import Conversation

_FENCE = re.compile(
    r"^([ \t]*)(`{3,}|~{3,})[^\n`]*\n(.*?)(^[ \t]*\2[`~]*[ \t]*$\n?|\Z)", re.MULTILINE | re.DOTALL
)
Form = Callable[[Conversation], str]


def write(conversation: Conversation, file: Path, page: Form, replace: bool = False) -> None:
    """Write a conversation in the format of the file's ending: .json, .html (`page` renders it),
    or Markdown for .md, .txt and no ending.

    Raises FileExistsError if the file exists, unless `replace`; SessionError for a bad path.
    """
    form = {**FORMS, ".html": page, ".htm": page}.get(file.suffix.lower())
    if form is None:
        raise SessionError(
            f"lcp cannot write {file.suffix} files. Use a name that ends in .md, .html or .json."
        )
    text = form(conversation)
    try:
        file = file.expanduser()
        if file.is_dir():
            raise SessionError(f"{file} is a folder. Name a file in it: {file / 'chat.md'}")
        _put(text, file, replace)
    except FileExistsError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # "~nobody" has no home; a NUL in it
        why = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise SessionError(f"Cannot write {file}: {why}. Give another name.") from error


def _put(text: str, file: Path, replace: bool) -> None:
    """Write the file; the old one stays until the new one is complete: a disk may be full."""
    if not (replace and file.is_file()):
        with file.open("w" if replace else "x", encoding="utf-8", errors="replace") as out:
            out.write(text)
        return
    file = file.resolve()  # so that a link stays a link
    new = file.with_name(f"{file.name}.part")
    try:
        new.write_text(text, "utf-8", "replace")
        shutil.copymode(file, new)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def as_markdown(conversation: Conversation) -> str:
    """The current branch as Markdown."""
    parts = [f"# {_title(conversation)}\n"]
    if conversation.system:
        parts.append(f"> {conversation.system}\n".replace("\n", "\n> ").removesuffix("> "))
    for turn in conversation.turns():
        parts.append(f"## You\n\n{turn.user.content}\n")
        if turn.answer:
            speaker = plain_name(turn.answer.model or conversation.model)
            parts.append(f"## {speaker}\n\n{turn.answer.content}\n")
    return "\n".join(parts)


def as_json(conversation: Conversation) -> str:
    """The current branch as JSON, with messages as in chat APIs (role, content)."""
    messages = [{"role": "system", "content": conversation.system}] if conversation.system else []
    for turn in conversation.turns():
        messages.append({"role": "user", "content": turn.user.content})
        if turn.answer:
            messages.append({"role": "assistant", "content": turn.answer.content})
    facts = {"model": conversation.model, "created": conversation.created.isoformat()}
    return json.dumps(facts | {"messages": messages}, ensure_ascii=False, indent=2) + "\n"


def code_blocks(text: str) -> list[str]:
    """The code blocks of a Markdown text; the last one may not be closed yet."""
    return [piece for piece, is_code, _ in pieces(text) if is_code]


def open_fence(text: str) -> str:
    """The line that opens a code block without an end; "" if there is none, or deep in a list."""
    fences = [*_FENCE.finditer(text)]
    if not fences or fences[-1][4] or len(fences[-1][1].expandtabs(4)) > 3:
        return ""
    return fences[-1][0].partition("\n")[0] + "\n"


def plain_name(model: str) -> str:
    """A model's name without folder and .gguf; the ".5b" of qwen2.5-0.5b stays. One on a server
    is "name on host"."""
    url, _, there = model.partition("#")
    if "://" in url:
        host = url.partition("://")[2].partition("/")[0]
        return f"{plain_name(unquote(there))} on {host}" if there else host
    return Path(model).name.removesuffix(".gguf")


def pieces(text: str) -> Iterator[tuple[str, bool, str]]:
    """Split a Markdown text into (piece, whether it is code, the fence's info string)."""
    at = 0
    for fence in _FENCE.finditer(text):
        yield text[at : fence.start()], False, ""
        # in a list, fence and code are indented alike
        code = re.sub(f"^{fence[1]}", "", fence[3], flags=re.MULTILINE)
        yield code, True, fence[0].partition("\n")[0].strip().lstrip(fence[2][0]).strip()
        at = fence.end()
    yield text[at:], False, ""


def _title(conversation: Conversation) -> str:
    return conversation.name or conversation.title()


FORMS = {
    "": as_markdown, ".md": as_markdown, ".markdown": as_markdown, ".txt": as_markdown,
    ".json": as_json,
}  # fmt: skip
