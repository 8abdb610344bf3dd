"""Toolbar: draws the line below the prompt from the parts it is given."""

from collections.abc import Callable, Sequence
from typing import cast

from prompt_toolkit import PromptSession
from prompt_toolkit.filters import is_done, to_filter
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.layout import (
    ConditionalContainer,
    FormattedTextControl,
    HSplit,
    Window,
)
from prompt_toolkit.utils import get_cwidth

from lcp.terminal.clean import clean

# A text and its style: "", "warn" or "bad". The most important part comes first.
ToolbarPart = tuple[str, str]
_BETWEEN = " · "


def place(session: PromptSession[str], parts: Callable[[], Sequence[ToolbarPart]]) -> None:
    """Put the line directly below the text.

    prompt_toolkit's own toolbar is at the bottom of the screen, and is drawn only after the
    terminal has reported where the cursor is.
    """

    def text() -> StyleAndTextTuples:
        return fitting(parts(), session.app.output.get_size().columns)

    line = Window(FormattedTextControl(text, style="class:state"), height=1)
    rows = cast(HSplit, session.layout.container)
    session.layout.current_window.dont_extend_height = to_filter(True)
    rows.children.append(ConditionalContainer(line, ~is_done))


def fitting(parts: Sequence[ToolbarPart], columns: int) -> StyleAndTextTuples:
    """As many of the parts as fit on one line, the first ones first."""
    shown: StyleAndTextTuples = []
    left = columns - 1  # some terminals wrap a full row
    for text, style in parts:
        text = " ".join(clean(text).split())
        before = _BETWEEN if shown else ""
        left -= get_cwidth(before + text)
        if left < 0 and shown:
            break
        shown += [("", before), (f"class:state.{style}" if style else "", _cut(text, columns - 1))]
    return shown


def _cut(text: str, columns: int) -> str:
    if get_cwidth(text) <= columns:
        return text
    while text and get_cwidth(text) >= columns:
        text = text[:-1]
    return text + "…"
