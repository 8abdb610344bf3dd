"""Downloads one file into the Hub cache: resumed and verified.

The bytes are kept in a part file that the next run continues, however this one ends. All of them
are hashed, those of an earlier run too: the part is read before it grows, and only a file with the
right hash enters the cache. There is one connection; after a failure, lcp asks the first address
again, because signed addresses expire.
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

from lcp import formatting
from lcp.downloads.http import STALL, Response, open_url
from lcp.downloads.hub_cache import CacheEntry, hold, link, write_ref
from lcp.errors import DownloadError
from lcp.network.urls import host

TRIES = 8  # failures in a row without a new byte
MAX_PAUSE = 30.0  # seconds between two tries
MAX_WAIT = 300.0  # seconds that a server may ask lcp to wait
NOTICE_EVERY = 10.0  # seconds between two notices about failures
BUFFER = 1 << 20  # bytes
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))

# "checking" (the bytes of an earlier run) or "downloading", bytes done, bytes in all
OnProgress = Callable[[str, int, int], None]
OnNotice = Callable[[str], None]


def download(
    file: CacheEntry,
    *,
    token: str | None = None,
    on_progress: OnProgress = lambda doing, done, total: None,
    on_notice: OnNotice = lambda sentence: None,
    stall: float = STALL,
    pause: float = 1.0,
) -> Path:
    """Download a file unless it is in the cache; its path there. Raises DownloadError.

    stall: seconds without a byte after which a connection counts as dead. pause: seconds before
    the second try; each later pause is twice as long.
    """
    if file.is_at(file.pointer):
        with contextlib.suppress(OSError):  # a cache may be read-only
            file.part.unlink(missing_ok=True)  # another program downloaded it
            write_ref(file)
        return file.pointer
    try:
        with hold(file, lambda: on_notice(f"Another lcp is downloading {file.path}: waiting.")):
            new = not file.is_at(file.blob) and not file.is_at(file.pointer)
            if new:
                _check_room(file)
                with _Part(file, on_progress) as part:
                    _Transfer(file, part, token, on_notice, stall, pause).run()
                file.part.replace(file.blob)
            if not file.is_at(file.pointer):
                link(file, new)
            write_ref(file)
            return file.pointer
    except OSError as error:
        raise _disk_error(file, error) from error


class _Part:
    """The bytes downloaded so far, on disk, and their hash."""

    def __init__(self, file: CacheEntry, on_progress: OnProgress) -> None:
        self.file, self._on_progress, self._told = file, on_progress, 0.0
        self._disk = file.part.open("a+b", buffering=0)
        self._reset()
        try:
            self._read()
        except BaseException:
            self._disk.close()
            raise

    def write(self, view: memoryview) -> None:
        """Append bytes."""
        while view:
            n = self._disk.write(view) or 0
            self._add(view[:n], "downloading")
            view = view[n:]

    def restart(self) -> None:
        """Discard all bytes."""
        self._disk.truncate(0)
        self._reset()

    def _reset(self) -> None:
        self.length = 0
        self._hash = hashlib.sha256()
        if len(self.file.etag) == 40:  # the hash of git
            self._hash = hashlib.sha1(b"blob %d\0" % self.file.size)

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def _read(self) -> None:
        """Hash the bytes of an earlier run."""
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
    """The transfer of a file from a server into its part."""

    def __init__(
        self,
        file: CacheEntry,
        part: _Part,
        token: str | None,
        on_notice: OnNotice,
        stall: float,
        pause: float,
    ) -> None:
        self.file, self.part, self._token, self._tell = file, part, token, on_notice
        self._stall, self._pause = stall, pause
        self._etag: str | None = None  # of the previous answer, to notice that the file changed
        self._buffer = memoryview(bytearray(BUFFER))
        self._told = -NOTICE_EVERY

    def run(self) -> None:
        """Download all bytes and check their hash; a failure keeps the bytes that are here."""
        try:
            for again in (True, False):
                self._download()
                if (found := self.part.hash) == self.file.etag:
                    return
                self.part.restart()
                if again:
                    self._tell(f"{self.file.path} arrived damaged: downloading it again.")
            raise DownloadError(
                f"{self.file.path} arrived damaged twice: its hash is {found}, expected "
                f"{self.file.etag}. Try again later, or from another network."
            )
        except BaseException:  # also Ctrl-C
            if have := self.part.length:
                done = f"{formatting.size(have)} of {formatting.size(self.file.size)}"
                self._tell(f"Kept {done}: the same command resumes there.")
            raise

    def _download(self) -> None:
        """Request until all bytes are here; new bytes reset the count of failures."""
        farthest, failures = self.part.length, 0
        while self.part.length < self.file.size:
            try:
                self._request()
            except DownloadError as error:
                if self.part.length > farthest:
                    farthest, failures = self.part.length, 0
                failures += 1
                longest = min(MAX_PAUSE, self._pause * 2 ** (failures - 1))
                wait = max(longest * random.uniform(0.5, 1), error.retry_after or 0)
                if not error.retryable or failures == TRIES or wait > MAX_WAIT:
                    raise
                if max(wait, time.monotonic() - self._told) >= NOTICE_EVERY:
                    self._told = time.monotonic()
                    # Only the first sentence: the next step is not needed yet.
                    self._tell(f"{str(error).partition('. ')[0]}. Trying again in {wait:.0f} s.")
                time.sleep(wait)

    def _request(self) -> None:
        """One request; appends as much of the answer as arrives."""
        have = self.part.length
        headers = {"Range": f"bytes={have}-"} if have else {}
        if have and self._etag:
            headers["If-Range"] = self._etag
        try:
            response = open_url(
                self.file.url, headers=headers, token=self._token, stall=self._stall
            )
        except DownloadError as error:
            if error.status == 416:  # past the end: it is another file
                self.part.restart()
                error.retryable = True
            raise
        with contextlib.closing(response):
            self._check(response)
            # Never more bytes than the size; the hash tells whether they are the right ones.
            while n := response.readinto(self._buffer[: self.file.size - self.part.length]):
                self.part.write(self._buffer[:n])
        if self.part.length < self.file.size:
            raise self._wrong(response, "too few bytes")

    def _check(self, response: Response) -> None:
        """Check that the answer continues the part; else discard the part."""
        kind = response.headers.get_content_type()
        if kind == "text/html" and not self.file.path.endswith((".html", ".htm")):
            raise DownloadError(
                f"{host(response.url)} sent a web page instead of the file. If this network "
                "requires a login, log in, then run the same command again."
            )
        if response.size not in (None, self.file.size):
            raise self._wrong(response, f"{response.size} bytes instead of {self.file.size}")
        before, etag = self._etag, response.headers.get("ETag", "")
        self._etag = None if etag.startswith("W/") else etag or None  # a weak ETag proves nothing
        changed = before and self._etag and before != self._etag
        if self.part.length and (changed or response.start != self.part.length):
            why = "has changed" if changed else "cannot be resumed from this server"
            self._tell(f"{self.file.path} {why}: downloading it from the start.")
            self.part.restart()
        if response.start != self.part.length:
            raise self._wrong(response, "a part that was not asked for")

    def _wrong(self, response: Response, what: str) -> DownloadError:
        return DownloadError(
            f"{host(response.url)} sent {self.file.path} incorrectly: {what}. Try again later.",
            retryable=True,
        )


def _check_room(file: CacheEntry) -> None:
    have = file.part.stat().st_size if file.part.exists() else 0
    free = shutil.disk_usage(file.folder).free
    if file.size - have > free:
        raise DownloadError(
            f"{file.path} needs {formatting.size(file.size - have)}, and {file.folder} has "
            f"{formatting.size(free)} free. "
            "Free some space, or set HF_HOME to a folder on a larger disk."
        )


def _disk_error(file: CacheEntry, error: OSError) -> DownloadError:
    if error.errno in _FULL:
        have = file.part.stat().st_size if file.part.exists() else 0
        return DownloadError(
            f"The disk is full ({error.strerror}): {file.path} needs "
            f"{formatting.size(file.size - have)} more. "
            f"Free some space in {file.folder}, then run the same command again."
        )
    return DownloadError(
        f"Cannot write {file.path} in {file.folder}: {error.strerror or error}. "
        "Set HF_HOME to a writable folder."
    )
