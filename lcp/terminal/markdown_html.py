"""Markdown as HTML, with the Markdown rules of the terminal; and plain text as HTML.

The text is not trusted: its HTML is escaped; the page has no script, no picture and nothing that
a browser would fetch. Only web and mail addresses become links. Characters that hide or reorder
text become visible signs, as in the terminal.
"""

from __future__ import annotations

import re
from html import escape

from lcp.terminal.clean import clean
from lcp.terminal.code_block import coloured
from lcp.terminal.markdown import Node, parser

_SAFE = re.compile(r"https?://|mailto:", re.IGNORECASE)
_BELOW = 2  # levels of headings that the page itself has
_SAME = {
    "em": "em", "strong": "strong", "s": "s", "bullet_list": "ul", "thead": "thead",
    "tbody": "tbody", "tr": "tr",
}  # fmt: skip
_DIRECTED = {"paragraph": "p", "list_item": "li", "blockquote": "blockquote"}


def fragment(markdown: str) -> str:
    """The blocks of a Markdown text."""
    return _inside(Node(parser().parse(clean(markdown))))


def text(words: str) -> str:
    """Plain text, escaped."""
    return escape(clean(words))


def code(source: str, info: str = "") -> str:
    """A code block; `info` is the text after its fence's mark. The class of a piece is its kind:
    `<span class="literal-string">`."""
    lines = ("".join(_piece(*piece) for piece in line) for line in coloured(info, clean(source)))
    named = f' data-language="{text(info)}"' if info else ""
    return f"<pre{named}><code>" + "\n".join(lines) + "</code></pre>\n"


def _piece(kind: str, words: str) -> str:
    if not kind:
        return text(words)
    return f'<span class="{kind.lower().replace(".", "-")}">{text(words)}</span>'


def _inside(node: Node) -> str:
    return "".join(_node(child) for child in node.children)


def _node(node: Node) -> str:
    kind = node.type
    if kind == "paragraph" and node.hidden:  # of a list without blank lines
        return _inside(node) + "\n"
    if kind in _DIRECTED:
        return _in(_DIRECTED[kind], _inside(node), ' dir="auto"') + "\n"
    if kind in _SAME:
        return _in(_SAME[kind], _inside(node))
    if kind == "heading":
        level = min(6, int(node.tag[1:]) + _BELOW)
        return _in(f"h{level}", _inside(node), ' dir="auto"') + "\n"
    if kind == "ordered_list":
        start = int(node.attrs.get("start", 1))
        return _in("ol", _inside(node), f' start="{start}"' * (start != 1)) + "\n"
    if kind in ("fence", "code_block"):
        return code(node.content.removesuffix("\n"), node.info.strip())
    if kind == "table":
        return f'<div class="table"><table>{_inside(node)}</table></div>\n'
    if kind in ("th", "td"):
        side = str(node.attrs.get("style", "")).rpartition(":")[2]
        return _in(kind, _inside(node), f' dir="auto" class="{side}"' if side else ' dir="auto"')
    if kind == "code_inline":
        return _in("code", text(node.content))
    if kind == "link":
        return _link(_inside(node), node, "href")
    if kind == "image":
        return _link(_inside(node), node, "src")
    if kind == "hr":
        return "<hr>\n"
    if kind in ("softbreak", "hardbreak"):
        return "<br>\n"  # a line of a poem stays a line
    if kind == "maths":
        return f'<div class="maths" dir="auto">{text(node.content)}</div>\n'
    return _inside(node) if node.children else text(node.content)


def _in(tag: str, inside: str, attributes: str = "") -> str:
    return f"<{tag}{attributes}>{inside}</{tag}>"


def _link(words: str, node: Node, attribute: str) -> str:
    """A link; if its address is not allowed, the words with the address after them.

    Links are not nested: a picture inside a link becomes words."""
    address = text(str(node.attrs.get(attribute, "")))
    hint = text(str(node.attrs.get("title", "")))
    titled = f' title="{hint}"' if hint else ""
    if _SAFE.match(address) and not _in_link(node) and "<a " not in words:
        words = words.strip() or address
        own = "" if words == address or address == f"mailto:{words}" else ' class="named"'
        return f'<a{own} href="{address}"{titled} rel="noreferrer">{words}</a>'
    beside = " ".join(part for part in (address, hint and f"“{hint}”") if part and part != words)
    return f"{words} ({beside})".strip() if beside else words


def _in_link(node: Node) -> bool:
    parent = node.parent
    return parent is not None and (parent.type == "link" or _in_link(parent))
