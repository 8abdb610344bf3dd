"""A file on a server, read in pieces: the header of a model that is not downloaded."""

import time
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from lcp import formatting
from lcp.downloads.http import EXPIRED, STALL, open_url, same_origin
from lcp.errors import DownloadError
from lcp.network.connections import Connection
from lcp.network.urls import host

MAX_READ = 64 << 20  # bytes in all
MIN_READ = 1 << 20  # bytes per request: the next read is usually of what follows


class RemoteFile:
    """Keeps one connection, and the address after redirects until it expires."""

    def __init__(self, url: str, token: str | None = None, stall: float = STALL) -> None:
        self.name = unquote(PurePosixPath(urlsplit(url).path).name)
        self._url, self._token, self._stall = url, token, stall
        self._at = url
        self._connection: Connection | None = None
        self._size: int | None = None
        self._etag: str | None = None
        self._begin, self._block = 0, b""  # the last block that was read, and its offset
        self._spent = 0

    @property
    def size(self) -> int | None:
        """Bytes of the whole file; None if the server does not say."""
        if not self._spent:
            self.read(0, 1)
        return self._size

    def read(self, offset: int, n: int) -> bytes:
        """n bytes from this offset, fewer at the end of the file."""
        begin = offset - self._begin
        if not 0 <= begin <= begin + n <= len(self._block):
            if n <= 0 or (self._size is not None and offset >= self._size):
                return b""
            self._fetch(offset, n)
            begin = offset - self._begin
        return self._block[begin : begin + n]

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fetch(self, offset: int, n: int) -> None:
        for last in (False, False, True):
            try:
                self._ask(offset, n)
                return
            except DownloadError as error:
                self.close()
                if error.status == 416:  # past the end of the file
                    self._begin, self._block = offset, b""
                    return
                expired = self._at != self._url and error.status in EXPIRED
                if last or not (error.retryable or expired):
                    raise
                self._at = self._url  # redirects again, to a fresh address
                time.sleep(min(error.retry_after or 0.2, 5))

    def _ask(self, offset: int, n: int) -> None:
        # A server without ranges starts from offset 0 each time: then the blocks double.
        wanted = max(n, MIN_READ, 0 if self._begin else len(self._block))
        response = open_url(
            self._at,
            headers={"Range": f"bytes={offset}-{offset + wanted - 1}"},
            token=self._token if same_origin(self._at, self._url) else None,
            stall=self._stall,
            connection=self._connection,
        )
        try:
            etag = response.headers.get("ETag")
            if self._etag and etag != self._etag:
                raise DownloadError(
                    f"{self.name} changed on the server while lcp was reading it. Try again."
                )
            if response.start not in (0, offset):
                raise DownloadError(
                    f"{host(self._at)} sent other bytes than those asked for. Try again."
                )
            until = min(offset + wanted, response.start + MAX_READ - self._spent)
            if until < offset + n:
                raise DownloadError(
                    f"The header of {self.name} is longer than {formatting.size(MAX_READ)}. "
                    "Download the file first."
                )
            self._block = response.read(until - response.start)
            self._begin, self._spent = response.start, self._spent + len(self._block)
            self._at, self._etag, self._size = response.url, etag, response.size
        finally:
            self._connection = response.release()
