"""Bytes: one file from a server into the Hub cache; resumed, verified, never thrown away.

What has come stays in one part file under a name that the next run knows, however this one ends.
Every byte goes through the hash that the file is named by, also those of an earlier run: the part
is read again before it grows, and nothing is in the cache whose hash was not right. One connection,
asked for anew from the first address each time it breaks, so that signed addresses may run out.
Knows no repositories.
"""

import contextlib
import errno
import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from lcp import words
from lcp.downloads.cache import RemoteBlob, hold, place, remember
from lcp.downloads.http import STALL, Response, host, open_url
from lcp.errors import DownloadError

TRIES = 8  # failures in a row, without one new byte in between, before it is given up
LONGEST_PAUSE = 30.0  # seconds between two tries
LONGEST_WAIT = 300.0  # seconds that a server may ask to be left alone
SAY_AGAIN = 10.0  # seconds between two notices that a connection broke
BUFFER = 1 << 20  # bytes
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))

# What is done ("checking" what is here, "downloading"), bytes done, bytes in all.
OnProgress = Callable[[str, int, int], None]
OnNotice = Callable[[str], None]


def fetch(
    file: RemoteBlob,
    *,
    token: str | None = None,
    on_progress: OnProgress = lambda doing, done, total: None,
    on_notice: OnNotice = lambda sentence: None,
    stall: float = STALL,
    pause: float = 1.0,
) -> Path:
    """Have this file in the cache; its path there. Raises DownloadError.

    stall: seconds without a byte after which a connection counts as dead. pause: seconds before
    the second try; they double from try to try.
    """
    if file.is_at(file.pointer):
        with contextlib.suppress(OSError):  # a cache may be read-only
            file.part.unlink(missing_ok=True)  # another program was faster
            remember(file)
        return file.pointer
    try:
        with hold(file, lambda: on_notice(f"Another program downloads {file.path}: waiting.")):
            new = not file.is_at(file.blob) and not file.is_at(file.pointer)
            if new:
                _check_room(file)
                with _Part(file, on_progress) as part:
                    _Transfer(file, part, token, on_notice, stall, pause).run()
                file.part.replace(file.blob)
            if not file.is_at(file.pointer):
                place(file, new)
            remember(file)
            return file.pointer
    except OSError as error:
        raise _not_kept(file, error) from error


class _Part:
    """The bytes that have come, on disk, and the hash of them."""

    def __init__(self, file: RemoteBlob, on_progress: OnProgress) -> None:
        self.file, self._on_progress, self._told = file, on_progress, 0.0
        self._disk = file.part.open("a+b", buffering=0)
        self._forget()
        try:
            self._check()
        except BaseException:
            self._disk.close()
            raise

    def write(self, view: memoryview) -> None:
        """Append these bytes."""
        while view:
            n = self._disk.write(view) or 0
            self._add(view[:n], "downloading")
            view = view[n:]

    def restart(self) -> None:
        """Begin with nothing."""
        self._disk.truncate(0)
        self._forget()

    def _forget(self) -> None:
        self.length = 0
        self._hash = hashlib.sha256()
        if len(self.file.etag) == 40:  # as git names a file
            self._hash = hashlib.sha1(b"blob %d\0" % self.file.size)

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def _check(self) -> None:
        """Take in what an earlier run has left."""
        view = memoryview(bytearray(BUFFER))
        self._disk.seek(0)
        while n := self._disk.readinto(view):
            self._add(view[:n], "checking")
        if self.length > self.file.size:
            self.restart()

    def _add(self, view: memoryview, doing: str) -> None:
        self._hash.update(view)
        self.length += len(view)
        now = time.monotonic()
        if now - self._told >= 0.1 or self.length == self.file.size:
            self._told = now
            self._on_progress(doing, self.length, self.file.size)

    def __enter__(self) -> "_Part":
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        if not failed:
            os.fsync(self._disk.fileno())
        self._disk.close()
        if not self.length and failed:
            self.file.part.unlink(missing_ok=True)


class _Transfer:
    """The way of a file's bytes from a server into its part."""

    def __init__(
        self,
        file: RemoteBlob,
        part: _Part,
        token: str | None,
        on_notice: OnNotice,
        stall: float,
        pause: float,
    ) -> None:
        self.file, self.part, self._token, self._tell = file, part, token, on_notice
        self._stall, self._pause = stall, pause
        self._etag: str | None = None  # of the answer before; says whether it is still that file
        self._buffer = memoryview(bytearray(BUFFER))
        self._told = -SAY_AGAIN

    def run(self) -> None:
        """Have all bytes, and the right ones; what has come is kept whatever happens."""
        try:
            for again in (True, False):
                self._all()
                if (found := self.part.hash) == self.file.etag:
                    return
                self.part.restart()
                if again:
                    self._tell(f"{self.file.path} came damaged: once more from the start.")
            raise DownloadError(
                f"{self.file.path} came damaged twice: its hash is {found} and should be "
                f"{self.file.etag}. Try again later, or from another network."
            )
        except BaseException:  # also Ctrl-C
            if have := self.part.length:
                done = f"{words.size(have)} of {words.size(self.file.size)}"
                self._tell(f"{done} are kept: the same command goes on from there.")
            raise

    def _all(self) -> None:
        """Ask until all bytes are here; tries are counted anew whenever one more has come."""
        farthest, failures = self.part.length, 0
        while self.part.length < self.file.size:
            try:
                self._some()
            except DownloadError as error:
                if self.part.length > farthest:
                    farthest, failures = self.part.length, 0
                failures += 1
                longest = min(LONGEST_PAUSE, self._pause * 2 ** (failures - 1))
                wait = max(longest * random.uniform(0.5, 1), error.retry_after or 0)
                if not error.retryable or failures == TRIES or wait > LONGEST_WAIT:
                    raise
                if max(wait, time.monotonic() - self._told) >= SAY_AGAIN:
                    self._told = time.monotonic()
                    # Its first sentence; the next step is for those who have given up.
                    self._tell(f"{str(error).partition('. ')[0]}. Trying again in {wait:.0f} s.")
                time.sleep(wait)

    def _some(self) -> None:
        """One question, and as much of the answer as comes."""
        have = self.part.length
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self._etag:
            headers["If-Range"] = self._etag
        try:
            response = open_url(
                self.file.url, headers=headers, token=self._token, stall=self._stall
            )
        except DownloadError as error:
            if error.status == 416:  # nothing there from here on: it is another file
                self.part.restart()
                error.retryable = True
            raise
        with contextlib.closing(response):
            self._meet(response)
            # No byte more than there should be: the hash says whether these are the ones.
            while n := response.readinto(self._buffer[: self.file.size - self.part.length]):
                self.part.write(self._buffer[:n])
        if self.part.length < self.file.size:
            raise self._lie(response, "fewer bytes than it should")

    def _meet(self, response: Response) -> None:
        """Whether the answer goes on where the part ends; else the part begins anew."""
        kind = response.headers.get_content_type()
        if kind == "text/html" and not self.file.path.endswith((".html", ".htm")):
            raise DownloadError(
                f"{host(response.url)} answers with a web page. If this network wants you to log "
                "in, do that, then run the same command again."
            )
        if response.size not in (None, self.file.size):
            raise self._lie(response, f"{response.size} bytes and not {self.file.size}")
        before, etag = self._etag, response.headers.get("ETag", "")
        self._etag = None if etag.startswith("W/") else etag or None  # weak ones prove nothing
        changed = before and self._etag and before != self._etag
        if self.part.length and (changed or response.start != self.part.length):
            why = "has changed" if changed else "cannot be resumed from this server"
            self._tell(f"{self.file.path} {why}: once more from the start.")
            self.part.restart()
        if response.start != self.part.length:
            raise self._lie(response, "from another place than asked")

    def _lie(self, response: Response, what: str) -> DownloadError:
        return DownloadError(
            f"{host(response.url)} sends {self.file.path} wrongly: {what}. Try again later.",
            retryable=True,
        )


def _check_room(file: RemoteBlob) -> None:
    have = file.part.stat().st_size if file.part.exists() else 0
    free = shutil.disk_usage(file.folder).free
    if file.size - have > free:
        raise DownloadError(
            f"{file.path} needs {words.size(file.size - have)} and {file.folder} has "
            f"{words.size(free)} left. "
            "Free some space, or set HF_HOME to a folder on a larger disk."
        )


def _not_kept(file: RemoteBlob, error: OSError) -> DownloadError:
    if error.errno in _FULL:
        have = file.part.stat().st_size if file.part.exists() else 0
        return DownloadError(
            f"The disk is full ({error.strerror}): {words.size(file.size - have)} of "
            f"{file.path} are missing. "
            f"Free some space in {file.folder}, then run the same command again."
        )
    return DownloadError(
        f"{file.path} cannot be kept in {file.folder}: {error.strerror or error}. "
        "Set HF_HOME to a folder that can be written."
    )
