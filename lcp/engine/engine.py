"""The engine of llama.cpp: messages in, a reply out.

Slow work runs on the worker's thread; the methods are called from one other thread.
"""

import atexit
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.engine import kv_cache_file, probs
from lcp.engine.llama_library import StopByte, library
from lcp.engine.loading import Loaded, LoadPlan, LoadRequest, load, notices, with_flash_attention
from lcp.engine.model import Model
from lcp.engine.read_ahead import ReadAhead
from lcp.engine.speed_test import Speeds, SpeedTest, measure
from lcp.engine_interface import (
    Constraint,
    Engine,
    Loading,
    Made,
    PromptMessage,
    Reply,
    Request,
    TokenProb,
)
from lcp.engine_notices import TemplateFault
from lcp.errors import NotSupported
from lcp.machine import physical_cores
from lcp.settings import Layers, Settings
from lcp.worker import Emit, Task, Worker

if TYPE_CHECKING:
    from lcp.engine.template import Template

_LOADING_S = 0.1  # between two reports of how much is loaded
MEASURED = 32  # the shortest prompt, in tokens, whose speed counts


class LlamaEngine:
    """See lcp.engine_interface.Engine. Close it before the program ends."""

    variables: Mapping[str, Any]
    raw = False
    loaded = 0.0
    name = ""  # the model keeps the name by which it was found
    ignored: Collection[str] = ()  # all settings have an effect
    counts = True  # lcp counts tokens, it does not estimate them

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        now: datetime,
        template: str | None = None,
        plan: Callable[[], LoadPlan] | None = None,
        name: str = "",
    ) -> None:
        """`now`: the beginning of the conversation. `template`: Jinja source instead of the file's.
        `plan` chooses the sizes; without it, they come from the settings. `name`: what errors call
        the model, by default its file name."""
        self._request = LoadRequest(
            path, settings, None, now, template, name or path.name,
            variables=lambda: self.variables, raw=lambda: self.raw,
        )  # fmt: skip
        self._choose = plan
        self.variables = settings.template_variables
        self._stop = StopByte()
        self._closing = False
        self._ahead = ReadAhead()
        self._reply: Reply | None = None
        self._speed_test = SpeedTest()
        self._worker = Worker(idle=self._idle)
        self._measured = probs.LastMeasured()
        self._speed = 0.0  # tokens per second of the last long prompt
        self._made: Loaded | None = None
        self._life = ExitStack()  # frees everything in the order that llama.cpp needs
        atexit.register(self.close)  # an exit during a decode would crash in C

    # life

    def __enter__(self) -> "LlamaEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, constraint: Constraint | None = None, saved: Path | None = None) -> Task[None]:
        """Load the model, prepare what this constraint needs, and create a context that can use the
        KV cache in the file `saved`."""
        return self._worker.submit(lambda emit: self._load(emit, constraint, saved))

    def _load(self, emit: Emit, constraint: Constraint | None, saved: Path | None) -> None:
        told = -_LOADING_S

        def on_progress(fraction: float) -> bool:
            nonlocal told
            self.loaded, now = fraction, time.monotonic()
            if now - told >= _LOADING_S or fraction == 1:  # llama.cpp calls it for every tensor
                told = now
                emit(Loading(fraction))
            return not self._stop.is_set()

        plan = self._choose() if self._choose else None
        library()
        on_progress(0.0)  # Python has nothing to do from here on: who waits for it goes on
        settings = with_flash_attention(self._request.settings, plan, saved)
        self._request = replace(self._request, settings=settings, plan=plan)
        made = load(self._request, self._stop, self._life, on_progress)
        if constraint:
            made.answering.prepare(constraint)
        self._ahead.begin(made.context, made.writer)
        self._life.callback(self._speed_test.end)
        self._speed_test.begin(
            lambda free: measure(made, self._stop, physical_cores(), free),
            plan.keep_speeds if plan else None,
            known=bool(plan and plan.threads),
        )
        self._made = made

    def close(self) -> None:
        """Stop everything and free the model. It may be called again."""
        if self._closing:
            return
        self._closing = True
        atexit.unregister(self.close)
        self._stop.set()
        self._worker.submit(lambda _: self._life.close())
        self._worker.close()

    def stop(self) -> None:
        """Stop the present answer or task. It is safe in a signal handler."""
        if self._reply:
            self._reply.stop_asked = True
        self._stop.set()

    # facts about the loaded model

    @property
    def _loaded(self) -> Loaded:
        assert self._made, "load() has not ended"
        return self._made

    @property
    def model(self) -> Model:
        """The loaded model."""
        return self._loaded.model

    @property
    def identity(self) -> str:
        """Identifies this model."""
        return self.model.fingerprint

    def with_recommended(self, layers: Layers) -> Layers:
        """These layers, with the settings that the model's makers recommend in its file."""
        return replace(layers, model_file=self.model.sampling)

    @property
    def size(self) -> int:
        """The size of the context, in tokens."""
        return self._loaded.context.size

    @property
    def made_with(self) -> dict[str, Any]:
        """What else determines the tokens of an answer."""
        made_by: dict[str, Any] = self._loaded.context.fingerprint
        return {name: made_by[name] for name in ("llama.cpp", "kv_type", "flash_attn")}

    def notices(self) -> list[str | TemplateFault]:
        """What a person should know about this model on this computer."""
        sentences: list[str | TemplateFault] = [
            *notices(self._request.plan, self._request.settings.ctx_size, self.size)
        ]
        sentences += [
            self._loaded.context.kind.notice(),
            "" if self.raw else self._loaded.choice.notice,
        ]
        return [sentence for sentence in (*sentences, *self.model.ignored) if sentence]

    @property
    def template(self) -> "Template":
        """The chat template."""
        return self._loaded.choice.template

    @property
    def cached(self) -> int:
        """Tokens in the KV cache. Any thread may call it."""
        return len(self._made.context.tokens) if self._made else 0

    def count(self, messages: Sequence[PromptMessage]) -> int:
        """Tokens of the prompt that asks for an answer to these messages."""
        return len(self._loaded.writer.write(messages).tokens)

    def used(self, messages: Sequence[PromptMessage]) -> int:
        """Tokens of the context that these messages take, at most its size."""
        has_text = any(message.content for message in messages)
        return min(self._loaded.writer.count(messages), self.size) if has_text else 0

    def counts_exactly(self, messages: Sequence[PromptMessage]) -> bool:
        return True

    def tokens(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.model.tokenize(text, special=False))

    def clip(self, text: str, n: int) -> str:
        """The end of a text, at most n tokens."""
        return self.model.text(self.model.tokenize(text, special=False)[-n:]) if n > 0 else ""

    def seconds_to_read(self, n: int) -> float:
        """About how long it takes to read n tokens; 0 if no long prompt has been read yet."""
        speed = self._speed or self._ahead.speed
        return n / speed if speed else 0.0

    # while a person types

    def look_ahead(
        self, messages: Sequence[PromptMessage], typed: str, max_tokens: int | None
    ) -> None:
        """Read these messages and the beginning of the next one in idle time."""
        self._ahead.look(messages, typed, max_tokens)
        self._stop.clear()  # stopping an answer does not stop this
        self._worker.nudge()

    def run_soon(self, job: Callable[[], None]) -> Task[None]:
        """Call a function that counts tokens on the engine thread, where nothing frees the model in
        the meantime. A person is typing, so the speed test ends."""

        def work(_: Emit) -> None:
            self._speed_test.end()
            job()

        self._speed_test.stop()
        return self._worker.submit(work)

    def rest(self) -> None:
        """Stop reading ahead until the next `look_ahead`."""
        self._ahead.rest()

    @property
    def ahead(self) -> tuple[int, int]:
        """How many tokens are read ahead, of how many."""
        return self._ahead.progress

    def measure_speed(self, free: Callable[[], int | None]) -> None:
        """Measure in idle time what is fastest for this model."""
        self._speed_test.ask(free)
        self._worker.nudge()

    def speeds(self, free: int | None = None) -> Task[Speeds]:
        """Measure now what is fastest for this model, and store it unless the computer is busy.
        `free`: bytes of free memory. Raises LcpError if it cannot be measured."""
        return self._worker.submit(lambda _: self._speed_test.now(free))

    def _idle(self) -> bool:
        """Do a step of idle work while a person reads or types."""
        return not self._closing and (self._ahead.step() or self._speed_test.step())

    def _stop_idling(self) -> None:
        """Stop reading ahead and measuring. The next task clears the stop byte."""
        self._ahead.rest()
        self._speed_test.stop()
        self._stop.set()

    # the cache in a file

    def save(self, path: Path) -> Task[int]:
        """Write the KV cache to a file. The result is its size in bytes; 0 if none was written."""

        def job(_: Emit) -> int:
            self._speed_test.end()
            state = self._made.context.save() if self._made else None
            if state is None:
                return 0
            made_by = self._loaded.context.fingerprint
            return kv_cache_file.write(path, state, made_by, self._stop.is_set)

        self._ahead.rest()
        self._speed_test.stop()
        self._stop.clear()  # here, so that a `stop` from now on ends the writing
        return self._worker.submit(job)

    def restore(self, path: Path) -> Task[str]:
        """Load the KV cache from a file. The result is "", or why it cannot be used."""

        def job(_: Emit) -> str:
            context = self._loaded.context
            state = kv_cache_file.read(path, context.fingerprint)
            if isinstance(state, kv_cache_file.Unusable):
                return state.why
            if state is not None and not context.restore(state):
                return "does not fit this context"
            return ""

        return self._worker.submit(job)

    # the tokens of a prompt and of an answer

    def prompt(self, messages: Sequence[PromptMessage]) -> list[tuple[int, str]]:
        """The tokens of a prompt: ids and texts."""
        return [(t, self.model.spelled(t)) for t in self._loaded.writer.write(messages).tokens]

    def token_text(self, token: int) -> str:
        """The text of one token."""
        return self.model.text([token])

    def probs(
        self,
        messages: Sequence[PromptMessage],
        answer: PromptMessage,
        free: Callable[[], int | None] = lambda: None,
    ) -> Task[list[TokenProb]]:
        """The probabilities of an answer's tokens. The last result is cached."""

        def work(emit: Emit) -> list[TokenProb]:
            prompt = self._loaded.writer.write(messages).tokens
            if not (wanted := answer.tokens):
                raise NotSupported("This model did not generate this answer.", again=True)
            if (known := self._measured.known(prompt, wanted)) is not None:
                return known

            def job(observed: Any, _: object) -> list[TokenProb]:
                return self._measured.measure(observed, prompt, wanted, emit)

            tokens, kv_type = len(prompt) + len(wanted), self._request.settings.kv_type
            return self._beside(job, tokens, free, emit, kv_type=kv_type, watched=False)

        self._stop_idling()
        return self._worker.submit(work)

    def observe(
        self,
        job: Callable[[Any, Callable[[str, int, int], None]], Made],
        tokens: int,
        free: Callable[[], int | None] = lambda: None,
    ) -> Task[Made]:
        """Run `job(observed, tell)` with a new context whose tensors can be watched."""
        self._stop_idling()
        return self._worker.submit(lambda emit: self._beside(job, tokens, free, emit))

    def _beside(
        self, job: Callable[..., Made], tokens: int, free: Callable[[], int | None], emit: Emit,
        **more: Any,
    ) -> Made:  # fmt: skip
        from lcp.engine.observer import run_beside

        self._speed_test.end()
        threads = self._request.settings.threads or physical_cores()
        return run_beside(self.model, self._stop, job, tokens, threads, free(), emit, **more)

    # answers

    def reply(self, request: Request) -> Reply:
        """Begin an answer; iterate the reply."""
        chosen = request.sampling.seed
        reply = self._reply = Reply(secrets.randbelow(2**32 - 1) if chosen is None else chosen)
        self._stop_idling()
        reply.task = self._worker.submit(lambda emit: self._answer(reply, request, emit))
        return reply

    def _answer(self, reply: Reply, request: Request, emit: Emit) -> None:
        self._speed_test.end()
        self._stop.clear()
        if reply.stop_asked:
            self._stop.set()
        self._loaded.answering.run(reply, request, emit)
        stats = reply.stats
        if stats.read >= MEASURED and stats.read_s > 0:
            self._speed = stats.read / stats.read_s


if TYPE_CHECKING:
    _: type[Engine] = LlamaEngine  # mypy checks that it has all methods
