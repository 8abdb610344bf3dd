"""Text of strangers made safe to show: nothing in it moves the cursor or hides itself.

What a model, a GGUF or a file says may contain escape sequences (titles, clipboard, colours),
controls, and characters that reorder or hide text. They become visible signs here. A joiner stays
where writing needs it: in emoji, and behind a letter of a script that joins its letters.
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
    # Kept: U+FE0F, which emoji need; of the joiners U+200C and U+200D see _JOINER.
    for first, last in (
        (0x00AD, 0x00AD),  # soft hyphen
        (0x061C, 0x061C),
        (0x200B, 0x200B),  # zero width
        (0x200E, 0x200F),  # left-to-right and right-to-left marks
        (0x2028, 0x202E),  # line separators; bidi embeddings and overrides
        (0x2060, 0x206F),
        (0xFEFF, 0xFEFF),
    ):
        table |= {c: f"<{c:04X}>" for c in range(first, last + 1)}
    return table


_SIGNS = _table()
_LINE_ENDS = re.compile("\r\n?")
# Arabic to Sinhala, Myanmar, Khmer, Mongolian, and Arabic's presentation forms
_SCRIPTS = "\u0600-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
_EMOJI = "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
_JOINER = re.compile(f"(?<![{_SCRIPTS}])\u200c|(?<![{_SCRIPTS}{_EMOJI}])\u200d")


def clean(text: str, before: str = "") -> str:
    """The whole text with signs for what must not reach a terminal. `before` is the clean
    character that it stands behind."""
    text = _LINE_ENDS.sub("\n", text).translate(_SIGNS)
    if "\u200c" not in text and "\u200d" not in text:
        return text
    before = before if before not in ("\u200c", "\u200d") else ""  # a second joiner joins nothing
    return _JOINER.sub(lambda found: f"<{ord(found.group()):04X}>", before + text)[len(before) :]


class Cleaner:
    """`clean` for text that arrives in pieces: a line end or a joined pair may be cut in two."""

    def __init__(self) -> None:
        self._after_cr = False
        self._before = ""

    def feed(self, text: str) -> str:
        if self._after_cr and text.startswith("\n"):
            text = text[1:]  # its CR was given out as the line end already
            self._after_cr = False
        if not text:
            return ""
        self._after_cr = text.endswith("\r")
        cleaned = clean(text, self._before)
        self._before = cleaned[-1]
        return cleaned
