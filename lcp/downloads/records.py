"""What was pulled and when a model was last used: small files of ours in the data folder.

A pull is one JSON line in pulls.jsonl: repo, path, commit, sha256, size, date. By it a later pull
can say that a file has changed, and a file that was moved can still be verified.

The last use is the date of an empty file. The access time of the model itself would say less: many
file systems do not keep it or keep it by the day, and a backup or a checksum changes it. An empty
file needs no lock when two chats begin at once.
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
    """One file that was pulled."""

    repo: str
    path: str
    commit: str
    sha256: str
    size: int  # bytes
    date: str  # UTC, ISO 8601


def remember(repo: str, path: str, commit: str, sha256: str, size: int) -> None:
    """Append a line, unless the last one of this file says the same."""
    last = last_pull(repo, path)
    if last and last.sha256 == sha256:
        return
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = json.dumps(asdict(Pull(repo, path, commit, sha256, size, date))) + "\n"
    _file().parent.mkdir(parents=True, exist_ok=True)
    with _file().open("a", encoding="utf-8") as file:
        file.write(line)


def last_pull(repo: str, path: str) -> Pull | None:
    """The newest line of a file. Lines that cannot be read are passed over."""
    found = None
    with suppress(OSError):
        for line in _file().read_text("utf-8", "replace").splitlines():
            with suppress(ValueError, TypeError):
                pull = Pull(**json.loads(line))
                if (pull.repo, pull.path) == (repo, path):
                    found = pull
    return found


def note_use(name: str) -> None:
    """A chat with this model begins. A disk that fails costs the date, not the chat."""
    with suppress(OSError):
        _used(name).parent.mkdir(parents=True, exist_ok=True)
        _used(name).touch()


def last_use(name: str) -> float | None:
    """Seconds since 1970; None when no chat has used it."""
    try:
        return _used(name).stat().st_mtime
    except OSError:
        return None


def forget_use(name: str) -> None:
    """The model is gone."""
    with suppress(OSError):
        _used(name).unlink()


def _file() -> Path:
    return paths.data() / "pulls.jsonl"


def _used(name: str) -> Path:
    return paths.data() / "used" / quote(name, safe="")
