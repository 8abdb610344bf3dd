"""An engine whose answers come from a script, and chats with it."""

import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from lcp import commands
from lcp.chat.chat import Chat
from lcp.engine_interface import (
    Chunk,
    Constraint,
    Engine,
    Progress,
    PromptMessage,
    Reply,
    Request,
    Stats,
    TokenProb,
)
from lcp.engine_notices import EngineNotice, TemplateFault
from lcp.errors import LcpError, NotSupported
from lcp.remote.engine import RemoteEngine
from lcp.servers.address import parse
from lcp.session.conversation import Conversation, local_now
from lcp.session.log import Log
from lcp.session.store import Store
from lcp.settings import Layers
from lcp.terminal.screen import Screen
from lcp.worker import Task


@dataclass(frozen=True)
class Said:
    """One scripted answer. With `forever` it never ends by itself: it waits until it is stopped."""

    text: str = ""
    thinking: str = ""
    ended: str = "end"
    forever: bool = False
    reading: bool = False  # with `forever`: it reads the prompt for ever
    notice: EngineNotice | None = None


class Words:
    """An engine that counts a word as a token."""

    def __init__(self, size: int) -> None:
        self.size = size

    def count(self, messages: Sequence[PromptMessage]) -> int:
        assert messages, "templates cannot render an empty list"
        return sum(len(m.content.split()) for m in messages)

    def used(self, messages: Sequence[PromptMessage]) -> int:
        return min(self.count(messages), self.size) if messages else 0

    def counts_exactly(self, messages: Sequence[PromptMessage]) -> bool:
        return True

    def clip(self, text: str, n: int) -> str:
        return "".join(re.findall(r"\S+\s*", text)[-n:]) if n > 0 else ""

    def tokens(self, text: str) -> int:
        return len(text.split())

    def seconds_to_read(self, n: int) -> float:
        return 0.0


class ScriptedTemplate:
    """The chat template of a script."""

    thinks = takes_system = True

    def uses(self, *variables: str) -> bool:
        return "reasoning_effort" in variables

    def own_system(self, silent: bool = False) -> str:
        return ""


class ScriptedEngine(Words):
    """It gives the answers of the script in order, then "Answer 1.", "Answer 2." and so on.
    `asked` are the Requests it got."""

    def __init__(
        self, *answers: Said | str, size: int = 4096, fails: LcpError | None = None
    ) -> None:
        """`fails`: the error that loading raises."""
        super().__init__(size)
        self.identity = "scripted"
        self.name = ""
        self.ignored: Sequence[str] = ()
        self.counts = True
        self.asked: list[Request] = []
        self.variables: Mapping[str, Any] = {}
        self.raw = False
        self.template = ScriptedTemplate()
        self.made_with: Mapping[str, Any] = {"llama.cpp": "scripted"}
        self.cached = self.measured = 0
        self.stopped = self.closed = False
        self.loaded = 1.0
        self.restored: Path | None = None
        self.looked: str | None = None
        self._fails = fails
        script = (Said(a) if isinstance(a, str) else a for a in answers)
        self._answers = chain(script, (Said(f"Answer {n}.") for n in count(1)))

    def load(self, constraint: Constraint | None = None, saved: Path | None = None) -> Task[None]:
        def job(_: object) -> None:
            if self._fails:
                raise self._fails

        return _done(job)

    def restore(self, path: Path) -> Task[str]:
        self.restored = path
        return _done(lambda _: "")

    def with_recommended(self, layers: Layers) -> Layers:
        return layers

    def notices(self) -> list[str | TemplateFault]:
        return []

    def close(self) -> None:
        self.closed = True

    def look_ahead(
        self, messages: Sequence[PromptMessage], typed: str, max_tokens: int | None
    ) -> None:
        self.looked = typed

    def measure_speed(self, free: Callable[[], int | None]) -> None:
        self.measured += 1

    def run_soon(self, job: Callable[[], None]) -> Task[None]:
        return _done(lambda _: job())

    def rest(self) -> None:
        self.looked = None

    @property
    def ahead(self) -> tuple[int, int]:
        return 0, 0

    def save(self, path: Path) -> Task[Any]:
        return _done(_refuse)

    def prompt(self, messages: Sequence[PromptMessage]) -> list[tuple[int, str]]:
        raise NotSupported("A script has no tokens.")

    def token_text(self, token: int) -> str:
        raise NotSupported("A script has no tokens.")

    def probs(
        self,
        messages: Sequence[PromptMessage],
        answer: PromptMessage,
        free: Callable[[], int | None] = lambda: None,
    ) -> Task[list[TokenProb]]:
        return _done(_refuse)

    def observe(
        self, job: Any, tokens: int, free: Callable[[], int | None] = lambda: None
    ) -> Task[Any]:
        return _done(_refuse)

    def reply(self, request: Request) -> "ScriptedReply":
        self.stopped = False
        self.asked.append(request)
        return ScriptedReply(self, next(self._answers), self.count(request.messages))

    def stop(self) -> None:
        self.stopped = True


def new_chat(
    engine: Engine,
    layers: Layers | None = None,
    model: str = "scripted",
    *,
    store: Store | None = None,
    now: Callable[[], datetime] = local_now,
    **more: Any,
) -> Chat:
    """A chat whose screen is two StringIOs; `store` saves it. The model is not loaded."""
    conversation = Conversation.begin(now, model)
    log = store.create(conversation.opening) if store else Log.nowhere()
    screen = more.pop("screen", None) or Screen(io.StringIO(), io.StringIO())
    return Chat(engine, conversation, log, screen, model, layers or Layers(), **more)


@contextmanager
def server_chats(
    address: str, store: Store | None = None, key: str = "", **settings: Any
) -> Iterator[Callable[..., Chat]]:
    """A function that begins a chat with a server; the chats are closed at the end."""
    chats: list[Chat] = []

    def begin(address: str = address, headers: Any = None, **more: Any) -> Chat:
        layers = Layers(flags=settings | more)
        engine = RemoteEngine(parse(address), layers.resolve(), key, headers)
        chats.append(chat := new_chat(engine, layers, address, store=store))
        chat.load()
        chat.ready()
        return chat

    yield begin
    for chat in chats:
        chat.engine.close()
        for console in (chat.screen._err, chat.screen._out):
            assert isinstance(console.file, io.StringIO)
            assert not key or key not in console.file.getvalue()


def weighed(chat: Chat) -> None:
    """Wait until the typed message is counted."""
    deadline = time.monotonic() + 20
    while chat.typed._running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not chat.typed._running, "what is typed was not read in 20 s"
    chat.engine.run_soon(lambda: None).result()  # it is counted before this


def does(chat: Chat, line: str) -> str:
    """Run a command in a chat whose screen is a StringIO. Returns what it prints."""
    said = chat.screen._err.file
    assert isinstance(said, io.StringIO)
    said.seek(0)
    said.truncate()
    assert commands.run(chat, line) is None
    return said.getvalue()


def gbnf(rules: str) -> Constraint:
    """A grammar as a Constraint."""
    return Constraint("grammar", rules, "The grammar")


def _refuse(_: object) -> None:
    raise NotSupported("A script has no KV cache and no probabilities.")


def _done(job: Callable[[object], Any]) -> Task[Any]:
    """A task that has run already."""
    task = Task(job)
    task.run()
    return task


class ScriptedReply(Reply):
    """An answer that arrives word by word."""

    def __init__(self, engine: ScriptedEngine, said: Said, read: int) -> None:
        super().__init__(engine.asked[-1].sampling.seed or 7)
        self._engine = engine
        self._said = said
        begun = engine.asked[-1].begun or PromptMessage("assistant", "")
        self.text = begun.content
        self.notice = said.notice
        self.tokens = list(begun.tokens)
        self.before = len(self.tokens)
        self.sampled = self.tokens
        self.stats = Stats(prompt_tokens=read, read=read, ctx_size=engine.size)

    def __iter__(self) -> Iterator[Chunk | Progress]:
        said, total = self._said, self.stats.read
        yield Progress(0, 0, total // 2, total)
        if not said.reading:
            yield Progress(0, 0, total, total)
            yield from self._words()
        while said.forever and not self._engine.stopped:
            time.sleep(0.005)  # signal handlers run here
            if not said.reading:  # words without a pause are painted with the next ones
                yield Chunk("answer", "")
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


_: type[Engine] = ScriptedEngine  # mypy checks that they have all methods
