"""Window: the part of a conversation that fits in the context window.

Gives the messages for the engine, and the turns that are left out. Whole turns are dropped, oldest
first; the system text, pinned turns and the last turn always stay. The caller passes a function
that counts tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lcp.engine_interface import PromptMessage
from lcp.errors import TooLong
from lcp.session.message import Message, Turn

Count = Callable[[list[PromptMessage]], int]


@dataclass(frozen=True)
class Window:
    """What the model sees. Turns are identified by the ids of their questions."""

    messages: list[PromptMessage]
    out: frozenset[str]  # turns that did not fit
    newly_out: tuple[str, ...]  # those of `out` that were in the previous window
    tokens: int


def fit(
    system: str | None,
    turns: Sequence[Turn],
    count: Count,
    room: int,
    *,
    out: Collection[str] = (),
    pinned: Collection[str] = (),
    slack: int = 0,
    note: str = "",
) -> Window:
    """Fit the system text, a note on earlier turns, and as many turns as possible into `room`
    tokens.

    The turns that were `out` of the previous window stay out until all turns fit with `slack`
    tokens to spare. If a turn must be dropped, turns are dropped until `slack` tokens are free,
    too: a slide costs time and should happen every few turns, not at each one. Raises TooLong if
    the parts that must stay do not fit.
    """
    was_out = [t.user.id for t in turns if t.user.id in out]
    # Turns that may be dropped, oldest first: those already out, then the others.
    may_go = [t.user.id for t in turns[:-1] if t.user.id not in pinned]
    may_go.sort(key=lambda id: id not in was_out)
    known: dict[int, int] = {}

    def shown(dropped: int) -> list[PromptMessage]:
        gone = set(may_go[:dropped])
        return messages(system, [t for t in turns if t.user.id not in gone], note)

    def cost(dropped: int) -> int:
        # counting is slow: it renders the template and tokenises the conversation
        if dropped not in known:
            visible = shown(dropped)
            known[dropped] = count(visible) if visible else 0
        return known[dropped]

    begin = sum(id in was_out for id in may_go)
    if begin and cost(0) <= room - slack:
        begin = 0
    dropped = begin
    if cost(begin) > room:
        if cost(len(may_go)) > room:
            front = messages(system, [t for t in turns[:-1] if t.user.id in pinned], note)
            raise TooLong(
                cost(len(may_go)), room, front=count(front) if front else 0, pinned=bool(pinned)
            )
        # Fewer turns never take more tokens: binary search.
        low, high = begin + 1, len(may_go)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if cost(middle) <= room - slack else (middle + 1, high)
        dropped = min(low, len(may_go))
    gone = may_go[:dropped]
    return Window(
        messages=shown(dropped),
        out=frozenset(gone),
        newly_out=tuple(id for id in gone if id not in was_out),
        tokens=cost(dropped),
    )


def messages(system: str | None, turns: Sequence[Turn], note: str = "") -> list[PromptMessage]:
    """The system text, the note as a turn of its own, and the turns, as engine messages. An empty
    system text is passed on, too: it replaces that of the chat template."""
    result = [PromptMessage("system", system)] if system is not None else []
    if note:
        # A whole turn, as chat templates expect the roles to alternate.
        result += [
            PromptMessage("user", "What have we talked about so far?"),
            PromptMessage("assistant", note),
        ]
    for turn in turns:
        result.append(for_prompt(turn.user))
        if turn.answer and turn.answer.content:  # empty if it was stopped before its first word
            result.append(for_prompt(turn.answer))
    return result


def for_prompt(message: Message) -> PromptMessage:
    """Convert a message to the engine's type."""
    return PromptMessage(
        message.role, message.content, message.thinking, message.tokens, message.fingerprint
    )
