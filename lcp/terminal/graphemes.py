"""Graphemes: characters made of several code points: a letter and its accent, a flag, an emoji
family.

A key moves over a whole grapheme or deletes it. Terminals disagree about the width of flags and
joined emoji, and a line editor with the wrong width draws in the wrong place. So in the prompt,
and only there, the parts are shown side by side: a family as its people, a flag as two letters.
"""

from bisect import bisect_right
from functools import lru_cache

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.layout.processors import Processor, Transformation, TransformationInput
from prompt_toolkit.layout.utils import explode_text_fragments
from rich.cells import split_graphemes

from lcp.terminal.clean import clean

LONGEST = 256  # code points that a key looks at; no grapheme has as many
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
_LETTERS = {0x1F1E6 + n: chr(ord("A") + n) for n in range(26)}  # of flags
_TONES = range(0x1F3FB, 0x1F400)  # of skin


def length_before(document: Document) -> int:
    """Code points of the grapheme before the cursor; 0 at the beginning of a line."""
    return lengths(document.current_line_before_cursor[-LONGEST:])[-1]


def length_after(document: Document) -> int:
    """Code points of the grapheme after the cursor; 0 at the end of a line."""
    return lengths(document.current_line_after_cursor[:LONGEST])[0]


def lengths(text: str) -> list[int]:
    """The number of code points of each grapheme; [0] for no text."""
    found, half = [0], False
    for start, end, _ in split_graphemes(text)[0]:
        of_flag = ord(text[start]) in _LETTERS
        if half and of_flag:
            found[-1] += end - start
        else:
            found.append(end - start)
        half = of_flag and not half
    return found[1:] or found


class SideBySide(Processor):
    """Shows the parts of a grapheme side by side."""

    def apply_transformation(self, ti: TransformationInput) -> Transformation:
        fragments = explode_text_fragments(ti.fragments)
        if all(text.isascii() for _, text, *_ in fragments):
            return Transformation(fragments)
        shown: StyleAndTextTuples = []
        places, last = [], " "  # where each character of the line is shown
        for style, character, *_ in fragments:
            places.append(len(shown))
            if last == " " or ord(character) not in _TONES:
                shown += [(style, sign) for sign in _shown(character)]
            last = character
        places.append(len(shown))

        def to_display(place: int) -> int:
            return places[place] if place < len(places) else place - len(places) + 1 + len(shown)

        def to_source(place: int) -> int:
            return max(0, bisect_right(places, place) - 1)

        return Transformation(shown, to_display, to_source)


@lru_cache(1 << 12)  # of the whole line at every key
def _shown(character: str) -> str:
    code = ord(character)
    if character in _JOINERS:
        return ""
    return _LETTERS.get(code) or (clean(character) if code >= 0xA0 else character)
