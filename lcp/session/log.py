"""Log: the writer of one conversation's file: append-only, one event a line, one writer.

A line is on disk before the next thing happens, and a disk that fails stops the log, never the
chat. Knows nothing of what events mean, but that a chat without a user line is worth no file, nor
one whose questions could not be asked.
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
FAR_BEHIND = 0x7FFF0000  # Windows lets nobody read locked bytes: lock one that no file has


class Log:
    """The one writer of one conversation. Nothing is on disk before the first user line.

    `problem` is None until writing fails, then the sentence to show; from then on nothing is
    written, because a log with a hole in it is a broken tree.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.problem: str | None = None
        self.why = ""  # where writing failed, the error and the path
        self.is_new = False  # begun here, not found on the disk
        self._fd: int | None = None
        self._waiting = b""  # goes out in front of the next line
        self._worth_a_file = False
        self._unanswered: bytes | None = None  # all of a new log, until something was answered
        self._closed = False

    @classmethod
    def nowhere(cls) -> Log:
        """A log that keeps nothing: --no-save."""
        return cls(None)

    @classmethod
    def beginning(cls, path: Path, events: Iterable[Event]) -> Log:
        """The log of a new file, that starts with these events."""
        log = cls(path)
        log._unanswered, log.is_new = b"", True
        for event in events:
            log._wait(event)
        return log

    @property
    def id(self) -> str:
        """What --resume takes; "" if nothing is kept."""
        return self.path.stem if self.path else ""

    def append(self, event: Event, sync: bool = False) -> None:
        """Write one line; with `sync` it is on the disk itself when this returns."""
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
        """Whether there is a file, which can be gone on with."""
        return self._fd is not None

    def take_back(self) -> None:
        """What was asked could not be: leave no file of a chat in which nothing was answered yet.
        Its lines go out in front of the next question."""
        if self.path is None or self._fd is None or not self._unanswered:
            return
        os.close(self._fd)
        self._fd, self._worth_a_file, self._waiting = None, False, self._unanswered
        with suppress(OSError):
            self.path.unlink()

    def fail(self, error: OSError) -> None:
        """Stop writing, and say why."""
        self.why = f"{error.strerror or error}: {self.path}"
        self.problem = (
            f"This chat is no longer saved ({self.why}). It goes on, "
            "but nothing from here on is written; mend the disk or folder and start lcp again."
        )

    @classmethod
    def of(cls, path: Path) -> Log:
        """The log of a file that is there; BlockingIOError while another process writes it."""
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
        """A line that was cut off stays alone on its line."""
        self._waiting = b"\n"

    def close(self) -> None:
        """Let the file and its lock go."""
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
    # A lone surrogate has no UTF-8; as a backslash escape it is what JSON calls it, too.
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _create(path: Path) -> int:
    """A new file that only its owner reads, and that its folder on the disk knows of."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = _open(path, os.O_CREAT | os.O_EXCL)
    with suppress(OSError):  # Windows cannot open a folder, nor some network disks sync one
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return fd


def _open(path: Path, flags: int = 0) -> int:
    """The file for appending, ours until it is closed; BlockingIOError if someone else has it."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | BINARY | flags, 0o600)
    try:
        if sys.platform == "win32":
            os.lseek(fd, FAR_BEHIND, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # Windows says "permission"
        os.close(fd)
        raise BlockingIOError from error
    except OSError:
        pass  # a file system without locks: better a chat without one than none
    return fd


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
