"""Builds a reply from the events of a stream: they come in on the worker thread, Chunks leave it.

An answer without a finish_reason is broken, whatever its status. lcp keeps what has arrived.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from lcp.answers import repetition
from lcp.answers.output_parser import OutputParser
from lcp.answers.thinking_tag_table import Tags
from lcp.engine_interface import (
    Chunk,
    Progress,
    Reply,
    Request,
    Stats,
)
from lcp.engine_notices import ConnectionLost
from lcp.errors import ServerError
from lcp.remote.events import ServerEvent, events, read
from lcp.remote.http_client import LARGEST, Broken, ServerAnswer
from lcp.remote.json_values import count, record
from lcp.remote.server_errors import Complaint, error_in, too_long
from lcp.worker import Emit

PACE_S = 0.03  # the least time between two Chunks: each one wakes the main thread
AFTER_S = 3.0  # to wait after the finish_reason for the usage and the end of the stream
SLACK = 1024  # how many tokens more than the context an answer may have; then it is endless


class Listener:
    """Turns the events of one answer into Chunks and statistics."""

    def __init__(
        self, reply: Reply, request: Request, emit: Emit, *,
        size: int, told_size: int, expected: int, cached_before: int, tags: Tags, host: str,
    ) -> None:  # fmt: skip
        """`told_size`: the size of the server's context; 0 if it does not tell. `expected`: about
        the tokens of the prompt. `cached_before`: how many tokens at its beginning are in the
        server's cache at the same position; others that it reuses were moved."""
        self._reply, self._request, self._emit = reply, request, emit
        self._size, self._expected, self._cached_before = size, expected, cached_before
        self.told_size, self._host = told_size, host
        self._parser = OutputParser(request.stop, "", tags)
        if request.begun and request.begun.content:
            self._parser.begin_answer()
        self._parser.after_thinking = bool(request.begun and request.begun.thinking)
        self._pieces: list[str] = []  # the text of each event, about a token each
        self._waiting: Chunk | None = None
        self._sent = self._first = self._last = self._first_text = 0.0
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}
        self._progress: Progress | None = None
        self.ended = ""  # why the server or lcp ended it; "" if it goes on
        self._cut = False  # whether lcp ended it

    @property
    def has_begun(self) -> bool:
        """Whether any part of the answer has arrived."""
        return bool(self._pieces)

    def listen(self, answer: ServerAnswer) -> None:
        """Process the whole answer. Broken, Cut or ServerError if it ends too early."""
        answer.when_idle = self._send
        for value in _values(answer):
            complaint = error_in(value, answer.hide)
            if complaint.text:
                raise self._failed(complaint)
            event = read(value)
            self._take(event)
            if event.ended and not self.ended:
                self.ended = "text" if event.stopped else event.ended
                answer.until = time.monotonic() + AFTER_S
            if self._cut:
                return

    def _failed(self, complaint: Complaint) -> Exception:
        if self.has_begun:
            return Broken(complaint.text)
        if complaint.too_long:
            return too_long(self._host, complaint)
        return ServerError(f"{self._host} failed: {complaint.text}", retry_after=None)

    def _take(self, event: ServerEvent) -> None:
        self._usage = event.usage or self._usage
        self._timings = event.timings or self._timings
        if event.progress:
            self._read(event.progress)
        self._reply.probs += event.probs
        if not (event.thinking or event.text):
            return
        self._last = time.perf_counter()
        self._first = self._first or self._last
        if not self._pieces:
            self._reading_ended()
        self._pieces.append(event.thinking or event.text)
        if event.thinking:
            self._parser.after_thinking = True
            self._give(Chunk("thinking", event.thinking))
        if event.text:
            for chunk in self._parser.feed(event.text.encode("utf-8", "replace")):
                self._give(chunk)
        self._check()

    def _check(self) -> None:
        """End the answer at a stop string, or if it would never end."""
        if self._parser.stopped:
            self._cut, self.ended = True, "text"
        n = len(self._pieces)
        look = self._request.loop_guard and n % repetition.EVERY == 0
        if look and (period := repetition.period(self._pieces)):
            self._reply.notice = repetition.repetition(self._pieces, period)
            self._cut, self.ended = True, "loop"
        most = self._request.max_tokens or self.told_size
        if most and n > most + SLACK:
            self._reply.notice = ConnectionLost(
                f"lcp closed it, because the answer exceeds the limit of {most:,} tokens"
            )
            self._cut, self.ended = True, "endless"

    def _read(self, values: Mapping[str, Any]) -> None:
        """Emit the progress of reading the prompt, as llama-server reports it."""
        total, kept = count(values.get("total")), count(values.get("cache"))
        done = max(0, count(values.get("processed")) - kept)
        more = kept - self._cached_before  # than were in their place
        moved = max(0, more) if self._request.move else 0
        self._progress = Progress(kept, moved, done, total - kept, max(0, -more))
        if done < total - kept:
            self._emit(self._progress)

    def _reading_ended(self) -> None:
        """Emit that the prompt is read, so that chat/ names the turns that left the window."""
        known = self._progress
        if known:
            self._progress = replace(known, done=known.total)
            self._emit(self._progress)
        else:  # lcp does not know what was cached, so it must not say that anything is read again
            self._emit(Progress(self._expected, 0, 0, 0))

    def _give(self, chunk: Chunk) -> None:
        reply = self._reply
        if chunk.kind == "thinking":
            reply.thinking += chunk.text
        else:
            reply.text += chunk.text
        self._first_text = self._first_text or time.perf_counter()
        waiting = self._waiting
        if waiting and waiting.kind == chunk.kind:
            chunk = replace(chunk, text=waiting.text + chunk.text, tokens=waiting.tokens)
        elif waiting:
            self._send()
        self._waiting = replace(chunk, tokens=chunk.tokens + 1)
        if time.perf_counter() - self._sent >= PACE_S:
            self._send()

    def _send(self) -> None:
        if self._waiting:
            self._emit(self._waiting)
            self._waiting, self._sent = None, time.perf_counter()

    def finish(self, ended: str) -> None:
        """Emit the rest of the text and set the statistics of the reply."""
        for chunk in self._parser.flush():
            self._give(chunk)
        self._send()
        if not self.has_begun and ended != "interrupted":
            self._reading_ended()
        reply, usage = self._reply, self._usage
        cached = record(usage.get("prompt_tokens_details")).get("cached_tokens")
        progress = self._progress
        prompt = count(usage.get("prompt_tokens"))
        kept = count(cached) if cached is not None else progress.kept if progress else 0
        if progress:
            prompt = prompt or progress.kept + progress.total
        prompt = prompt or self._expected
        said_tokens = count(usage.get("completion_tokens")) or len(self._pieces)
        known = progress or cached is not None
        asked = reply.asked
        now = time.perf_counter()
        decode_s = self._last - self._first
        reply.ended = ended
        reply.stats = Stats(
            prompt_tokens=prompt,
            reused=kept,
            moved=progress.moved if progress else 0,
            read=prompt - kept if known else 0,
            reply_tokens=said_tokens,
            ttft_s=(self._first_text or now) - asked,
            read_s=_read_seconds(self._timings) or (self._first or now) - asked,
            decode_s=decode_s,
            tokens_per_second=(said_tokens - 1) / decode_s if said_tokens > 1 and decode_s else 0.0,
            ctx_used=min(self._size, prompt + said_tokens),
            ctx_size=self._size,
        )

    @property
    def prompt_told(self) -> int:
        """The tokens of the prompt; 0 if the server did not tell."""
        return count(self._usage.get("prompt_tokens"))

    def reason(self) -> str:
        """Why the answer ended, as in lcp.engine_interface.Reply."""
        match self.ended:
            case "text":
                return "stop"
            case "length":
                return "full" if self._is_full() else "length"
            case "loop":
                return "length"
            case "endless":
                return "interrupted"
        return "end"

    def _is_full(self) -> bool:
        usage = self._usage
        new = count(usage.get("completion_tokens"))
        limit = self._request.max_tokens
        full = count(usage.get("prompt_tokens")) + new >= self._size - 1
        return full and not (limit and new >= limit)


def _read_seconds(timings: Mapping[str, Any]) -> float:
    """How long the server took to read the prompt, in seconds; 0 if it does not tell."""
    value = timings.get("prompt_ms")
    return value / 1000 if isinstance(value, int | float) else 0.0


def _values(answer: ServerAnswer) -> Iterator[Any]:
    """The events of an answer; the whole answer if it is not a stream."""
    if "json" not in answer.headers.get("content-type", ""):
        yield from events(answer.chunks())
        return
    data = b"".join(answer.chunks(LARGEST))
    with suppress(ValueError, RecursionError):
        yield json.loads(data)
        return
    raise Broken("the server sends something that is not JSON")
