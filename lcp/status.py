"""Status: what is so in a chat now, for the line below the prompt."""

from contextlib import suppress
from pathlib import Path

from lcp.chat import Chat
from lcp.engine.engine import Engine
from lcp.errors import LcpError
from lcp.session.window import Plain

# Shares of the window from which on the meter has another colour.
NEARLY, FULL = 0.75, 0.90


class Status:
    """Asked several times a second; counts tokens only when conversation or model have changed."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._counted: tuple[Engine, list[Plain]] | None = None
        self._used = 0

    def __call__(self) -> list[tuple[str, str]]:
        """Parts with "", "warn" or "bad", the most important first: a narrow terminal has no room
        for the last ones. Raises what went wrong with the model."""
        chat, model = self._chat, Path(self._chat.model).name
        if chat.loading and not chat.loading.done:
            return [(f"loading {model}", "")]
        if chat.loading:
            chat.loading.result()
        size = chat.engine.size
        share = self._tokens() / size
        style = "bad" if share >= FULL else "warn" if share >= NEARLY else ""
        parts = [(f"context {self._used:,}/{size:,} ({100 * share:.0f} %)", style)]
        done, total = chat.engine.ahead
        if done < total:
            parts.append((f"reading ahead {done:,}/{total:,} tokens", ""))
        parts.append((model, ""))
        if chat.stats and chat.stats.tokens_per_second:
            parts.append((f"{chat.stats.tokens_per_second:.1f} tokens/s", ""))
        if chat.log.id:
            parts.append((chat.log.id, ""))
        return parts

    def _tokens(self) -> int:
        """Of what the model sees of the conversation."""
        messages = self._chat.overflow.visible()
        if (self._chat.engine, messages) != self._counted:
            self._counted, self._used = (self._chat.engine, messages), 0
            with suppress(LcpError):  # who asks for an answer will be told
                self._used = self._chat.engine.count(messages) if messages else 0
        return self._used
