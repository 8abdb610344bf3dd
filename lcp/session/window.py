"""The part of a conversation that fits into the context.

Gives the messages for the engine, and how many turns had to stay out. Whole turns go, oldest
first; the system text and the last turn never do. Knows no tokens: it is given a function that
counts them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lcp.errors import TooLong
from lcp.session.conversation import Message, Turn


@dataclass(frozen=True)
class Window:
    """What the model gets to see. `start` is the id of the first user message kept."""

    messages: list[dict[str, Any]]
    dropped: int
    newly_dropped: int
    start: str | None
    tokens: int


def fit(
    system: str,
    turns: Sequence[Turn],
    count: Callable[[list[dict[str, Any]]], int],
    room: int,
    start: str | None = None,
    slack: int = 0,
) -> Window:
    """The system text and as many of the last turns as fit into `room` tokens.

    `start`, from the window before, keeps out what was out; if it is not among the turns, nothing
    was. Once a turn has to go, turns go until `slack` tokens are free as well: a slide costs time
    and should happen every few turns, not at each. Raises TooLong if the last turn does not fit.
    """
    begin = next((i for i, turn in enumerate(turns) if turn.user.id == start), 0)
    last = max(len(turns) - 1, 0)

    @cache  # counting renders the template and tokenises the conversation
    def cost(first: int) -> int:
        messages = _messages(system, turns[first:])
        return count(messages) if messages else 0

    first = begin
    if begin < last and cost(begin) > room:
        # The fewer turns, the fewer tokens: search by halves. Where none is enough, the last stays.
        slid = range(begin + 1, last)
        first = slid.start + bisect_left(slid, True, key=lambda i: cost(i) <= room - slack)
    if cost(first) > room:
        raise TooLong(_too_long(cost(first), room, bool(turns)))
    return Window(
        messages=_messages(system, turns[first:]),
        dropped=first,
        newly_dropped=first - begin,
        start=turns[first].user.id if turns else None,
        tokens=cost(first),
    )


def _messages(system: str, turns: Sequence[Turn]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages.append(_plain(turn.user))
        if turn.answer and turn.answer.content:  # stopped before its first word: none
            messages.append(_plain(turn.answer))
    return messages


def _plain(message: Message) -> dict[str, Any]:
    optional = {
        "thinking": message.thinking,
        "tokens": list(message.tokens),
        "fingerprint": message.fingerprint,
    }
    present = {name: value for name, value in optional.items() if value}
    return {"role": message.role, "content": message.content, **present}


def _too_long(tokens: int, room: int, asked: bool) -> str:
    what = "This message, with the system text," if asked else "The system text"
    return (
        f"{what} takes {tokens} tokens and the window has room for {room}; "
        "shorten it, or start with a larger --ctx-size."
    )
