"""Conversation: a tree of messages, built by applying events in order.

Gives the turns on the path from the root to `head`, the current system text and the current
settings. Every change is an event, a JSON object that the caller saves; the same events rebuild
the same conversation. Does not depend on files, models or the terminal.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from lcp.errors import SessionError
from lcp.formatting import short
from lcp.session.message import Event, Message, Summary, Turn, from_event, moment

VERSION = 1
ENVELOPE = ("v", "id", "parent", "at", "type")
TITLE_LENGTH = 60
CHAT, ONE_SHOT = "chat", "one-shot"  # kinds: started by a person, or by a script


def local_now() -> datetime:
    """The current local time, with its UTC offset."""
    return datetime.now().astimezone()


def random_id() -> str:
    """Eight hex digits."""
    return os.urandom(4).hex()


@dataclass
class Conversation:
    """The tree of messages, and the current position in it (`head`)."""

    now: Callable[[], datetime] = field(default=local_now, compare=False, repr=False)
    new_id: Callable[[], str] = field(default=random_id, compare=False, repr=False)
    created: datetime = field(init=False)
    model: str = field(init=False, default="")
    kind: str = field(init=False, default=CHAT)
    name: str = field(init=False, default="")  # given by the user; "" without one
    system: str | None = field(init=False, default=None)  # "" means: no system text
    settings: dict[str, Any] = field(init=False, default_factory=dict)
    head: str | None = field(init=False, default=None)
    pinned: set[str] = field(init=False, default_factory=set)
    forgotten: set[str] = field(init=False, default_factory=set)
    summaries: list[Summary] = field(init=False, default_factory=list)
    nodes: dict[str, Message] = field(init=False, default_factory=dict, repr=False)
    opening: Event = field(init=False, default_factory=dict, repr=False)
    events: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.created = self.now()

    @classmethod
    def begin(
        cls,
        now: Callable[[], datetime],
        model: str,
        *,
        new_id: Callable[[], str] = random_id,
        **facts: Any,
    ) -> Conversation:
        """A new conversation; `opening` is its begin event, for the store."""
        conversation = cls(now, new_id)
        # Keep the local UTC offset: chat templates print this date, even tomorrow and abroad.
        created = conversation.created.isoformat(timespec="milliseconds")
        conversation._record("begin", None, {"created": created, "model": model, **facts})
        return conversation

    @classmethod
    def from_events(
        cls,
        events: Iterable[Event],
        *,
        now: Callable[[], datetime] = local_now,
        new_id: Callable[[], str] = random_id,
    ) -> Conversation:
        """Rebuild a conversation from its events."""
        conversation = cls(now, new_id)
        for event in events:
            conversation.apply(event)
        return conversation

    def apply(self, event: Event) -> None:
        """Apply one event: the only way state changes. Unknown events are ignored."""
        if self.events == 0:  # in case the begin line is damaged
            self.created = moment(event.get("at"), self.created)
        self.events += 1
        match event:
            case {"type": "begin", "model": str(model)} if not self.opening:
                self.opening = event
                self.created = moment(event.get("created"), self.created)
                self.model = model
                self.kind = str(event.get("kind", CHAT))  # older logs have no kind
            case {"type": "kind", "kind": str(kind)}:
                self.kind = kind
            case {"type": "system", "text": None | str() as text}:
                self.system = text
            case {"type": "name", "name": str(name)}:
                self.name = name
            case {"type": "set"}:
                for name, value in event.items():
                    if name == "model" and isinstance(value, str):
                        self.model = value
                    elif name not in ENVELOPE:  # several values are a tuple here, a list in JSON
                        self.settings[name] = tuple(value) if isinstance(value, list) else value
            case {"type": "pin", "message": str(id), "on": bool(on)} if id in self.nodes:
                (self.pinned.add if on else self.pinned.discard)(id)
            case {"type": "forget", "message": str(id), "on": bool(on)} if id in self.nodes:
                (self.forgotten.add if on else self.forgotten.discard)(id)
            case {"type": "summary", "text": str(text), "covers": [*ids]}:
                known = (id for id in ids if isinstance(id, str) and id in self.nodes)
                if covers := frozenset(known):  # a note that covers nothing would apply everywhere
                    self.summaries.append(Summary(text, covers))
            case {"type": "head", "to": None | str() as to} if to is None or to in self.nodes:
                self.head = to
            case {"type": "user" | "answer", "id": str(id), "text": str()} if self._fits(event):
                self.nodes[id] = from_event(event)
                self.head = id

    def ask(self, text: str, typed: str = "", files: Sequence[str] = ()) -> Event:
        """Add a user message after the head. With attached `files`, `typed` is the text without
        them."""
        more: dict[str, Any] = {"typed": typed} if typed not in ("", text) else {}
        more |= {"files": list(files)} if files else {}
        return self._record("user", self.head, {"text": text} | more)

    def asking(self, text: str) -> Conversation:
        """A copy with this user message added; this conversation does not change."""
        twin = copy.copy(self)
        twin.nodes, twin.new_id = dict(self.nodes), random_id
        twin.ask(text)
        return twin

    def answer(self, text: str, ended: str, model: str, **facts: Any) -> Event:
        """Add the model's answer to the user message at the head.

        `facts`, as JSON has them: fields of Message; its `sampling`; and `made_with`, what else a
        replay needs. Most are left out if they are empty.
        """
        if self.head is None or self.nodes[self.head].role != "user":
            raise ValueError("an answer needs a user message at the head")
        facts = {"sampling": {}, "seed": None, "stats": {}} | facts
        always = ("sampling", "seed", "stats")
        more = {name: value for name, value in facts.items() if value or name in always}
        said = {"text": text, "ended": ended, "model": model}
        return self._record("answer", self.head, said | more)

    def set_system(self, text: str | None) -> Event:
        """Set the system text of the whole conversation; "" means no system text, None leaves it
        to the model's chat template."""
        return self._record("system", None, {"text": text})

    def set(self, **values: Any) -> Event:
        """Record settings that were changed in the chat."""
        return self._record("set", None, values)

    def rename(self, name: str) -> Event:
        """Give this chat a name; "" removes it."""
        return self._record("name", None, {"name": name})

    @property
    def is_one_shot(self) -> bool:
        """Whether only a script used this chat: no person continued or named it."""
        return self.kind == ONE_SHOT and not self.name

    def become_chat(self) -> Event:
        """Turn a one-shot into a chat: a person continues it."""
        return self._record("kind", None, {"kind": CHAT})

    def go(self, to: str | None) -> Event:
        """Move the head to another message, or (None) before the first."""
        if to is not None and to not in self.nodes:
            raise SessionError(f"This chat has no message {to!r}. Give the id of one that it has.")
        return self._record("head", None, {"to": to})

    def pin(self, id: str, on: bool = True) -> Event:
        """Keep the turn of this question in the window when it slides; `on=False` unpins it."""
        return self._record("pin", None, {"message": id, "on": on})

    def forget(self, id: str, on: bool = True) -> Event:
        """Hide the turn of this question from the model; the log keeps it."""
        return self._record("forget", None, {"message": id, "on": on})

    def summarize(self, text: str, covers: Iterable[str]) -> Event:
        """From now on, replace the turns of these questions with this note."""
        return self._record("summary", None, {"text": text, "covers": sorted(covers)})

    def summary(self) -> Summary | None:
        """The newest note whose turns are all on the path to the head."""
        path = {turn.user.id for turn in self.turns()}
        return next((s for s in reversed(self.summaries) if s.covers <= path), None)

    def branches(self) -> list[str]:
        """The last message of every branch, oldest first."""
        parents = {message.parent for message in self.nodes.values()}
        return [id for id in self.nodes if id not in parents]

    def fork(self, id: str) -> str:
        """The first message that only this branch has: the nearest ancestor of a message, or the
        message itself, that has siblings. The message itself if nothing branches."""
        at: str | None = id
        while at is not None and len(self.children(self.nodes[at].parent)) == 1:
            at = self.nodes[at].parent
        return at or id

    def leads_to(self, id: str) -> bool:
        """Whether the head is on the path from the root to this message."""
        at: str | None = id
        while at is not None and at != self.head:
            at = self.nodes[at].parent
        return at is not None

    def clear(self) -> Event:
        """Go before the first message: the next question starts a new root."""
        return self.go(None)

    def turns(self, to: str | None = None) -> list[Turn]:
        """The turns from the root to the head, or to another message; the answer is None where
        there is none yet."""
        path: list[Message] = []
        at = to or self.head
        while at is not None:
            path.append(self.nodes[at])
            at = path[-1].parent
        turns: list[Turn] = []
        for message in reversed(path):
            if message.role == "user":
                turns.append(Turn(message, None))
            else:
                turns[-1] = Turn(turns[-1].user, message)
        return turns

    def children(self, id: str | None) -> list[Message]:
        """The messages that follow this one (None: the first ones), oldest first."""
        return [message for message in self.nodes.values() if message.parent == id]

    def title(self) -> str:
        """The beginning of the first question, on one line; "" for an empty chat."""
        first = next((m.written for m in self.nodes.values() if m.role == "user"), "")
        return short(first.strip().partition("\n")[0], TITLE_LENGTH)

    def _fits(self, event: Event) -> bool:
        """Whether this is a new message with a known parent, so that the tree has no loops."""
        parent = event.get("parent")
        if event["id"] in self.nodes or not isinstance(parent, str | None):
            return False
        if event["type"] == "user":
            return parent is None or parent in self.nodes
        return parent in self.nodes and self.nodes[parent].role == "user"

    def _record(self, type: str, parent: str | None, facts: Mapping[str, Any]) -> Event:
        while (id := self.new_id()) in self.nodes:
            pass
        at = self.now().astimezone(timezone.utc).isoformat(timespec="milliseconds")
        event = {"v": VERSION, "id": id, "parent": parent, "at": at, "type": type, **facts}
        self.apply(event)
        return event
