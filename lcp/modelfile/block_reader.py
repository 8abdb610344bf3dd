"""Reads a file from its start in growing blocks, so that a server gets few requests.

It returns bytes, skips strings without creating them, and refuses lengths that exceed the file.
"""

import struct
from collections.abc import Callable

from lcp import formatting
from lcp.errors import GgufError

MAX_KEPT = 32 << 20  # bytes between a mark and the end of what it keeps
_BLOCK, _MAX_BLOCK = 1 << 20, 32 << 20


class BlockReader:
    """Reads at most the first `limit` bytes of the file `name`; `at` is the next position."""

    def __init__(
        self, read: Callable[[int, int], bytes], size: int | None, name: str, limit: int
    ) -> None:
        """`read(offset, n)` gives fewer than n bytes only at the end of the file."""
        self.name = name
        self._read = read
        self._size = size
        self._limit = limit
        self._block = _BLOCK
        self._start = 0  # where the buffer begins in the file
        self._buffer = b""
        self._next = 0  # index into the buffer
        self._mark = -1  # index into the buffer; -1: no byte has to be kept

    @property
    def at(self) -> int:
        return self._start + self._next

    def peek(self, n: int) -> bytes:
        """Up to `n` of the next bytes; the position does not change."""
        self._fill(n)
        return self._buffer[self._next : self._next + n]

    def take(self, n: int, what: str) -> bytes:
        """The next `n` bytes; GgufError if the file has fewer."""
        end = self._next + n
        if end > len(self._buffer):
            self.check(n, what)
            self._fill(n)
            end = self._next + n
            if end > len(self._buffer):
                raise self._cut_off(what, n, len(self._buffer) - self._next)
        taken = self._buffer[self._next : end]
        self._next = end
        return taken

    def skip(self, n: int, what: str) -> None:
        """Skip `n` bytes. They are read only if a mark has to keep them."""
        if self._mark >= 0:
            self.take(n, what)
            return
        self.check(n, what)
        if self._next + n > len(self._buffer):
            self._start, self._buffer, self._next = self.at + n, b"", 0
        else:
            self._next += n

    def skip_strings(self, count: int, what: str, length: struct.Struct, most: int) -> None:
        """Skip `count` strings, each after its length."""
        unpack, size = length.unpack_from, length.size
        while count:
            buffer, at, last = self._buffer, self._next, len(self._buffer) - size
            before, n = at, 0
            while count and at <= last:
                (n,) = unpack(buffer, at)
                if n > most:
                    raise self.damaged(f"a string in {what} claims to be {n:,} bytes long")
                before, at = at, at + size + n
                count -= 1
            if at > len(buffer):  # the last string continues after the buffer
                self._next = before + size
                self.skip(n, what)
            else:
                self._next = at
                if count:
                    self.check(size, what)
                    if len(self.peek(size)) < size:
                        raise self._cut_off(what, size, 0)

    def mark(self) -> None:
        """Keep the bytes from here on, for `marked`."""
        self._mark = self._next

    def marked(self) -> bytes:
        """The bytes from the mark to here."""
        kept = self._buffer[self._mark : self._next]
        self.unmark()
        return kept

    def unmark(self) -> None:
        self._mark = -1

    def check(self, n: int, what: str) -> None:
        """GgufError if `n` more bytes exceed the size of the file or the limit."""
        if self._size is not None and n > self._size - self.at:
            raise self._cut_off(what, n, self._size - self.at)
        if n > self._limit - self.at:
            raise self.damaged(f"{what} exceeds the limit of {formatting.size(self._limit)}")

    def damaged(self, what: str) -> GgufError:
        """The error that says what is wrong with the file."""
        return GgufError(
            f"{self.name} is damaged or newer than lcp: {what}. Use another file of this model, "
            "or download this one again."
        )

    def _cut_off(self, what: str, n: int, left: int) -> GgufError:
        end = self._size or self.at + left
        return GgufError(
            f"{self.name} ends in the middle of its header, after {end:,} bytes: "
            f"{what} needs {n:,} bytes and {left:,} are left. Download it again."
        )

    def _fill(self, n: int) -> None:
        """Read until the buffer has the next `n` bytes, or the file ends."""
        if self._mark >= 0 and self._next - self._mark + n > MAX_KEPT:
            raise self.damaged(f"a value is larger than {formatting.size(MAX_KEPT)}")
        while len(self._buffer) - self._next < n:
            end = self._start + len(self._buffer)
            block = self._read(end, min(self._block, self._limit - end))
            kept = self._next if self._mark < 0 else self._mark
            self._buffer = self._buffer[kept:] + block
            self._start += kept
            self._next -= kept
            self._mark = min(self._mark, 0)
            if len(block) < min(self._block, self._limit - end) or not block:
                return
            self._block = min(2 * self._block, _MAX_BLOCK)
