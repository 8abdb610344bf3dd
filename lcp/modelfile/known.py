"""Known: answers kept in a folder, under a hash of the question. What is lost is asked again."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any


class Known:
    """The place of one question's answer; of nothing where there is no folder."""

    def __init__(self, folder: Path | None, *question: bytes) -> None:
        digest = hashlib.blake2b(b"\0".join(question), digest_size=12).hexdigest()
        self._path = folder / f"{digest}.json" if folder else None

    def recall(self) -> dict[str, Any] | None:
        """The answer, None when it is not known."""
        with suppress(OSError, ValueError):
            answer = json.loads(self._path.read_text()) if self._path else None
            if isinstance(answer, dict):
                return answer
        return None

    def keep(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Keep the answer, and give it back."""
        if self._path:
            with suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                part = self._path.with_suffix(".part")
                part.write_text(json.dumps(answer))
                part.replace(self._path)  # whole, or not there
        return answer
