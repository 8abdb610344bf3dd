"""Webpage: a conversation as one HTML page without scripts or other files.

Questions are shown as they were typed, answers and thinking as Markdown. Attached files and
thinking are folded.
"""

from collections.abc import Iterator
from itertools import takewhile
from pathlib import PurePath

from lcp.session.conversation import Conversation
from lcp.session.export import pieces, plain_name
from lcp.session.message import Message
from lcp.terminal import markdown_html
from lcp.words import count

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<header>
<h1 dir="auto">{title}</h1>
<p class="facts">{facts}</p>
</header>
{body}</main>
</body>
</html>
"""
_STYLE = """\
:root {
  color-scheme: light dark;
  --page: #fff; --text: #1f2328; --dim: #59636e; --line: #d1d9e0; --soft: #f6f8fa;
  --link: #0550ae; --red: #a40e26; --green: #116329; --blue: #0550ae; --violet: #6639ba;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #15181c; --text: #dde3ea; --dim: #97a1ac; --line: #353c44; --soft: #1e2328;
    --link: #79b8ff; --red: #ff938a; --green: #7ee2a0; --blue: #8cc8ff; --violet: #d2b3ff;
  }
}
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100% }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: anywhere;
}
main { max-width: calc(72ch + 2.5rem); margin: 0 auto; padding: 2.5rem 1.25rem 4rem }
main, pre, p, li, td, th, h1, h2, h3, h4, h5, h6, summary { unicode-bidi: isolate }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; text-wrap: balance }
h2 { font-size: .8rem; font-weight: 600; color: var(--dim); margin: 0 0 .35rem }
h3, h4, h5, h6 { line-height: 1.3; margin: 1.6em 0 .5em }
h3 { font-size: 1.25rem }
h4 { font-size: 1.1rem }
h5, h6 { font-size: 1rem }
h6 { font-weight: 500; font-style: italic }
p, ul, ol, pre, blockquote, .table, .maths, details { margin: .75em 0 }
section > :last-child, aside > :last-child { margin-bottom: 0 }
blockquote > :last-child, li > :last-child { margin-bottom: 0 }
h2 + * { margin-top: 0 }
ul, ol { padding-left: 1.6em }
li { margin: .2em 0 }
li > p:first-child { margin-top: 0 }
li > ul, li > ol { margin: .2em 0 }
hr { border: 0; border-top: 1px solid var(--line); margin: 1.75em 0 }
blockquote { margin-left: 0; padding-left: 1em; border-left: 3px solid var(--line) }
blockquote { color: var(--dim) }
a { color: var(--link); text-underline-offset: .15em; text-decoration-thickness: .06em }
section { margin-top: 2rem }
section.question, aside { background: var(--soft); border-radius: .6rem; padding: .9rem 1.1rem }
section.question { margin-top: 2.75rem }
section.question + section { margin-top: 1.5rem }
aside { margin-top: 2rem; color: var(--dim) }
.typed, .maths { white-space: pre-wrap }
.facts { font-size: .8rem; color: var(--dim); margin: .75em 0 0 }
header .facts { margin: 0 }
pre, code {
  font: .875em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
code { background: var(--soft); border-radius: .25em; padding: .1em .3em }
pre {
  margin: 1.1em 0; overflow-x: auto; overflow-wrap: normal; tab-size: 4;
  background: var(--soft); border-radius: .5rem; padding: .8rem 1rem;
}
pre code { font-size: 1em; padding: 0; background: none }
pre[data-language]::before {
  content: attr(data-language); display: block; margin-bottom: .4em;
  font: .8em/1.2 system-ui, sans-serif; color: var(--dim);
}
section.question pre, aside pre { background: var(--page) }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: .95em; overflow-wrap: normal }
th, td { border-bottom: 1px solid var(--line); padding: .35em .9em .35em 0; text-align: start }
th, td { vertical-align: top; max-width: 30ch }
th { font-weight: 600; border-bottom-width: 2px }
.center { text-align: center }
.right { text-align: right }
details[open] { border-left: 3px solid var(--line); padding-left: 1em }
summary { cursor: pointer; font-size: .85rem; color: var(--dim) }
details.thinking { color: var(--dim) }
.comment, .generic-heading { color: var(--dim) }
.comment { font-style: italic }
.keyword, .operator-word, .name-tag, .comment-preproc { color: var(--violet) }
.name-builtin, .keyword-type, .literal-number, .name-decorator { color: var(--blue) }
.literal-string, .generic-inserted { color: var(--green) }
.generic-deleted { color: var(--red) }
.name-class, .name-function, .generic-heading, .generic-subheading { font-weight: 600 }
@media print {
  body { font-size: 10.5pt }
  main { max-width: none; padding: 0 }
  pre, .typed { white-space: pre-wrap; overflow-wrap: anywhere }
  pre, tr, aside { break-inside: avoid }
  h1, h2, h3, h4, h5, h6 { break-after: avoid }
  section.question, aside, pre, code { border: 1px solid var(--line); background: none }
  code, pre code { border: 0 }
  a.named::after { content: " (" attr(href) ")"; font-size: .85em }
}
"""


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
    return _PAGE.format(title=title, facts=_joined(facts), style=_STYLE, body="".join(parts))


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
