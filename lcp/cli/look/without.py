"""`lcp look without`: which parts of a text an answer needed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import option
from lcp.errors import LcpError, UsageError

if TYPE_CHECKING:
    from lcp.look.without import LeftOut, Without
    from lcp.terminal.printout import Printout

    Part = tuple[str, LeftOut]  # a sentence of the text, and what the answer lost without it

ANSWER = 48  # tokens of an answer, unless -n says otherwise


@dataclass(frozen=True)
class WithoutArguments(LookArguments):
    """What was typed after `lcp look without`, except the settings."""

    answer: str | None = option("--answer", "TEXT", "Test this answer, not the model's own.")


def run(asked: WithoutArguments, flags: dict[str, Any]) -> None:
    """Show which sentences an answer needed.

    Leaves out one sentence at a time and measures how much less likely the same answer becomes.

    lcp look without "Maria keeps the key in a box. Tom waters the plants. Where is the key?"
    """
    name, text = common.text_of(asked)

    with common.models(name, flags) as (opened,):
        from lcp.look.quant import greedy
        from lcp.look.without import sentences, without

        model, tell, raw = opened.model, opened.work.tell, opened.settings.raw == "on"
        if not raw and not model.chat_template:
            raise LcpError(
                f"{opened.name} has no chat template: it is a base model, which continues text. "
                "Let it continue yours: --raw"
            )

        def tokens(text: str) -> list[int]:
            return opened.tokens(text, chat=not raw, least=1)

        spans, prompt = sentences(text), tokens(text)
        if len(spans) < 2:
            raise UsageError(
                "The text is a single sentence, so nothing can be left out. Give two sentences or "
                "lines: what the model should know, and a question."
            )
        answer = model.tokenize(asked.answer or "")
        if asked.answer is not None and not answer:
            raise UsageError("--answer is empty. Give the answer to ask about.")
        opened.check_length(len(prompt) + len(answer), "The text and the answer have")
        most = opened.settings.max_tokens or ANSWER
        observed = opened.observe(len(prompt) + max(most, len(answer)) + 1, rows=32)
        if not answer:
            choices = opened.work(greedy, observed, prompt, most, model.is_end, tell)
            answer = [choice.token for choice in choices]
            if model.is_end(answer[0]):
                raise LcpError("The model's answer is empty. Give one to ask about: --answer TEXT")
        variants = [tokens("".join(spans[:i] + spans[i + 1 :])) for i in range(len(spans))]
        found = opened.work(without, observed, prompt, variants, answer, tell)
        parts = list(zip(spans, found.spans, strict=True))
        common.publish(
            asked, opened, _json(opened, answer, parts, found),
            lambda page: _show(page, opened, answer, parts, found),
        )  # fmt: skip


without = options.command(WithoutArguments, run, (*common.SETTINGS, "max_tokens", "raw"))


def _json(
    opened: OpenModel, answer: list[int], parts: "list[Part]", found: "Without"
) -> dict[str, Any]:
    return {
        "answer": opened.model.text(answer),
        "logp": float(found.logp.sum()),
        "tokens": [
            {"text": opened.piece(token), "logp": float(p)}
            for token, p in zip(answer, found.logp, strict=True)
        ],
        "sink": found.sink,
        "spans": [
            {"text": text, "lost": span.lost, "attention": span.attention,
             "by_token": span.by_token.tolist()}
            for text, span in parts
        ],
    }  # fmt: skip


def _show(
    page: "Printout", opened: OpenModel, answer: list[int], parts: "list[Part]", found: "Without"
) -> None:
    from lcp.terminal.look_pages import WITHOUT, without_rows, without_sum

    page.line(f"Answer: {' '.join(opened.model.text(answer).split())}", indent=0)
    page.blank()
    head, *rows = without_rows([(text, span.lost, span.attention) for text, span in parts])
    page.table(head, rows, drop=(len(head) - 2,), cut=True)
    page.blank()
    page.line(WITHOUT, style="dim")
    page.line(without_sum(float(found.logp.sum()), found.sink), style="dim")
    page.of_this_run(f"{1 + len(parts)} runs in {opened.work.seconds:.1f} s.")
