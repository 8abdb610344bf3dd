"""Tables: rows in columns if they fit, else as a list.

Strings in, lines out. Words are not broken. Only a word that is itself too wide makes a line too
wide: the terminal wraps it, and copies it whole.
"""

import re
from collections.abc import Collection, Iterable, Sequence

from rich.cells import cell_len, set_cell_size

from lcp.terminal.clean import clean

GAP = "  "
INDENT = "    "  # of the lines below a name
_CUT = 16  # cells that a cut column keeps
_WRAPPED = 28  # cells that a wrapped last column needs
_MARK = 2  # cells of the column of marks before the names

TableRow = Sequence[str]


def lines(
    rows: Sequence[TableRow], width: int | None, *, head: bool = False, cut: Collection[int] = (),
    drop: Iterable[int] = (), right: Collection[int] = (),
) -> list[str]:  # fmt: skip
    """The rows in `width` cells; None: without a limit. `head`: the first row names the columns.

    If they do not fit, the columns `drop` are left out, one after another; then the columns `cut`
    are cut with …, and any other last column is wrapped. The columns `right` are right-aligned.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    if width is None or not cells:
        return [_joined(row, widths, right) for row in cells]
    kept = list(range(len(widths)))
    for gone in drop:
        if sum(widths[i] + len(GAP) for i in kept) - len(GAP) > width:
            kept.remove(gone)
    cells, widths = [[row[i] for i in kept] for row in cells], [widths[i] for i in kept]
    cut, right = ({kept.index(i) for i in which if i in kept} for which in (cut, right))
    last = len(widths) - 1
    shrunk = _shrunk(widths, width, cut or (last,))
    least = [min(w, _CUT if i in cut else _WRAPPED) if i in (cut or (last,)) else w
             for i, w in enumerate(widths)]  # fmt: skip
    full = sum(shrunk) + len(GAP) * last > width
    if full or any(has < needs for has, needs in zip(shrunk, least, strict=True)):
        return _listed(cells, widths, width, head, cut)
    found: list[str] = []
    for row in cells:
        fitted = [
            cut_to(c, w) if i in cut else c
            for i, (c, w) in enumerate(zip(row, shrunk, strict=True))
        ]
        first, *others = [fitted[last]] if last in cut else wrapped(fitted[last], shrunk[last])
        found.append(_joined([*fitted[:last], first], shrunk, right))
        indent = sum(shrunk[:last]) + len(GAP) * last
        found += [" " * indent + line for line in others]
    return found


def one_line(text: str) -> str:
    """Cleaned, and on a single line."""
    return " ".join(clean(text).split())


def cut_to(text: str, width: int) -> str:
    """The beginning of a text, with … if it is cut."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def wrapped(text: str, width: int) -> list[str]:
    """One line of text in rows, between words; one at least. A word that is longer than a row stays
    whole: the terminal wraps it, so that it can be copied."""
    found, row = [], ""
    for word in re.findall(r"\s*\S+(?: %\S*)?", text.rstrip()):
        if row and cell_len(row + word) > width:
            found.append(row)
            row = word.lstrip()
        else:
            row += word
    return [*found, row]


def _joined(row: TableRow, widths: Sequence[int], right: Collection[int]) -> str:
    *before, last = [
        " " * (w - cell_len(cell)) + cell if i in right else cell
        for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    ]
    padded = [set_cell_size(cell, w) for cell, w in zip(before, widths, strict=False)]
    return GAP.join([*padded, last]).rstrip()


def _shrunk(widths: Sequence[int], width: int, narrower: Collection[int]) -> list[int]:
    """The widths, with the columns `narrower` reduced as little as possible."""
    found = list(widths)
    left = width - len(GAP) * (len(widths) - 1)
    left -= sum(w for i, w in enumerate(widths) if i not in narrower)
    for sharing, i in zip(
        range(len(narrower), 0, -1), sorted(narrower, key=widths.__getitem__), strict=True
    ):
        found[i] = max(0, min(widths[i], left // sharing))
        left -= found[i]
    return found


def _listed(
    rows: Sequence[TableRow], widths: Sequence[int], width: int, head: bool, cut: Collection[int]
) -> list[str]:
    """Each row as its name and indented lines below it; the last column has its own line."""
    name = next((i for i, w in enumerate(widths) if w > _MARK), 0)
    labels = [f"{label} " if label else "" for label in rows[0]] if head else [""] * len(widths)
    room = width - len(INDENT)
    found: list[str] = []
    for row in rows[head:]:
        marks = [set_cell_size(row[i], widths[i]) for i in range(name) if widths[i]]
        before = "".join(f"{mark} " for mark in marks)
        left = width - cell_len(before)
        if name in cut:
            first, *others = [cut_to(row[name], left)]
        else:
            first, *others = wrapped(row[name], min(left, room))
        found += [f"{before}{first}".rstrip(), *(INDENT + line for line in others)]
        together = ""
        for i in range(name + 1, len(row)):
            alone = i in cut or i == len(row) - 1
            if not row[i]:
                continue
            if alone:
                found += [INDENT + line for line in wrapped(together, room) if line]
                together = ""
                kept = [cut_to(row[i], room)] if i in cut else wrapped(row[i], room)
                found += [INDENT + line for line in kept]
            else:
                together += f"{' · ' if together else ''}{labels[i]}{row[i]}"
        found += [INDENT + line for line in wrapped(together, room) if line]
    return found
