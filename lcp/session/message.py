"""Message, Turn, Summary: what a conversation is made of, and how an event becomes one.

Plain frozen values; an event is the JSON object of one line of the log.
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
    `fingerprint`; `sampled` all ids of the answer, where thinking makes them more."""

    id: str
    role: str
    content: str
    thinking: str = ""
    tokens: tuple[int, ...] = ()
    sampled: tuple[int, ...] = ()
    fingerprint: str = ""
    ended: str = ""
    parent: str | None = None
    out: tuple[str, ...] = ()  # of an answer: the turns that were out of its window
    model: str = ""  # of an answer: the name of the model that gave it
    seed: int | None = None  # of an answer: what it was drawn with
    stats: Mapping[str, Any] = field(default_factory=dict, hash=False)
    typed: str = ""  # what the person wrote, where files were put in front of it
    files: tuple[str, ...] = ()  # the names of these

    @property
    def ids(self) -> tuple[int, ...]:
        """All that were sampled for it."""
        return self.sampled or self.tokens

    @property
    def written(self) -> str:
        """For a person: the text without the files in it."""
        return self.typed or self.content


@dataclass(frozen=True)
class Turn:
    """A question and its answer, if there is one yet."""

    user: Message
    answer: Message | None


@dataclass(frozen=True)
class Summary:
    """A note of the model's that stands for the turns it covers, named by their questions."""

    text: str
    covers: frozenset[str]


def from_event(event: Event) -> Message:
    """A user or answer event as a node; an optional field of the wrong kind is left out."""
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
    # The types as a set: the list of chats comes by here for every token of every chat.
    return tuple(value) if isinstance(value, list) and {*map(type, value)} <= {int} else ()


def _strings(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) and {*map(type, value)} <= {str} else ()


def moment(text: object, otherwise: datetime) -> datetime:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return otherwise
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
