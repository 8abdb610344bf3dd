"""Stdin: the text that is piped in, and the terminal where a person continues the chat."""

import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from lcp.errors import UsageError

MOST = 16 << 20  # characters; no window holds so many, and a stdin without end takes all memory
_BOM = "\ufeff"  # which programs of Windows put in front of a text
GRACE_S = 1.0  # a pipe may be silent for so long before it is looked at who holds its other end


def read(asked: bool, say: Callable[[str], None]) -> str:
    """All that is piped in, without line ends behind it. UsageError for what has no end.

    Where a question was `asked` already, a pipe that is silent is waited for only while another
    command can write into it: what ssh, cron or a test runner holds open for ever gives nothing.
    """
    if asked and not _comes(sys.stdin.fileno()):
        say("Nothing came on stdin: the question is asked without it. < /dev/null says so at once.")
        return ""
    text = _bounded(sys.stdin.read(MOST + 1)).removeprefix(_BOM)
    return text.replace("\r\n", "\n").rstrip("\n")


def lines() -> Iterator[tuple[int, str]]:
    """The lines that are piped in, numbered from 1; blank ones are passed over. They end with LF
    or CR LF; a CR elsewhere belongs to its line."""
    before = _BOM
    for number in count(1):
        if not (line := _bounded(sys.stdin.readline(MOST + 1))):
            return
        line, before = line.removeprefix(before), ""
        if line.strip():
            yield number, line.removesuffix("\n").removesuffix("\r")


def is_piped() -> bool:
    """Whether stdin is no terminal; then any file may come, and comes with its own line ends."""
    if sys.stdin.isatty():
        return False
    sys.stdin.reconfigure(errors="replace", newline="\n")  # type: ignore[union-attr]
    return True


def _bounded(text: str) -> str:
    """The text; UsageError for what is none, or that no window holds."""
    if len(text) > MOST:
        raise UsageError(
            f"More than {MOST:,} characters came on stdin, and no window holds them. "
            "Give a part of it, with head -c 20000 for instance."
        )
    if "\0" in text:
        raise UsageError("stdin is not text. Convert it to text first, for example with pdftotext.")
    return text


def terminal() -> int:
    """The terminal of this process, opened, for when stdin is something else."""
    try:
        return os.open("/dev/tty", os.O_RDWR)
    except OSError:
        raise UsageError(
            "-i goes on with a person, and there is no terminal here. Leave out -i."
        ) from None


def become(fd: int) -> None:
    """Make this terminal the stdin of this process."""
    os.dup2(fd, 0)
    os.close(fd)
    sys.stdin = os.fdopen(0, closefd=False)


def _comes(fd: int) -> bool:
    """Whether to wait for what may still come: text, or the end."""
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
        with suppress(OSError):  # of somebody else, or gone meanwhile
            for link in (process / "fd").iterdir():
                if link.readlink() == pipe and _writes(process / "fdinfo" / link.name):
                    return True
    return False


def _parent(pid: int) -> int:
    try:  # pid (name) state parent ...; a name may have anything in it
        told = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return int(told.rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _writes(info: Path) -> bool:
    flags = next(line for line in info.read_text().splitlines() if line.startswith("flags"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
