"""Message, Turn, Summary: the parts of a conversation, and how to make them from events.

Plain frozen values. An event is the JSON object of one line of the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

Event = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """One node of the tree. `tokens` are the ids of `content` as sampled by the model with this
    `fingerprint`; `sampled`: the ids of the whole answer, if thinking adds some."""

    id: str
    role: str
    content: str
    thinking: str = ""
    tokens: tuple[int, ...] = ()
    sampled: tuple[int, ...] = ()
    fingerprint: str = ""
    ended: str = ""
    parent: str | None = None
    out: tuple[str, ...] = ()  # of an answer: the turns that were not in its window
    model: str = ""  # of an answer: the model that generated it
    seed: int | None = None  # of an answer: the seed it was sampled with
    stats: Mapping[str, Any] = field(default_factory=dict, hash=False)
    typed: str = ""  # the text without attached files, if there are any
    files: tuple[str, ...] = ()  # the names of the attached files

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of all tokens sampled for this message."""
        return self.sampled or self.tokens

    @property
    def written(self) -> str:
        """The text to display: without attached files."""
        return self.typed or self.content


@dataclass(frozen=True)
class Turn:
    """A question and its answer, if there is one yet."""

    user: Message
    answer: Message | None


@dataclass(frozen=True)
class Summary:
    """The model's note that replaces the turns it covers, identified by their questions."""

    text: str
    covers: frozenset[str]


def from_event(event: Event) -> Message:
    """The message of a user or answer event; an optional field of the wrong type is ignored."""
    stats, seed = event.get("stats"), event.get("seed")
    return Message(
        id=event["id"],
        role="user" if event["type"] == "user" else "assistant",
        content=event["text"],
        thinking=str(event.get("thinking", "")),
        tokens=_ids(event.get("tokens")),
        sampled=_ids(event.get("sampled")),
        fingerprint=str(event.get("fingerprint", "")),
        ended=str(event.get("ended", "")),
        parent=event.get("parent"),
        out=_strings(event.get("out")),
        model=str(event.get("model", "")),
        seed=seed if isinstance(seed, int) else None,
        stats=stats if isinstance(stats, dict) else {},
        typed=str(event.get("typed", "")),
        files=_strings(event.get("files")),
    )


def _ids(value: object) -> tuple[int, ...]:
    # Compare the types as a set, for speed: listing the chats checks every token of every chat.
    return tuple(value) if isinstance(value, list) and {*map(type, value)} <= {int} else ()


def _strings(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) and {*map(type, value)} <= {str} else ()


def moment(text: object, otherwise: datetime) -> datetime:
    """Parse an ISO time, without an offset as UTC; `otherwise` if it is not one."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return otherwise
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
