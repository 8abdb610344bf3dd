"""The slash commands that look at what the model saw and how sure it was; and go on from there.

Tokens are counted from 1, as /probs shows them.
"""

from dataclasses import replace
from typing import Any

from lcp import words
from lcp.chat.chat import Chat
from lcp.commands.command import Command
from lcp.engines import Progress, PromptMessage, TokenProb
from lcp.errors import LcpError
from lcp.session.message import Message
from lcp.terminal import token_charts
from lcp.terminal.signals import leave, stopping

LEAST = 8  # of the tokens that were least likely are told


def tokens(chat: Chat, _: str) -> None:
    """The last prompt as the model read it."""
    chat.ready()
    messages = _asked(chat)
    if not messages:
        raise LcpError("Nothing was asked yet. Ask something first.")
    rows = chat.engine.prompt(messages)
    chat.screen.show(token_charts.tokens(rows))
    chat.screen.notice(f"{len(rows):,} tokens")


def probs(chat: Chat, argument: str) -> None:
    """How sure the model was of each token of the last answer; of the n-th: what else it had."""
    rows = _measured(chat, _answer(chat))
    if argument:
        n = words.number(argument, len(rows), "a token of the last answer")
        row = rows[n - 1]
        before = "".join(r.text for r in rows[max(0, n - 12) : n - 1])
        chat.screen.notice(f"…{before}")
        chat.screen.show(token_charts.bars(_alternatives(row)))
        chat.screen.notice(f"/fork {n} K goes on with alternative K in its place.")
        return
    chat.screen.show(token_charts.coloured([(row.text, row.p) for row in rows]))
    least = sorted(range(len(rows)), key=lambda i: rows[i].p)[:LEAST]
    chat.screen.show(
        token_charts.bars([(str(i + 1), rows[i].text, rows[i].p) for i in sorted(least)])
    )
    chat.screen.notice(
        f"The least likely of {len(rows):,} tokens, numbered; before temperature and the other "
        "settings. /probs N shows what else the model had."
    )


def fork(chat: Chat, argument: str) -> None:
    """A variant of the last answer: as it was up to the n-th token, then the k-th alternative."""
    numbers = argument.split()
    if len(numbers) != 2:
        raise LcpError("Say which token, and which alternative: /fork 12 2. /probs 12 lists them.")
    answer = _answer(chat)
    rows = _measured(chat, answer)
    n = words.number(numbers[0], len(rows), "a token of the last answer")
    others = rows[n - 1].others
    chosen = others[words.number(numbers[1], len(others), "an alternative") - 1]
    if chosen.ends:
        raise LcpError("With that alternative the answer would end there. Choose another.")
    kept = rows[: n - 1]
    begun = replace(
        answer,
        content="".join(row.text for row in kept) + chosen.text,
        thinking="",
        tokens=(),
        sampled=(*(row.token for row in kept), chosen.token),
    )
    before = chat.conversation.head
    chat.screen.notice("…" + begun.content[-60:])
    chat.go(answer.parent)
    chat.answer_or_go(before, begun)
    chat.say_status()


def stats(chat: Chat, _: str) -> None:
    """The figures of the last answer, and the sums of all answers of this chat."""
    answers = [m for m in chat.conversation.nodes.values() if m.role == "assistant"]
    if not answers:
        raise LcpError("There is no answer yet. Ask something first.")

    def total(*names: str) -> Any:
        values = [m.stats.get(name, 0) for m in answers for name in names]
        return sum(value for value in values if isinstance(value, int | float))

    if chat.stats:
        chat.screen.table([(name, f"{value:,}") for name, value in chat.stats.as_dict().items()])
    chat.screen.notice(
        f"In this chat: {words.count(len(answers), 'answer')} of "
        f"{total('reply_tokens'):,} tokens, {total('read'):,} tokens read, "
        f"{total('read_s', 'decode_s'):,.1f} s."
    )


def _asked(chat: Chat) -> list[PromptMessage]:
    """What the model saw before the last answer."""
    messages = chat.overflow.visible()
    return messages[:-1] if messages and messages[-1].role == "assistant" else messages


def _answer(chat: Chat) -> Message:
    """The last answer, if this model said it."""
    chat.ready()
    answer = chat.conversation.said()[-1].answer
    if answer is None:
        raise LcpError("This question has no answer yet. /retry answers it.")
    if not answer.ids or answer.fingerprint != chat.engine.identity:
        raise LcpError("This answer has no tokens of this model. /retry answers with it.")
    return answer


def _measured(chat: Chat, answer: Message) -> list[TokenProb]:
    """The probabilities of the answer's tokens; read again in a context of its own."""
    task = chat.engine.probs(_asked(chat), answer.ids, chat.services.free_memory)
    with stopping(chat.engine.stop) as asked:
        for step in task:
            if asked:  # perhaps before it began
                chat.engine.stop()
            if isinstance(step, Progress):
                share = f"({100 * step.done // step.total} %)"
                chat.screen.progress(f"reading {step.done:,}/{step.total:,} tokens again {share}")
        rows = task.result()
    chat.screen.clear_progress()
    leave(asked)
    if len(rows) < len(answer.ids):
        raise LcpError("Stopped. Ask again to read on.")
    return rows


def _alternatives(row: TokenProb) -> list[tuple[str, str, float]]:
    """Numbered; the token that was said, marked, where it is not among them."""
    found = [
        (f"{'*' if other.token == row.token else ''}{k}", other.text, other.p)
        for k, other in enumerate(row.others, 1)
    ]
    among = any(other.token == row.token for other in row.others)
    return found if among else [*found, ("*", row.text, row.p)]


COMMANDS = (
    Command(
        "The last answer as numbers", "tokens", "", "show the last prompt, token by token", tokens
    ),
    Command(
        "The last answer as numbers",
        "probs",
        "[N]",
        "show how likely each token was; alternatives at N",
        probs,
    ),
    Command(
        "The last answer as numbers",
        "fork",
        "N K",
        "answer again, with alternative K at token N",
        fork,
    ),
    Command(
        "The last answer as numbers",
        "stats",
        "",
        "show statistics of the last answer and of the chat",
        stats,
    ),
)
