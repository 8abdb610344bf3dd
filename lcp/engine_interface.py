"""The interface of an engine: the Engine protocol, and the values that it takes and returns.

An engine turns messages into answers. `lcp.engine` runs llama.cpp in this process, `lcp.remote`
uses a server. An engine raises NotSupported for what it cannot do.
Times are in seconds, sizes of a context in tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from lcp.engine_notices import EngineNotice, TemplateFault
from lcp.settings import Layers, Sampling, Settings
from lcp.worker import Task

# What an engine takes


@dataclass(frozen=True)
class PromptMessage:
    """A message of a prompt. An answer may have the ids of its `tokens` and the `identity` of the
    model that sampled them, so that the same tokens are in the next prompt for this model."""

    role: str  # system | user | assistant
    content: str
    thinking: str = ""
    tokens: tuple[int, ...] = ()
    identity: str = ""


@dataclass(frozen=True)
class Constraint:
    """What an answer must match: a JSON schema, a regular expression or a GBNF grammar. Errors call
    it by its `name`: a file, or "The schema"."""

    kind: Literal["schema", "regex", "grammar"]
    text: str
    name: str


@dataclass(frozen=True)
class Request:
    """A request for one answer."""

    messages: Sequence[PromptMessage]
    sampling: Sampling
    max_tokens: int | None = None
    stop: Sequence[str] = ()  # strings that end the answer
    thinking_tokens: int | None = None  # the most tokens of thinking
    begun: PromptMessage | None = None  # the answer to continue; its tokens include the thinking
    move: bool = False  # cached tokens may be moved over a gap
    constraint: Constraint | None = None  # applies to the answer, not to its thinking
    loop_guard: bool = False  # stop an answer that repeats itself
    speculate: bool = False  # the engine may draft tokens that the text repeats
    chosen: frozenset[str] = frozenset()  # the settings that a person chose, by name
    probs: bool = False  # a person may want the probabilities of its tokens

    @classmethod
    def by(
        cls, settings: Settings, messages: Sequence[PromptMessage], done: int = 0, **more: Any
    ) -> Request:
        """A request with these settings for an answer that already has `done` tokens."""
        limit = settings.max_tokens
        return cls(
            messages,
            settings.sampling,
            max_tokens=limit and limit - done,
            stop=settings.stop,
            thinking_tokens=settings.thinking_tokens,
            loop_guard=settings.loop_guard == "on",
            speculate=settings.speculate == "auto",
            chosen=settings.chosen,
            probs=settings.token_probs == "on",
            **more,
        )


# What an engine returns


@dataclass(frozen=True)
class Loading:
    """How much of the model is loaded, from 0 to 1."""

    fraction: float


@dataclass(frozen=True)
class Waiting:
    """The engine waits and cannot tell how long. `what`: for what, in words."""

    what: str


@dataclass(frozen=True)
class Progress:
    """Progress of reading the prompt, in tokens. `kept` tokens were in the KV cache, `moved` of
    them at another position; `done` of `total` new ones are read. About `lost` tokens were in the
    cache of a server after the last answer, and no longer are."""

    kept: int
    moved: int
    done: int
    total: int
    lost: int = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of the answer's text, and how many tokens it was sampled in."""

    kind: Literal["thinking", "answer"]
    text: str
    tokens: int = 0


@dataclass(frozen=True)
class Alternative:
    """A token that the model might have sampled, and its probability."""

    token: int
    text: str
    p: float
    ends: bool = False  # it ends the answer


@dataclass(frozen=True)
class TokenProb:
    """A token of an answer and its probability; `others` are the most likely tokens at its place,
    the most likely first."""

    token: int
    text: str
    p: float
    others: tuple[Alternative, ...]


@dataclass(frozen=True)
class Stats:
    """The statistics of one answer."""

    prompt_tokens: int = 0
    reused: int = 0  # tokens that were in the KV cache
    moved: int = 0
    read: int = 0
    reply_tokens: int = 0
    dropped_turns: int = 0
    ttft_s: float = 0.0  # from the question to the first text
    read_s: float = 0.0
    decode_s: float = 0.0  # from the first token to the last
    # (reply_tokens - 1) / decode_s: a step leads to each token but the first
    tokens_per_second: float = 0.0
    drafted: int = 0  # tokens that were evaluated before they were sampled
    accepted: int = 0  # those of them that were then sampled
    ctx_used: int = 0  # tokens in the KV cache, or of the conversation as it will be read again
    ctx_size: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The statistics for JSON, with times to a tenth of a millisecond."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}

    def followed_by(self, rest: Stats) -> Stats:
        """The statistics of an answer that `rest` continues after turns left the window."""
        tokens = self.reply_tokens + rest.reply_tokens
        seconds = self.decode_s + rest.decode_s
        return replace(
            self,
            moved=self.moved + rest.moved,
            reply_tokens=tokens,
            decode_s=seconds,
            tokens_per_second=(tokens - 2) / seconds if seconds else 0.0,
            ctx_used=rest.ctx_used,
            drafted=self.drafted + rest.drafted,
            accepted=self.accepted + rest.accepted,
            dropped_turns=rest.dropped_turns,
        )


# Sizes of a context, in tokens

AUTO_CTX = 8192  # by default, if the model was trained for as many
CTX_STEP = 256  # llama.cpp rounds a context up to a multiple of this
# At the end of the text being typed: the next letters may change them, so nobody reads them ahead.
HELD_BACK = 4


def padded(size: int) -> int:
    """The real size of a context of `size` tokens in llama.cpp."""
    return -(-size // CTX_STEP) * CTX_STEP


def room_in(size: int, max_tokens: int | None) -> int:
    """The most tokens of a prompt after which an answer of `max_tokens`, or of a quarter of the
    context, fits; at least half of the context."""
    return size - min(max_tokens or size // 4, size // 2)


Made = TypeVar("Made")


class Reply:
    """An answer while it is generated: iterate it for Progress, Waiting and Chunks. The engine's
    thread sets the fields; they are complete after that.

    `sampled` are the ids of all its tokens, `tokens` those of its text ([] if they do not spell the
    text). The first `before` of `sampled` are from the answer that it continues.
    """

    task: Task[None]

    def __init__(self, seed: int, begun: PromptMessage | None = None) -> None:
        """`begun`: the answer that it continues, if its text is not generated again."""
        self.seed = seed
        self.text, self.thinking = (begun.content, begun.thinking) if begun else ("", "")
        self.asked = time.perf_counter()
        self.tokens: list[int] = []
        self.sampled: list[int] = []
        self.before = 0
        self.ended = ""  # end | length | stop | interrupted | full
        self.notice: EngineNotice | None = None
        self.stats = Stats()
        self.stop_asked = False
        self.probs: list[TokenProb] = []  # if they come with the answer

    def __iter__(self) -> Iterator[Chunk | Progress | Waiting]:
        return iter(self.task)


class TemplateFacts(Protocol):
    """What a chat template does."""

    @property
    def thinks(self) -> bool:
        """Whether it supports thinking."""

    @property
    def takes_system(self) -> bool:
        """Whether it has a place for a system text."""

    def own_system(self, silent: bool = False) -> str:
        """The system text that it adds to a chat without one; with `silent`, to a chat whose system
        text is empty."""

    def uses(self, *variables: str) -> bool:
        """Whether it uses one of these variables."""


class Engine(Protocol):
    """One model. Call its methods from one thread; `stop`, `cached`, `loaded` and `ahead` from any.
    Facts about the model are known once `load` has ended."""

    variables: Mapping[str, Any]  # for the chat template, from the next prompt on
    raw: bool  # continue text as it is, without a chat template

    # loading and closing

    def load(self, constraint: Constraint | None = None, saved: Path | None = None) -> Task[None]:
        """Load the model, and prepare for answers with this constraint and for the KV cache in the
        file `saved`. Iterating gives Loading."""

    def close(self) -> None:
        """Stop everything and free the model. It may be called again."""

    def stop(self) -> None:
        """Stop the present answer or task. It is safe in a signal handler."""

    # facts about the model

    @property
    def loaded(self) -> float:
        """How much of the model is loaded, from 0 to 1."""

    @property
    def identity(self) -> str:
        """Identifies this model."""

    @property
    def name(self) -> str:
        """The name by which to find this model again; "" if it is the name that was given."""

    def with_recommended(self, layers: Layers) -> Layers:
        """These layers, with the settings that come with the model."""

    @property
    def ignored(self) -> Collection[str]:
        """The settings that have no effect with this engine."""

    @property
    def made_with(self) -> Mapping[str, Any]:
        """What else determines the tokens of an answer: versions, number formats."""

    @property
    def size(self) -> int:
        """The size of the context, in tokens."""

    @property
    def template(self) -> TemplateFacts:
        """What the chat template does."""

    def notices(self) -> list[str | TemplateFault]:
        """What a person should know about this model on this computer."""

    # counting

    @property
    def counts(self) -> bool:
        """Whether this engine counts tokens; otherwise, it estimates them."""

    @property
    def cached(self) -> int:
        """Tokens in the KV cache."""

    def count(self, messages: Sequence[PromptMessage]) -> int:
        """Tokens of the prompt that asks for an answer to these messages."""

    def used(self, messages: Sequence[PromptMessage]) -> int:
        """Tokens of the context that these messages take, at most its size. Never waits."""

    def counts_exactly(self, messages: Sequence[PromptMessage]) -> bool:
        """Whether used() is exact for these messages; otherwise, it is an estimate."""

    def tokens(self, text: str) -> int:
        """Tokens of a text."""

    def clip(self, text: str, n: int) -> str:
        """The end of a text, at most n tokens."""

    def seconds_to_read(self, n: int) -> float:
        """About how long it takes to read n tokens; 0 if that is not known yet."""

    # while a person types

    def look_ahead(
        self, messages: Sequence[PromptMessage], typed: str, max_tokens: int | None
    ) -> None:
        """Read these messages and the beginning of the next one in idle time."""

    def rest(self) -> None:
        """Stop reading ahead until the next `look_ahead`."""

    @property
    def ahead(self) -> tuple[int, int]:
        """How many tokens are read ahead, of how many."""

    def measure_speed(self, free: Callable[[], int | None]) -> None:
        """Measure in idle time what is fastest for this model, and store it for the next start.
        `free` returns the bytes of free memory. Any other call ends the measurement."""

    def run_soon(self, job: Callable[[], None]) -> Task[None]:
        """Call a function that counts tokens before any more idle work."""

    # answers

    def reply(self, request: Request) -> Reply:
        """Begin an answer."""

    # what an engine may not support: the method, or its task, raises NotSupported

    def save(self, path: Path) -> Task[int]:
        """Write the KV cache to a file. The result is its size in bytes; 0 if nothing was written.
        `stop` ends it."""

    def restore(self, path: Path) -> Task[str]:
        """Load the KV cache from a file, if there is one. The result is "", or why the file cannot
        be used, as the end of a sentence."""

    def prompt(self, messages: Sequence[PromptMessage]) -> list[tuple[int, str]]:
        """The tokens of a prompt: ids and texts."""

    def token_text(self, token: int) -> str:
        """The text of one token."""

    def probs(
        self,
        messages: Sequence[PromptMessage],
        answer: PromptMessage,
        free: Callable[[], int | None] = lambda: None,
    ) -> Task[list[TokenProb]]:
        """The probabilities of the tokens of an answer by this model; iterating gives Progress.
        `free` returns the bytes of free memory. After `stop`, it raises LcpError."""

    def observe(
        self,
        job: Callable[[Any, Callable[[str, int, int], None]], Made],
        tokens: int,
        free: Callable[[], int | None] = lambda: None,
    ) -> Task[Made]:
        """Run `job(observed, tell)`. `observed` is a new context for so many tokens, whose tensors
        can be watched (see lcp.look.observed_model); `tell` reports progress, which iterating gives
        as Progress. `free` returns the bytes of free memory. After `stop`, it raises LcpError."""
