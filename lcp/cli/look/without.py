"""`lcp look without`: which parts of a text an answer needed."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.options import option
from lcp.errors import LcpError, UsageError

if TYPE_CHECKING:
    from lcp.cli.look.common import OpenModel
    from lcp.engine.observer import Observer
    from lcp.look.without import Without
    from lcp.terminal.printout import Printout

ANSWER = 48  # tokens of an answer, unless -n says otherwise


@dataclass(frozen=True)
class WithoutArguments:
    """What was typed after `lcp look without`, except the settings."""

    words: list[str] | None = common.texts()
    model: str | None = common.model_name()
    answer: str | None = option("--answer", "TEXT", "Ask about this answer, not the model's.")
    as_json: bool = common.as_json()
    svg: Path | None = common.svg()


@dataclass(frozen=True)
class WithoutShown:
    """What was found, with the words of its tokens."""

    answer: str
    pieces: list[str]  # of the answer
    spans: list[str]
    found: "Without"
    seconds: float


def run(asked: WithoutArguments, flags: dict[str, Any]) -> None:
    """Show which sentences an answer needed.

    It leaves out one after another, and measures how much less likely the same answer becomes.

    lcp look without "Maria keeps the key in a box. Tom waters the plants. Where is the key?"
    """
    name, words = common.words_of(asked.words, asked.model)
    text = common.text_of(words)

    def job(opened: "OpenModel") -> WithoutShown:
        from lcp.look.without import sentences, without

        raw = opened.settings.raw == "on"
        if not raw and not opened.model.chat_template:
            raise LcpError(
                f"{opened.name} has no chat template: it is a base model, which continues text. "
                "Let it continue yours: --raw"
            )

        def tokens(text: str) -> list[int]:
            return opened.tokens(text, chat=not raw, least=1)

        spans = sentences(text)
        prompt, most = tokens(text), opened.settings.max_tokens or ANSWER
        if len(spans) < 2:
            raise UsageError(
                "The text is a single sentence, so nothing can be left out. Give two sentences or "
                "lines: what the model should know, and a question."
            )
        begun = time.monotonic()
        given = None if asked.answer is None else opened.model.tokenize(asked.answer)
        if given == []:
            raise UsageError("--answer is empty. Give the answer to ask about.")
        observed = opened.observe(len(prompt) + max(most, len(given or ())) + 1, rows=32)
        answer = given or _greedy(opened, observed, prompt, most)
        if not answer:
            raise LcpError("The model's answer is empty. Give one to ask about: --answer TEXT")
        variants = [tokens("".join(spans[:i] + spans[i + 1 :])) for i in range(len(spans))]
        found = without(observed, prompt, variants, answer, opened.tell)
        pieces = [opened.piece(t) for t in answer]
        return WithoutShown(
            opened.model.text(answer), pieces, spans, found, time.monotonic() - begun
        )

    shown = common.run(name, flags, job)
    common.publish(lambda page: _show(page, shown), _json(shown), asked.as_json, asked.svg)


without = options.command(WithoutArguments, run, (*common.SETTINGS, "max_tokens", "raw"))


def _greedy(opened: "OpenModel", observed: "Observer", prompt: list[int], most: int) -> list[int]:
    """The model's likeliest answer, token by token, with the token that ends it."""
    observed.clear()
    answer = [int(observed.decode(prompt)[0].argmax())]
    while len(answer) < most and not opened.model.is_end(answer[-1]):
        opened.tell("answering", len(answer), most)
        answer.append(int(observed.decode(answer[-1:])[0].argmax()))
    return answer if not opened.model.is_end(answer[0]) else []


def _json(shown: WithoutShown) -> dict[str, Any]:
    found = shown.found
    return {
        "answer": shown.answer,
        "logp": float(found.logp.sum()),
        "tokens": [
            {"text": piece, "logp": float(p)}
            for piece, p in zip(shown.pieces, found.logp, strict=True)
        ],
        "sink": found.sink,
        "spans": [
            {"text": text, "lost": span.lost, "attention": span.attention,
             "by_token": [float(x) for x in span.by_token]}
            for text, span in zip(shown.spans, found.spans, strict=True)
        ],
        "seconds": round(shown.seconds, 3),
    }  # fmt: skip


def _show(page: "Printout", shown: WithoutShown) -> None:
    from lcp.terminal.look_pages import WITHOUT, without_rows, without_sum

    page.line(f"Answer: {' '.join(shown.answer.split())}", indent=0)
    page.blank()
    found = shown.found
    parts = zip(shown.spans, found.spans, strict=True)
    head, *rows = without_rows([(text, span.lost, span.attention) for text, span in parts])
    page.table(head, rows, drop=(len(head) - 2,), cut=20)
    page.blank()
    page.line(WITHOUT, style="dim")
    page.line(without_sum(float(found.logp.sum()), found.sink), style="dim")
    page.line(f"{1 + len(shown.spans)} runs in {shown.seconds:.1f} s.", style="dim")
