"""Reads a file from its start in growing blocks, so that a server gets few requests.

It keeps what it has read, and refuses lengths that exceed the file.
"""

import struct
from collections.abc import Callable

from lcp import formatting
from lcp.errors import GgufError

_BLOCK, _MAX_BLOCK = 1 << 20, 32 << 20


class BlockReader:
    """Reads at most the first `limit` bytes of the file `name`, and keeps them; `at` is the next
    position."""

    def __init__(
        self, read: Callable[[int, int], bytes], size: int | None, name: str, limit: int
    ) -> None:
        """`read(offset, n)` gives fewer than n bytes only at the end of the file."""
        self.name = name
        self.at = 0
        self._read = read
        self._size = size
        self._limit = limit
        self._block = _BLOCK
        self._kept = bytearray()

    def peek(self, n: int) -> bytes:
        """Up to `n` of the next bytes; the position does not change."""
        self._fill(n)
        return bytes(self._kept[self.at : self.at + n])

    def take(self, n: int, what: str) -> bytes:
        """The next `n` bytes; GgufError if the file has fewer."""
        self.skip(n, what)
        return self.since(self.at - n)

    def skip(self, n: int, what: str) -> None:
        """Skip `n` bytes; GgufError if the file has fewer."""
        if self.at + n > len(self._kept):
            self.check(n, what)
            self._fill(n)
            if self.at + n > len(self._kept):
                raise self._cut_off(what, n, len(self._kept) - self.at)
        self.at += n

    def skip_strings(self, count: int, what: str, length: struct.Struct, most: int) -> None:
        """Skip `count` strings, each after its length."""
        while count:
            kept, at, last = self._kept, self.at, len(self._kept) - length.size
            while count and at <= last:
                (n,) = length.unpack_from(kept, at)
                if n > most:
                    raise self.damaged(f"a string in {what} claims to be {n:,} bytes long")
                at += length.size + n
                count -= 1
            self.at = min(at, len(kept))
            self.skip(at - self.at, what)  # the rest of the last string
            if count:
                self.skip(length.size, what)
                self.at -= length.size

    def since(self, start: int) -> bytes:
        """The bytes from a position to here."""
        return bytes(self._kept[start : self.at])

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
        """Read until the next `n` bytes are here, or the file ends."""
        while len(self._kept) - self.at < n:
            wanted = min(self._block, self._limit - len(self._kept))
            block = self._read(len(self._kept), wanted)
            self._kept += block
            if len(block) < wanted or not block:
                return
            self._block = min(2 * self._block, _MAX_BLOCK)
