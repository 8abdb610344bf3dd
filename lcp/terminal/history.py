"""History: earlier messages, kept on disk."""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History

LONGEST = 50_000  # characters of a message that is kept on disk
READ = 1 << 20  # bytes at the end of the file that are recalled


class HistoryFile(History):
    """The file of earlier messages: one JSON string a line, readable by its owner only."""

    def __init__(self, path: Path, unfold: Callable[[str], str] = str) -> None:
        """`unfold` replaces the placeholders of long pastes in a line by their texts."""
        super().__init__()
        self._path = path
        self._unfold = unfold

    def load_history_strings(self) -> Iterable[str]:
        """Newest first. Lines that are not JSON strings are skipped."""
        try:
            with self._path.open("rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - READ)
                file.seek(start)
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return
        for line in reversed(lines[1:] if start else lines):  # the first is cut
            with suppress(ValueError):
                text = json.loads(line)
                if isinstance(text, str):
                    yield text

    def store_string(self, string: str) -> None:
        """Append a message. A write error is ignored: the chat matters more. A very long message
        is kept in memory only."""
        text = self._unfold(string)
        if len(text) > LONGEST:
            return
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(json.dumps(text) + "\n")
