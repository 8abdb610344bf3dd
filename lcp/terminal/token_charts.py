"""Charts of tokens and their probabilities, for Screen.show. Colour is never the only sign."""

from collections.abc import Collection, Sequence

from rich.text import Text

from lcp.terminal.clean import clean

# A probability from here on -> how its token looks.
_STEPS = ((0.9, ""), (0.5, "green"), (0.2, "yellow"), (0.05, "red"), (0.0, "bold red underline"))
_ALTERNATING = ("cyan", "yellow")
_SPECIAL = "bold magenta"
_LEVELS = " ▁▂▃▄▅▆▇█"
_BAR = 30  # columns of a probability of 1
_FOLDED = 300  # tokens that are shown of a long list, half from each end


def coloured(rows: Sequence[tuple[str, float]]) -> Text:
    """A text from (piece, probability 0..1), unlikely tokens highlighted, with a legend."""
    drawing = Text()
    for piece, p in rows:
        drawing.append(clean(piece), _style(p))
    drawing.append("\n")
    for low, style in _STEPS:
        drawing.append(f"{low:.0%}" if low else "less", style)
        drawing.append(" ")
    return drawing.append("\n")


def bars(rows: Sequence[tuple[str, str, float]]) -> Text:
    """A line and a bar for each (mark, piece, probability)."""
    drawing = Text()
    wide = max((len(visible(piece)) for _, piece, _ in rows), default=0)
    for mark, piece, p in rows:
        bar = "█" * max(1, round(_BAR * p))
        drawing.append(f"{mark:>3} {visible(piece):<{wide}} {p:>7.2%} ")
        drawing.append(f"{bar}\n", _style(p) or "green")
    return drawing


def tokens(rows: Sequence[tuple[int, str]], special: Collection[int] = ()) -> Text:
    """Tokens (id, piece) in alternating colours, each with its id, those that are structure in
    another one; a long list is shortened."""
    half = _FOLDED // 2
    folded = len(rows) - _FOLDED
    drawing = Text()
    for i, (id, piece) in enumerate(rows):
        if folded > 0 and half <= i < half + folded:
            if i == half:
                drawing.append(f"\n… {folded:,} tokens …\n", "dim")
            continue
        drawing.append(visible(piece), _SPECIAL if id in special else _ALTERNATING[i % 2])
        drawing.append(f"[{id}] ", "dim")
        if "\n" in piece:
            drawing.append("\n")
    return drawing if drawing.plain.endswith("\n") else drawing.append("\n")


def levels(shares: Sequence[float]) -> str:
    """A character for each share of 0..1, by its height: a blank is 0, █ is 1."""
    return "".join(_LEVELS[max(0, min(8, round(8 * share)))] for share in shares)


def bar(share: float, width: int = _BAR) -> str:
    """A bar of `width` columns for a share of 1."""
    halves = max(0, min(2 * width, round(2 * width * share)))
    return "█" * (halves // 2) + "▌" * (halves % 2)


def _style(p: float) -> str:
    return next(style for low, style in _STEPS if p >= low)


def visible(piece: str) -> str:
    """The piece with visible line ends and tabs; spaces are visible at its edges, and those of
    other widths everywhere."""
    shown = clean(piece).replace("\n", "⏎").replace("\t", "⇥")
    shown = "".join("␣" if c.isspace() and c != " " else c for c in shown)
    inner = shown.strip(" ")
    if not inner:
        return "␣" * len(shown) or "∅"
    before, after = shown.split(inner, 1)
    return "␣" * len(before) + inner + "␣" * len(after)
