"""Log: writes one conversation's file, append-only, one event a line, one writer at a time.

Each line is written before the next thing happens. A failing disk stops the log, never the chat. A
chat gets a file with its first user line, and the file is removed if no question was answered.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lcp.session.message import Event

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

BINARY = getattr(os, "O_BINARY", 0)  # Windows would write "\r\n" without it
BEYOND_ANY_FILE = 0x7FFF0000  # Windows blocks reads of locked bytes: lock one beyond any file


class Log:
    """The only writer of one conversation. Nothing is on disk before the first user line.

    `problem` is None until writing fails, then the sentence to show. After that, nothing more is
    written: a log with a gap would be a broken tree.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.problem: str | None = None
        self.why = ""  # if writing failed: the error and the path
        self.is_new = False  # created by this process, not loaded from disk
        self._fd: int | None = None
        self._waiting = b""  # written before the next line
        self._worth_a_file = False
        self._unanswered: bytes | None = None  # all lines of a new log, until the first answer
        self._closed = False

    @classmethod
    def nowhere(cls) -> Log:
        """A log that writes nothing."""
        return cls(None)

    @classmethod
    def beginning(cls, path: Path, events: Iterable[Event]) -> Log:
        """A log for a new file that starts with these events."""
        log = cls(path)
        log._unanswered, log.is_new = b"", True
        for event in events:
            log._wait(event)
        return log

    @property
    def id(self) -> str:
        """The id of the chat; "" if it is not saved."""
        return self.path.stem if self.path else ""

    def append(self, event: Event, sync: bool = False) -> None:
        """Write one line; with `sync`, flush it to the disk before returning."""
        if self._closed:
            raise ValueError("append to a closed log")
        if self.path is None or self.problem:
            return
        self._wait(event)
        if not self._worth_a_file:
            return
        try:
            if self._fd is None:
                self._fd = _create(self.path)
            _write(self._fd, self._waiting)
            if sync:
                os.fsync(self._fd)
        except OSError as error:
            self.fail(error)
        self._waiting = b""

    @property
    def is_kept(self) -> bool:
        """Whether there is a file, so that the chat can be resumed."""
        return self._fd is not None

    def take_back(self) -> None:
        """After a question that could not be asked: remove the file of a chat without answers.
        Its lines are written again before the next question."""
        if self.path is None or self._fd is None or not self._unanswered:
            return
        os.close(self._fd)
        self._fd, self._worth_a_file, self._waiting = None, False, self._unanswered
        with suppress(OSError):
            self.path.unlink()

    def fail(self, error: OSError) -> None:
        """Stop writing, and set `problem` to the reason."""
        self.why = f"{error.strerror or error}: {self.path}"
        self.problem = (
            f"This chat is no longer saved ({self.why}). You can continue, but new messages will "
            "be lost. Fix the disk or folder, then start lcp again."
        )

    @classmethod
    def of(cls, path: Path) -> Log:
        """Open the log of an existing file; BlockingIOError while another process has it open."""
        log = cls(path)
        try:
            log._fd = _open(path)
            log._worth_a_file = True
        except BlockingIOError:
            raise
        except OSError as error:
            log.fail(error)
        return log

    def isolate(self) -> None:
        """Start the next event on a new line, after a line that was cut off."""
        self._waiting = b"\n"

    def close(self) -> None:
        """Close the file and release its lock."""
        self._closed = True
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, event: Event) -> None:
        line = _line(event)
        self._waiting += line
        self._worth_a_file = self._worth_a_file or event["type"] in ("user", "answer")
        if event["type"] == "answer":
            self._unanswered = None
        elif self._unanswered is not None:
            self._unanswered += line


def _line(event: Event) -> bytes:
    # UTF-8 cannot encode a lone surrogate; its backslash escape is valid JSON.
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _create(path: Path) -> int:
    """Create a file that only its owner can read, and sync its folder entry to disk."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = _open(path, os.O_CREAT | os.O_EXCL)
    with suppress(OSError):  # Windows cannot open a folder; some network disks cannot sync one
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return fd


def _open(path: Path, flags: int = 0) -> int:
    """Open for appending and lock; BlockingIOError if another process has the lock."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | BINARY | flags, 0o600)
    try:
        if sys.platform == "win32":
            os.lseek(fd, BEYOND_ANY_FILE, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # the latter on Windows
        os.close(fd)
        raise BlockingIOError from error
    except OSError:
        pass  # a file system without locks: better to save without one than not at all
    return fd


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
