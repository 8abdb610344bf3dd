"""Splits Markdown that streams into finished blocks and the one that may still change.

CommonMark is read from left to right: a new line changes only the last block. So all others are
final, and so is a list item once the next one has begun. Knows no terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.tree import SyntaxTreeNode

from lcp.terminal.code_block import CodeBlock

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
LISTS = ("bullet_list", "ordered_list")
_LEAST_CODE = 3  # lines of a block that is shown from its middle
_LONG = 2000  # characters of an open block
_OUTLIVE_BLANKS = ("list_item", "code_block", "fence")


@dataclass(frozen=True)
class Block:
    """A top-level block, an item of a list, or (`code`) a fence that grows line by line."""

    node: Node
    gap: bool  # a blank row before it
    number: int | None = None  # of an ordered item
    code: CodeBlock | None = None


def blocks(root: Node, gap: bool = False, number: int | None = None) -> Iterator[Block]:
    """The blocks of a text, lists item by item. `gap` is that of the first block; `number` is that
    of its first item, if the text begins inside a list."""
    for node in root.children:
        if node.type in LISTS:
            yield from items(node, gap, number)
        else:
            yield Block(node, gap)
        gap, number = True, None


def items(node: Node, gap: bool, number: int | None = None) -> Iterator[Block]:
    """The items of a list. There is a blank row after an item that is more than a paragraph: this
    does not depend on later items."""
    if node.type == "ordered_list" and number is None:
        number = int(node.attrs.get("start", 1))
    for item in node.children:
        yield Block(item, gap, number)
        shown = [child for child in item.children if child.type not in LISTS]
        gap = len(shown) > 1 or any(child.type != "paragraph" for child in shown)
        if number is not None:
            number += 1


def tail(text: str, most_lines: int, most: int) -> str:
    """The end of a text, at most so many lines and characters, from the beginning of a block or
    list item.

    A longer code block is reopened in its middle, a longer paragraph begins with … and a whole
    word; any other last block is returned whole."""
    rows = text.split("\n")
    begins = [
        (part.map[0], part)
        for node in Node(parser().parse(text)).children
        for part in (node.children if node.type in LISTS else [node])
        if part.map
    ]
    start = len(rows)
    for begin, node in reversed(begins):
        end = "\n".join(rows[begin:])
        if end.count("\n") < most_lines and len(end) <= most:
            start = begin
            continue
        left = most_lines - (len(rows) - start)
        if node.type == "fence" and left > _LEAST_CODE:
            inside = rows[begin + 1 : start]
            return "\n".join([rows[begin], *inside[-left:], *rows[start:]])
        if start == len(rows):
            return _last_words(rows[begin:], most_lines, most) if node.type == "paragraph" else end
        break
    return "\n".join(rows[start:])


def _last_words(rows: list[str], most_lines: int, most: int) -> str:
    end = "\n".join(rows[-most_lines:])
    if len(end) > most:
        broken = not end[-most - 1].isspace()
        end = end[-most:]
        if broken and len(words := end.split(maxsplit=1)) > 1:
            end = words[1]
    return f"…{end.lstrip()}"


class Splitter:
    """Give it text by `feed`; `take` has the blocks finished since, `open_blocks` the rest."""

    def __init__(self) -> None:
        self.code: CodeBlock | None = None  # the fence that is open
        self._parser = parser()
        self._rest = ""  # begins where a block, an item or a line of code begins
        self._parsed = 0  # so much of it was parsed, in whole lines
        self._gap = False
        self._number: int | None = None

    def feed(self, text: str) -> None:
        self._rest += text

    def take(self, final: bool = False) -> list[Block]:
        """The blocks that will not change any more; a fence counts as soon as it begins."""
        found: list[Block] = []
        while True:
            if self.code is None:
                found += self._take_blocks(final)
            if self.code is None or not self._take_code(final):
                return found

    def open_blocks(self, height: int) -> list[Block]:
        """The last block so far; none inside a fence. Of one that is many times `height` lines
        long, only its beginning and end."""
        if self.code:
            return []
        step = 2 * height
        if self._rest.count("\n") <= 2 * step:
            return self._blocks(self._rest)
        lines = self._rest.splitlines(keepends=True)
        begin = (len(lines) // step - 1) * step  # it stays where it is for a while
        marks = [line for line in lines[2:begin] if line.lstrip(" >").startswith(("```", "~~~"))]
        inside = marks[-1:] if len(marks) % 2 else []  # a fence that is open there
        return self._blocks("".join([*lines[:2], *inside, *lines[begin:]]))

    def open_line(self) -> str:
        """The last line of an open fence, unless it may become its end."""
        line = self._inside(self._rest)
        return line if line.strip(" ").strip(self._mark) else ""

    def _take_blocks(self, final: bool) -> list[Block]:
        end = len(self._rest) if final else self._rest.rfind("\n") + 1
        # a long block is not read again for every line, or its cost would grow with its square
        grown, enough = end - self._parsed, self._parsed // 16 if self._parsed > _LONG else 1
        if not final and grown < enough:
            return []
        found = self._blocks(self._rest[:end])
        if final:
            self._rest, self._gap = "", self._gap or bool(found)
            return found
        self._parsed = end
        if not found:
            return []
        if self._ended(found[-1]):
            self._rest, self._parsed = self._rest[end:], 0
            self._gap, self._number = True, None
            return found
        last = found.pop()
        self._drop(last.node.map[0] if last.node.map else 0)
        self._gap, self._number = last.gap, last.number
        if last.node.type == "fence":
            found.append(self._begin_code(last))
        return found

    def _ended(self, last: Block) -> bool:
        """Whether a blank line has ended the last block, too."""
        text = self._rest[: self._parsed]
        blank = text[len(text.rstrip(" \t\n")) :].count("\n") > 1
        return blank and last.node.type not in _OUTLIVE_BLANKS

    def _blocks(self, text: str) -> list[Block]:
        root = Node(self._parser.parse(text))
        return list(blocks(root, self._gap, self._number))

    def _drop(self, lines: int) -> None:
        position = 0
        for _ in range(lines):
            position = self._rest.index("\n", position) + 1
        self._rest = self._rest[position:]
        self._parsed -= position

    # an open fence: its lines are code until one closes it, whatever they look like

    def _begin_code(self, block: Block) -> Block:
        self._indent = len(self._rest) - len(self._rest.lstrip(" "))
        self._mark, length = block.node.markup[0], len(block.node.markup)
        self._close = re.compile(rf" {{0,3}}{re.escape(self._mark)}{{{length},}}[ \t]*")
        self.code = CodeBlock(block.node.info)
        self._drop(1)
        self._gap, self._number = True, None
        return Block(block.node, block.gap, code=self.code)

    def _take_code(self, final: bool) -> bool:
        """Whether the fence was closed."""
        assert self.code
        begin, closed = 0, final
        while begin < len(self._rest):
            end = self._rest.find("\n", begin)
            if end < 0 and not final:
                break
            line = self._rest[begin : end if end >= 0 else None]
            begin = end + 1 if end >= 0 else len(self._rest)
            if self._close.fullmatch(line):
                closed = True
                break
            self.code.feed(self._inside(line))
        self._rest = self._rest[begin:]
        self._parsed = 0
        if closed:
            self.code.close()
            self.code = None
        return closed

    def _inside(self, line: str) -> str:
        """The line without the indentation that the fence itself has."""
        taken = column = 0
        while taken < len(line) and column < self._indent and line[taken] in " \t":
            column += 4 - column % 4 if line[taken] == "\t" else 1
            taken += 1
        return " " * max(0, column - self._indent) + line[taken:]


# The parser: markdown-it's CommonMark with tables and maths, without HTML.


def parser() -> MarkdownIt:
    """CommonMark with tables and maths. HTML is text: `Vec<T>` must stay visible. Link definitions
    are text, too: they would change what is already printed."""
    md = MarkdownIt("commonmark", {"html": False})
    md.enable(["strikethrough", "table"]).disable("reference")
    md.core.ruler.push("shallow", _shallow)
    md.inline.ruler.before("escape", "maths", _maths_inline)
    alt = ["paragraph", "blockquote", "list"]  # what it interrupts
    md.block.ruler.before("fence", "maths", _maths_block, {"alt": alt})
    return md


def _shallow(state: StateCore) -> None:
    """Ignore marks that are nested too deep."""
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
