"""Builds a reply from its tokens: the tokens come in on the engine thread, Chunks leave it."""

import time
from collections.abc import Iterable
from dataclasses import replace

from lcp.answers.output_parser import PLAIN, OutputParser
from lcp.engine.model import Model
from lcp.engine_interface import Chunk, Progress, PromptMessage, Reply
from lcp.engine_notices import EngineNotice
from lcp.worker import Emit

# The least time between two Chunks. Each one wakes the main thread, which takes a core from the
# computation if all are busy.
PACE_S = 0.1
AFTER = 16  # tokens after an answer that may be tags or a stop string


class Clock:
    """The times of the steps of a reply, in seconds since the request; 0: not yet."""

    def __init__(self, begun: float) -> None:
        self._begun = begun
        self.reading = self.read = self.first_token = self.last_token = self.first_text = 0.0

    def now(self) -> float:
        return time.perf_counter() - self._begun


class ReplyBuilder:
    """Builds a reply from its tokens: the text, the Chunks and the statistics."""

    def __init__(
        self,
        reply: Reply,
        parser: OutputParser,
        model: Model,
        shown: frozenset[int],
        emit: Emit,
    ) -> None:
        """`shown`: control tokens that the parser must see as text."""
        self.tokens: list[int] = []
        self.clock = Clock(reply.asked)
        self._reply = reply
        self._parser = parser
        self._model = model
        self._shown = shown
        self._emit = emit
        self._pieces: list[bytes] = []
        self._waiting: Chunk | None = None
        self._sent = 0.0
        self._given = 0  # tokens of the Chunks so far
        self._before = 0  # tokens of the answer to continue
        self.thinking_tokens = 0  # tokens of the thinking
        self._whole = 0  # tokens up to the last one that ended a character

    def notice(self, notice: EngineNotice) -> None:
        """Record what happened to this answer, for a person to read."""
        self._reply.notice = notice

    def resume(self, tokens: Iterable[int]) -> None:
        """Append the tokens of the answer to continue, without Chunks."""
        emit, self._emit = self._emit, lambda _: None
        for token in tokens:
            self.append(token)
        self._send()
        self._emit, self._before = emit, len(self.tokens)
        self.clock = Clock(self._reply.asked)

    @property
    def new(self) -> int:
        """Tokens since the request."""
        return len(self.tokens) - self._before

    def append(self, token: int) -> bool:
        """Append a token. Returns False if it completes a stop string."""
        self.clock.last_token = self.clock.now()
        self.clock.first_token = self.clock.first_token or self.clock.last_token
        piece = self._model.piece(token, special=token in self._shown)
        self.tokens.append(token)
        self._pieces.append(piece)
        self.thinking_tokens += bool(self._parser.closer)
        self._give(self._parser.feed(piece))
        if self._parser.whole:
            self._whole = len(self.tokens)
        return not self._parser.stopped

    def finish(self, ended: str, prompt_tokens: int, progress: Progress) -> None:
        """Emit the rest of the text and set the numbers of the reply."""
        self._give(self._parser.flush())
        self._send()
        clock, steps = self.clock, max(0, self.new - 1)
        decode_s = clock.last_token - clock.first_token
        self._reply.ended = ended
        self._reply.sampled = self.tokens
        self._reply.before = self._before
        self._reply.tokens = self._tokens_of_text()
        self._reply.stats = replace(
            self._reply.stats,
            prompt_tokens=prompt_tokens,
            reused=progress.kept,
            moved=progress.moved,
            read=progress.done,
            reply_tokens=self.new,
            ttft_s=clock.first_text or clock.now(),
            read_s=(clock.read or clock.now()) - clock.reading,
            decode_s=decode_s,
            tokens_per_second=steps / decode_s if decode_s else 0.0,
        )

    def _give(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self.clock.first_text = self.clock.first_text or self.clock.now()
            if chunk.kind == "thinking":
                self._reply.thinking += chunk.text
            else:
                self._reply.text += chunk.text
            if self._waiting and self._waiting.kind != chunk.kind:
                self._send()
            before = self._waiting.text if self._waiting else ""
            self._waiting = Chunk(chunk.kind, before + chunk.text)
        if time.perf_counter() - self._sent >= PACE_S:
            self._send()

    def _send(self) -> None:
        if self._waiting:
            self._emit(replace(self._waiting, tokens=len(self.tokens) - self._given))
            self._given = len(self.tokens)
            self._waiting, self._sent = None, time.perf_counter()

    def _tokens_of_text(self) -> list[int]:
        """The ids that spell the answer's text, without thinking, tags and a stop string."""
        text = self._reply.text
        size = len(text.encode("utf-8", "replace"))
        for end in range(self._whole, max(0, self._whole - AFTER), -1):
            pieces = self._pieces[:end]
            surplus = sum(map(len, pieces)) - size
            for start in range(end):
                # Only one start gives the right length, unless bytes that are not UTF-8 became
                # a longer U+FFFD.
                if surplus < 0 and start:
                    break
                if (surplus == 0 or start == 0) and (
                    b"".join(pieces[start:]).decode("utf-8", "replace") == text
                ):
                    return self.tokens[start:end]
                surplus -= len(pieces[start])
        return []


def tag_tokens(model: Model, texts: Iterable[str] = PLAIN.all) -> frozenset[int]:
    """The control tokens that spell these tags. Other control tokens have no text."""
    return frozenset(t for text in texts for t in model.tokenize(text) if model.is_control(t))


def tokens_begun(begun: PromptMessage | None, model: Model) -> list[int]:
    """The ids of an answer to continue."""
    if begun is None:
        return []
    if begun.tokens and begun.identity == model.fingerprint:
        return list(begun.tokens)
    return list(model.tokenize_middle(begun.content))
