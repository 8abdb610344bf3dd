"""Chat: the corridor: conversation -> window -> engine -> screen -> disk.

The only place where the rooms meet, for one turn of a conversation. It parses no command line, and
owns none of the rooms' work.
"""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lcp import words
from lcp.chat import sentences
from lcp.chat.attachments import attach
from lcp.chat.draft import Draft, Drafting, weigh
from lcp.chat.overflow import FILES_NAMED, Overflow
from lcp.chat.services import Services
from lcp.engines import (
    Constraint,
    Engine,
    Loading,
    Progress,
    PromptMessage,
    Reply,
    Request,
    Stats,
    Task,
)
from lcp.errors import LcpError, NotSupported, TooLong
from lcp.session.conversation import ONE_SHOT, Conversation
from lcp.session.export import open_fence, plain_name
from lcp.session.log import Log
from lcp.session.message import Event, Message
from lcp.session.window import Window, for_prompt
from lcp.settings import EFFORTS, THINKING, Layers, Settings
from lcp.terminal.screen import Screen
from lcp.terminal.signals import leave, stopping

NOTE_TOKENS = 320  # at most, for a note of 120 words


@dataclass
class Chat:
    """One conversation with one model."""

    engine: Engine
    conversation: Conversation
    log: Log
    screen: Screen
    model: str  # the name it was asked for by
    layers: Layers
    read_ahead: bool = True
    services: Services = field(default_factory=Services)
    constraint: Constraint | None = None  # the form of all answers
    person: bool = False  # asks, and not a script
    typing: Callable[[], AbstractContextManager[None]] = nullcontext  # around each answer
    settings: Settings = field(init=False)
    stats: Stats | None = None  # of the last answer
    overflow: Overflow = field(init=False)
    drafting: Drafting = field(init=False)  # what is being typed
    loading: Task[None] | None = None  # until `ready` has waited for it
    _restoring: Task[str] | None = None
    _may_read: bool = False  # what is typed, ahead
    _may_move: bool = False  # something was forgotten: what follows it may be moved
    _complained: bool = False
    _warned: set[str] = field(default_factory=set)  # turns whose files will leave the window
    _unwritten: OSError | None = None  # why an answer could not go out

    def __post_init__(self) -> None:
        self.run_on(self.engine)
        self.drafting = Drafting(
            lambda job: self.engine.weigh(job),
            lambda attached: weigh(attached, self.engine, self.overflow, self.settings),
            self._read_ahead,
        )

    def run_on(self, engine: Engine) -> None:
        """Use this engine, of the same model as the one before."""
        self.engine, self.stats = engine, None
        self.use(self.layers)
        self.overflow = Overflow(engine, self.conversation)

    def answer(self, begun: Message | None = None) -> Reply:
        """Answer the question at the head, or go on with the answer `begun`; it is then on disk."""
        self.ready()
        if self.person and self.conversation.kind == ONE_SHOT:
            self.keep(self.conversation.become_chat())
        fence = open_fence(begun.content) if begun else ""
        with self.screen.answer(fence), stopping(self.engine.stop) as asked, self.typing():
            reply = self._reply(begun, asked)
            # An answer that reaches the end of the window: the window slides and it goes on.
            while reply.ended == "full" and self.settings.overflow != "stop" and not asked:
                try:
                    rest = self._reply(self._cut(reply), asked, reply.stats.reply_tokens)
                except LcpError:
                    break  # nothing more can leave: it stays full
                rest.stats = reply.stats.followed_by(rest.stats)
                rest.remark = rest.remark or reply.remark
                reply = rest
        self._keep_answer(reply)
        self.stats = reply.stats
        if reply.remark:
            self.screen.notice(sentences.remark(reply.remark))
        leave(asked)
        if self._unwritten:
            raise self._unwritten
        return reply

    # steps

    def ask(self, text: str, typed: str = "", files: Sequence[str] = ()) -> Reply:
        """One turn: the question is on disk before the model reads it."""
        before = self.conversation.head
        self.keep(self.conversation.ask(text, typed, files), sync=True)
        return self.answer_or_go(before)

    def ask_with_files(self, typed: str, before: str = "") -> Reply:
        """One turn with the files that `typed` names; `before` it stands what nobody typed."""
        attached = attach(typed, Path()).checked()
        if attached.files or attached.hints:
            self.ready()
            self.screen.notice(attached.told(self.engine.tokens, self.engine.size))
        files = [file.path for file in attached.files]
        return self.ask(before + attached.text, before + typed, files)

    def go_on(self) -> Reply:
        """Continue the last answer, which was cut."""
        turns = self.conversation.turns()
        cut = turns[-1].answer if turns else None
        if cut is None or cut.ended in ("end", "stop"):
            raise LcpError("There is no cut answer to continue. Ask something first.")
        if cut.content:
            self.screen.notice("…" + cut.content[-60:])
        self.go(cut.parent)
        return self.answer_or_go(cut.id, cut if cut.content or cut.sampled else None)

    def answer_or_go(self, back: str | None, begun: Message | None = None) -> Reply:
        """Answer; where that cannot be, or is not waited for, stand at `back` again. The log
        keeps the question, but the next one does not stand behind it; a chat of such questions
        alone leaves no file."""
        try:
            return self.answer(begun)
        except (LcpError, KeyboardInterrupt):
            self.keep(self.conversation.go(back))
            self.log.take_back()
            raise

    def forget(self, id: str, on: bool = True) -> None:
        """Leave a turn out of what the model sees; what follows it is moved, not read again."""
        self.keep(self.conversation.forget(id, on))
        self._may_move = on and self.settings.slide == "move"

    def go(self, to: str | None) -> None:
        """Stand at another message; what is behind it there is read, never moved."""
        self.keep(self.conversation.go(to))
        self._may_move = False

    def make_room(self) -> None:
        """Condense early: the turns behind the note are then read while the person types."""
        if self.settings.overflow != "summarize" or self.settings.raw == "on":
            return
        with stopping(self.engine.stop), suppress(TooLong):
            self.overflow.fit(self.settings, self._condense, spare=self.engine.size // 8)

    def warn_of_files(self) -> None:
        """Say once of each turn with files that it will leave the window soon."""
        with suppress(LcpError):
            for n, turn in self.overflow.about_to_leave(self.settings):
                if turn.user.id not in self._warned:
                    self._warned.add(turn.user.id)
                    files = words.listed(turn.user.files, FILES_NAMED)
                    self.screen.notice(
                        f"The context is nearly full: turn {n} ({files}) leaves it next. "
                        f"/pin {n} keeps it."
                    )

    def keep(self, event: Event, sync: bool = False) -> None:
        """Write an event to the log; when that fails, say so once and go on."""
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
        """Change a setting from the next answer on; SettingsError when it cannot be."""
        self.use(self.layers.choosing(**{name: value}))
        self.keep(self.conversation.set(**{name: self.settings.value(name)}))

    # the model, loaded while the person already types

    def load(self, saved: Path | None = None) -> None:
        """Begin to load the model and its saved KV cache; `ready` waits for both."""
        self.loading = self.engine.load(self.constraint)
        self._restoring = self.engine.restore(saved) if saved else None

    def ready(self) -> None:
        """Wait until the model is loaded; its own recommendations then count."""
        if self.loading is None:
            return
        self.screen.prepare()  # while the model loads
        name = plain_name(self.model)
        try:
            for step in self.loading:
                if isinstance(step, Loading):
                    self.screen.progress(f"loading {name} ({100 * step.fraction:.0f} %)")
        finally:
            self.screen.clear_progress()
        why = ""
        if self._restoring:
            with suppress(NotSupported):
                why = self._restoring.result()
        self.loading = None
        self.use(replace(self.layers, model_file=dict(self.engine.recommended)))
        asked = [n for n, s in self.settings.sources.items() if s in ("flag", "environment")]
        for notice in [*self.engine.notices(), *self.in_vain(asked)]:
            self.screen.notice(notice)
        if why:
            self.screen.notice(f"The saved KV cache {why}; the conversation is read again.")

    def in_vain(self, names: Collection[str]) -> list[str]:
        """Of these settings, what this model has no use for, a sentence each. It is said where
        they are chosen, and not again when the chat is resumed."""
        engine, settings, system = self.engine, self.settings, self.conversation.system
        said = []
        if settings.raw == "on":
            chosen = settings.sources["system"] not in ("default", "models.toml")
            chosen |= system != settings.system
            if {"raw", "system"} & {*names} and system and chosen:
                said.append("The system text is not used: raw continues text as it is.")
            return said
        effort = {"reasoning_effort", "chat_template_kwargs"} & {*names}
        if effort and {*EFFORTS} & {*engine.variables} and not engine.looks_at(*EFFORTS):
            said.append("Reasoning effort: not supported by this model's chat template.")
        if "reasoning_budget" in names and settings.reasoning_budget and not engine.thinks:
            said.append("Thinking budget: this model's chat template has no thinking to limit.")
        if "system" in names and system == "" and (own := engine.own_system(silent=True)):
            said.append(f"The chat template always has a system text of its own: {own}")
        return said

    def look_ahead(self, typed: str, read: bool = True) -> None:
        """Weigh what is typed, and let the engine read what will be needed, as far as it is known;
        with `read` off it is only weighed."""
        self._may_read = read and self.read_ahead and not self._may_move
        if not self._may_read:  # to read ahead would be to read again
            self.engine.rest()
        if typed.strip():
            self.drafting.look(typed)
        else:
            self.drafting.drop()
            self._read_ahead(Draft())

    def _read_ahead(self, draft: Draft) -> None:
        """Of a message that cannot be sent, or not yet, nothing is read."""
        if self._may_read:
            known = draft.prompt and not draft.refused
            asked = draft.attached.text if known else ""
            self.engine.look_ahead(self.overflow.visible(), asked, self.settings.max_tokens)

    # inside an answer

    def _reply(self, begun: Message | None, asked: list[int], said: int = 0) -> Reply:
        window = self.overflow.fit(self.settings, self._condense, begun)
        held = max(self.stats.ctx_used if self.stats else 0, self.engine.held)
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
        if asked:  # while the window was fitted
            self.engine.stop()
        for item in reply:
            if isinstance(item, Progress):
                self._say_progress(item, window, started, held)
                continue
            if item.kind == "thinking" and self.settings.think == "hide":
                continue
            try:
                self.screen.write(item.text, item.kind == "thinking", item.tokens)
            except OSError as error:  # its reader has left, or the disk is full
                self._unwritten = error
                self.engine.stop()
        reply.stats = replace(reply.stats, dropped_turns=self.overflow.dropped())
        return reply

    def _condense(self, messages: list[PromptMessage], covers: frozenset[str]) -> bool:
        """Ask for a note on turns that leave the window, and keep it."""
        self.screen.progress("condensing what leaves the window")
        sampling = replace(self.settings.sampling, temp=0)
        most = min(NOTE_TOKENS, self.engine.size // 8)
        reply = self.engine.reply(Request(messages, sampling, max_tokens=most, thinking_tokens=0))
        for _ in reply:
            pass
        text = reply.text.strip()
        if reply.ended == "interrupted" or not text:
            return False
        self.keep(self.conversation.summarize(text, covers), sync=True)
        turns = words.count(len(covers), "turn")
        self.screen.notice(f"Context full: the model sees a note instead of {turns}: {text}")
        return True

    def _cut(self, reply: Reply) -> Message:
        """An answer that was cut, as a message to go on with."""
        ids = (tuple(reply.tokens), tuple(reply.sampled), self.engine.identity)
        return Message("", "assistant", reply.text, reply.thinking, *ids)

    def _keep_answer(self, reply: Reply) -> None:
        if reply.ended != "full":
            # What the next question finds; the cache may lack the end of the answer, and hold
            # thinking that the template leaves out. The line below the prompt says the same.
            with suppress(LcpError):  # a template that takes no answers: whoever asks is told
                said = [for_prompt(self._cut(reply))] if reply.text else []
                used = self.engine.used([*self.overflow.visible(), *said])
                reply.stats = replace(reply.stats, ctx_used=used)
        event = self.conversation.answer(
            reply.text,
            thinking=reply.thinking,
            tokens=reply.tokens,
            sampled=reply.sampled if reply.sampled != reply.tokens else (),
            ended=reply.ended,
            seed=reply.seed,
            stats=reply.stats.as_dict(),
            fingerprint=self.engine.identity,
            model=self.model,
            out=self.overflow.out(),
            sampling=vars(self.settings.sampling),
            made_with=self._made_with(reply),
        )
        self.keep(event, sync=True)

    def _made_with(self, reply: Reply) -> dict[str, Any]:
        """What else an answer depends on; of the settings, those that are not as usual."""
        settings, usual = self.settings, Settings()
        names = (*THINKING, "raw")
        chosen = {n: settings.value(n) for n in names if settings.value(n) != usual.value(n)}
        more = {"before": reply.before, "constraint": self.constraint and self.constraint.kind}
        return {**self.engine.made_with} | chosen | {n: fact for n, fact in more.items() if fact}

    def _say_progress(self, progress: Progress, window: Window, started: float, held: int) -> None:
        if progress.total > 64:  # less is read before a person could see it
            self.screen.progress(sentences.reading(progress, time.perf_counter() - started))
        if progress.done == progress.total:
            seconds = time.perf_counter() - started
            if told := self.overflow.told(window, progress, seconds, held):
                self.screen.notice(told)

    def say_status(self) -> None:
        """The line after an answer."""
        turns = self.conversation.turns()
        if self.stats and turns and (answer := turns[-1].answer):
            said = bool(answer.content or answer.sampled)
            with suppress(LcpError):  # the same figure as in the toolbar and /context
                self.stats = replace(self.stats, ctx_used=self.engine.used(self.overflow.visible()))
            self.screen.notice(sentences.numbers(self.stats, answer.ended, said))
            self.screen.blank()


def _to_continue(begun: Message) -> PromptMessage:
    """An answer that was cut, with all its tokens."""
    return PromptMessage("assistant", begun.content, begun.thinking, begun.ids, begun.fingerprint)
