"""Store: finds, lists, opens and renames saved chats. Log writes them.

A chat is one append-only file with one event a line; a half-written line loses only that event.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from lcp.errors import AmbiguousChat, NoSavedChat, SessionError
from lcp.formatting import count, short
from lcp.session.conversation import ONE_SHOT, Conversation, local_now
from lcp.session.log import Log
from lcp.session.message import Event

SHOWN = 5  # chats listed in an error message
LONGEST_NAME = 60
AROUND, BEFORE = 80, 24  # characters of a passage that was found; at most, before the match
_ACCENTS = re.compile("[\u0300-\u036f]")
# Match bytes of a log. A message text cannot match: its quotes are escaped.
_ONE_SHOT = re.compile(rb'"kind": ?"one-shot"')
_TOKENS = re.compile(rb',"(?:tokens|sampled)":\[[\d,]*\]')
_RECLASSED = re.compile(rb'"type": ?"(?:kind|name)"')


def random_tail() -> str:
    """Four hex digits that distinguish chats started in the same minute."""
    return os.urandom(2).hex()


@dataclass(frozen=True)
class Saved:
    """One line of the list of saved chats."""

    id: str
    path: Path
    created: datetime
    kind: str  # "one-shot" if only a script used it; "" for a chat
    name: str  # given by the user; "" without one
    title: str
    turns: int
    model: str
    modified: datetime
    size: int  # bytes of its log
    passage: str = ""  # the text around the match of a search

    @property
    def kv(self) -> Path:
        """The path of its saved KV cache."""
        return self.path.with_suffix(".kv")

    @property
    def kv_size(self) -> int:
        """Bytes of its saved KV cache; 0 without one."""
        try:
            return self.kv.stat().st_size
        except OSError:
            return 0


class Store:
    """The folder of saved chats. It is created with the first one."""

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

    def open(self, name: str) -> tuple[Log, list[Event], list[str]]:
        """Open a saved chat to continue it: its log, its events, and notices for the user.

        If another process has the chat open, the log is that of a copy.
        """
        path = self.find(name)
        try:
            log = Log.of(path)
        except BlockingIOError:
            return self._copy(path)
        try:
            data = _read(path)  # under the lock, so that nobody appends to it
        except SessionError:
            log.close()
            raise
        if not data.endswith(b"\n"):
            log.isolate()
        events, unread = _parse(data)
        return log, events, _unread(path, unread)

    def find(self, name: str) -> Path:
        """The file of a chat, by its id, its name, or a unique part of its id; "last" is the chat
        used last, one-shots excluded."""
        paths = self.newest()
        if name == "last":
            if (last := next(self.chats(), None)) is None:
                raise _no_chat(paths)
            return last
        found = [path for path in paths if name and path.stem == name]
        found = found or [path for path in paths if name and name_of(path) == name]
        found = found or [path for path in paths if name and name in path.stem]
        if not found:
            ids = ", ".join(path.stem for path in islice(self.chats(), SHOWN))
            if not ids:
                raise _no_chat(paths, f" {name!r}")
            raise SessionError(f"There is no saved chat {name!r}. The most recent: {ids}.")
        if len(found) > 1:
            rows = [f"{path.stem}  {_title(path)}".rstrip() for path in found[:SHOWN]]
            rows += [f"and {len(found) - SHOWN} more"] * (len(found) > SHOWN)
            raise AmbiguousChat(
                "\n  ".join([f"{name!r} matches {len(found)} chats. Type more of an id:", *rows])
            )
        return found[0]

    def saved(
        self, words: Iterable[str] = (), most: int | None = None, one_shots: bool = False
    ) -> Sequence[Saved]:
        """The saved chats that contain all these words or phrases, the last used first, at most
        `most`; unreadable ones are skipped. Includes one-shots if `one_shots` or `words` are given.
        """
        wanted = [_searched(word) for word in words]
        found: list[Saved] = []
        for path in self.newest() if one_shots or wanted else self.chats():
            if most is not None and len(found) >= most:
                break
            with suppress(OSError, SessionError):
                chat = _outline(path)
                contents = [chat.name, *(m.content for m in chat.nodes.values())] if wanted else []
                texts = [_searched(text) for text in contents]
                if all(any(word in text for text in texts) for word in wanted):
                    found.append(_saved(path, chat, _passage(contents[1:], wanted)))
        return found

    def newest(self) -> Sequence[Path]:
        """The files of all chats and one-shots, the last used first."""
        used: list[tuple[int, Path]] = []
        for entry in self._entries():
            with suppress(OSError):  # another process may remove it meanwhile
                # a full disk leaves empty files
                if entry.is_file() and (stat := entry.stat()).st_size:
                    used.append((stat.st_mtime_ns, Path(entry.path)))
        return [path for _, path in sorted(used, reverse=True)]

    def chats(self) -> Iterator[Path]:
        """The files of all chats that are not one-shots, the last used first."""
        return (path for path in self.newest() if not is_one_shot(path))

    def rename(self, path: Path, name: str) -> None:
        """Rename a chat, without changing when it was last used. "" removes its name."""
        name = self.free_name(name, path) if name.strip() else ""
        before = path.stat()
        log = locked(path)
        with log:
            data = _read(path)
            if not data.endswith(b"\n"):
                log.isolate()
            log.append(Conversation.from_events(_parse(data)[0]).rename(name), sync=True)
        if log.problem:
            raise SessionError(
                f"Cannot rename {path.stem} ({log.why}). Fix the disk or folder, then try again."
            )
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def free_name(self, name: str, own: Path) -> str:
        """The name with single spaces; SessionError if it is not valid or another chat has it."""
        name = " ".join(name.split())
        if name == "last" or len(name) > LONGEST_NAME or not name.isprintable():
            raise SessionError(
                f"A chat cannot have the name {short(name, LONGEST_NAME)!r}. Give up to "
                f'{LONGEST_NAME} printable characters; "last" means the last used chat.'
            )
        for path in self.newest():
            if path != own and name in (path.stem, name_of(path)):
                raise SessionError(f"The chat {path.stem} already uses {name}. Give another name.")
        return name

    def count_one_shots(self) -> int:
        """The number of one-shots."""
        return sum(map(is_one_shot, self.newest()))

    def _entries(self) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.folder) as entries:
                return [entry for entry in entries if entry.name.endswith(".jsonl")]
        except OSError:  # an unreadable folder counts as empty; writing to it gives the error
            return []

    def _new_path(self) -> Path:
        taken = {entry.name for entry in self._entries()}
        while True:
            name = f"{self._now():%Y%m%d-%H%M}-{self._new_tail()}.jsonl"
            if name not in taken:
                return self.folder / name

    def _copy(self, path: Path) -> tuple[Log, list[Event], list[str]]:
        """The same chat in a new file, which is written with its first new message."""
        old, unread = load(path)
        events = [{**e, "from": path.stem} if e["type"] == "begin" else e for e in old]
        events = [e for e in events if e["type"] != "name"]  # only the original keeps its name
        log = Log.beginning(self._new_path(), events)
        busy = f"The chat {path.stem} is open in another lcp. This lcp continues a copy, {log.id}."
        return log, events, [busy, *_unread(path, unread)]


def locked(path: Path) -> Log:
    """Lock a chat to change it; SessionError while another process has it open."""
    try:
        return Log.of(path)
    except BlockingIOError:
        sentence = f"The chat {path.stem} is open in another lcp. Close it there first."
        raise SessionError(sentence) from None


def remove(saved: Saved, only_kv: bool = False) -> int:
    """Remove a chat and its KV cache, or only the KV cache. Returns the bytes freed."""
    locked(saved.path).close()
    freed = 0
    for file in (saved.kv,) if only_kv else (saved.kv, saved.path):
        try:
            size = file.stat().st_size
            file.unlink()
            freed += size
        except FileNotFoundError:
            pass
        except OSError as error:
            sentence = f"Cannot remove {file}: {error.strerror}. Remove it by hand."
            raise SessionError(sentence) from error
    return freed


def describe(path: Path) -> Saved:
    """The entry of a saved chat in the list."""
    return _saved(path, _outline(path))


def is_one_shot(path: Path) -> bool:
    """Whether only a script used this chat: from its first line alone, unless a later line may
    have changed it."""
    try:
        with path.open("rb") as file:
            line = file.readline()
            if not _ONE_SHOT.search(line) or not _parse(line)[0]:
                return False
            changed = _RECLASSED.search(file.read())
        return not changed or Conversation.from_events(load(path)[0]).is_one_shot
    except (OSError, SessionError):
        return False


def load(path: Path) -> tuple[list[Event], int]:
    """Read the events of a saved chat, without its lock; also the number of damaged lines."""
    return _parse(_read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        sentence = f"Cannot read {path} ({error.strerror or error}). Fix it, or use another chat."
        raise SessionError(sentence) from error


def _parse(data: bytes) -> tuple[list[Event], int]:
    events: list[Event] = []
    unread = 0
    # Only "\n" ends a line: str.splitlines would also split at U+2028 inside a text.
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


def _unread(path: Path, unread: int) -> list[str]:
    sentence = f"Skipped {count(unread, 'damaged line')} of {path.name}."
    return [sentence] if unread else []


def name_of(path: Path) -> str:
    """The name of a chat; "" if it has none or cannot be read."""
    with suppress(SessionError):
        data = _read(path)
        if b'"type":"name"' in data:  # parse only the few chats that have a name
            return Conversation.from_events(_parse(data)[0]).name
    return ""


def _searched(text: str) -> str:
    """Normalise a text for searching: case-folded, without accents and line ends."""
    bare = _ACCENTS.sub("", unicodedata.normalize("NFD", text))
    # compose again: other marks, such as that of が, make a different letter
    return " ".join(unicodedata.normalize("NFC", bare).casefold().split())


def _passage(texts: Iterable[str], wanted: Sequence[str]) -> str:
    """The text around the first match of the first wanted word."""
    for text in texts:
        line = unicodedata.normalize("NFC", " ".join(text.split()))
        at = _searched(line).find(wanted[0])  # nearly the same offset as in the line
        if at >= 0:
            near = at - BEFORE
            start = min(at, line.find(" ", near) + 1) if near > 0 else 0  # start at a word
            return ("…" if start else "") + short(line[start:], AROUND)
    return ""


def _outline(path: Path) -> Conversation:
    """A chat without token ids, which are most of a log, so that it loads fast."""
    return Conversation.from_events(_parse(_TOKENS.sub(b"", _read(path)))[0])


def _title(path: Path) -> str:
    with suppress(OSError, SessionError):
        return describe(path).title
    return ""


def _no_chat(one_shots: Sequence[Path], name: str = "") -> NoSavedChat:
    if not one_shots:
        return NoSavedChat(f"There is no saved chat{name or ' yet'}.")
    only = count(len(one_shots), "one-shot")
    return NoSavedChat(f"There is no saved chat{name}, only {only}.", one_shots[0].stem)


def _saved(path: Path, conversation: Conversation, passage: str = "") -> Saved:
    stat = path.stat()
    return Saved(
        id=path.stem,
        path=path,
        created=conversation.created,
        kind=ONE_SHOT if conversation.is_one_shot else "",
        name=conversation.name,
        title=conversation.title(),
        turns=len(conversation.turns()),
        model=conversation.model,
        modified=datetime.fromtimestamp(stat.st_mtime).astimezone(),
        size=stat.st_size,
        passage=passage,
    )
