"""Long pastes: a placeholder such as `[paste 1: 2,000 lines]` is in the line until it is sent.

Turns texts into placeholders and back. It knows neither keys nor the screen.
"""

import re

LINES, CHARACTERS = 8, 1_000  # a paste that is longer becomes a placeholder
HUGE = 20_000  # characters; a longer text becomes a placeholder even if it was not pasted
_LONGEST = 64  # characters of a placeholder, at most
_PLACEHOLDER = re.compile(r"\[paste \d+: [\d,]+ (?:lines|characters)\]")


class LongPastes:
    """The long pastes since lcp was started; a recalled line may contain any of them."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def fold(self, text: str) -> str:
        """The placeholder for a long text; a short text itself."""
        lines = text.count("\n") + (not text.endswith("\n"))
        if lines <= LINES and len(text) <= CHARACTERS:
            return text
        length = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
        placeholder = f"[paste {len(self._texts) + 1}: {length}]"
        self._texts[placeholder] = text
        return placeholder

    def unfold(self, line: str) -> str:
        """The line with the texts in place of the placeholders."""
        return _PLACEHOLDER.sub(lambda found: self._texts.get(found[0], found[0]), line)

    def refold(self, text: str) -> str:
        """The reverse of `unfold`, for a text that may have been edited: pastes that are still in
        it become placeholders again, and so does a text that is too long to edit."""
        for placeholder, pasted in self._texts.items():
            text = text.replace(pasted, placeholder, 1)
        return self.fold(text) if len(text) > HUGE else text

    def at_end(self, line: str) -> str:
        """The placeholder that a line ends with, or ""."""
        end = line[-_LONGEST:]
        placeholder = end[max(0, end.rfind("[paste ")) :]
        return placeholder if placeholder in self._texts else ""

    def nearest(self, line: str, cursor: int) -> tuple[int, int] | None:
        """(start, end) of the placeholder at or before the cursor, else of the first after it."""
        found = [m.span() for m in _PLACEHOLDER.finditer(line) if m[0] in self._texts]
        before = [span for span in found if span[0] <= cursor]
        return before[-1] if before else found[0] if found else None
