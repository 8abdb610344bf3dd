"""Which turns the model sees when a conversation is larger than the context window.

The policies of the setting `overflow`:

slide      The oldest turns leave. The rest is moved in the KV cache, not read again.
summarize  The model writes a note on the turns that leave; the note takes their place.
truncate   As slide, but the end of the newest turn that left stays.
stop       No turn leaves; TooLong is raised.
"""

import copy
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from lcp.engine_interface import Engine, PromptMessage, room_in
from lcp.errors import LcpError, TooLong
from lcp.session.conversation import Conversation
from lcp.session.message import Message, Turn
from lcp.session.window import Window, fit, messages
from lcp.settings import Settings

NOTE_WORDS = 120
CONDENSE = (
    f"Write a note of at most {NOTE_WORDS} words on our conversation so far: the facts, names, "
    "numbers, decisions and open questions that matter for going on. Only the note."
)


# Asks the model for a note on turns and keeps it; False if it was stopped.
Condense = Callable[[list[PromptMessage], frozenset[str]], bool]


class Overflow:
    """The part of a conversation that the model sees; it remembers which turns left."""

    def __init__(self, engine: Engine, conversation: Conversation) -> None:
        self.engine = engine
        self.conversation = conversation
        self.out = self._left()  # the turns that left the window

    def visible(self, out: Collection[str] | None = None) -> list[PromptMessage]:
        """The messages that the model sees now; `out`: without these turns instead of those that
        left."""
        out = self.out if out is None else out
        turns = [t for t in self.turns() if t.user.id not in out]
        return messages(self.conversation.system, turns, self._note())

    def expected(self, settings: Settings) -> list[PromptMessage]:
        """The messages before the next question."""
        return self.visible(self._expected_out(settings))

    def turns(self) -> list[Turn]:
        """The turns that may be in the window: neither forgotten nor covered by a note."""
        chat = self.conversation
        summary = chat.summary()
        covered = summary.covers if summary else frozenset()
        gone = chat.forgotten | (covered - chat.pinned)
        turns = chat.turns()
        # a question without an answer always stays
        return [t for t in turns if t.user.id not in gone or (t is turns[-1] and not t.answer)]

    def settle(self, settings: Settings) -> None:
        """Let the turns that left come back if all of them fit, after a step back in the tree. The
        engine can then read them ahead."""
        if self.out and settings.overflow != "truncate":
            with suppress(TooLong):
                room, size = self._room(settings), self.engine.size
                window = self._fit(self.turns(), room, size // 8, self.out)
                if not window.newly_out:
                    self.out = window.out

    def shares(self, settings: Settings) -> list[tuple[str, int]]:
        """What fills the window: (name, tokens); the last row is the room for the answer."""
        chat, tokens, gone = self.conversation, self.engine.used, self._expected_out(settings)
        turns = [t for t in self.turns() if t.user.id not in gone]
        system = tokens(self._all([]))
        pinned = tokens(self._all([t for t in turns if t.user.id in chat.pinned]))
        used, room = tokens(self._all(turns)), self._room(settings)
        return [
            ("system", system),
            ("pinned", pinned - system),
            ("turns", used - pinned),
            ("free", max(0, room - used)),
            ("kept for the answer", self.engine.size - max(room, used)),
        ]

    def check_pin(self, id: str, settings: Settings) -> None:
        """Raise LcpError if this turn and the pinned ones leave no room for a question."""
        chat = self.conversation
        pinned = [t for t in chat.turns() if t.user.id in {*chat.pinned, id}]
        tokens, room = self.engine.count(self._all(pinned)), self._room(settings)
        if tokens > room:
            raise LcpError(
                f"With that turn pinned, {tokens:,} tokens would always stay; there is room for "
                f"{room:,}. Leave it unpinned, or start with a larger --ctx-size."
            )

    def foresee(self, text: str, settings: Settings, spare: int = 0) -> Window:
        """The window for this message with `spare` tokens free; changes nothing. Raises TooLong as
        `fit` does."""
        twin = copy.copy(self)
        twin.conversation = self.conversation.asking(text)
        return twin.fit(settings, lambda asked, covers: False, spare=spare)

    def check_size(self, tokens: int, settings: Settings) -> int:
        """About how many tokens a prompt with a message of `tokens` has; TooLong if that is too
        many."""
        room = self._room(settings)
        if tokens > room:
            raise TooLong(tokens, room, pinned=bool(self.conversation.pinned))
        return min(room, self.engine.used(self.visible()) + tokens)

    def about_to_leave(self, settings: Settings) -> list[tuple[int, Turn]]:
        """The numbers and turns with files that a question of an eighth of the window would push
        out."""
        spare, room = self.engine.size // 8, self._room(settings)
        if settings.overflow == "stop" or self.engine.used(self.visible()) + spare <= room:
            return []
        with suppress(TooLong):
            window = self.foresee("?", settings, spare)
            return [(n, t) for n, t in self.numbered(window.newly_out) if t.user.files]
        return []

    def files(self, settings: Settings) -> list[str]:
        """The attached files that the model sees, each with the number of its turn."""
        gone = self.unseen(settings)
        seen = [(n, turn) for n, turn in self.numbered() if turn.user.id not in gone]
        return [f"{name} (turn {n})" for n, turn in seen for name in turn.user.files]

    def numbers(self, turns: Collection[Turn]) -> list[int]:
        """The numbers of these turns."""
        return [n for n, _ in self.numbered({turn.user.id for turn in turns})]

    def unseen(self, settings: Settings | None = None) -> set[str]:
        """The turns of this branch that the model does not see, by their questions; with
        `settings`, those that it will not see with the next question."""
        out = self._expected_out(settings) if settings else self.out
        seen = {t.user.id for t in self.turns()} - out
        return {t.user.id for t in self.conversation.turns()} - seen

    def numbered(self, ids: Collection[str] | None = None) -> list[tuple[int, Turn]]:
        """The turns of this branch with their numbers, from 1; only these `ids`."""
        turns = enumerate(self.conversation.turns(), 1)
        return [(n, turn) for n, turn in turns if ids is None or turn.user.id in ids]

    def fit(
        self,
        settings: Settings,
        condense: Condense,
        begun: Message | None = None,
        spare: int = 0,
    ) -> Window:
        """Make room for the last question, or for the rest of the answer `begun`, with `spare`
        tokens free. Raises TooLong if what must stay does not fit."""
        policy = settings.overflow
        if policy == "summarize" and settings.raw == "on":
            policy = "slide"  # a model without a chat template cannot be asked for a note
        turns = self.turns()
        said = begun.thinking + begun.content if begun else ""
        if begun:
            counted = replace(begun, content=said, thinking="", tokens=())
            turns[-1] = replace(turns[-1], answer=counted)
        room, size = self._room(settings), self.engine.size
        if begun:  # it may take nearly all that is left
            room = max(room, size - size // 8)
        room -= spare
        if policy == "truncate":  # always full: turns come back one by one
            window = self._fit(turns, room, 0, ())
            newly_out = tuple(id for id in window.newly_out if id not in self.out)
            window = replace(window, newly_out=newly_out)
        else:
            window = self._fit(turns, room, size // 8, self.out)
        if window.newly_out:
            if policy == "stop":
                tokens = self.engine.count(self._all(turns))
                raise TooLong(tokens, room, stopped=True)
            if policy == "summarize":
                window = self._condensed(window, turns, room, condense)
        self.out = window.out
        if policy == "truncate" and window.out:
            window = self._truncated(window, turns, room)
        if said:  # the engine continues this answer, so it is not a message of the prompt
            window.messages.pop()
        return window

    def _fit(self, turns: list[Turn], room: int, slack: int, out: Collection[str]) -> Window:
        chat = self.conversation
        return fit(
            chat.system,
            turns,
            self.engine.count,
            room,
            out=out,
            pinned=chat.pinned,
            slack=slack,
            note=self._note(),
        )

    def _room(self, settings: Settings) -> int:
        """The most tokens of a prompt after which an answer fits."""
        return room_in(self.engine.size, settings.max_tokens)

    def _expected_out(self, settings: Settings) -> frozenset[str]:
        """The turns that leave or stay out with the next question. A chat that is resumed with a
        context of another size may see other turns than before."""
        turns, size = self.turns(), self.engine.size
        answer = turns[-1].answer if turns else None
        if answer and answer.stats.get("ctx_size", size) != size and settings.overflow != "stop":
            with suppress(TooLong):
                return self._fit(turns, self._room(settings), size // 8, self.out).out
        return self.out

    def _left(self) -> frozenset[str]:
        """The turns that the model did not see at the last answer of a resumed chat."""
        answers = [t.answer for t in self.conversation.turns() if t.answer]
        return frozenset(answers[-1].out if answers else ())

    def _all(self, turns: list[Turn]) -> list[PromptMessage]:
        return messages(self.conversation.system, turns, self._note())

    def _note(self) -> str:
        summary = self.conversation.summary()
        return summary.text if summary else ""

    def _condensed(
        self, window: Window, turns: list[Turn], room: int, condense: Condense
    ) -> Window:
        """The window with a note in place of all turns that left."""
        leaving = [t for t in turns if t.user.id in window.out]
        summary = self.conversation.summary()
        covers = window.out | (summary.covers if summary else frozenset())
        question = Turn(Message("", "user", CONDENSE), None)
        size = self.engine.size
        with suppress(TooLong):  # then it slides without a note, as if the note was stopped
            # The turns that leave are at the front of the cache: only the question is read.
            asked = self._fit([*leaving, question], size - size // 8, 0, ())
            if len(asked.out) < len(leaving) and condense(asked.messages, covers):
                gone = covers - self.conversation.pinned
                rest = [t for t in turns if t.user.id not in gone]
                return replace(self._fit(rest, room, 0, ()), newly_out=window.newly_out)
        return window

    def _truncated(self, window: Window, turns: list[Turn], room: int) -> Window:
        """The window with the end of the newest turn that left."""
        last = max(i for i, t in enumerate(turns) if t.user.id in window.out)
        free = room - window.tokens - 48  # for what the template puts around it
        if free < 16:
            return window
        part = _end_of(turns[last], free, self.engine.clip)
        shown = self._all(
            [
                part if i == last else turn
                for i, turn in enumerate(turns)
                if i == last or turn.user.id not in window.out
            ]
        )
        tokens = self.engine.count(shown)
        return window if tokens > room else replace(window, messages=shown, tokens=tokens)


def _end_of(turn: Turn, free: int, clip: Callable[[str, int], str]) -> Turn:
    """The end of a turn, in about `free` tokens at most."""
    answer = turn.answer
    if answer and answer.content:
        kept = clip(answer.content, free)
        if kept != answer.content:
            return Turn(_cut(turn.user, ""), _cut(answer, kept))
        # at least this much is left: a token seldom has less than two bytes
        free = max(0, free - len(kept.encode("utf-8", "replace")) // 2)
    return Turn(_cut(turn.user, clip(turn.user.content, free)), answer)


def _cut(message: Message, end: str) -> Message:
    return replace(message, content="…" + end, tokens=())
