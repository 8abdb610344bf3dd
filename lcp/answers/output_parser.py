"""The parser of a model's output: bytes of tokens in, Chunks of thinking and answer out.

It joins bytes to whole characters, separates thinking from the answer by its tags, and cuts the
answer at a stop string. The same bytes give the same text however they are split. A tag counts
only before the answer's first word or at its very end, so an answer may mention "<think>".
"""

import codecs
from collections.abc import Iterable, Sequence

from lcp.answers.thinking_tag_table import NONE, Tags, tags
from lcp.engine_interface import Chunk

PLAIN = tags()  # the tags that apply to every model


class OutputParser:
    """Feed it bytes, get Chunks; flush it at the end."""

    def __init__(self, stop: Sequence[str] = (), prompt_tail: str = "", tags: Tags = PLAIN) -> None:
        """`prompt_tail`: the end of the prompt; the template may already have opened the thinking
        or the answer there. With `tags` NONE all the text is the answer."""
        self.tags = tags
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(s for s in stop if s)
        self._text = ""  # decoded, not yet returned
        tail = prompt_tail.rstrip()
        begun = [o for o in tags.openers if tail.endswith(o.rstrip())]
        # the tag that ends the open thinking; "" outside of thinking
        self.closer = next((tags.openers[o] for o in begun if tags.openers[o]), "")
        # the tags that may follow the answer
        self._ends = next((tags.ends[o] for o in begun if o in tags.ends), ())
        self._begun = tags is NONE  # the answer has its first word
        self.after_thinking = bool(self._ends)  # there was thinking, or a heading, before it
        self.stopped = ""  # the stop string that ended the answer

    @property
    def half_tag(self) -> str:
        """The beginning of a possible tag before the answer; "" if there is none."""
        return "" if self._begun or self.closer else self._text.lstrip()

    def begin_answer(self) -> None:
        """Take the text from now on as the answer, and drop blank lines before it."""
        self._text, self._begun = "", True

    @property
    def whole(self) -> bool:
        """Whether the bytes so far end with a whole character."""
        return self._utf8.getstate()[0] == b""

    def feed(self, data: bytes) -> list[Chunk]:
        """Add bytes. Returns the text that no later bytes can change."""
        self._text += self._utf8.decode(data)
        return self._take(final=False)

    def flush(self) -> list[Chunk]:
        """The rest of the text. An incomplete character at the end is dropped."""
        return self._take(final=True)

    def _take(self, final: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        while self._text and not self.stopped:
            before = (len(self._text), self.closer)
            text = self._thinking(final) if self.closer else self._answer(final)
            if text:
                chunks.append(Chunk("thinking" if before[1] else "answer", text))
            if (len(self._text), self.closer) == before:
                break
        return chunks

    def _thinking(self, final: bool) -> str:
        text, found, rest = self._text.partition(self.closer)
        if found:
            self._ends = self.tags.ends.get(self.closer, ())
            self.closer, self._text, self.after_thinking = "", rest, True
            return text
        held = 0 if final else _half(text, [self.closer])
        self._text = text[len(text) - held :]
        return text[: len(text) - held]

    def _answer(self, final: bool) -> str:
        text, openers = self._text, self.tags.openers
        if not self._begun:
            word = text.lstrip()
            if opener := next((o for o in openers if word.startswith(o)), ""):
                self.closer, self._text = openers[opener], word[len(opener) :]
                self.after_thinking |= not self.closer
                self._ends = self.tags.ends.get(opener, self._ends)
                return ""
            if not final and any(o.startswith(word) for o in openers):
                return ""  # blank so far, or perhaps the beginning of a tag
            self._begun = True
            if self.after_thinking:
                text = word  # the blank lines between thinking and answer belong to neither
        # the stop string that ends first, and the longest of those that end there
        found = [(i + len(s), i, s) for s in self._stops if (i := text.find(s)) >= 0]
        if found:
            _, at, self.stopped = min(found)
            self._text, text, final = "", text[:at], True
            return text[: len(text) - self._after(text, final)]
        held = max(0 if final else _half(text, self._stops), self._after(text, final))
        self._text = "" if final else text[len(text) - held :]
        return text[: len(text) - held]

    def _after(self, text: str, final: bool) -> int:
        """The length of a closing tag at the end of `text`, with the white space around it: one
        that may be there or, if `final`, one that is. With more text after it, it is answer."""
        if not self._ends:
            return 0
        half = 0 if final else _half(text, self._ends)
        whole = len(text) - half
        at, end = whole, "?"
        while end:
            at = len(text[:at].rstrip())
            end = next((e for e in self._ends if text.endswith(e, 0, at)), "")
            at -= len(end)
        closed = any(end in text[at:whole] for end in self._ends)
        return len(text) - at if closed or not final else 0


def _half(text: str, whole: Iterable[str]) -> int:
    """The length of the longest end of `text` that is a proper prefix of one of `whole`."""
    return max(
        (
            n
            for word in whole
            for n in range(1, min(len(word), len(text) + 1))
            if text.endswith(word[:n])
        ),
        default=0,
    )
