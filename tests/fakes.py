"""The one fake, at the one seam: an engine that says what a script says."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from lcp.engine.context import Progress
from lcp.engine.decoder import Chunk
from lcp.engine.reply import Reply, Request, Stats


@dataclass(frozen=True)
class Said:
    """One scripted answer. With `forever` it goes on, silently, until it is stopped."""

    text: str = ""
    thinking: str = ""
    ended: str = "end"
    forever: bool = False
    reading: bool = False  # with `forever`: it is the prompt that is read for ever


class ScriptedEngine:
    """Answers in the order of the script; a word is a token. `asked` are the Requests it got."""

    def __init__(self, *answers: Said | str, size: int = 4096) -> None:
        self.size = size
        self.model = SimpleNamespace(fingerprint="scripted")
        self.asked: list[Request] = []
        self.stopped = False
        self._answers = iter([Said(a) if isinstance(a, str) else a for a in answers])

    def count(self, messages: Sequence[dict[str, Any]]) -> int:
        return sum(len(m["content"].split()) for m in messages)

    def room(self, max_tokens: int | None) -> int:
        return self.size - min(max_tokens or self.size // 4, self.size // 2)

    def clip(self, text: str, n: int) -> str:
        return " ".join(text.split()[-n:])

    def seconds_to_read(self, n: int) -> float:
        return 0.0

    def look_ahead(
        self, messages: Sequence[dict[str, Any]], typed: str, max_tokens: int | None
    ) -> None:
        self.looked = typed

    @property
    def ahead(self) -> tuple[int, int]:
        return 0, 0

    def reply(self, request: Request) -> "ScriptedReply":
        self.stopped = False
        self.asked.append(request)
        return ScriptedReply(self, next(self._answers), self.count(request.messages))

    def stop(self) -> None:
        self.stopped = True


class ScriptedReply:
    """An answer that comes word by word."""

    facts = Reply.facts

    def __init__(self, engine: ScriptedEngine, said: Said, read: int) -> None:
        self._engine = engine
        self._said = said
        self.text = self.thinking = self.ended = ""
        self.tokens: list[int] = []
        self.sampled = self.tokens
        self.seed = engine.asked[-1].sampling.seed or 7
        self.stats = Stats(prompt_tokens=read, read=read, ctx_size=engine.size)

    def __iter__(self) -> Iterator[Chunk | Progress]:
        said, total = self._said, self.stats.read
        yield Progress(0, 0, total // 2, total)
        if not said.reading:
            yield Progress(0, 0, total, total)
            yield from self._words()
        while said.forever and not self._engine.stopped:
            time.sleep(0.005)  # a signal's handler runs in between
        self.ended = "interrupted" if self._engine.stopped else said.ended
        n = len(self.tokens)
        self.stats = Stats(
            prompt_tokens=total, read=total, reply_tokens=n, ttft_s=0.25, read_s=0.2,
            decode_s=1.0, tokens_per_second=20.0, ctx_used=total + n, ctx_size=self._engine.size,
        )  # fmt: skip

    def _words(self) -> Iterator[Chunk]:
        for word in re.findall(r"\s*\S+\s?|\s+", self._said.thinking):
            self.thinking += word
            yield Chunk("thinking", word)
        for word in re.findall(r"\s*\S+\s?|\s+", self._said.text):
            self.text += word
            self.tokens.append(len(self.tokens))
            yield Chunk("answer", word)
