"""Export: a conversation as Markdown, as JSON, or as one HTML page that needs nothing else.

What was said is text, never markup: the page escapes it and lets nothing run or be fetched.
"""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from lcp.errors import SessionError
from lcp.session.conversation import Conversation
from lcp.session.message import Message

_FENCE = re.compile(
    r"^([ \t]*)(`{3,}|~{3,})[^\n`]*\n(.*?)(^[ \t]*\2[`~]*[ \t]*$\n?|\Z)", re.MULTILINE | re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ max-width: 46rem; margin: 2rem auto; padding: 0 1rem }}
body {{ font: 1rem/1.5 system-ui, sans-serif }}
h2 {{ font-size: 1rem; margin: 2rem 0 .5rem }}
div, pre, blockquote {{ unicode-bidi: isolate; overflow-wrap: anywhere }}
div, blockquote {{ white-space: pre-wrap }}
pre {{ overflow-x: auto; padding: .75rem; border-radius: .4rem; background: #8882 }}
blockquote, summary, footer {{ opacity: .75 }}
</style>
<h1>{title}</h1>
{body}
<footer>{footer}</footer>
</html>
"""


def write(conversation: Conversation, file: Path, replace: bool = False) -> None:
    """Write it as the file's ending says: .json, .html, or Markdown for .md, .txt and none.

    Raises FileExistsError unless it may `replace` what is there, SessionError for a bad path.
    """
    form = FORMS.get(file.suffix.lower())
    if form is None:
        raise SessionError(
            f"A chat is not written as {file.suffix}. Give a name that ends in .md, .html or .json."
        )
    text = form(conversation)
    try:
        file = file.expanduser()
        if file.is_dir():
            raise SessionError(f"{file} is a folder. Name a file in it: {file / 'chat.md'}")
        _put(text, file, replace)
    except FileExistsError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # "~nobody" has no home; with a NUL
        why = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise SessionError(f"{file} cannot be written: {why}. Give another name.") from error


def _put(text: str, file: Path, replace: bool) -> None:
    """What is replaced is whole until the new text is: a disk may be full."""
    if not (replace and file.is_file()):
        with file.open("w" if replace else "x", encoding="utf-8", errors="replace") as out:
            out.write(text)
        return
    file = file.resolve()  # a link stays one
    new = file.with_name(f"{file.name}.part")
    try:
        new.write_text(text, "utf-8", "replace")
        shutil.copymode(file, new)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def as_markdown(conversation: Conversation) -> str:
    """For people, and for other programs that show Markdown."""
    parts = [f"# {_title(conversation)}\n"]
    if conversation.system:
        parts.append(f"> {conversation.system}\n".replace("\n", "\n> ").removesuffix("> "))
    for turn in conversation.turns():
        parts.append(f"## You\n\n{turn.user.content}\n")
        if turn.answer:
            parts.append(f"## {_speaker(conversation, turn.answer)}\n\n{turn.answer.content}\n")
    return "\n".join(parts)


def as_json(conversation: Conversation) -> str:
    """The messages as chat APIs have them."""
    said = [{"role": "system", "content": conversation.system}] if conversation.system else []
    for turn in conversation.turns():
        said.append({"role": "user", "content": turn.user.content})
        if turn.answer:
            said.append({"role": "assistant", "content": turn.answer.content})
    facts = {"model": conversation.model, "created": conversation.created.isoformat()}
    return json.dumps(facts | {"messages": said}, ensure_ascii=False, indent=2) + "\n"


def as_html(conversation: Conversation) -> str:
    """One page in the colours the reader's browser has, light or dark."""
    parts = []
    if conversation.system:
        parts.append(f'<blockquote dir="auto">{_escape(conversation.system)}</blockquote>')
    for turn in conversation.turns():
        parts += ["<h2>You</h2>", _body(turn.user.content)]
        if answer := turn.answer:
            parts.append(f"<h2>{_escape(_speaker(conversation, answer))}</h2>")
            if answer.thinking:
                thought = _body(answer.thinking)
                parts.append(f"<details><summary>Thinking</summary>\n{thought}\n</details>")
            parts.append(_body(answer.content))
    footer = f"{conversation.created:%Y-%m-%d %H:%M} · {_escape(plain_name(conversation.model))}"
    title = _escape(_title(conversation))
    return _PAGE.format(title=title, body="\n".join(parts), footer=footer)


def code_blocks(text: str) -> list[str]:
    """What stands between the fences of a Markdown text; the last one may not be closed yet."""
    return [piece for piece, is_code in _pieces(text) if is_code]


def open_fence(text: str) -> str:
    """The line that opens a block of code which has no end yet, else ""; deep in a list, too."""
    fences = [*_FENCE.finditer(text)]
    if not fences or fences[-1][4] or len(fences[-1][1].expandtabs(4)) > 3:
        return ""
    return fences[-1][0].partition("\n")[0] + "\n"


def plain_name(model: str) -> str:
    """A model's name or file, without folder and ending; qwen2.5-0.5b has none."""
    return Path(model).name.removesuffix(".gguf")


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The text in order, as (piece, whether it is code)."""
    at = 0
    for fence in _FENCE.finditer(text):
        yield text[at : fence.start()], False
        # in a list the whole block is indented, fence and code
        yield re.sub(f"^{fence[1]}", "", fence[3], flags=re.MULTILINE), True
        at = fence.end()
    yield text[at:], False


def _body(text: str) -> str:
    return "\n".join(
        f"<pre><code>{_escape(piece)}</code></pre>"
        if is_code
        else f'<div dir="auto">{_escape(piece.strip())}</div>'
        for piece, is_code in _pieces(text)
        if is_code or piece.strip()
    )


def _escape(text: str) -> str:
    return html.escape(_CONTROL.sub("", text))


def _title(conversation: Conversation) -> str:
    return conversation.name or conversation.title()


def _speaker(conversation: Conversation, answer: Message) -> str:
    return plain_name(answer.model or conversation.model)


FORMS = {
    "": as_markdown, ".md": as_markdown, ".markdown": as_markdown, ".txt": as_markdown,
    ".json": as_json, ".html": as_html, ".htm": as_html,
}  # fmt: skip
