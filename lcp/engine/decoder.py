"""Decoder: bytes of tokens in, text out: whole characters, stop strings cut, thinking apart.

The same bytes give the same text however they are cut. It knows no model.
"""

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

# What opens a stretch of thinking -> what closes it, as chat templates spell it. An empty closer:
# only a heading before the answer, dropped. A tag counts only before the answer's first word, so
# an answer may talk about "<think>".
TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "◁think▷": "◁/think▷",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|START_RESPONSE|>": "",
    "<|channel>thought\n": "<channel|>",
    "<|channel|>analysis<|message|>": "<|end|>",
    "<|channel|>commentary<|message|>": "<|end|>",
    "<|channel|>final<|message|>": "",
    "<|start|>assistant": "",
}


@dataclass(frozen=True)
class Chunk:
    """A stretch of text as it arrives."""

    kind: Literal["thinking", "answer"]
    text: str
    tokens: int = 0  # that it was sampled as, once it is given out


class Decoder:
    """Feed it bytes, get Chunks; flush it at the end."""

    def __init__(self, stop: Sequence[str] = (), prompt_tail: str = "") -> None:
        """`prompt_tail`: how the prompt ends; a template may itself have opened the thinking."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(s for s in stop if s)
        self._text = ""  # arrived, not yet given out
        # what will end the thinking that goes on; "" outside of it
        self.closer = next(
            (c for o, c in TAGS.items() if c and prompt_tail.rstrip().endswith(o.rstrip())), ""
        )
        self._begun = False  # the answer has its first word
        self.after_thinking = False  # there was thinking, or a heading, before the answer
        self.stopped = False  # a stop string was seen; nothing comes after it

    @property
    def half_tag(self) -> str:
        """Text before the answer that may become a tag; "" where nothing visible waits."""
        return "" if self._begun or self.closer else self._text.lstrip()

    def begin_answer(self) -> None:
        """Whatever comes now is the answer; blank lines before it are dropped."""
        self._text, self._begun = "", True

    @property
    def whole(self) -> bool:
        """Whether all bytes so far have become characters."""
        return self._utf8.getstate()[0] == b""

    def feed(self, data: bytes) -> list[Chunk]:
        """The text that is sure now."""
        self._text += self._utf8.decode(data)
        return self._take(final=False)

    def flush(self) -> list[Chunk]:
        """What was held back. Half a character at the very end is dropped."""
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
            self.closer, self._text, self.after_thinking = "", rest, True
            return text
        held = 0 if final else _half(text, [self.closer])
        self._text = text[len(text) - held :]
        return text[: len(text) - held]

    def _answer(self, final: bool) -> str:
        text = self._text
        if not self._begun:
            word = text.lstrip()
            if opener := next((o for o in TAGS if word.startswith(o)), ""):
                self.closer, self._text = TAGS[opener], word[len(opener) :]
                self.after_thinking |= not self.closer
                return ""
            if not final and any(o.startswith(word) for o in TAGS):
                return ""  # blank so far, or perhaps the beginning of a tag
            self._begun = True
            if self.after_thinking:
                text = word  # the blank lines between thinking and answer belong to neither
        # the one that is complete first, and the longest of those that end together
        found = [(i + len(s), i) for s in self._stops if (i := text.find(s)) >= 0]
        if found:
            self._text, self.stopped = "", True
            return text[: min(found)[1]]
        held = 0 if final else _half(text, self._stops)
        self._text = text[len(text) - held :]
        return text[: len(text) - held]


def _half(text: str, whole: Iterable[str]) -> int:
    """The length of the longest end of `text` that begins one of `whole` without being it."""
    return max(
        (
            n
            for word in whole
            for n in range(1, min(len(word), len(text) + 1))
            if text.endswith(word[:n])
        ),
        default=0,
    )
