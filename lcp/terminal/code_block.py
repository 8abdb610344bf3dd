"""Code blocks in colours while they stream: lines are finished while the fence is still open.

The lexer does not run over the whole block again: it restarts at a line from which it gives the
same result as before. Which lines are final depends on the text alone, not on how it arrived.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style

ScreenRow = list[Segment]
# Colours by the names a terminal gives them, which its owner chose: none that is hard to read on
# white or on black. pygments' kinds of token; the longest name that fits counts.
_STYLES = {
    "Comment": "dim italic",
    "Comment.Preproc": "magenta",
    "Keyword": "magenta",
    "Keyword.Type": "cyan",
    "Operator.Word": "magenta",
    "Name.Builtin": "cyan",
    "Name.Class": "bold",
    "Name.Decorator": "cyan",
    "Name.Function": "bold",
    "Name.Tag": "magenta",
    "Literal.String": "green",
    "Literal.Number": "cyan",
    "Generic.Deleted": "red",
    "Generic.Inserted": "green",
    "Generic.Heading": "bold",
    "Generic.Subheading": "bold",
    "Rule": "dim",  # ours: above and below the code
}
_RULE = "───"
_STEP = 8  # lines that are lexed together
_OPEN = 4  # last lines that may still change: a lexer looks ahead
# The lexer restarts after this many lines at the latest; its colours may then be wrong.
_LONGEST = 128
_LARGEST = 1 << 18  # a text with more characters has no colours: they would take seconds
_WIDEST = 1000  # a line with more characters has no colours: lexers can take very long
_TAB = 4

CodeLine = list[tuple[str, str]]  # (a kind in _STYLES or "", text)


class CodeBlock:
    """The lines of one code block; `take` returns newly finished rows, `rest` the others."""

    def __init__(self, info: str) -> None:
        """`info` is the text after the fence's mark; its first word names the language."""
        self._language = language(info)
        self._lexer = _lexer(self._language)
        self._lines: list[str] = []  # not final
        self._due = _STEP + _OPEN
        self._done: list[CodeLine] = [[("Rule", f"{_RULE} {self._language}".rstrip())]]

    def feed(self, line: str) -> None:
        """One whole line, without its end."""
        self._lines.append(line.expandtabs(_TAB))
        if self._lexer is None:
            self._finish(_lex(self._lexer, self._lines))
        elif len(self._lines) >= self._due:
            self._settle()

    def close(self) -> None:
        """There are no more lines."""
        self._finish(_lex(self._lexer, self._lines))
        self._done.append([("Rule", _RULE)])

    def take(self, width: int) -> list[ScreenRow]:
        """The rows that became final since the last call."""
        lines, self._done = self._done, []
        return [row for line in lines for row in _fold(line, width)]

    def rest(self, width: int, line: str) -> list[ScreenRow]:
        """The rows that are not final, with a line that is not whole."""
        lines = [*self._lines, line.expandtabs(_TAB)] if line else self._lines
        return [row for found in _lex(self._lexer, lines) for row in _fold(found, width)]

    def _finish(self, lexed: list[CodeLine]) -> None:
        self._done += lexed
        del self._lines[: len(lexed)]
        self._due = len(self._lines) + _STEP

    def _settle(self) -> None:
        """Finish the lines before the last line at which the lexer could restart."""
        lexed = _lex(self._lexer, self._lines)
        latest = len(lexed) - _OPEN
        for start in range(latest, max(0, latest - _STEP), -1):
            lines = self._lines[start:]
            if lines[0].strip() and _lex(self._lexer, lines) == lexed[start:]:
                return self._finish(lexed[:start])
        if len(lexed) >= _LONGEST:
            return self._finish(lexed[:latest])
        self._due *= 2


def language(info: str) -> str:
    """The language that the text after a fence's mark names."""
    return (info.split() or [""])[0].strip("{}.")


def coloured(info: str, text: str) -> list[CodeLine]:
    """The lines of a whole text in pieces of one kind each."""
    lexer = _lexer(language(info)) if len(text) <= _LARGEST else None
    return _lex(lexer, text.split("\n"))


def _lex(lexer: Any, lines: list[str]) -> list[CodeLine]:
    """The lines in pieces; in one each where the lexer fails, or changes the text."""
    plain: list[CodeLine] = [[("", line)] for line in lines]
    if lexer is None or max(map(len, lines), default=0) > _WIDEST:
        return plain
    found: list[CodeLine] = [[]]
    try:
        for token, text in lexer.get_tokens("".join(f"{line}\n" for line in lines)):
            _add(found, text, _kind(token))
    except Exception:  # a bug in one of five hundred lexers costs the colours, not the answer
        return plain
    same = ["".join(part for _, part in line) for line in found] == [*lines, ""]
    return found[:-1] if same else plain


def _add(found: list[CodeLine], text: str, kind: str) -> None:
    for number, part in enumerate(text.split("\n")):
        if number:
            found.append([])
        if found[-1] and found[-1][-1][0] == kind:
            part = found[-1].pop()[1] + part
        if part:
            found[-1].append((kind, part))


@cache
def _kind(token: Any) -> str:
    """The longest name in _STYLES that fits pygments' kind of token."""
    name = str(token).removeprefix("Token.")
    while name and name not in _STYLES:
        name = name.rpartition(".")[0]
    return name


@cache
def _style(kind: str) -> Style | None:
    return Style.parse(_STYLES[kind]) if kind else None


@cache
def _lexer(language: str) -> Any:
    """pygments' lexer of that name; None where it has none."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    if not language or language == "text":
        return None
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _fold(line: CodeLine, width: int) -> list[ScreenRow]:
    """A line as rows no wider than `width` cells, cut anywhere: code is not words."""
    text = "".join(part for _, part in line)
    if cell_len(text) <= width:
        return [[Segment(part, _style(kind)) for kind, part in line]]
    rows: list[ScreenRow] = []
    parts = iter(line)
    kind, part = next(parts)
    for piece in chop_cells(text, width):
        row: ScreenRow = []
        missing = len(piece)
        while missing:
            while not part:
                kind, part = next(parts)
            row.append(Segment(part[:missing], _style(kind)))
            part, missing = part[missing:], missing - len(part[:missing])
        rows.append(row)
    return rows
