"""One conversation with one engine: a turn goes from the conversation through the context window
and the engine to the screen and the disk."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lcp import formatting
from lcp.chat import answer_notices, window_notices
from lcp.chat.attachments import attach
from lcp.chat.overflow import Overflow
from lcp.chat.services_interface import Services
from lcp.chat.typed_message import TypedMessage, TypedMessages, weigh
from lcp.chat.unsupported_settings import unsupported
from lcp.engine_interface import (
    Constraint,
    Engine,
    Loading,
    Progress,
    PromptMessage,
    Reply,
    Request,
    Stats,
    Waiting,
)
from lcp.errors import ContextFull, LcpError, Miscounted, NotSupported, TooLong
from lcp.session.conversation import ONE_SHOT, Conversation
from lcp.session.export import open_fence, plain_name
from lcp.session.log import Log
from lcp.session.message import Event, Message
from lcp.session.window import Window, for_prompt
from lcp.settings import THINKING, Layers, Settings
from lcp.terminal.screen import Screen
from lcp.terminal.signals import leave, stopping
from lcp.worker import Task

NOTE_TOKENS = 320  # at most, for a note of 120 words


@dataclass
class Chat:
    """One conversation with one model."""

    engine: Engine
    conversation: Conversation
    log: Log
    screen: Screen
    model: str  # the name that the person gave
    layers: Layers
    read_ahead: bool = True
    services: Services = field(default_factory=Services)
    constraint: Constraint | None = None  # of all answers
    person: bool = False  # asks, and not a script
    typing: Callable[[], AbstractContextManager[None]] = nullcontext  # a context for each answer
    settings: Settings = field(init=False)
    stats: Stats | None = None  # of the last answer
    overflow: Overflow = field(init=False)
    typed: TypedMessages = field(init=False)  # the message being typed
    loading: Task[None] | None = None  # None after `ready`
    _restoring: Task[str] | None = None
    _may_read: bool = False  # what is typed may be read ahead
    _may_move: bool = False  # a turn was forgotten: those after it may be moved in the cache
    _complained: bool = False
    _warned: set[str] = field(default_factory=set)  # turns whose files leave next
    _unwritten: OSError | None = None  # why the answer could not be written

    def __post_init__(self) -> None:
        self.run_on(self.engine)
        self.typed = TypedMessages(
            lambda job: self.engine.run_soon(job),
            lambda attached: weigh(attached, self.engine, self.overflow, self.settings),
            self._read_ahead,
        )

    def run_on(self, engine: Engine) -> None:
        """Use this engine, of the same model as the one before."""
        self.engine, self.stats = engine, None
        self.use(self.layers)
        self.overflow = Overflow(engine, self.conversation)

    def answer(self, begun: Message | None = None) -> Reply:
        """Answer the question at the head, or continue the answer `begun`; then it is on disk."""
        self.ready()
        if self.person and self.conversation.kind == ONE_SHOT:
            self.keep(self.conversation.become_chat())
        fence = open_fence(begun.content) if begun else ""
        with self.screen.answer(fence), stopping(self.engine.stop) as asked, self.typing():
            reply = self._reply(begun, asked)
            # At the end of the window turns leave, and the answer continues.
            while reply.ended == "full" and self.settings.overflow != "stop" and not asked:
                try:
                    rest = self._reply(self._cut(reply), asked, reply.stats.reply_tokens)
                except LcpError:
                    break  # no turn can leave
                rest.stats = reply.stats.followed_by(rest.stats)
                rest.notice = rest.notice or reply.notice
                reply = rest
        self._keep_answer(reply)
        self.stats = reply.stats
        if reply.notice:
            saved = self.person and self.log.path is not None
            self.screen.notice(answer_notices.sentence(reply.notice, saved))
        leave(asked)
        if self._unwritten:
            raise self._unwritten
        return reply

    # steps

    def ask(self, text: str, typed: str = "", files: Sequence[str] = ()) -> Reply:
        """Ask a question and answer it; the question is on disk before the model reads it."""
        before = self.conversation.head
        self.keep(self.conversation.ask(text, typed, files), sync=True)
        return self.answer_or_go(before)

    def ask_with_files(self, typed: str, before: str = "") -> Reply:
        """Ask with the files that `typed` names, and with the text `before` it."""
        attached = attach(typed, Path()).checked()
        if attached.files or attached.hints:
            self.ready()
            self.screen.notice(attached.told(self.engine.tokens, self.engine.size))
        files = [file.path for file in attached.files]
        return self.ask(before + attached.text, before + typed, files)

    def go_on(self) -> Reply:
        """Continue the last answer, if it was cut."""
        turns = self.conversation.turns()
        cut = turns[-1].answer if turns else None
        if cut is None or cut.ended in ("end", "stop"):
            raise LcpError("There is no cut answer to continue. Ask something first.")
        if cut.content:
            self.screen.notice("…" + cut.content[-60:])
        self.go(cut.parent)
        said = cut.content or cut.thinking or cut.sampled
        return self.answer_or_go(cut.id, cut if said else None)

    def answer_or_go(self, back: str | None, begun: Message | None = None) -> Reply:
        """Answer. If this fails or is interrupted, go to the message `back`: the log keeps the
        question, but the next one does not follow it. A chat without any answer leaves no
        file."""
        try:
            return self.answer(begun)
        except (LcpError, KeyboardInterrupt):
            self.keep(self.conversation.go(back))
            self.log.take_back()
            raise

    def forget(self, id: str, on: bool = True) -> None:
        """Hide a turn from the model, or show it again; the turns after it are moved, not read."""
        self.keep(self.conversation.forget(id, on))
        self._may_move = on and self.settings.slide == "move"

    def go(self, to: str | None) -> None:
        """Go to another message; the turns on the way to it are read, not moved."""
        self.keep(self.conversation.go(to))
        self._may_move = False

    def make_room(self) -> None:
        """Write the note early, so that the turns after it are read while the person types."""
        if self.settings.overflow != "summarize" or self.settings.raw == "on":
            return
        with stopping(self.engine.stop), suppress(TooLong):
            self.overflow.fit(self.settings, self._condense, spare=self.engine.size // 8)

    def warn_of_files(self) -> None:
        """Say once for each turn with files that it leaves the window next."""
        with suppress(LcpError):
            for n, turn in self.overflow.about_to_leave(self.settings):
                if turn.user.id not in self._warned:
                    self._warned.add(turn.user.id)
                    files = formatting.listed(turn.user.files, window_notices.FILES_NAMED)
                    self.screen.notice(
                        f"The context is nearly full: turn {n} ({files}) leaves it next. "
                        f"/pin {n} keeps it."
                    )

    def keep(self, event: Event, sync: bool = False) -> None:
        """Write an event to the log. A failure is reported once, and the chat continues."""
        self.log.append(event, sync)
        if self.log.problem and not self._complained:
            self._complained = True
            self.screen.error(self.log.problem)

    def use(self, layers: Layers) -> None:
        """Take the settings from these layers; after a SettingsError nothing has changed."""
        self.settings = layers.resolve()
        self.layers = layers
        self.engine.variables = self.settings.template_variables
        self.engine.raw = self.screen.verbatim = self.settings.raw == "on"

    def set(self, name: str, value: str) -> None:
        """Change a setting from the next answer on. SettingsError changes nothing."""
        self.use(self.layers.choosing(**{name: value}))
        self.keep(self.conversation.set(**{name: self.settings.value(name)}))

    # loading, while the person already types

    def load(self, saved: Path | None = None) -> None:
        """Begin to load the model, unless that has begun, and its saved KV cache."""
        self.loading = self.loading or self.engine.load(self.constraint, saved)
        self._restoring = self.engine.restore(saved) if saved else None

    def ready(self) -> None:
        """Wait until the model is loaded; then the settings that it recommends apply."""
        if self.loading is None:
            return
        self.screen.prepare()  # while the model loads
        name = plain_name(self.model)
        try:
            for step in self.loading:
                if isinstance(step, Loading):
                    self.screen.progress(f"loading {name} ({100 * step.fraction:.0f} %)")
                elif isinstance(step, Waiting):
                    self.screen.progress(step.what)
        finally:
            self.screen.clear_progress()
        why = ""
        if self._restoring:
            with suppress(NotSupported):
                why = self._restoring.result()
        self.loading = None
        self.use(self.engine.with_recommended(self.layers))
        if self.engine.name and self.engine.name != self.model:
            self.model = self.engine.name
            self.keep(self.conversation.set(model=self.model))
        for notice in [*self.engine.notices(), *self.unsupported(self.settings.given)]:
            self.screen.notice(answer_notices.about_model(notice))
        if why:
            self.screen.notice(f"The saved KV cache {why}; the model reads the chat again.")

    def unsupported(self, names: Collection[str]) -> list[str]:
        """A sentence on each of these settings that has no effect with this model."""
        return unsupported(names, self.engine, self.settings, self.conversation.system)

    def look_ahead(self, typed: str, read: bool = True) -> None:
        """Count what is typed, and with `read` let the engine read it ahead."""
        self._may_read = read and self.read_ahead and not self._may_move
        if not self._may_read:  # reading now would undo what can be moved
            self.engine.rest()
        if typed.strip():
            self.typed.look(typed)
        else:
            self.typed.drop()
            self._read_ahead(TypedMessage())

    def _read_ahead(self, message: TypedMessage) -> None:
        """Let the engine read the chat, and the message if it can be sent as it is."""
        if self._may_read:
            known = message.prompt and not message.refused
            asked = message.attached.text if known else ""
            self.engine.look_ahead(self.overflow.visible(), asked, self.settings.max_tokens)

    # inside an answer

    def _reply(self, begun: Message | None, asked: list[int], said: int = 0) -> Reply:
        size = self.engine.size
        try:
            return self._fitted(begun, asked, said)
        except Miscounted:  # the engine counts right now: other turns leave
            return self._fitted(begun, asked, said)
        except ContextFull:
            if self.engine.size == size:
                raise
            # The context could not grow to the size that the prompt was fitted to.
            return self._reply(begun, asked, said)

    def _fitted(self, begun: Message | None, asked: list[int], said: int) -> Reply:
        window = self.overflow.fit(self.settings, self._condense, begun)
        held = max(self.stats.ctx_used if self.stats else 0, self.engine.cached)
        started = time.perf_counter()
        reply = self.engine.reply(
            Request.by(
                self.settings,
                window.messages,
                said,
                constraint=self.constraint,
                begun=_to_continue(begun) if begun else None,
                move=self._may_move or (bool(window.newly_out) and self.settings.slide == "move"),
            )
        )
        self._may_move = False
        if asked:  # during `fit`
            self.engine.stop()
        for item in reply:
            if isinstance(item, Waiting):
                self.screen.progress(item.what)
                continue
            if isinstance(item, Progress):
                self._say_progress(item, window, started, held)
                continue
            if item.kind == "thinking" and self.settings.think == "hide":
                continue
            try:
                self.screen.write(item.text, item.kind == "thinking", item.tokens)
            except OSError as error:  # the reader of stdout has left, or the disk is full
                self._unwritten = error
                self.engine.stop()
        reply.stats = replace(reply.stats, dropped_turns=len(self.overflow.unseen()))
        return reply

    def _condense(self, messages: list[PromptMessage], covers: frozenset[str]) -> bool:
        """Ask the model for a note on the turns that leave, and keep it."""
        self.screen.progress("writing a note on the turns that leave")
        sampling = replace(self.settings.sampling, temp=0)
        most = min(NOTE_TOKENS, self.engine.size // 8)
        chosen = self.settings.chosen | {"temp"}
        reply = self.engine.reply(
            Request(messages, sampling, max_tokens=most, thinking_tokens=0, chosen=chosen)
        )
        for _ in reply:
            pass
        text = reply.text.strip()
        if reply.ended == "interrupted" or not text:
            return False
        self.keep(self.conversation.summarize(text, covers), sync=True)
        turns = formatting.count(len(covers), "turn")
        self.screen.notice(f"Context full: the model sees a note instead of {turns}: {text}")
        return True

    def _cut(self, reply: Reply) -> Message:
        """An answer that was cut, as a message to continue."""
        ids = (tuple(reply.tokens), tuple(reply.sampled), self.engine.identity)
        return Message("", "assistant", reply.text, reply.thinking, *ids)

    def _keep_answer(self, reply: Reply) -> None:
        if reply.ended != "full":
            # Count as the next prompt will: the cache may lack the end of the answer and hold
            # thinking that the template drops.
            with suppress(LcpError):  # the next question reports it
                said = [for_prompt(self._cut(reply))] if reply.text else []
                used = self.engine.used([*self.overflow.visible(), *said])
                reply.stats = replace(reply.stats, ctx_used=used)
        answer = self.conversation.answer(
            reply.text, reply.ended, self.model,
            thinking=reply.thinking,
            tokens=reply.tokens,
            sampled=reply.sampled if reply.sampled != reply.tokens else [],
            fingerprint=self.engine.identity,
            out=sorted(self.overflow.out),
            made_with=self._made_with(reply),
            sampling=dict(vars(self.settings.sampling)),
            seed=reply.seed,
            stats=reply.stats.as_dict(),
        )  # fmt: skip
        self.keep(answer, sync=True)

    def _made_with(self, reply: Reply) -> dict[str, Any]:
        """What else the answer depends on, such as settings without their default value."""
        settings, usual = self.settings, Settings()
        names = (*THINKING, "raw")
        chosen = {n: settings.value(n) for n in names if settings.value(n) != usual.value(n)}
        more = {"before": reply.before, "constraint": self.constraint and self.constraint.kind}
        return {**self.engine.made_with} | chosen | {n: fact for n, fact in more.items() if fact}

    def _say_progress(self, progress: Progress, window: Window, started: float, held: int) -> None:
        if progress.total > 64:  # fewer are read before a person could see it
            self.screen.progress(answer_notices.reading(progress, time.perf_counter() - started))
        if progress.done == progress.total:
            seconds = time.perf_counter() - started
            if line := window_notices.reading(self.overflow, window, progress, seconds, held):
                self.screen.notice(line)

    def say_status(self) -> None:
        """Show the numbers of the last answer."""
        turns = self.conversation.turns()
        if self.stats and turns and (answer := turns[-1].answer):
            said = bool(answer.content or answer.sampled)
            with suppress(LcpError):  # the number in the toolbar and in /context
                self.stats = replace(self.stats, ctx_used=self.engine.used(self.overflow.visible()))
            self.screen.notice(answer_notices.numbers(self.stats, answer.ended, said))
            self.screen.blank()


def _to_continue(begun: Message) -> PromptMessage:
    """An answer that was cut, with all its tokens."""
    return PromptMessage("assistant", begun.content, begun.thinking, begun.ids, begun.fingerprint)
