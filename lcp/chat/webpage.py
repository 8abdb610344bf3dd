"""Webpage: a conversation as one HTML page without scripts or other files.

Questions are shown as they were typed, answers and thinking as Markdown. Attached files and
thinking are folded. The page is webpage.html with the style of webpage.css.
"""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path, PurePath

from lcp.formatting import count
from lcp.session.conversation import Conversation
from lcp.session.export import pieces, plain_name
from lcp.session.message import Message
from lcp.terminal import markdown_html


def page(conversation: Conversation) -> str:
    """The page of the current branch."""
    turns = conversation.turns()
    parts = [_system(conversation.system)] if conversation.system else []
    for turn in turns:
        parts.append(_section("question", "You", _question(turn.user)))
        if turn.answer:
            speaker = plain_name(turn.answer.model or conversation.model)
            parts.append(_section("answer", speaker, _answer(turn.answer)))
        else:
            parts.append('<section><p class="facts">No answer.</p></section>\n')
    branches = len(conversation.branches())
    facts = [
        f"{conversation.created:%Y-%m-%d %H:%M}", plain_name(conversation.model),
        count(len(turns), "turn"), f"one of {branches} branches" if branches > 1 else "",
    ]  # fmt: skip
    title = markdown_html.text(conversation.name or conversation.title() or "Chat")
    template, style = (Path(__file__).with_suffix(e).read_text("utf-8") for e in (".html", ".css"))
    return template.format(title=title, facts=_joined(facts), style=style, body="".join(parts))


def _section(kind: str, title: str, body: str) -> str:
    return f'<section class="{kind}">\n<h2>{markdown_html.text(title)}</h2>\n{body}</section>\n'


def _system(text: str) -> str:
    return f"<aside>\n<h2>System text</h2>\n{_typed(text)}</aside>\n"


def _question(message: Message) -> str:
    files, typed = _apart(message)
    return "".join(_folded(*file) for file in _files(files)) + _typed(typed)


def _answer(message: Message) -> str:
    """The thinking, the answer and its statistics."""
    body = markdown_html.fragment(message.content)
    if message.thinking.strip():
        body = _fold("thinking", "Thinking", markdown_html.fragment(message.thinking)) + body
    tokens, rate = (message.stats.get(name) for name in ("reply_tokens", "tokens_per_second"))
    facts = [
        f"{tokens:,} tokens" if isinstance(tokens, int) else "",
        f"{rate:.1f} tokens/s" if isinstance(rate, int | float) else "",
        f"seed {message.seed}" if message.seed is not None else "",
        message.ended if message.ended != "end" else "",
    ]
    return body + (f'<p class="facts">{told}</p>\n' if (told := _joined(facts)) else "")


def _joined(facts: list[str]) -> str:
    return " · ".join(markdown_html.text(fact) for fact in facts if fact)


def _typed(text: str) -> str:
    """Text as a person typed it; code blocks are coloured."""
    return "".join(
        markdown_html.code(piece.removesuffix("\n"), info)
        if is_code
        else f'<p class="typed" dir="auto">{markdown_html.text(piece.strip())}</p>\n'
        for piece, is_code, info in pieces(text)
        if is_code or piece.strip()
    )


def _fold(kind: str, title: str, inside: str) -> str:
    head = f'<summary dir="auto">{markdown_html.text(title)}</summary>'
    return f'<details class="{kind}">\n{head}\n{inside}</details>\n'


def _folded(path: str, source: str) -> str:
    """A file; its ending names the language."""
    lines = count(source.count("\n"), "line")
    return _fold(
        "file", f"{path} · {lines}", markdown_html.code(source.removesuffix("\n"), _ending(path))
    )


def _ending(path: str) -> str:
    return PurePath(path).suffix.removeprefix(".")


def _apart(message: Message) -> tuple[str, str]:
    """The attached files of a message, and what was typed. Text from a pipe comes before the
    files."""
    content, typed = message.content, message.written
    same = takewhile(lambda two: two[0] == two[1], zip(content[::-1], typed[::-1], strict=False))
    after = sum(1 for _ in same)
    before = typed[: len(typed) - after]
    if not content.startswith(before):
        return "", content
    return content[len(before) : len(content) - after], typed


def _files(blocks: str) -> Iterator[tuple[str, str]]:
    """(path, text) of each file that attachments.py put before a message."""
    path = ""
    for piece, is_code, _ in pieces(blocks):
        if is_code:
            yield path, piece
        else:
            path = " ".join(piece.split())
