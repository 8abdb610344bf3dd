"""LongPastes: a long text that was pasted stands in the line as a placeholder until it is sent.

Pure text: it gives what stands in the line for a text and the text for what stands in the line,
and knows neither keys nor the screen.
"""

import re

LINES, CHARACTERS = 8, 1_000  # a paste over one of them is folded
HUGE = 20_000  # characters that are folded, wherever they come from
_LONGEST = 64  # characters of a placeholder, at most
_PLACEHOLDER = re.compile(r"\[paste \d+: [\d,]+ (?:lines|characters)\]")


class LongPastes:
    """The texts that were folded since lcp was started; a recalled line may hold any of them."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def fold(self, text: str) -> str:
        """What stands in the line for a pasted text: itself, when it is short."""
        lines = text.count("\n") + (not text.endswith("\n"))
        if lines <= LINES and len(text) <= CHARACTERS:
            return text
        length = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
        placeholder = f"[paste {len(self._texts) + 1}: {length}]"
        self._texts[placeholder] = text
        return placeholder

    def unfold(self, line: str) -> str:
        """The text that a line stands for."""
        return _PLACEHOLDER.sub(lambda found: self._texts.get(found[0], found[0]), line)

    def refold(self, text: str) -> str:
        """A line for a text that was unfolded and perhaps changed: the pastes that are still in
        it stand folded again. What cannot be edited at ease is folded, too."""
        for placeholder, pasted in self._texts.items():
            text = text.replace(pasted, placeholder, 1)
        return self.fold(text) if len(text) > HUGE else text

    def at_end(self, line: str) -> str:
        """The placeholder that a line ends with, or ""."""
        end = line[-_LONGEST:]
        placeholder = end[max(0, end.rfind("[paste ")) :]
        return placeholder if placeholder in self._texts else ""

    def nearest(self, line: str, cursor: int) -> tuple[int, int] | None:
        """Where the placeholder begins and ends that is under or before the cursor, else the
        first one behind it."""
        found = [m.span() for m in _PLACEHOLDER.finditer(line) if m[0] in self._texts]
        before = [span for span in found if span[0] <= cursor]
        return before[-1] if before else found[0] if found else None
