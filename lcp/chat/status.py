"""Status: what is so in a chat now, for the line below the prompt."""

from contextlib import suppress

from lcp.chat.attachments import File
from lcp.chat.chat import Chat
from lcp.engine.engine import Engine
from lcp.errors import LcpError
from lcp.session.export import plain_name
from lcp.session.window import Plain

# Shares of the window from which on the meter has another colour.
NEARLY, FULL = 0.75, 0.90
TYPED = 100  # tokens in the line that are worth a figure


class Status:
    """Asked several times a second; counts tokens only when conversation or model have changed."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._counted: tuple[Engine, list[Plain]] | None = None
        self._used = 0
        self._weighed: tuple[tuple[File, ...], str] = ((), "")

    def __call__(self) -> list[tuple[str, str]]:
        """Parts with "", "warn" or "bad", the most important first: a narrow terminal has no room
        for the last ones. Raises what went wrong with the model."""
        chat, model = self._chat, plain_name(self._chat.model)
        if chat.loading and not chat.loading.done:
            return [(f"loading {model} ({100 * chat.engine.loaded:.0f} %)", "")]
        if chat.loading:
            chat.loading.result()
        size, (done, total) = chat.engine.size, chat.engine.ahead
        used = self._tokens()
        typed = total - used  # of what stands in the line, as far as it will be read ahead
        plus = f"+{typed:,}" if typed >= TYPED else ""
        share = max(used, total if plus else 0) / size
        style = "bad" if share >= FULL else "warn" if share >= NEARLY else ""
        context = f"context {used:,}{plus}/{size:,} ({100 * share:.0f} %)"
        parts = [*self._files(), (context, style)]
        if done < total:
            parts.append((f"reading ahead {done:,}/{total:,} tokens", ""))
        parts.append((model, ""))
        if chat.stats and chat.stats.tokens_per_second:
            parts.append((f"{chat.stats.tokens_per_second:.1f} tokens/s", ""))
        saved = chat.log.id and not chat.log.problem
        parts.append((chat.conversation.name or chat.log.id, "") if saved else ("not saved", ""))
        return parts

    def _files(self) -> list[tuple[str, str]]:
        """What the message that is typed brings with it."""
        attached = self._chat.attached
        if attached.problems:
            return [(attached.problems[0], "bad")]
        if attached.hints:
            return [(attached.hints[0].rstrip("."), "warn")]
        if attached.files != self._weighed[0]:
            self._weighed = (attached.files, attached.short(self._chat.engine.tokens))
        return [(self._weighed[1], "")] if attached.files else []

    def _tokens(self) -> int:
        """Of what the model sees of the conversation."""
        messages = self._chat.overflow.visible()
        if (self._chat.engine, messages) != self._counted:
            self._counted, self._used = (self._chat.engine, messages), 0
            with suppress(LcpError):  # who asks for an answer will be told
                self._used = self._chat.engine.used(messages)
        return self._used
