"""Counts the tokens of messages: what the server has told, and estimates of the rest.

An estimate starts from the longest beginning whose count is known, so only the newest messages can
be wrong.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lcp.engine_interface import PromptMessage
from lcp.errors import ServerError
from lcp.remote.discovery import ServerFacts
from lcp.remote.http_client import HttpClient
from lcp.remote.llama_server import COUNT_S, LlamaServer
from lcp.remote.request_body import prompt_fields

PER_TOKEN = 4.0  # characters per token, until a server tells the number
AROUND = 6  # tokens that a chat template puts around a message
LEAST = 200  # the shortest text, in characters, that changes PER_TOKEN
MOST = 4096  # beginnings whose counts are cached
SPARE = 1.05  # the safety factor of an estimate
QUIET_S = 10.0  # how long lcp estimates after a count that failed
TEXTS = 64  # texts whose counts are cached


class Tally:
    """What is known about the tokens of messages and texts. Its methods never wait."""

    def __init__(self) -> None:
        self.per_token = PER_TOKEN
        self._known: dict[int, int] = {}

    def note(self, messages: Sequence[PromptMessage], tokens: int) -> None:
        """Cache the server's count for these messages."""
        if tokens <= 0:
            return
        size = sum(len(m.content) for m in messages)
        if size >= LEAST:
            inside = max(1, tokens - AROUND * len(messages))
            self.per_token = max(1.0, min(8.0, size / inside))
        if len(self._known) > MOST:
            self._known.clear()
        self._known[_key(messages)] = tokens

    def forget(self) -> None:
        """Forget the counts, because the chat template now writes something else."""
        self._known.clear()

    def known(self, messages: Sequence[PromptMessage]) -> int | None:
        """The server's count for exactly these messages; None if there is none."""
        return self._known.get(_key(messages))

    def about(self, messages: Sequence[PromptMessage]) -> int:
        """The tokens of these messages: the known count, or an estimate."""
        base, rest = 0, 0
        for message, key in zip(messages, _keys(messages), strict=True):
            if (tokens := self._known.get(key)) is not None:
                base, rest = tokens, 0
            else:
                rest += self.text(message.content) + AROUND
        return base + rest

    def text(self, text: str) -> int:
        """About the tokens of a text."""
        return -int(-len(text) // self.per_token)


class TokenCounter:
    """Lets the server count if it can, for at most two seconds each time; otherwise estimates."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._ask: Callable[[Sequence[PromptMessage]], int] | None = None
        self._llama_server: LlamaServer | None = None
        self._quiet_until = 0.0
        self._texts: dict[str, int] = {}

    def begin(
        self,
        http: HttpClient,
        facts: ServerFacts,
        llama_server: LlamaServer | None,
        variables: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Set the server."""
        self._llama_server = llama_server

        def ask(messages: Sequence[PromptMessage]) -> int:
            asked = prompt_fields(facts.kind, facts.model, messages, variables())
            url = f"{http.address.base}/tokenize"
            return http.ask(url, asked, limit_s=COUNT_S).number("count")

        if facts.kind.counts:
            self._ask = llama_server.count if llama_server else ask

    def count(self, messages: Sequence[PromptMessage]) -> int:
        """Tokens of the prompt that asks for an answer to these messages."""
        if (known := self.tally.known(messages)) is not None:
            return known
        ask = self._ask
        found = self._counted(lambda: ask(messages)) if ask else 0
        if not found:
            return int(self.tally.about(messages) * SPARE)
        self.tally.note(messages, found)
        return found

    def tokens(self, text: str) -> int:
        """Tokens of a text."""
        llama_server = self._llama_server
        if llama_server is None or not text:
            return self.tally.text(text)
        if text not in self._texts:
            found = self._counted(lambda: len(llama_server.tokenize(text)))
            if not found:
                return self.tally.text(text)
            if len(self._texts) >= TEXTS:
                self._texts.clear()
            self._texts[text] = found
        return self._texts[text]

    def clip(self, text: str, n: int) -> str:
        """The end of a text, at most n tokens."""
        while n > 0 and text:
            text = text[-max(1, int(n * self.tally.per_token)) :]
            if (have := self.tokens(text)) <= n:
                return text
            text = text[len(text) * (have - n) // have + 1 :]
        return ""

    def _counted(self, ask: Callable[[], int]) -> int:
        """The server's count; 0 if it does not count or is too slow."""
        if time.monotonic() < self._quiet_until:
            return 0
        try:
            return ask()
        except ServerError as error:
            if error.status is None:
                self._quiet_until = time.monotonic() + QUIET_S
            return 0


def _key(messages: Sequence[PromptMessage]) -> int:
    return [0, *_keys(messages)][-1]


def _keys(messages: Sequence[PromptMessage]) -> Iterator[int]:
    """A hash of each beginning of the messages."""
    key = 0
    for message in messages:
        key = hash((key, message.role, message.content))
        yield key
