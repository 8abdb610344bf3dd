"""Renders blocks of Markdown as rows of a terminal. Rows are not padded, and never too wide.

Colours are the sixteen of the terminal's own palette. A link is shown as `text (url)`. The text is
cleaned again after parsing: an entity such as `&#8238;` is a character only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from rich import box
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lcp.terminal.clean import clean
from lcp.terminal.code_block import CodeBlock, ScreenRow
from lcp.terminal.markdown import LISTS, Block, Node, items

_NARROWEST = 12  # what is nested deeper than there is room for is not indented
_COLUMN = 8  # cells for each column, or a table becomes a list
_DIM = Style(dim=True)
_CODE = Style(color="cyan")
_URL = Style(underline=True, dim=True)
_MARKS = {"em": Style(italic=True), "strong": Style(bold=True), "s": Style(strike=True)}
_HEADINGS = {"h1": "bold underline magenta", "h2": "bold magenta", "h3": "magenta"}


def row_text(console: Console, row: ScreenRow) -> tuple[str, int]:
    """The row as terminal output without trailing blanks, and how many cells it takes."""
    written, cells = "", 0
    left = len("".join(segment.text for segment in row).rstrip(" "))
    for text, style, _ in row:
        text, left = text[:left], max(0, left - len(text))
        if not text.isprintable():  # the last filter before the terminal
            text = clean(text).replace("\n", "␊").replace("\t", " ")
        cells += cell_len(text)
        if style and text and console.color_system:
            style = style.without_color if console.no_color else style
            text = style.render(text, color_system=ColorSystem.STANDARD)
        written += text
    return written, cells


class Renderer:
    """Renders blocks; `rows` are those of some blocks in `width` columns."""

    def __init__(self, console: Console, height: int | None = None) -> None:
        """`height`: only so many of the last rows are needed. Rows far above may be left out, or
        the cost would grow with the square of a block's length."""
        self._console = console
        self._options = console.options
        self._height = height
        self._last = slice(-height if height else None, None)

    def rows(self, blocks: Iterable[Block], width: int) -> list[ScreenRow]:
        return [row for block in blocks for row in self._block(block, width)]

    def _block(self, block: Block, width: int) -> list[ScreenRow]:
        rows: list[ScreenRow] = [[]] if block.gap else []
        if block.code:
            return rows + block.code.take(width)
        if block.node.type == "list_item":
            return rows + self._item(block, width)
        return rows + self._node(block.node, width)

    def _node(self, node: Node, width: int) -> list[ScreenRow]:
        kind = node.type
        if kind == "paragraph":
            return self._wrap(self._inline(node), width)
        if kind == "heading":
            style = _HEADINGS.get(node.tag, "italic magenta")
            return self._wrap(self._inline(node, Style.parse(style)), width)
        if kind in ("fence", "code_block"):
            return self._code(node, width)
        if kind in LISTS:
            return self.rows(list(items(node, gap=False))[self._last], width)
        if kind == "blockquote":
            return _beside("│ ", "│ ", _DIM, partial(self._inside, node), width)
        if kind == "table":
            return self._table(node, width)
        if kind == "hr":
            return [[Segment("─" * min(width, 30), _DIM)]]
        return self._wrap(Text(clean(node.content)), width)  # maths, as it was typed

    def _inside(self, node: Node, width: int) -> list[ScreenRow]:
        """The content of a quote or a list item; no blank line before a list in an item."""
        rows: list[ScreenRow] = []
        for child in node.children[self._last]:
            if rows and not (node.type == "list_item" and child.type in LISTS):
                rows.append([])
            rows += self._node(child, width)
        return rows or [[]]

    def _item(self, block: Block, width: int) -> list[ScreenRow]:
        mark = " • "
        if block.number is not None:
            mark = f"{block.number}{block.node.markup}".rjust(3) + " "
        return _beside(mark, " " * len(mark), _CODE, partial(self._inside, block.node), width)

    def _code(self, node: Node, width: int) -> list[ScreenRow]:
        code = CodeBlock(node.info)
        *lines, last = clean(node.content).split("\n")
        for line in ([*lines, last] if last else lines)[self._last]:
            code.feed(line)
        code.close()
        return code.take(width)

    def _wrap(self, text: Text, width: int) -> list[ScreenRow]:
        text.overflow = "fold"
        if self._height:  # cut where it stays for a while: rows that are seen should not dance
            page = self._height * width
            text = text[max(0, len(text) // page - 1) * page :]
        return self._console.render_lines(text, self._options.update(width=width), pad=False)

    def _inline(self, node: Node, style: Style | None = None) -> Text:
        text = Text()
        self._write(text, node, style or Style())
        return text

    def _write(self, text: Text, node: Node, style: Style) -> None:
        for child in node.children:
            if child.type in ("softbreak", "hardbreak"):
                text.append("\n")  # a line of a poem stays a line
            elif child.type == "code_inline":
                text.append(clean(child.content), style + _CODE)
            elif child.type == "image":
                self._write_link(text, child, str(child.attrs.get("src", "")), style)
            elif child.type == "link":
                self._write_link(text, child, str(child.attrs.get("href", "")), style)
            elif child.children:
                self._write(text, child, style + _MARKS.get(child.type, Style()))
            else:
                text.append(clean(child.content), style)

    def _write_link(self, text: Text, node: Node, url: str, style: Style) -> None:
        begin = len(text)
        self._write(text, node, style)
        words = text.plain[begin:]
        if url not in ("", words, f"mailto:{words}"):
            text.append(" (" if words else "(", style)
            text.append(url, style + _URL)
            text.append(")", style)

    def _table(self, node: Node, width: int) -> list[ScreenRow]:
        head, *rows = [line.children for part in node.children for line in part.children]
        if width < _COLUMN * len(head):
            return self._records(head, rows, width)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, border_style=_DIM)
        for cell in head:
            align = str(cell.attrs.get("style", "")).rpartition(":")[2] or "left"
            title = self._inline(cell, Style(bold=True))
            table.add_column(title, justify=align, overflow="fold")  # type: ignore[arg-type]
        for row in rows[self._last]:
            table.add_row(*map(self._inline, row))
        return self._console.render_lines(table, self._options.update(width=width), pad=False)

    def _records(self, head: list[Node], rows: list[list[Node]], width: int) -> list[ScreenRow]:
        """Each row of a table that is too wide as lines of `column: cell`."""
        lines: list[ScreenRow] = []
        for row in rows[self._last] or [[]]:
            lines += [[]] if lines else []
            for number, name in enumerate(head):
                text = self._inline(name, Style(bold=True)).append(": ")
                lines += self._wrap(text + self._inline(row[number]) if row else text, width)
        return lines


def _beside(
    mark: str, blank: str, style: Style, inside: Callable[[int], list[ScreenRow]], width: int
) -> list[ScreenRow]:
    """Rows with a mark before the first one and something as wide before the others."""
    if width - len(mark) < _NARROWEST:
        return [[Segment(mark, style)], *inside(width)]
    first, *others = inside(width - len(mark))
    before = Segment(blank, style)
    return [[Segment(mark, style), *first], *([before, *row] for row in others)]
