"""Engine: model, context, template, sampler and decoder wired: messages in, a Reply out.

All slow work runs on the worker's thread; the Engine's methods are called from one other thread.
It knows no turns, no terminal and no files but the model's.
"""

import atexit
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.engine import probs, statefile
from lcp.engine.loading import Fit, Loaded, load, told
from lcp.engine.model import Model
from lcp.engine.native import StopByte
from lcp.engine.read_ahead import ReadAhead
from lcp.engine.reply import LlamaReply
from lcp.engine.worker import Emit, Job, Worker
from lcp.engines import Constraint, Loading, PromptMessage, Request, TokenProb
from lcp.settings import Settings
from lcp.thinking_tags import thinks

if TYPE_CHECKING:
    from lcp.engine.template import Template
    from lcp.engines import Engine

MEASURED = 32  # tokens from which on a reading tells the speed


class LlamaEngine:
    """One model ready to answer; close it before the program ends."""

    variables: Mapping[str, Any]  # what the chat template is told, from the next prompt on
    raw = False  # whether text is continued as it is, without a chat template
    loaded = 0.0  # share of the model that is in memory, while it is loaded

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        now: datetime,
        template: str | None = None,
        fit: Callable[[], Fit] | None = None,
        name: str = "",
    ) -> None:
        """`now` is the conversation's beginning, `template` Jinja source instead of the GGUF's,
        `fit` chooses the sizes, which else are what the settings say; `name` is what errors call
        the model, by default its file."""
        self._path = path
        self._name = name or path.name
        self._settings = settings
        self._choose = fit
        self._fit: Fit | None = None
        self._now = now
        self._template = template
        self.variables = settings.template_variables
        self._stop = StopByte()
        self._closing = False
        self._ahead = ReadAhead()
        self._reply: LlamaReply | None = None
        self._worker = Worker(idle=self._read_ahead)
        self._measured: tuple[object, list[TokenProb]] = (None, [])
        self._speed = 0.0  # tokens read per second, of the last prompt long enough to tell
        self._made: Loaded | None = None
        self._life = ExitStack()  # frees what was made, in the order llama.cpp needs
        atexit.register(self.close)  # leaving with a decode under way would crash in C

    # life

    def __enter__(self) -> "LlamaEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self, constraint: Constraint | None = None) -> Job[None]:
        """Load the model and make its context; iterate for Loading. `constraint` is one of the
        answers to come: what it needs of the model is made now."""
        return self._worker.submit(lambda emit: self._load(emit, constraint))

    def _load(self, emit: Emit, constraint: Constraint | None) -> None:
        def on_progress(fraction: float) -> bool:
            self.loaded = fraction
            emit(Loading(fraction))
            return not self._stop.is_set()

        self._fit = self._choose() if self._choose else None
        made = load(
            self._path,
            self._settings,
            self._fit,
            self._stop,
            self._life,
            on_progress,
            now=self._now,
            template=self._template,
            variables=lambda: self.variables,
            name=self._name,
            raw=lambda: self.raw,
        )
        if constraint:
            made.answering.prepare(constraint)
        self._ahead.begin(made.context, made.writer)
        self._made = made

    def close(self) -> None:
        """Stop what runs, then free everything, in the order llama.cpp needs."""
        if self._closing:
            return
        self._closing = True
        atexit.unregister(self.close)
        self._stop.set()
        self._worker.submit(lambda _: self._life.close())
        self._worker.close()

    def stop(self) -> None:
        """End the reply under way; safe in a signal handler."""
        if self._reply:
            self._reply.stop_asked = True
        self._stop.set()

    # facts, once loaded

    @property
    def _loaded(self) -> Loaded:
        assert self._made, "load() has not ended"
        return self._made

    @property
    def model(self) -> Model:
        """What was loaded."""
        return self._loaded.model

    @property
    def identity(self) -> str:
        """Tells this model from every other."""
        return self.model.fingerprint

    @property
    def recommended(self) -> Mapping[str, Any]:
        """The settings that the model's makers recommend in its file."""
        return self.model.sampling

    @property
    def size(self) -> int:
        """Tokens the context holds."""
        return self._loaded.context.size

    @property
    def made_with(self) -> dict[str, Any]:
        """What answers are computed with, beside the model."""
        made_by: dict[str, Any] = self._loaded.context.fingerprint
        return {name: made_by[name] for name in ("llama.cpp", "kv_type", "flash_attn")}

    def notices(self) -> list[str]:
        """What a person should know of this model here."""
        said = [*told(self._fit, self._settings.ctx_size, self.size)]
        said += [self._loaded.context.kind.told(), "" if self.raw else self._loaded.choice.notice]
        return [sentence for sentence in (*said, *self.model.ignored) if sentence]

    def looks_at(self, *variables: str) -> bool:
        """Whether the chat template looks at one of these variables."""
        return self._template_used.uses(*variables)

    @property
    def thinks(self) -> bool:
        """Whether the chat template says anything of thinking."""
        return thinks(self._template_used.source)

    @property
    def takes_system(self) -> bool:
        """Whether the chat template prints a system text where it belongs."""
        return self._template_used.takes_system

    def own_system(self, silent: bool = False) -> str:
        """The system text that the chat template itself has; see Template."""
        return self._template_used.own_system(silent)

    @property
    def _template_used(self) -> "Template":
        return self._loaded.choice.template

    @property
    def held(self) -> int:
        """Tokens in the cache; from any thread."""
        return len(self._made.context.tokens) if self._made else 0

    def room(self, max_tokens: int | None) -> int:
        """Tokens a prompt may have, so that an answer fits behind it."""
        return self._loaded.context.room(max_tokens)

    def count(self, messages: Sequence[PromptMessage]) -> int:
        """How many tokens the prompt of these messages has."""
        return len(self._loaded.writer.write(messages).tokens)

    def used(self, messages: Sequence[PromptMessage]) -> int:
        """How many tokens of the context these messages take before the next one is written; all
        of it where an answer ended because the context was full."""
        said = any(message.content for message in messages)
        return min(self._loaded.writer.count(messages), self.size) if said else 0

    def tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.model.tokenize(text, special=False))

    def clip(self, text: str, n: int) -> str:
        """The end of a text, of at most n tokens."""
        return self.model.text(self.model.tokenize(text, special=False)[-n:]) if n > 0 else ""

    def seconds_to_read(self, n: int) -> float:
        """About how long n tokens take to read here; 0 while nothing long was read yet."""
        return n / self._speed if self._speed else 0.0

    # while a person types

    def look_ahead(
        self, messages: Sequence[PromptMessage], typed: str, max_tokens: int | None
    ) -> None:
        """Read these messages, and what is typed of the next one, when there is time."""
        self._ahead.look(messages, typed, max_tokens)
        self._stop.clear()  # what stopped an answer does not stop this
        self._worker.nudge()

    def weigh(self, job: Callable[[], None]) -> Job[None]:
        """Call a function that counts tokens on the engine thread, between two steps of reading
        ahead: so the model cannot be freed meanwhile."""
        return self._worker.submit(lambda emit: job())

    def rest(self) -> None:
        """Read nothing ahead, until there is something again."""
        self._ahead.rest()

    @property
    def ahead(self) -> tuple[int, int]:
        """Tokens read ahead, of how many; (0, 0) before the model is loaded."""
        return self._ahead.progress

    def _read_ahead(self) -> bool:
        return not self._closing and self._ahead.step()

    # the cache in a file

    def save(self, path: Path) -> Job[int]:
        """Write what is held beside its conversation; its size in bytes, 0 if it cannot be or
        `stop` was called."""

        def job(_: Emit) -> int:
            self._stop.clear()
            state = self._made.context.save() if self._made else None
            if state is None:
                return 0
            made_by = self._loaded.context.fingerprint
            return statefile.write(path, state, made_by, self._stop.is_set)

        return self._worker.submit(job)

    def restore(self, path: Path) -> Job[str]:
        """Hold what was saved; why not, as the end of a sentence, or "" when all is well."""

        def job(_: Emit) -> str:
            context = self._loaded.context
            state = statefile.read(path, context.fingerprint)
            if isinstance(state, statefile.Unusable):
                return state.why
            if state is not None and not context.restore(state):
                return "does not fit this context"
            return ""

        return self._worker.submit(job)

    # the last prompt and answer, looked at

    def prompt(self, messages: Sequence[PromptMessage]) -> list[tuple[int, str]]:
        """The tokens of the prompt of these messages: ids and what they spell."""
        return [(t, self.spelled(t)) for t in self._loaded.writer.write(messages).tokens]

    def spelled(self, token: int) -> str:
        """What one token spells."""
        return self.model.text([token])

    def probs(
        self,
        messages: Sequence[PromptMessage],
        answer: Sequence[int],
        free: Callable[[], int | None] = lambda: None,
    ) -> Job[list[TokenProb]]:
        """How likely the tokens of an answer were; iterate for Progress. `free` tells the bytes
        that are free. What was measured last is not measured again. Ends early, with what there
        is, when `stop` is called."""

        def job(emit: Emit) -> list[TokenProb]:
            self._stop.clear()
            prompt = self._loaded.writer.write(messages).tokens
            key = (tuple(prompt), tuple(answer))
            if self._measured[0] != key:
                kv_type = self._settings.kv_type
                size = probs.check_room(self.model, len(prompt) + len(answer), kv_type, free())
                with closing(self._loaded.new_context(size, rows=probs.ROWS)) as context:
                    found = probs.measure(self.model, context, prompt, answer, emit)
                if len(found) < len(answer):
                    return found
                self._measured = (key, found)
            return self._measured[1]

        self._ahead.rest()
        self._stop.set()  # ends a step of reading ahead
        return self._worker.submit(job)

    # answers

    def reply(self, request: Request) -> LlamaReply:
        """Answer; the work begins at once, iterate the Reply for it."""
        chosen = request.sampling.seed
        reply = self._reply = LlamaReply(secrets.randbelow(2**32 - 1) if chosen is None else chosen)
        self._ahead.rest()
        self._stop.set()  # ends a step of reading ahead
        reply.task = self._worker.submit(lambda emit: self._answer(reply, request, emit))
        return reply

    def _answer(self, reply: LlamaReply, request: Request, emit: Emit) -> None:
        self._stop.clear()
        if reply.stop_asked:
            self._stop.set()
        self._loaded.answering.run(reply, request, emit)
        stats = reply.stats
        if stats.read >= MEASURED and stats.read_s > 0:
            self._speed = stats.read / stats.read_s


if TYPE_CHECKING:
    _: type[Engine] = LlamaEngine  # mypy compares them
