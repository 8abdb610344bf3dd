"""The slash commands for the tokens of the last answer: prompt, probabilities, forks, statistics.

Tokens are counted from 1, as /probs shows them.
"""

from dataclasses import replace
from typing import Any

from lcp import formatting
from lcp.chat.chat import Chat
from lcp.commands.command import command, turns_of, wait_for
from lcp.engine_interface import Progress, PromptMessage, TokenProb
from lcp.errors import LcpError
from lcp.session.message import Message
from lcp.terminal import token_charts

LEAST = 8  # least likely tokens that /probs lists


@command("tokens", "", "show the last prompt, token by token", "/tokens")
def tokens(chat: Chat, _: str) -> None:
    """Shows the prompt of the last answer token by token, special tokens included."""
    chat.ready()
    messages = prompt_messages(chat)
    if not messages:
        raise LcpError("This chat has no prompt yet. Ask something first.")
    rows = chat.engine.prompt(messages)
    chat.screen.show(token_charts.tokens(rows))
    chat.screen.notice(f"{len(rows):,} tokens")


@command("probs", "[N]", "show how likely each token was; alternatives at N", "/probs 12")
def probs(chat: Chat, argument: str) -> None:
    """Colours the last answer by the probability of each token. With N, lists the alternatives
    at token N."""
    rows = _measured(chat, own_answer(chat))
    if argument:
        n = formatting.number(argument, len(rows), "a token of the last answer")
        row = rows[n - 1]
        before = "".join(r.text for r in rows[max(0, n - 12) : n - 1])
        chat.screen.notice(f"…{before}")
        chat.screen.show(token_charts.bars(_alternatives(row)))
        chat.screen.notice(f"/fork {n} K answers again with alternative K here.")
        return
    chat.screen.show(token_charts.coloured([(row.text, row.p) for row in rows]))
    least = sorted(range(len(rows)), key=lambda i: rows[i].p)[:LEAST]
    chat.screen.show(
        token_charts.bars([(str(i + 1), rows[i].text, rows[i].p) for i in sorted(least)])
    )
    chat.screen.notice(
        f"The least likely of {len(rows):,} tokens, with their numbers; probabilities are before "
        "temperature and other sampling settings. /probs N shows the alternatives."
    )


@command("fork", "N K", "answer again, with alternative K at token N", "/fork 12 2")
def fork(chat: Chat, argument: str) -> None:
    """Keeps the last answer up to token N, takes alternative K of /probs N there, and generates
    the rest."""
    numbers = argument.split()
    if len(numbers) != 2:
        raise LcpError("/fork needs a token and an alternative: /fork 12 2. /probs 12 lists them.")
    answer = own_answer(chat)
    rows = _measured(chat, answer)
    n = formatting.number(numbers[0], len(rows), "a token of the last answer")
    others = rows[n - 1].others
    chosen = others[formatting.number(numbers[1], len(others), "an alternative") - 1]
    if chosen.ends:
        raise LcpError("That alternative ends the answer. Choose another.")
    kept = rows[: n - 1]
    begun = replace(
        answer,
        content="".join(row.text for row in kept) + chosen.text,
        thinking="" if answer.ids else answer.thinking,  # ids include those of the thinking
        tokens=(),
        sampled=(*(row.token for row in kept), chosen.token),
    )
    before = chat.conversation.head
    chat.screen.notice("…" + begun.content[-60:])
    chat.go(answer.parent)
    chat.answer_or_go(before, begun)
    chat.say_status()


@command("stats", "", "show statistics of the last answer and of the chat", "/stats")
def stats(chat: Chat, _: str) -> None:
    """Lists tokens, speed and times of the last answer, and the totals of this chat."""
    answers = [m for m in chat.conversation.nodes.values() if m.role == "assistant"]
    if not answers:
        raise LcpError("There is no answer yet. Ask something first.")

    def total(*names: str) -> Any:
        values = [m.stats.get(name, 0) for m in answers for name in names]
        return sum(value for value in values if isinstance(value, int | float))

    if chat.stats:
        chat.screen.table([(name, f"{value:,}") for name, value in chat.stats.as_dict().items()])
    chat.screen.notice(
        f"In this chat: {formatting.count(len(answers), 'answer')} of "
        f"{total('reply_tokens'):,} tokens, {total('read'):,} tokens read, "
        f"{total('read_s', 'decode_s'):,.1f} s."
    )


def prompt_messages(chat: Chat) -> list[PromptMessage]:
    """The prompt of the last answer, as messages; LcpError if the model no longer sees that turn,
    so that the prompt cannot be written again."""
    turns = chat.conversation.turns()
    if turns and turns[-1].user.id in chat.overflow.unseen():
        n = len(turns)
        raise LcpError(f"The model no longer sees turn {n}, the last one. /pin {n} brings it back.")
    messages = chat.overflow.visible()
    return messages[:-1] if messages and messages[-1].role == "assistant" else messages


def own_answer(chat: Chat) -> Message:
    """The last answer; LcpError unless this model generated it."""
    chat.ready()
    answer = turns_of(chat)[-1].answer
    if answer is None:
        raise LcpError("This question has no answer yet. /retry answers it.")
    if answer.fingerprint != chat.engine.identity:
        raise LcpError("This model did not generate this answer. Generate one with /retry.")
    return answer


def _measured(chat: Chat, answer: Message) -> list[TokenProb]:
    """The probabilities of the answer's tokens, evaluated again in a separate context."""
    asked_for = PromptMessage("assistant", answer.content, answer.thinking, answer.ids)
    task = chat.engine.probs(prompt_messages(chat), asked_for, chat.services.free_memory)

    def told(step: Progress) -> str:
        share = 100 * step.done // step.total
        return f"reading {step.done:,}/{step.total:,} tokens again ({share} %)"

    return wait_for(chat, task, told)


def _alternatives(row: TokenProb) -> list[tuple[str, str, float]]:
    """The alternatives, numbered; "*" marks the sampled token, which is added if missing."""
    found = [
        (f"{'*' if other.token == row.token else ''}{k}", other.text, other.p)
        for k, other in enumerate(row.others, 1)
    ]
    among = any(other.token == row.token for other in row.others)
    return found if among else [*found, ("*", row.text, row.p)]
