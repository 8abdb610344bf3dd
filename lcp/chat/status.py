"""Status: what is so in a chat now, for the line below the prompt."""

from contextlib import suppress

from lcp import words
from lcp.chat.chat import Chat
from lcp.chat.draft import Draft
from lcp.chat.overflow import FILES_NAMED
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

    def __call__(self) -> list[tuple[str, str]]:
        """Parts with "", "warn" or "bad", the most important first: a narrow terminal has no room
        for the last ones. Raises what went wrong with the model."""
        chat, model = self._chat, plain_name(self._chat.model)
        if chat.loading and not chat.loading.done:
            return [(f"loading {model} ({100 * chat.engine.loaded:.0f} %)", "")]
        if chat.loading:
            chat.loading.result()
        draft, (done, total) = chat.drafting.draft, chat.engine.ahead
        parts = [*self._draft(draft), *self._context(draft)]
        if done < total:
            parts.append((f"reading ahead {done:,}/{total:,} tokens", ""))
        parts.append((model, ""))
        if chat.stats and chat.stats.tokens_per_second:
            parts.append((f"{chat.stats.tokens_per_second:.1f} tokens/s", ""))
        saved = chat.log.id and not chat.log.problem
        parts.append((chat.conversation.name or chat.log.id, "") if saved else ("not saved", ""))
        return parts

    def _draft(self, draft: Draft) -> list[tuple[str, str]]:
        """What the message that is typed brings with it, and what sending it would do."""
        attached, about = draft.attached, "about " * draft.about
        if self._chat.drafting.slow:
            return [("looking for the files of this message", "warn")]
        if attached.problems:
            return [(attached.problems[0], "bad")]
        parts = [(hint.rstrip("."), "warn") for hint in attached.hints[:1]]
        if draft.refused:
            # one part, and short: what to do has to be seen on a narrow terminal, too
            share = 100 * draft.prompt / self._chat.engine.size
            why, ways = draft.refused.why.removeprefix("this "), draft.refused.ways
            parts = [(f"context {about}{share:.0f} %: {why}; {ways}", "bad")]
        elif draft.leaving:
            numbers = self._chat.overflow.numbers(draft.leaving)
            files = [name for turn in draft.leaving for name in turn.user.files]
            lost = f" ({words.listed(files, FILES_NAMED)})" if files else ""
            which = f"turn{'s' * (len(numbers) > 1)} {words.ranges(numbers)}"
            keep = f"/pin {numbers[0]} keeps it" if len(numbers) == 1 else "/pin N keeps one"
            parts.append((f"Enter drops {which}{lost} from the context; {keep}", "warn"))
        if attached.files:
            parts.append((attached.short(f"{about}{draft.files:,}"), ""))
        return parts

    def _context(self, draft: Draft) -> list[tuple[str, str]]:
        """How full the window is, with what is typed as soon as that is weighed."""
        if draft.refused:
            return []
        size, used = self._chat.engine.size, self._tokens()
        plus, tokens, about = "", used, ""
        if draft.leaving:
            used = tokens = draft.prompt
        elif draft.prompt - used >= (1 if draft.attached.files else TYPED):
            plus, tokens, about = f"+{draft.prompt - used:,}", draft.prompt, "about " * draft.about
        share = tokens / size
        style = "bad" if share >= FULL else "warn" if share >= NEARLY else ""
        return [(f"context {about}{used:,}{plus}/{size:,} ({100 * share:.0f} %)", style)]

    def _tokens(self) -> int:
        """Of what the model sees of the conversation."""
        messages = self._chat.overflow.visible()
        if (self._chat.engine, messages) != self._counted:
            self._counted, self._used = (self._chat.engine, messages), 0
            with suppress(LcpError):  # who asks for an answer will be told
                found = self._chat.overflow.expected(self._chat.settings)
                self._used = self._chat.engine.used(found)
        return self._used
