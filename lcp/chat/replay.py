"""Generates the answers of a saved chat again, each with its own seed, settings and window.

It follows the order of the log, so that before each answer the conversation and the KV cache are as
they were then. It writes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lcp import formatting
from lcp.chat.error_advice import with_advice
from lcp.chat.overflow import Overflow
from lcp.chat.services_interface import Services
from lcp.common_prefix import common_prefix
from lcp.engine_interface import Chunk, Engine, Progress, PromptMessage, Reply, Request
from lcp.errors import LcpError, SessionError
from lcp.session.conversation import Conversation
from lcp.session.export import plain_name
from lcp.session.message import Event, Message, from_event
from lcp.settings import OPTIONS, Layers, Settings

HERE = ("n_gpu_layers", "threads")  # settings of this computer, which no log has
_END = -1  # for the token that ended an answer


@dataclass(frozen=True)
class Replayed:
    """The result for one answer; tokens are counted from 1."""

    id: str
    turn: int  # in its branch, from 1
    answer: int  # among the answers to its question, from 1
    tokens: int
    result: str = "same"  # or "parts", or "not replayed"
    at: int | None = None  # the first different token
    was: str | None = None  # its text; None: the answer ended there
    came: str | None = None
    why: str = ""  # why it was not replayed, or may differ

    def line(self) -> str:
        """For people."""
        which = f"turn {self.turn}" + (f", answer {self.answer}" if self.answer > 1 else "")
        if self.result == "same":
            return f"{which}: the same {formatting.count(self.tokens, 'token')}"
        if self.result == "parts":
            was, came = (repr(t) if t is not None else "the end" for t in (self.was, self.came))
            where = f"from token {self.at} of {self.tokens}: {was} in the chat, {came} now"
            return f"{which}: differs {where}{self.why and f' ({self.why})'}"
        return f"{which}: not replayed: {self.why}"


class Replay:
    """A saved chat; iterate it for the results of its answers."""

    def __init__(
        self,
        services: Services,
        layers: Layers,
        events: Sequence[Event],
        tell: Callable[[str], None],
    ) -> None:
        """Of the `layers` only settings of this computer are used; `tell` shows the progress."""
        self._services = services
        here = layers.resolve()
        self._here = {name: here.value(name) for name in HERE}
        self._events = events
        self._tell = tell
        self._engine: Engine | None = None
        self._file = ""  # of its model
        self._loaded: object = None  # the model and sizes of the engine

    def __iter__(self) -> Iterator[Replayed]:
        said = Conversation.from_events(self._events).nodes
        conversation = Conversation()
        try:
            for event in self._events:
                match event:
                    case {"type": "answer", "id": str(id)} if id in said:
                        yield self._again(conversation, event)
                conversation.apply(event)
        finally:
            self._close()

    def _again(self, conversation: Conversation, event: Event) -> Replayed:
        """Generate one answer again; the conversation is at its question."""
        answer = from_event(event)
        ids = answer.ids
        turn, before = len(conversation.turns()), conversation.children(answer.parent)
        told = Replayed(answer.id, turn, 1 + len(before), len(ids))
        made_with = event.get("made_with")
        known = made_with if isinstance(made_with, dict) else {}  # not in older logs
        try:
            settings = self._settings(answer, event.get("sampling"), known)
            engine = self._engine_for(answer, settings, conversation)
            request = self._request(engine, settings, conversation, answer)
            if why := _why_not(known):
                self._hold(engine, request, answer)
                raise SessionError(why)
            reply = self._generate(engine, request, answer, told)
        except LcpError as error:
            return replace(told, result="not replayed", why=with_advice(error))
        generated = [*reply.sampled, *[_END] * (reply.ended == "end")]
        wanted = [*ids, *[_END] * (answer.ended == "end")]
        same = common_prefix(wanted, generated)
        if same == len(wanted):
            return told
        self._hold(engine, request, answer)

        def spelled(tokens: Sequence[int]) -> str | None:
            token = tokens[same] if same < len(tokens) else _END
            return engine.token_text(token) if token != _END else None

        then, now = known.get("llama.cpp"), engine.made_with["llama.cpp"]
        return replace(
            told,
            result="parts",
            at=same + 1,
            was=spelled(wanted),
            came=spelled(generated),
            why=_why_other(answer, then, now),
        )

    def _settings(self, answer: Message, sampling: object, known: Mapping[str, Any]) -> Settings:
        """The settings of the answer, as far as the log has them."""
        if answer.ended == "edited":
            raise SessionError("a person wrote it")
        if "server" in known:
            raise SessionError("a server generated it")
        if not answer.ids:
            raise SessionError("it has no tokens")
        if not isinstance(sampling, dict) or answer.seed is None:
            raise SessionError("its sampling is not in the log")
        made = {**sampling, "seed": answer.seed, "ctx_size": answer.stats.get("ctx_size"), **known}
        values = self._here | {n: v for n, v in made.items() if n in OPTIONS}
        return Layers(flags=values).resolve()

    def _engine_for(
        self, answer: Message, settings: Settings, conversation: Conversation
    ) -> Engine:
        """An engine with the model and sizes of this answer; the last one if it has them."""
        wanted = (answer.model, settings.ctx_size, settings.kv_type, settings.flash_attn)
        if self._engine is None or wanted != self._loaded:
            self._close()
            found = self._services.find(answer.model)
            if found.path is None:
                raise SessionError("its model is on a server")
            self._file = found.path.name
            self._tell(f"loading {plain_name(answer.model)}")
            self._engine = self._services.engine(found, settings, conversation.created)
            self._engine.load().result()
            self._loaded = wanted
        if answer.fingerprint != self._engine.identity:
            raise SessionError(
                f"{plain_name(answer.model)} ({answer.fingerprint or 'unknown'}) gave it, and "
                f"{self._file} is another model ({self._engine.identity})"
            )
        return self._engine

    def _request(
        self, engine: Engine, settings: Settings, conversation: Conversation, answer: Message
    ) -> Request:
        """The request for the answer, without what could end it before its last token."""
        engine.variables, engine.raw = settings.template_variables, settings.raw == "on"
        return Request(
            Overflow(engine, conversation).visible(answer.out),
            settings.sampling,
            thinking_tokens=settings.thinking_tokens,
            move=bool(answer.stats.get("moved")),
        )

    def _generate(self, engine: Engine, request: Request, answer: Message, told: Replayed) -> Reply:
        """Generate as many tokens as the answer has, and its end."""
        has = engine.count(request.messages)
        if (had := answer.stats.get("prompt_tokens", has)) != has:
            raise SessionError(f"its prompt had {had} tokens, and here it has {has}")
        limit, generated = told.tokens + (answer.ended == "end"), 0
        reply = engine.reply(replace(request, max_tokens=limit))
        for item in reply:
            if isinstance(item, Progress):
                self._tell(f"turn {told.turn}: reading {item.done:,}/{item.total:,} tokens")
            elif isinstance(item, Chunk):
                generated += item.tokens
                self._tell(f"turn {told.turn}: {generated:,} of {told.tokens:,} tokens")
        return reply

    def _hold(self, engine: Engine, request: Request, answer: Message) -> None:
        """Put the tokens of the answer into the KV cache, after other ones were generated or none:
        a later slide moves them. Its last token was usually not read."""
        begun = PromptMessage("assistant", "", "", answer.ids[:-1], answer.fingerprint)
        for _ in engine.reply(replace(request, begun=begun, max_tokens=1)):
            pass

    def _close(self) -> None:
        if self._engine:
            self._engine.close()
        self._engine = self._loaded = None


def _why_not(known: Mapping[str, Any]) -> str:
    """Why an answer cannot be generated again in one go; "" if it can."""
    if "before" in known:
        return "it continues another answer"
    if known.keys() & {"constraint", "grammar"}:  # older logs say "grammar"
        return "it had to match a schema, regex or grammar"
    return ""


def _why_other(answer: Message, then: object, now: object) -> str:
    """Why an answer may differ; "" if nothing is known."""
    if then not in (None, now):
        return f"the chat used llama-cpp-python {then}, and this is {now}"
    return "lcp had drafted some of its tokens" if answer.stats.get("accepted") else ""
