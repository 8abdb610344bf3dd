"""ToolbarText: the facts about a chat in the line below the prompt."""

from contextlib import suppress
from typing import Any

from lcp import formatting
from lcp.chat.chat import Chat
from lcp.chat.error_advice import ways_to_fit
from lcp.chat.typed_message import TypedMessage
from lcp.chat.window_notices import FILES_NAMED
from lcp.errors import LcpError
from lcp.session.export import plain_name

# Shares of the context window at which its figure changes colour.
NEARLY, FULL = 0.75, 0.90
TYPED = 100  # show the count of tokens in the line from this many on


class ToolbarText:
    """The parts of the line below the prompt.

    The keyboard asks several times a second, even while nobody types. So the parts are computed
    only when one of the facts they show has changed, and tokens are counted only when what the
    model sees has changed.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._version: tuple[Any, ...] = ()
        self._parts: list[tuple[str, str]] = []
        self._counted: tuple[Any, ...] = ()
        self._used = 0
        self._knows = True

    def __call__(self) -> list[tuple[str, str]]:
        """Parts with "", "warn" or "bad", the most important first: a narrow terminal has no room
        for the last ones."""
        version = self._current()
        if version != self._version:
            self._parts = self._make()
            self._version = version
        return self._parts

    def _current(self) -> tuple[Any, ...]:
        """What the parts depend on; cheap to get and to compare, however long the chat is."""
        chat, typed = self._chat, self._chat.typed
        return (
            *self._seen(),
            chat.loading is None,
            chat.loading and chat.loading.done,
            chat.engine.loaded,
            chat.engine.ahead,
            typed.newest,
            typed.slow,
            chat.model,
            chat.stats,
            chat.log.id,
            chat.log.problem,
        )

    def _seen(self) -> tuple[Any, ...]:
        """What the messages that the model sees depend on."""
        chat = self._chat
        conversation, overflow = chat.conversation, chat.overflow
        return (
            id(chat.engine), id(conversation), conversation.events, overflow.out, chat.settings
        )  # fmt: skip

    def _make(self) -> list[tuple[str, str]]:
        chat, model = self._chat, plain_name(self._chat.model)
        if chat.loading and (not chat.loading.done or chat.loading.error):
            return [(f"loading {model} ({100 * chat.engine.loaded:.0f} %)", "")]
        typed, (done, total) = chat.typed.newest, chat.engine.ahead
        parts = [*self._message(typed), *self._context(typed)]
        if done < total:
            parts.append((f"reading ahead {done:,}/{total:,} tokens", ""))
        parts.append((model, ""))
        if chat.stats and chat.stats.tokens_per_second:
            parts.append((f"{chat.stats.tokens_per_second:.1f} tokens/s", ""))
        saved = chat.log.id and not chat.log.problem
        parts.append((chat.conversation.name or chat.log.id, "") if saved else ("not saved", ""))
        return parts

    def _message(self, typed: TypedMessage) -> list[tuple[str, str]]:
        """The files of the message that is being typed, and what sending it would do."""
        attached, about = typed.attached, "about " * typed.about
        if self._chat.typed.slow:
            return [("reading the files of this message", "warn")]
        if attached.problems:
            return [(attached.problems[0], "bad")]
        parts = [(hint.rstrip("."), "warn") for hint in attached.hints[:1]]
        if typed.refused:
            # one short part: a narrow terminal must show what to do
            about = about or "about " * (not self._chat.engine.counts)
            share = 100 * typed.prompt / self._chat.engine.size
            why, ways = typed.refused.why.removeprefix("this "), ways_to_fit(typed.refused)
            parts = [(f"context {about}{share:.0f} %: {why}; {ways}", "bad")]
        elif typed.leaving:
            numbers = self._chat.overflow.numbers(typed.leaving)
            files = [name for turn in typed.leaving for name in turn.user.files]
            lost = f" ({formatting.listed(files, FILES_NAMED)})" if files else ""
            which = f"turn{'s' * (len(numbers) > 1)} {formatting.ranges(numbers)}"
            keep = f"/pin {numbers[0]} keeps it" if len(numbers) == 1 else "/pin N keeps one"
            parts.append((f"Enter drops {which}{lost} from the context; {keep}", "warn"))
        if attached.files:
            parts.append((attached.short(f"{about}{typed.files:,}"), ""))
        return parts

    def _context(self, typed: TypedMessage) -> list[tuple[str, str]]:
        """How full the context window is, with the tokens of the typed message if it is long."""
        if typed.refused:
            return []
        size, used = self._chat.engine.size, self._tokens()
        plus, tokens, about = "", used, "about " * (not self._knows)
        if typed.leaving:
            used, tokens, about = typed.prompt, typed.prompt, ""
        elif typed.prompt - used >= (1 if typed.attached.files else TYPED):
            plus, tokens = f"+{typed.prompt - used:,}", typed.prompt
            about = about or "about " * typed.about
        share = tokens / size
        style = "bad" if share >= FULL else "warn" if share >= NEARLY else ""
        about = about or "about " * (not self._chat.engine.counts)
        return [(f"context {about}{used:,}{plus}/{size:,} ({100 * share:.0f} %)", style)]

    def _tokens(self) -> int:
        """Tokens of what the model sees of the conversation."""
        if (seen := self._seen()) != self._counted:
            self._counted, self._used, self._knows = seen, 0, True
            with suppress(LcpError):  # the next answer raises it
                seen_next = self._chat.overflow.expected(self._chat.settings)
                self._used = self._chat.engine.used(seen_next)
                self._knows = self._chat.engine.counts_exactly(seen_next)
        return self._used
