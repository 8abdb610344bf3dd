"""What happens when a conversation is larger than the window: --overflow.

slide      whole oldest turns leave; what is kept is moved in the KV cache, not read again
summarize  the model condenses what leaves into a note that stands in front
truncate   as slide, but the newest turn that left is kept in part, its beginning cut off
stop       nothing leaves; a sentence says so
"""

import copy
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace

from lcp import words
from lcp.engines import Engine, Progress, PromptMessage
from lcp.errors import LcpError, TooLong
from lcp.session.conversation import Conversation
from lcp.session.message import Message, Turn
from lcp.session.window import Window, fit, messages, too_long
from lcp.settings import Settings

REREAD = 32  # tokens read again that are worth a word
FILES_NAMED = 3  # files that a sentence names
NOTE_WORDS = 120
CONDENSE = (
    f"Write a note of at most {NOTE_WORDS} words on our conversation so far: the facts, names, "
    "numbers, decisions and open questions that matter for going on. Only the note."
)


# Asks the model for a note and keeps it for the turns it covers; False when it was stopped.
Condense = Callable[[list[PromptMessage], frozenset[str]], bool]


class Overflow:
    """Keeps the part of a conversation that the model sees, turn after turn."""

    def __init__(self, engine: Engine, conversation: Conversation) -> None:
        self._engine = engine
        self._conversation = conversation
        self._out = self._left()  # turns that left the window

    def visible(self, out: Collection[str] | None = None) -> list[PromptMessage]:
        """The messages as they are now, without making room for more; with others `out` of the
        window than are."""
        out = self._out if out is None else out
        turns = [t for t in self.turns() if t.user.id not in out]
        return messages(self._conversation.system, turns, self._note())

    def expected(self, settings: Settings) -> list[PromptMessage]:
        """What the next question will find in the window: what is visible, but for a chat that is
        resumed in a window of another size, where other turns will be in it."""
        turns, size = self.turns(), self._engine.size
        answer = turns[-1].answer if turns else None
        if answer and answer.stats.get("ctx_size", size) != size and settings.overflow != "stop":
            with suppress(TooLong):
                room = self._engine.room(settings.max_tokens)
                return self._fit(turns, room, size // 8, self._out).messages
        return self.visible()

    def turns(self) -> list[Turn]:
        """The turns that may be in the window: not forgotten, not in a note."""
        chat = self._conversation
        summary = chat.summary()
        covered = summary.covers if summary else frozenset()
        gone = chat.forgotten | (covered - chat.pinned)
        turns = chat.turns()
        # the question at hand is never gone
        return [t for t in turns if t.user.id not in gone or (t is turns[-1] and not t.answer)]

    def settle(self, settings: Settings) -> None:
        """After a step back in the tree: turns that left come back where all of them fit again,
        so that they are read ahead and not behind the next question."""
        if self._out and settings.overflow != "truncate":
            with suppress(TooLong):
                room, size = self._engine.room(settings.max_tokens), self._engine.size
                window = self._fit(self.turns(), room, size // 8, self._out)
                if not window.newly_out:
                    self._out = window.out

    def shares(self, settings: Settings) -> list[tuple[str, int]]:
        """What fills the window: (name, tokens), what is kept free for the answer last."""
        chat, tokens = self._conversation, self._engine.used
        turns = [t for t in self.turns() if t.user.id not in self._out]
        system = tokens(self._all([]))
        pinned = tokens(self._all([t for t in turns if t.user.id in chat.pinned]))
        used, room = tokens(self._all(turns)), self._engine.room(settings.max_tokens)
        return [
            ("system", system),
            ("pinned", pinned - system),
            ("turns", used - pinned),
            ("free", max(0, room - used)),
            ("kept for the answer", self._engine.size - max(room, used)),
        ]

    def check_pin(self, id: str, settings: Settings) -> None:
        """LcpError where the pinned turns and this one would leave no room for a question."""
        chat = self._conversation
        pinned = [t for t in chat.turns() if t.user.id in {*chat.pinned, id}]
        tokens, room = self._engine.count(self._all(pinned)), self._engine.room(settings.max_tokens)
        if tokens > room:
            raise LcpError(
                f"With that turn pinned, {tokens:,} tokens always stay in the window, which has "
                f"room for {room:,}. Leave it, or start with a larger --ctx-size."
            )

    def foresee(self, text: str, settings: Settings, spare: int = 0) -> Window:
        """The window in which this message would be asked, and `spare` tokens of it free; nothing
        changes. TooLong as `fit`."""
        twin = copy.copy(self)
        twin._conversation = self._conversation.asking(text)
        return twin.fit(settings, lambda asked, covers: False, spare=spare)

    def check_size(self, tokens: int, settings: Settings) -> int:
        """The tokens of a prompt with a message of about so many; TooLong where it is too long."""
        room = self._engine.room(settings.max_tokens)
        if tokens > room:
            raise too_long(tokens, room, 0, bool(self._conversation.pinned))
        return min(room, self._engine.used(self.visible()) + tokens)

    def about_to_leave(self, settings: Settings) -> list[tuple[int, Turn]]:
        """The turns with files, numbered, that a question of an eighth of the window would push
        out of it."""
        spare, room = self._engine.size // 8, self._engine.room(settings.max_tokens)
        if settings.overflow == "stop" or self._engine.used(self.visible()) + spare <= room:
            return []
        with suppress(TooLong):
            window = self.foresee("?", settings, spare)
            return [(n, t) for n, t in self._numbered(window.newly_out) if t.user.files]
        return []

    def unseen(self) -> str:
        """A sentence on the turns that the model does not see; "" when it sees all."""
        gone = self._numbered(self._unseen())
        if not gone:
            return ""
        summary = self._conversation.summary()
        noted = summary and {t.user.id for _, t in gone} <= summary.covers
        note = ", only a note on them" if noted else ""
        files = [name for _, t in gone for name in t.user.files]
        lost = f" (with {words.listed(files, FILES_NAMED)})" if files else ""
        back = f"{gone[0][0]} brings it back" if len(gone) == 1 else "N brings one back"
        return f"The model does not see {_turns_named(gone)}{lost}{note}. /pin {back}."

    def files(self) -> list[str]:
        """The attached files that the model sees, each with its turn."""
        gone = self._unseen()
        seen = [(n, turn) for n, turn in self._numbered() if turn.user.id not in gone]
        return [f"{name} (turn {n})" for n, turn in seen for name in turn.user.files]

    def told(self, window: Window, progress: Progress, seconds: float, held: int) -> str:
        """One line when the prompt is read: which turns left the window, and what was read again;
        "" when only the question was read.

        `held`: tokens the cache held before.
        """
        told = self._told_of_leaving(window)
        if told or progress.kept + REREAD < held:
            history = window.tokens - self._engine.count(window.messages[-1:])
            twice = max(0, history - progress.kept)  # the question is new, long as it may be
            if twice > REREAD and not progress.moved:
                why = "" if told else ", because what comes before them has changed"
                told.append(f"lcp re-read {twice:,} tokens of the chat in {seconds:.1f} s{why}.")
        return " ".join(told)

    def _told_of_leaving(self, window: Window) -> list[str]:
        summary = self._conversation.summary()
        if not set(window.newly_out) - (summary.covers if summary else frozenset()):
            return []  # none left, or the note on them was shown
        gone = self._numbered(self._unseen())
        alone = all(m.role == "system" for m in window.messages[:-1])
        seen = "sees only this question, not" if alone else "no longer sees"
        files = [name for _, t in self._numbered(window.newly_out) for name in t.user.files]
        lost = f" (with {words.listed(files, FILES_NAMED)})" if files else ""
        back = f"{gone[0][0]} brings it back" if len(gone) == 1 else "N keeps one"
        return [f"Context full: the model {seen} {_turns_named(gone)}{lost}. /pin {back}."]

    def numbers(self, turns: Collection[Turn]) -> list[int]:
        """The numbers of these turns."""
        return [n for n, _ in self._numbered({turn.user.id for turn in turns})]

    def _unseen(self) -> set[str]:
        seen = {t.user.id for t in self.turns()} - self._out
        return {t.user.id for t in self._conversation.turns()} - seen

    def _numbered(self, ids: Collection[str] | None = None) -> list[tuple[int, Turn]]:
        """The turns of this branch as /history counts them; of these `ids` only."""
        turns = enumerate(self._conversation.turns(), 1)
        return [(n, turn) for n, turn in turns if ids is None or turn.user.id in ids]

    def dropped(self) -> int:
        """How many turns of this branch the model does not see."""
        return len(self._unseen())

    def out(self) -> frozenset[str]:
        """The turns that left the window."""
        return self._out

    def fit(
        self,
        settings: Settings,
        condense: Condense,
        begun: Message | None = None,
        spare: int = 0,
    ) -> Window:
        """Make room for the last question, or for going on with the answer `begun`; and leave
        `spare` tokens of it free."""
        policy = settings.overflow
        if policy == "summarize" and settings.raw == "on":
            policy = "slide"  # text that goes on is asked for no note
        turns = self.turns()
        said = begun.thinking + begun.content if begun else ""
        if begun:
            counted = replace(begun, content=said, thinking="", tokens=())
            turns[-1] = replace(turns[-1], answer=counted)
        room, size = self._engine.room(settings.max_tokens), self._engine.size
        if begun:  # it may go on until little is left
            room = max(room, size - size // 8)
        room -= spare
        if policy == "truncate":  # always full: what is out comes back turn by turn
            window = self._fit(turns, room, 0, ())
            newly_out = tuple(id for id in window.newly_out if id not in self._out)
            window = replace(window, newly_out=newly_out)
        else:
            window = self._fit(turns, room, size // 8, self._out)
        if window.newly_out:
            if policy == "stop":
                tokens = self._engine.count(self._all(turns))
                why = f"the context is full ({tokens:,} tokens, room for {room:,})"
                raise TooLong(why, "use /forget N, /clear or /set overflow slide", tokens, room)
            if policy == "summarize":
                window = self._condensed(window, turns, room, condense)
        self._out = window.out
        if policy == "truncate" and window.out:
            window = self._truncated(window, turns, room)
        if said:  # the engine goes on with it; it is no message of the prompt
            window.messages.pop()
        return window

    def _fit(self, turns: list[Turn], room: int, slack: int, out: Collection[str]) -> Window:
        chat = self._conversation
        return fit(
            chat.system,
            turns,
            self._engine.count,
            room,
            out=out,
            pinned=chat.pinned,
            slack=slack,
            note=self._note(),
        )

    def _left(self) -> frozenset[str]:
        """The turns that were out at the last answer, of a chat that is resumed."""
        answers = [t.answer for t in self._conversation.turns() if t.answer]
        return frozenset(answers[-1].out if answers else ())

    def _all(self, turns: list[Turn]) -> list[PromptMessage]:
        return messages(self._conversation.system, turns, self._note())

    def _note(self) -> str:
        summary = self._conversation.summary()
        return summary.text if summary else ""

    def _condensed(
        self, window: Window, turns: list[Turn], room: int, condense: Condense
    ) -> Window:
        """The window with a note in front for all that left it."""
        leaving = [t for t in turns if t.user.id in window.out]
        summary = self._conversation.summary()
        covers = window.out | (summary.covers if summary else frozenset())
        question = Turn(Message("", "user", CONDENSE), None)
        size = self._engine.size
        with suppress(TooLong):  # then it slides without a note, as when that is stopped
            # What leaves stands at the front of the cache: only the question is read for this.
            asked = self._fit([*leaving, question], size - size // 8, 0, ())
            if len(asked.out) < len(leaving) and condense(asked.messages, covers):
                gone = covers - self._conversation.pinned
                rest = [t for t in turns if t.user.id not in gone]
                return replace(self._fit(rest, room, 0, ()), newly_out=window.newly_out)
        return window

    def _truncated(self, window: Window, turns: list[Turn], room: int) -> Window:
        """The window with the end of the newest turn that left it."""
        last = max(i for i, t in enumerate(turns) if t.user.id in window.out)
        free = room - window.tokens - 48  # for the template's own words around it
        if free < 16:
            return window
        part = _end_of(turns[last], free, self._engine.clip)
        shown = self._all(
            [
                part if i == last else turn
                for i, turn in enumerate(turns)
                if i == last or turn.user.id not in window.out
            ]
        )
        tokens = self._engine.count(shown)
        return window if tokens > room else replace(window, messages=shown, tokens=tokens)


def _turns_named(turns: list[tuple[int, Turn]]) -> str:
    """ "your first 6 turns", "turns 2, 4-6"; "" for none."""
    numbers = [n for n, _ in turns]
    if numbers == list(range(1, len(numbers) + 1)):
        return (
            f"your first {words.count(len(numbers), 'turn')}"
            if numbers[1:]
            else ("your first turn" if numbers else "")
        )
    return f"{'turns' if numbers[1:] else 'turn'} {words.ranges(numbers)}"


def _end_of(turn: Turn, free: int, clip: Callable[[str, int], str]) -> Turn:
    """A turn without its beginning, in at most about `free` tokens."""
    answer = turn.answer
    if answer and answer.content:
        kept = clip(answer.content, free)
        if kept != answer.content:
            return Turn(_cut(turn.user, ""), _cut(answer, kept))
        # at least this much is left: a token is seldom under two bytes
        free = max(0, free - len(kept.encode("utf-8", "replace")) // 2)
    return Turn(_cut(turn.user, clip(turn.user.content, free)), answer)


def _cut(message: Message, end: str) -> Message:
    return replace(message, content="…" + end, tokens=())
