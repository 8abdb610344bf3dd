"""The engine of a server: messages in, a reply out. See lcp.engine_interface.Engine.

Requests that a person waits for run on the worker's thread. A count that fails is estimated.
"""

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.answers.thinking_tag_table import NONE, tags
from lcp.common_prefix import common_prefix
from lcp.engine_interface import (
    Constraint,
    Engine,
    Loading,
    Made,
    PromptMessage,
    Reply,
    Request,
    TokenProb,
    Waiting,
)
from lcp.engine_notices import TemplateFault
from lcp.errors import LcpError, Miscounted, NotSupported, ServerError
from lcp.recommended_settings import usable
from lcp.remote.counting import TokenCounter
from lcp.remote.discovery import ServerFacts, discover
from lcp.remote.events import beginning, spelling
from lcp.remote.http_client import Cut, HttpClient
from lcp.remote.llama_server import LlamaServer
from lcp.remote.notices import notices
from lcp.remote.read_ahead import ServerReadAhead
from lcp.remote.reply import Listener
from lcp.remote.request_body import answer_body, constraint_fields, text_of
from lcp.remote.retrying_client import LOADING_S, RetryingClient
from lcp.servers.address import ServerAddress
from lcp.settings import Layers, Sampling, Settings
from lcp.worker import Emit, Task, Worker

ASSUMED = 4096  # tokens of the context, if the server does not tell
KEPT = 32  # answers whose probabilities are cached
# What a server determines when it starts.
FIXED = ("n_gpu_layers", "threads", "kv_type", "flash_attn", "kv_files", "speculate")


class RemoteEngine:
    """One model on one server. Close it before the program ends."""

    raw = False
    loaded = 0.0

    def __init__(
        self,
        address: ServerAddress,
        settings: Settings,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._address, self._settings = address, settings
        self._has_key = bool(key)
        self._http = HttpClient(address, key, headers)
        self._variables: Mapping[str, Any] = settings.template_variables
        self._chosen: Collection[str] = settings.chosen
        self._stopped = self._closing = False
        self._reply: Reply | None = None
        self._ahead = ServerReadAhead()
        self._retrying_client = RetryingClient(self._http, self._is_stopped)
        self._counter = TokenCounter()
        self._probs: dict[str, list[TokenProb]] = {}
        self._last: Sequence[PromptMessage] = ()  # what is in the server's cache
        self._facts: ServerFacts | None = None
        self._llama_server: LlamaServer | None = None
        self._size = settings.ctx_size or ASSUMED
        self._worker = Worker(idle=self._read_ahead)

    # loading and closing

    def __enter__(self) -> "RemoteEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, constraint: Constraint | None = None, saved: object = None) -> Task[None]:
        """Find out the facts about the server."""
        return self._worker.submit(lambda emit: self._load(emit, constraint))

    def _load(self, emit: Emit, constraint: Constraint | None) -> None:
        until = time.monotonic() + LOADING_S

        def wait() -> None:
            if time.monotonic() > until:
                raise ServerError(f"{self._address.host} is still loading its model. Try later.")
            emit(Waiting(f"{self._address.host} is loading its model; Ctrl-C stops"))
            self._retrying_client.sleep(0.5)

        self._stopped = False
        emit(Loading(0.0))
        try:
            facts = discover(self._http, self._is_stopped, wait)
        except Cut:
            raise LcpError(f"Stopped before {self._address.host} answered.") from None
        if constraint:
            constraint_fields(facts.kind, constraint)
        llama_server = None
        if facts.kind.reads_ahead:
            llama_server = LlamaServer(self._http, facts, self._kwargs)
            with suppress(LcpError):
                own = llama_server.own_system(False), llama_server.own_system(True)
                facts = replace(facts, own=own)
        self._llama_server = llama_server
        asked = self._settings.ctx_size
        self._size = min(asked or facts.size, facts.size) if facts.size else self._size
        self._facts = facts
        self._counter.begin(self._http, facts, llama_server, self._kwargs)
        if llama_server:
            self._ahead.begin(llama_server, self._size)
        self.loaded = 1.0

    def close(self) -> None:
        """Stop everything. It may be called again."""
        if self._closing:
            return
        self._closing = True
        self.stop()
        self._ahead.rest()
        self._worker.close()

    def stop(self) -> None:
        """Close the connection of the present answer or task. It is safe in a signal handler."""
        if self._reply:
            self._reply.stop_asked = True
        self._stopped = True

    def _is_stopped(self) -> bool:
        return self._stopped or self._closing

    # facts about the server and its model

    @property
    def facts(self) -> ServerFacts:
        """What the server tells about itself."""
        assert self._facts, "load() has not ended"
        return self._facts

    @property
    def variables(self) -> Mapping[str, Any]:
        """For the chat template, from the next prompt on."""
        return self._variables

    @variables.setter
    def variables(self, variables: Mapping[str, Any]) -> None:
        if variables != self._variables:
            self._counter.tally.forget()
        self._variables = variables

    def _kwargs(self) -> dict[str, Any]:
        """The variables of the chat template that differ from the server's defaults."""
        variables = dict(self._variables)
        if "think" not in self._chosen and variables.get("enable_thinking") is True:
            del variables["enable_thinking"]
        return variables

    @property
    def name(self) -> str:
        return self._address.with_model(self.facts.model).name

    identity = name

    def with_recommended(self, layers: Layers) -> Layers:
        """These layers, with the server's own sampling settings; None for those that it does not
        report."""
        known, _ = usable(self.facts.defaults, "server")
        return replace(layers, server=dict.fromkeys(vars(Sampling())) | known)

    @property
    def ignored(self) -> Collection[str]:
        taken = {"seed", *self.facts.kind.samplers}
        slide = () if self.facts.kind.moves else ("slide",)
        return [*FIXED, *slide, *(name for name in vars(Sampling()) if name not in taken)]

    @property
    def made_with(self) -> Mapping[str, Any]:
        facts = self.facts
        return {"server": f"{facts.kind.name} {facts.build}".strip()}

    @property
    def size(self) -> int:
        return self._size

    @property
    def template(self) -> ServerFacts:
        return self.facts

    def notices(self) -> list[str | TemplateFault]:
        return [*notices(self.facts, self._address, self._settings, self._size, self._has_key)]

    # counting

    @property
    def counts(self) -> bool:
        return self.facts.kind.counts

    @property
    def cached(self) -> int:
        """About how many tokens are in the server's cache."""
        return min(self._size, self._counter.tally.about(self._last)) if self._last else 0

    def count(self, messages: Sequence[PromptMessage]) -> int:
        if self.raw:
            return self.tokens(text_of(messages))
        return self._counter.count(messages)

    def used(self, messages: Sequence[PromptMessage]) -> int:
        has_text = any(message.content for message in messages)
        return min(self._counter.tally.about(messages), self._size) if has_text else 0

    def counts_exactly(self, messages: Sequence[PromptMessage]) -> bool:
        return not self.used(messages) or self._counter.tally.known(messages) is not None

    def tokens(self, text: str) -> int:
        return self._counter.tokens(text)

    def clip(self, text: str, n: int) -> str:
        return self._counter.clip(text, n)

    def seconds_to_read(self, n: int) -> float:
        return 0.0

    # while a person types

    def look_ahead(
        self, messages: Sequence[PromptMessage], typed: str, max_tokens: int | None
    ) -> None:
        if not self.raw:
            self._ahead.look(messages, typed, max_tokens)
            self._worker.nudge()

    def rest(self) -> None:
        self._ahead.rest()

    @property
    def ahead(self) -> tuple[int, int]:
        return self._ahead.progress

    def measure_speed(self, free: Callable[[], int | None]) -> None:
        """Do nothing: lcp cannot make a server faster."""

    def run_soon(self, job: Callable[[], None]) -> Task[None]:
        return self._worker.submit(lambda emit: job())

    def _read_ahead(self) -> bool:
        if self._llama_server and self._last and not (self.raw or self._closing):
            self._counter.count(self._last)  # of an answer that was stopped, nobody told the number
        more = not self._closing and self._ahead.step(self._kept)
        if messages := self._ahead.read_for:  # the server has dropped what came after these
            self._last = self._last[: self._same(messages)]
        return more

    def _same(self, messages: Sequence[PromptMessage]) -> int:
        """How many of these messages are in the server's cache."""
        return common_prefix(
            [(m.role, m.content) for m in self._last], [(m.role, m.content) for m in messages]
        )

    def _kept(self, messages: Sequence[PromptMessage]) -> int:
        """About how many tokens at the beginning of these messages are in the server's cache."""
        return self._counter.tally.about(messages[: self._same(messages)])

    # answers

    def reply(self, request: Request) -> Reply:
        chosen = request.sampling.seed
        seed = secrets.randbelow(2**31 - 1) if chosen is None else chosen
        reply = self._reply = Reply(seed, request.begun)
        self._ahead.rest()  # ends a step of reading ahead
        reply.task = self._worker.submit(lambda emit: self._answer(reply, request, emit))
        return reply

    def _answer(self, reply: Reply, request: Request, emit: Emit) -> None:
        self._stopped = reply.stop_asked
        facts, kind = self.facts, self.facts.kind
        expected = self._counter.tally.about(request.messages)
        self._chosen = request.chosen
        asked = answer_body(facts, request, self._kwargs(), reply.seed, self.raw)
        if facts.size and request.max_tokens and not kind.moves:  # others refuse what is too long
            asked["max_tokens"] = max(1, min(request.max_tokens, self._size - expected))
        if self._llama_server and (slot := self._llama_server.slot()) is not None:
            asked["id_slot"] = slot
        known = NONE if self.raw else tags(facts.source or "")
        listener = Listener(
            reply, request, emit, size=self._size, told_size=facts.size, expected=expected,
            cached_before=self._kept(request.messages), tags=known, host=self._address.host,
        )  # fmt: skip
        page = "/completions" if self.raw else "/chat/completions"
        try:
            ended = self._retrying_client.ask(page, asked, listener, reply, emit)
        except Miscounted as error:
            self._correct(request.messages, error)
            raise
        listener.finish(ended)
        self._learn(listener, reply, request)

    def _correct(self, messages: Sequence[PromptMessage], error: Miscounted) -> None:
        """Correct the counts with the numbers in an error about a prompt that is too long."""
        if error.size:
            self._size = min(self._size, error.size)
        tally = self._counter.tally
        tally.note(messages, error.tokens or max(self._size, tally.about(messages)) + 1)

    def _learn(self, listener: Listener, reply: Reply, request: Request) -> None:
        """Cache what the server told about the tokens."""
        told, tally = listener.prompt_told, self._counter.tally
        if told and not self.raw and not request.begun:
            tally.note(request.messages, told)
        self._last = request.messages
        if not reply.thinking:  # which the next prompt lacks: what follows is not in its place
            self._last = [*request.messages, PromptMessage("assistant", reply.text)]
            if told:
                tally.note(self._last, told + reply.stats.reply_tokens)
        self._ahead.forget()
        if reply.probs:
            if len(self._probs) >= KEPT:
                self._probs.pop(next(iter(self._probs)))
            begun = request.begun.content if request.begun else ""
            self._probs[reply.text] = [*beginning(self._probs, begun), *reply.probs]

    # what a server may not support

    def save(self, path: Path) -> Task[int]:
        raise NotSupported("The KV cache is on the server: lcp cannot save it in a file.")

    def restore(self, path: Path) -> Task[str]:
        return self._worker.submit(lambda emit: "")

    def prompt(self, messages: Sequence[PromptMessage]) -> list[tuple[int, str]]:
        if self._llama_server is None:
            raise NotSupported(f"{self.facts.kind.name} does not show the tokens of a prompt.")
        text = text_of(messages) if self.raw else self._llama_server.prompt(messages)
        return self._llama_server.tokenize(text, whole=True)

    def token_text(self, token: int) -> str:
        raise NotSupported("lcp does not know the token numbers of a server.")

    def probs(
        self,
        messages: Sequence[PromptMessage],
        answer: PromptMessage,
        free: Callable[[], int | None] = lambda: None,
    ) -> Task[list[TokenProb]]:
        """The probabilities that came with the answer."""

        def rows(emit: Emit) -> list[TokenProb]:
            if not self.facts.kind.probs:
                raise NotSupported(f"{self.facts.kind.name} sends no probabilities of tokens.")
            found = spelling(self._probs.get(answer.content, []), answer.content)
            if not found:
                raise NotSupported(
                    "This answer came without the probabilities of its tokens.",
                    change={"token_probs": "on"},
                    again=True,
                )
            return found

        return self._worker.submit(rows)

    def observe(
        self,
        job: Callable[[Any, Callable[[str, int, int], None]], Made],
        tokens: int,
        free: Callable[[], int | None] = lambda: None,
    ) -> Task[Made]:
        raise NotSupported("A server does not show how its model computes.")


if TYPE_CHECKING:
    _: type[Engine] = RemoteEngine  # mypy checks that it has all methods
