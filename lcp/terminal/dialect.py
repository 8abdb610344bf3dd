"""What Markdown is here: markdown-it's CommonMark, with tables and maths, without HTML.

Every rule reads from left to right, so that a text can be drawn while it comes.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.tree import SyntaxTreeNode

Node = SyntaxTreeNode
_DEEPEST = 20  # marks inside each other; Python would fall over a thousand
# Between its marks maths stays as it was typed. A dollar sign of a price is none of these marks;
# the bounds keep a text full of opening marks cheap.
_MATHS = re.compile(
    r"\\\(.{1,2000}?\\\)|\\\[.{1,2000}?\\\]|\$\$[^$]{1,2000}?\$\$"
    r"|\$(?![\s$])(?:(?!\*\*)[^$`\n]){0,200}?(?<!\s)\$(?![\d$])",
    re.DOTALL,
)
_MATHS_CLOSE = {"\\[": "\\]", "$$": "$$"}


def parser() -> MarkdownIt:
    """CommonMark with tables and maths. HTML is text: `Vec<T>` has to stay. So are definitions
    of links: they would change what was printed long ago."""
    md = MarkdownIt("commonmark", {"html": False})
    md.enable(["strikethrough", "table"]).disable("reference")
    md.core.ruler.push("shallow", _shallow)
    md.inline.ruler.before("escape", "maths", _maths_inline)
    alt = ["paragraph", "blockquote", "list"]  # what it interrupts
    md.block.ruler.before("fence", "maths", _maths_block, {"alt": alt})
    return md


def _shallow(state: StateCore) -> None:
    """Marks that stand too deep inside others mark nothing."""
    for token in state.tokens:
        depth, kept = 0, []
        for child in token.children or ():
            deepest = max(depth, depth + child.nesting)
            depth += child.nesting
            if not child.nesting or deepest <= _DEEPEST:
                kept.append(child)
        if token.children:
            token.children = kept


def _maths_inline(state: StateInline, silent: bool) -> bool:
    found = _MATHS.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    if not silent:
        state.pending += found.group()
    state.pos = found.end()
    return True


def _maths_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    r"""From a line that begins with \[ or $$ to its close, at most to a blank line."""

    def text(line: int) -> str:
        return state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]

    close = _MATHS_CLOSE.get(text(start)[:2])
    if close is None or state.is_code_block(start):
        return False
    line, rest = start, text(start)[2:]
    if close in rest and not rest.rstrip().endswith(close):
        return False  # words follow: a paragraph
    if silent:
        return True
    while close not in rest and line + 1 < end and not state.isEmpty(line + 1):
        if state.sCount[line + 1] < state.blkIndent:
            break
        line += 1
        rest = text(line)
    token = state.push("maths", "", 0)
    token.content = state.getLines(start, line + 1, state.sCount[start], False)
    token.map = [start, line + 1]
    state.line = line + 1
    return True
