"""The slash command that measures which parts of the prompt the last answer needed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lcp.chat.chat import Chat
from lcp.commands.answer_tokens import own_answer, prompt_messages
from lcp.commands.command import command, wait_for
from lcp.engine_interface import PromptMessage
from lcp.errors import LcpError

if TYPE_CHECKING:
    from lcp.look.without import Without

Messages = Sequence[PromptMessage]


@dataclass(frozen=True)
class PromptPart:
    """A part of the prompt, and the prompt without it."""

    text: str
    rest: list[PromptMessage]
    own: range  # the messages that it consists of; empty for a sentence


@command("why", "", "show which parts of the chat the last answer needed", "/why")
def why(chat: Chat, _: str) -> None:
    """Leaves out the system text, each earlier turn and each sentence of the question, then the
    sentences of the part that counted most, and measures how much less likely the same answer
    becomes. lcp look without does it for a text."""
    answer, messages = own_answer(chat), list(prompt_messages(chat))
    parts = list(prompt_parts(messages))
    if not parts:
        raise LcpError(
            "The prompt is a single sentence, so nothing can be left out. /why needs an earlier "
            "turn, a system text or a question of several sentences."
        )
    found = _without(chat, messages, parts, answer.ids)
    most = max(range(len(parts)), key=lambda i: found.spans[i].lost)
    inside = [one for i in parts[most].own for one in _sentences(messages, i)]
    _show(chat, parts, found)
    try:
        if len(inside) > 1:
            finer = _without(chat, messages, inside, answer.ids)
            chat.screen.blank()
            chat.screen.notice("The part that counted most, sentence by sentence:")
            _show(chat, inside, finer)
    finally:
        _explain(chat, found)


def prompt_parts(messages: Messages) -> Iterator[PromptPart]:
    """The system text, each earlier turn, and each sentence of the question if it has several."""
    last = len(messages) - 1
    starts = [i for i, message in enumerate(messages) if i == 0 or message.role == "user"]
    for start, end in zip(starts, [*starts[1:], last], strict=True):
        first = messages[start]
        if start < last and first.content.strip():
            # without a system text, a template may write one of its own
            kept = [_saying(first, "")] if first.role == "system" else []
            rest = [*messages[:start], *kept, *messages[end:]]
            yield PromptPart(first.content, rest, range(start, end))
    question = list(_sentences(messages, last))
    yield from question if len(question) > 1 else ()


def _sentences(messages: Messages, i: int) -> Iterator[PromptPart]:
    """Each sentence of a message."""
    from lcp.look.without import sentences

    said = sentences(messages[i].content)
    for at, text in enumerate(said):
        kept = "".join([*said[:at], *said[at + 1 :]])
        rest = [*messages[:i], *([_saying(messages[i], kept)] if kept else []), *messages[i + 1 :]]
        yield PromptPart(text, rest, range(0))


def _saying(message: PromptMessage, text: str) -> PromptMessage:
    return replace(message, content=text, tokens=(), identity="")


def _tokens(chat: Chat, messages: Messages) -> list[int]:
    return [token for token, _ in chat.engine.prompt(messages)]


def _without(
    chat: Chat, messages: Messages, parts: Sequence[PromptPart], answer: Sequence[int]
) -> "Without":
    """What the answer loses without each part, in a context that is as large as the longest of
    these prompts needs."""
    from lcp.look.without import without

    prompt = _tokens(chat, messages)
    variants = [_tokens(chat, part.rest) for part in parts]

    def job(observed: Any, tell: Any) -> "Without":
        return without(observed, prompt, variants, answer, tell)

    size = max(map(len, [prompt, *variants])) + len(answer) + 1
    return wait_for(
        chat,
        chat.engine.observe(job, size, chat.services.free_memory),
        lambda step: f"leaving parts out: {step.done} of {step.total}",
    )


def _show(chat: Chat, parts: Sequence[PromptPart], found: "Without") -> None:
    from lcp.terminal.look_pages import without_rows

    rows = without_rows(
        [(part.text, s.lost, s.attention) for part, s in zip(parts, found.spans, strict=True)]
    )
    chat.screen.table(rows, head=True, cut=(len(rows[0]) - 1,))


def _explain(chat: Chat, found: "Without") -> None:
    from lcp.terminal.look_pages import WITHOUT, without_sum

    chat.screen.notice(f"{WITHOUT} {without_sum(float(found.logp.sum()), found.sink)}")
