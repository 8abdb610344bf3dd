"""Stdin: read piped text, and switch to the terminal for a chat afterwards."""

import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from lcp.errors import UsageError

MOST = 16 << 20  # characters: more than any window holds; an endless stdin would fill the memory
_BOM = "\ufeff"  # which Windows programs write before a text
GRACE_S = 1.0  # how long a pipe may be silent before lcp looks who holds its other end


def read(asked: bool, say: Callable[[str], None]) -> str:
    """Read all piped text, without its final line ends. UsageError if there is too much.

    If a question was `asked` already, wait for a silent pipe only while another command can write
    to it: ssh, cron and test runners hold a pipe open for ever and write nothing.
    """
    if asked and not _comes(sys.stdin.fileno()):
        say("Nothing arrived on stdin; lcp answers without it. < /dev/null skips the wait.")
        return ""
    text = _bounded(sys.stdin.read(MOST + 1)).removeprefix(_BOM)
    return text.replace("\r\n", "\n").rstrip("\n")


def lines() -> Iterator[tuple[int, str]]:
    """Read piped lines, numbered from 1; blank ones are skipped. Lines end with LF or CR LF; a CR
    elsewhere is part of its line."""
    before = _BOM
    for number in count(1):
        if not (line := _bounded(sys.stdin.readline(MOST + 1))):
            return
        line, before = line.removeprefix(before), ""
        if line.strip():
            yield number, line.removesuffix("\n").removesuffix("\r")


def is_piped() -> bool:
    """Whether stdin is not a terminal; if so, keep its line ends and replace invalid UTF-8."""
    if sys.stdin.isatty():
        return False
    sys.stdin.reconfigure(errors="replace", newline="\n")  # type: ignore[union-attr]
    return True


def _bounded(text: str) -> str:
    """The text; UsageError if it is not text or too long for any window."""
    if len(text) > MOST:
        raise UsageError(
            f"stdin has more than {MOST:,} characters, too many for any context window. "
            "Give a part of it, for example with head -c 20000."
        )
    if "\0" in text:
        raise UsageError("stdin is not text. Convert it to text first, for example with pdftotext.")
    return text


def terminal() -> int:
    """Open the terminal of this process, if stdin is something else."""
    try:
        return os.open("/dev/tty", os.O_RDWR)
    except OSError:
        raise UsageError("-i needs a terminal, and there is none here. Leave out -i.") from None


def become(fd: int) -> None:
    """Make this terminal the stdin of this process."""
    os.dup2(fd, 0)
    os.close(fd)
    sys.stdin = os.fdopen(0, closefd=False)


def _comes(fd: int) -> bool:
    """Whether text or the end of the input can still come."""
    mode = os.fstat(fd).st_mode
    if sys.platform == "win32" or not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return True  # a file, or /dev/null
    if select.select([fd], [], [], GRACE_S)[0]:
        return True
    return not Path("/proc/self/fd").exists() or _is_written_to(fd)


def _is_written_to(fd: int) -> bool:
    """Whether a process that did not start this one holds the other end of the pipe (Linux)."""
    pipe = Path(f"/proc/self/fd/{fd}").readlink()
    known = {os.getpid()}
    above = os.getppid()
    while above:
        known.add(above)
        above = _parent(above)
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) in known:
            continue
        with suppress(OSError):  # owned by another user, or ended meanwhile
            for link in (process / "fd").iterdir():
                if link.readlink() == pipe and _writes(process / "fdinfo" / link.name):
                    return True
    return False


def _parent(pid: int) -> int:
    try:  # pid (name) state parent ...; the name may contain anything
        told = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return int(told.rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _writes(info: Path) -> bool:
    flags = next(line for line in info.read_text().splitlines() if line.startswith("flags"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
