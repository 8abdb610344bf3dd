"""Makes text from models and files safe to print: it cannot move the cursor or hide text.

A model, a GGUF or a file may contain escape sequences (titles, clipboard, colours), control
characters, and characters that reorder or hide text. They become visible signs. Joiners and
variation selectors stay where writing needs them: in emoji, after letters that join, after Han
characters; anywhere else a hidden text can be encoded in them.
"""

import functools
import re


def _table() -> dict[int, str]:
    # C0 controls as their pictures, DEL too; tabs and line ends stay
    table = {c: chr(0x2400 + c) for c in range(0x20) if chr(c) not in "\t\n"}
    table[0x7F] = "␡"
    for first, last, sign in (
        (0x80, 0x9F, "�"),  # C1: 0x9b is CSI on many terminals
        (0xD800, 0xDFFF, "�"),  # half a pair: no text
        (0xE0000, 0xE0FFF, "�"),  # tags: invisible copies of ASCII
        (0xFFF0, 0xFFFB, "�"),  # of no meaning yet, and interlinear annotation
        (0x1BCA0, 0x1BCA3, "�"),  # of shorthand and of music
        (0x1D173, 0x1D17A, "�"),
    ):
        table |= dict.fromkeys(range(first, last + 1), sign)
    # The rest of what Unicode says is not to be seen (Default_Ignorable_Code_Point). Those that
    # _misplaced is about are kept here.
    for first, last in (
        (0x00AD, 0x00AD),  # soft hyphen
        (0x034F, 0x034F),
        (0x061C, 0x061C),
        (0x115F, 0x1160),  # letters of Hangul without a shape
        (0x17B4, 0x17B5),
        (0x180E, 0x180E),
        (0x200B, 0x200B),  # zero width
        (0x200E, 0x200F),  # left-to-right and right-to-left marks
        (0x2028, 0x202E),  # line separators; bidi embeddings and overrides
        (0x2060, 0x206F),
        (0x3164, 0x3164),
        (0xFEFF, 0xFEFF),
        (0xFFA0, 0xFFA0),
    ):
        table |= {c: f"<{c:04X}>" for c in range(first, last + 1)}
    for c in range(0xE0100, 0xE01F0):
        del table[c]
    return table


SIGNS = _table()
_LINE_ENDS = re.compile("\r\n?")
# Arabic to Sinhala, Myanmar, Khmer, Mongolian, and Arabic's presentation forms
_SCRIPTS = "\u0600-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
_EMOJI = "\u203c\u2049\u2122\u2139\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
_HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"


@functools.cache  # 10 ms, which no text in ASCII waits for
def _misplaced() -> re.Pattern[str]:
    """A joiner, or what asks for a variant of the character before it, where that has none."""
    return re.compile(
        f"(?<![{_SCRIPTS}])\u200c"
        f"|(?<![{_SCRIPTS}{_EMOJI}])(?<![{_EMOJI}]\ufe0f)\u200d"
        f"|(?<![0-9#*©®{_EMOJI}{_HAN}\u1000-\u109f])[\ufe00-\ufe0f]"
        f"|(?<![{_HAN}])[\U000e0100-\U000e01ef]"
        "|(?<![\u1820-\u18af])[\u180b-\u180d\u180f]"
    )


def clean(text: str) -> str:
    """The text with visible signs for all that must not reach a terminal."""
    return _placed(_signed(text), "")


def _signed(text: str) -> str:
    return _LINE_ENDS.sub("\n", text).translate(SIGNS)


def _placed(text: str, before: str) -> str:
    if text.isascii():
        return text
    begin = len(before)

    def sign(found: re.Match[str]) -> str:
        return f"<{ord(found[0]):04X}>" if found.start() >= begin else found[0]

    return _misplaced().sub(sign, before + text)[begin:]


class Cleaner:
    """`clean` for text that arrives in pieces, even if a CRLF or a joined pair is cut in two."""

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
        signed = _signed(text)
        cleaned = _placed(signed, self._before)
        self._before = (self._before + signed)[-2:]
        return cleaned
