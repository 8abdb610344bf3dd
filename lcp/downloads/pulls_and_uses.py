"""Records of what was pulled and when each model was last used, in the data folder.

Each pull is a JSON line in pulls.jsonl: repo, path, commit, sha256, size, date. With it, a later
pull can report that a file has changed, and a file that was moved can still be verified.

The last use is the modification time of an empty file. The access time of the model file is no
substitute: many file systems do not update it, and backups and checksums do. An empty file needs no
lock when two chats start at once.
"""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from lcp import paths


@dataclass(frozen=True)
class Pull:
    """A file that was pulled."""

    repo: str
    path: str
    commit: str
    sha256: str
    size: int  # bytes
    date: str  # UTC, ISO 8601


def remember(repo: str, path: str, commit: str, sha256: str, size: int) -> None:
    """Record a pull, unless the last record of this file has the same hash."""
    last = last_pull(repo, path)
    if last and last.sha256 == sha256:
        return
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps(asdict(Pull(repo, path, commit, sha256, size, date))) + "\n"
    _file().parent.mkdir(parents=True, exist_ok=True)
    with _file().open("a", encoding="utf-8") as file:
        file.write(line)


def last_pull(repo: str, path: str) -> Pull | None:
    """The newest record of a file; lines that cannot be parsed are skipped."""
    found = None
    with suppress(OSError):
        for line in _file().read_text("utf-8", "replace").splitlines():
            with suppress(ValueError, TypeError):
                pull = Pull(**json.loads(line))
                if (pull.repo, pull.path) == (repo, path):
                    found = pull
    return found


def note_use(name: str) -> None:
    """Record that a chat with this model starts; a disk error only loses the date."""
    with suppress(OSError):
        _used(name).parent.mkdir(parents=True, exist_ok=True)
        _used(name).touch()


def last_use(name: str) -> float | None:
    """Seconds since 1970; None if no chat has used it."""
    try:
        return _used(name).stat().st_mtime
    except OSError:
        return None


def forget_use(name: str) -> None:
    """Delete the record of a model that was removed."""
    with suppress(OSError):
        _used(name).unlink()


def _file() -> Path:
    return paths.data() / "pulls.jsonl"


def _used(name: str) -> Path:
    return paths.data() / "used" / quote(name, safe="")
