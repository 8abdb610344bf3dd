"""Saved chats: one conversation is one append-only file, one event a line.

Store finds, lists and opens them (Log writes one); a half-written line costs only itself.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lcp.errors import SessionError
from lcp.session.conversation import Conversation, local_now
from lcp.session.log import Log
from lcp.session.message import Event
from lcp.words import count, short

Events = list[Event]
Notices = list[str]
Dated = list[tuple[int, Path]]

SHOWN = 5  # candidates named in a message
AROUND, BEFORE = 80, 24  # characters of a passage that was searched for, and of these in front
_ACCENTS = re.compile("[\u0300-\u036f]")


def random_tail() -> str:
    """Four hex digits: what tells apart two chats of the same minute."""
    return os.urandom(2).hex()


@dataclass(frozen=True)
class Saved:
    """One line of the list of saved chats."""

    id: str
    path: Path
    created: datetime
    name: str  # what the person calls it; "" for most
    title: str
    turns: int
    model: str
    modified: datetime
    passage: str  # the words around what was searched for; "" without


class Store:
    """The folder of saved chats. It is made when the first one is written."""

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], datetime] = local_now,
        new_tail: Callable[[], str] = random_tail,
    ) -> None:
        self.folder = folder
        self._now = now
        self._new_tail = new_tail

    def create(self, opening: Event) -> Log:
        """A log for a new conversation that starts with this begin event."""
        return Log.beginning(self._new_path(), [opening])

    def open(self, name: str) -> tuple[Log, Events, Notices]:
        """Go on with a saved chat: its log, its events, and what the person should know.

        Where another process is writing that chat, the log is of a copy.
        """
        path = self.find(name)
        try:
            log = Log.of(path)
        except BlockingIOError:
            return self._copy(path)
        try:
            data = _read(path)  # under the lock: nobody adds to it any more
        except SessionError:
            log.close()
            raise
        if not data.endswith(b"\n"):
            log.isolate()
        events, unread = _parse(data)
        return log, events, _unread(path, unread)

    def find(self, name: str) -> Path:
        """The file of a chat, by its id, its name, the beginning of its id, or "last"."""
        paths = self.newest()
        if name == "last":
            if not paths:
                raise SessionError("There is no saved chat yet; `lcp chat` begins one.")
            return paths[0]
        found = [path for path in paths if name and path.stem == name]
        found = found or [path for path in paths if name and name_of(path) == name]
        found = found or [path for path in paths if name and path.stem.startswith(name)]
        if not found:
            last = ", ".join(path.stem for path in paths[:SHOWN]) or "none yet"
            raise SessionError(f"There is no saved chat {name!r}. The last ones are: {last}.")
        if len(found) > 1:
            names = ", ".join(path.stem for path in found[:SHOWN])
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise SessionError(f"{name!r} fits several chats: {names}{more}; type more of the id.")
        return found[0]

    def list(self, words: Iterable[str] = (), most: int | None = None) -> Sequence[Saved]:
        """The saved chats in which all these words or phrases were said, the one last used first;
        what cannot be read is not among them. `most`: only so many are looked at."""
        wanted = [_searched(word) for word in words]
        saved = []
        for path in self.newest()[:most]:
            with suppress(OSError, SessionError):
                chat = Conversation.from_events(load(path)[0])
                said = [chat.name, *(m.content for m in chat.nodes.values())] if wanted else []
                texts = [_searched(text) for text in said]
                if all(any(word in text for text in texts) for word in wanted):
                    passage = _passage(said[1:], wanted)
                    saved.append(_saved(path, chat, passage))
        return saved

    def newest(self) -> Sequence[Path]:
        """The files of the saved chats, the one last used first."""
        used: Dated = []
        for path in self._files():
            with suppress(OSError):  # another process removes it just now
                stat = path.stat()
                if stat.st_size and path.is_file():  # a full disk leaves empty files
                    used.append((stat.st_mtime_ns, path))
        return [path for _, path in sorted(used, reverse=True)]

    def _files(self) -> Sequence[Path]:
        try:
            return [*self.folder.glob("*.jsonl")]
        except OSError:  # a folder nobody can look into holds nothing; writing will say why
            return []

    def _new_path(self) -> Path:
        taken = self._files()
        while True:
            path = self.folder / f"{self._now():%Y%m%d-%H%M}-{self._new_tail()}.jsonl"
            if path not in taken:
                return path

    def _copy(self, path: Path) -> tuple[Log, Events, Notices]:
        """The same chat in a new file, which is written with the first thing said in it."""
        old, unread = load(path)
        events = [{**e, "from": path.stem} if e["type"] == "begin" else e for e in old]
        events = [e for e in events if e["type"] != "name"]  # which stays the other one's
        log = Log.beginning(self._new_path(), events)
        busy = f"The chat {path.stem} is open in another lcp; this one goes on in a copy, {log.id}."
        return log, events, [busy, *_unread(path, unread)]


def load(path: Path) -> tuple[Events, int]:
    """The events of a saved chat, only to look at, and how many lines could not be read."""
    return _parse(_read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        sentence = f"{path} cannot be read ({error.strerror or error}); mend it or open another."
        raise SessionError(sentence) from error


def _parse(data: bytes) -> tuple[Events, int]:
    events: Events = []
    unread = 0
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 in the middle of a text.
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            event = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            event = None
        if isinstance(event, dict) and isinstance(event.get("type"), str):
            events.append(event)
        else:
            unread += 1
    return events, unread


def _unread(path: Path, unread: int) -> Notices:
    lines = count(unread, "line")
    sentence = f"{lines} of {path.name} could not be read and stayed out; the rest is here."
    return [sentence] if unread else []


def name_of(path: Path) -> str:
    """What a person calls this chat; "" for one without a name, or that cannot be read."""
    with suppress(SessionError):
        data = _read(path)
        if b'"type":"name"' in data:  # few have one: the others need no parsing
            return Conversation.from_events(_parse(data)[0]).name
    return ""


def _searched(text: str) -> str:
    """A text as a search sees it: without case, accents and line ends."""
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", text))
    # composed again: other marks, as that of が, make another letter
    return " ".join(unicodedata.normalize("NFC", bare).casefold().split())


def _passage(said: Iterable[str], wanted: Sequence[str]) -> str:
    """The words around the place where the first of these was said."""
    for text in said:
        line = unicodedata.normalize("NFC", " ".join(text.split()))
        at = _searched(line).find(wanted[0])  # of nearly all letters as many as in the line
        if at >= 0:
            near = at - BEFORE
            start = min(at, line.find(" ", near) + 1) if near > 0 else 0  # at a word
            return ("…" if start else "") + short(line[start:], AROUND)
    return ""


def _saved(path: Path, conversation: Conversation, passage: str) -> Saved:
    return Saved(
        id=path.stem,
        path=path,
        created=conversation.created,
        name=conversation.name,
        title=conversation.title(),
        turns=len(conversation.turns()),
        model=conversation.model,
        modified=datetime.fromtimestamp(path.stat().st_mtime).astimezone(),
        passage=passage,
    )
