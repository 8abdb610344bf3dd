"""Text of strangers made safe to show: nothing in it moves the cursor or hides itself.

What a model, a GGUF or a file says may contain escape sequences (titles, clipboard, colours),
controls, and characters that reorder or hide text. They become visible signs here.
"""

import re


def _table() -> dict[int, str]:
    # C0 controls as their pictures, DEL too; tabs and line ends stay
    table = {c: chr(0x2400 + c) for c in range(0x20) if chr(c) not in "\t\n"}
    table[0x7F] = "␡"
    for first, last, sign in (
        (0x80, 0x9F, "�"),  # C1: 0x9b is CSI on many terminals
        (0xD800, 0xDFFF, "�"),  # half a pair: no text
        (0xE0000, 0xE007F, "�"),  # tags: invisible copies of ASCII
        (0xFFF9, 0xFFFB, "�"),  # interlinear annotation
    ):
        table |= dict.fromkeys(range(first, last + 1), sign)
    # Kept: U+200D and U+FE0F, which emoji and scripts need.
    for first, last in (
        (0x00AD, 0x00AD),  # soft hyphen
        (0x061C, 0x061C),
        (0x200B, 0x200C),  # zero width
        (0x200E, 0x200F),  # left-to-right and right-to-left marks
        (0x2028, 0x202E),  # line separators; bidi embeddings and overrides
        (0x2060, 0x206F),
        (0xFEFF, 0xFEFF),
    ):
        table |= {c: f"<{c:04X}>" for c in range(first, last + 1)}
    return table


_SIGNS = _table()
_LINE_ENDS = re.compile("\r\n?")


def clean(text: str) -> str:
    """The whole text with signs for what must not reach a terminal."""
    return _LINE_ENDS.sub("\n", text).translate(_SIGNS)


class Cleaner:
    """`clean` for text that arrives in pieces: a line end may be cut in two."""

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, text: str) -> str:
        if self._after_cr and text.startswith("\n"):
            text = text[1:]  # its CR was given out as the line end already
            self._after_cr = False
        if text:
            self._after_cr = text.endswith("\r")
        return clean(text)
