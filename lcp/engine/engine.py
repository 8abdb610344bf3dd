"""Engine: model, context, template, sampler and decoder wired: messages in, a Reply out.

All slow work runs on the worker's thread; the Engine's methods are called from one other thread.
It knows no turns, no terminal and no files but the model's.
"""

import atexit
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lcp.engine.context import Context, Progress, Stopped
from lcp.engine.cores import physical_cores
from lcp.engine.decoder import Decoder
from lcp.engine.model import Model
from lcp.engine.native import StopByte
from lcp.engine.prompt import PromptWriter
from lcp.engine.reply import Reply, Request, Speech, tag_tokens
from lcp.engine.sampler import Sampler
from lcp.engine.template import Template
from lcp.engine.worker import Emit, Task, Worker
from lcp.errors import ContextFull
from lcp.settings import Settings

AUTO_CTX = 8192  # -c auto: what the model was trained for, at most this


@dataclass(frozen=True)
class Loading:
    """How much of the model is mapped, 0..1."""

    fraction: float


class Engine:
    """One model ready to answer; close it before the program ends."""

    def __init__(
        self, path: Path, settings: Settings, *, now: datetime, template: str | None = None
    ) -> None:
        """`now` is the conversation's beginning, `template` Jinja source instead of the GGUF's."""
        self._path = path
        self._settings = settings
        self._now = now
        self._template_source = template
        self._stop = StopByte()
        self._closing = False
        self._worker = Worker()
        self._model: Model | None = None
        self._context: Context | None = None
        atexit.register(self.close)  # leaving with a decode under way would crash in C

    # life

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def load(self) -> Task[None]:
        """Load the model and make its context; iterate for Loading."""
        return self._worker.submit(self._load)

    def _load(self, emit: Emit) -> None:
        s = self._settings

        def on_progress(fraction: float) -> bool:
            emit(Loading(fraction))
            return not self._stop.is_set()

        layers = -1 if s.n_gpu_layers is None else s.n_gpu_layers
        self._model = model = Model.load(self._path, layers, on_progress)
        self._template = Template(
            self._template_source or model.chat_template,
            now=self._now,
            bos=model.text([model.bos]) if model.bos >= 0 else "",
            eos=model.text([model.eos]) if model.eos >= 0 else "",
            name=model.path.name,
        )
        self._writer = PromptWriter(self._template, model)
        self._context = Context(
            model,
            s.ctx_size or min(model.n_ctx_train or AUTO_CTX, AUTO_CTX),
            self._stop,
            threads=s.threads or physical_cores(),
            kv_type=s.kv_type,
            flash_attn=s.flash_attn,
            offloaded=layers != 0,
        )
        self._tag_tokens = tag_tokens(model)

    def close(self) -> None:
        """Stop what runs, then free everything, in the order llama.cpp needs."""
        if self._closing:
            return
        self._closing = True
        atexit.unregister(self.close)
        self._stop.set()
        self._worker.submit(lambda _: self._free())
        self._worker.close()

    def _free(self) -> None:
        if self._context:
            self._context.close()
        if self._model:
            self._model.close()

    def stop(self) -> None:
        """End the reply under way; safe in a signal handler."""
        self._stop.set()

    # facts, once loaded

    @property
    def model(self) -> Model:
        assert self._model, "load() has not ended"
        return self._model

    @property
    def size(self) -> int:
        """Tokens the context holds."""
        assert self._context, "load() has not ended"
        return self._context.size

    @property
    def has_template(self) -> bool:
        """Whether the model brought a chat template; without one ChatML is used."""
        return not self._template.is_fallback

    def count(self, messages: Sequence[dict[str, Any]]) -> int:
        """How many tokens the prompt of these messages has."""
        return len(self._writer.write(messages, self._settings.think != "off").tokens)

    # answers

    def reply(self, request: Request) -> Reply:
        """Answer; the work begins at once, iterate the Reply for it."""
        chosen = request.sampling.seed
        reply = Reply(secrets.randbelow(2**32 - 1) if chosen is None else chosen)
        self._stop.clear()
        reply.task = self._worker.submit(lambda emit: self._answer(reply, request, emit))
        return reply

    def _answer(self, reply: Reply, request: Request, emit: Emit) -> None:
        context, model = self._context, self.model
        assert context
        # 1) Messages to tokens.
        prompt = self._writer.write(request.messages, request.think)
        decoder = Decoder(request.stop, prompt.tail)
        speech = Speech(reply, decoder, model, self._tag_tokens, emit)
        progress = Progress(0, 0, len(prompt.tokens))
        speech.clock.reading = speech.clock.now()
        try:
            # 2) Make the cache hold them; what stands there already is not read again.
            for progress in context.feed(prompt.tokens, prompt.boundary):
                emit(progress)
                if self._stop.is_set():
                    raise Stopped
            speech.clock.read = speech.clock.now()
            sampler = Sampler(model, request.sampling, reply.seed, prompt.tokens)
            try:
                ended = self._decode(context, sampler, speech, request.max_tokens)
            finally:
                sampler.close()
        except Stopped:
            ended = "interrupted"
        speech.finish(ended, prompt, progress)
        reply.stats = replace(reply.stats, ctx_used=len(context.tokens), ctx_size=context.size)

    def _decode(
        self, context: Context, sampler: Sampler, speech: Speech, max_tokens: int | None
    ) -> str:
        """The loop of inference; returns why it ended."""
        while True:
            # 3) Draw a token from the logits of the last one.
            token = sampler.sample(context)
            if self.model.is_end(token):
                return "end"
            # 4) Its bytes become text.
            if not speech.say(token):
                return "stop"
            if len(speech.tokens) == max_tokens:
                return "length"
            if self._stop.is_set():
                return "interrupted"
            # 5) Read it: the next logits.
            try:
                context.append(token)
            except ContextFull:
                return "full"
