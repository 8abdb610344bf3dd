"""Typed ahead: what is typed and pasted while an answer comes is read at once, and kept for the
next line.

A terminal takes some four thousand characters that nobody reads and then nothing more: behind a
long paste a Ctrl-C would not arrive before the answer is over.
"""

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyPress

_ESCAPE_S = 0.1  # after which an Esc is no beginning of another key
_BACKGROUND_S = 0.5  # between two looks whether the terminal is ours again


@contextmanager
def kept(input: Input, keys: list[KeyPress]) -> Iterator[None]:
    """Read the keys of `input`; they are put at the end of `keys`."""
    if os.name != "posix":  # Windows keeps them itself
        yield
        return
    ending, end = os.pipe()
    last = 0.0

    def read() -> None:
        nonlocal last
        with suppress(OSError, ValueError):  # the terminal may be gone
            while not input.closed:
                ready, _, _ = select.select([input.fileno(), ending], [], [])
                if ending in ready:
                    return
                if _ours(input.fileno()):
                    keys.extend(input.read_keys())
                    last = time.monotonic()
                else:
                    select.select([ending], [], [], _BACKGROUND_S)

    thread = threading.Thread(target=read, name="lcp keys", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(end, b".")
        thread.join()
        os.close(ending)
        os.close(end)
        if time.monotonic() - last > _ESCAPE_S:
            keys += input.flush_keys()


def _ours(fd: int) -> bool:
    """Whether it may be read: in the background that would stop us. A pipe always may."""
    return not os.isatty(fd) or os.tcgetpgrp(fd) == os.getpgrp()
