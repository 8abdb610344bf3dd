"""`lcp look heads`: a map of all attention heads; an answer without some of them."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.options import option
from lcp.errors import LcpError, UsageError
from lcp.formatting import count

if TYPE_CHECKING:
    from lcp.cli.look.common import OpenModel
    from lcp.look.heads import Answers, Heads
    from lcp.terminal.printout import Printout

ANSWER = 24  # tokens, unless -n says otherwise
LEAST = 8  # different words that a map needs
GLYPHS = {"first": "|", "previous": "<", "induction": "@", "copy": "=", "itself": "o", "": "."}
MEANINGS = {
    "first": "the first token (a sink)",
    "previous": "the token before",
    "induction": "the token after the earlier copy of this one",
    "copy": "the earlier copy itself",
    "itself": "the token itself",
    "": "none of these above 40 %",
}


@dataclass(frozen=True)
class HeadsArguments:
    """What was typed after `lcp look heads`, except the settings."""

    words: list[str] | None = common.texts()
    model: str | None = common.model_name()
    off: list[str] | None = option(
        "--off", "LAYER.HEAD", "Answer TEXT without this head; may be repeated."
    )
    chat: bool = common.as_chat()
    as_json: bool = common.as_json()
    svg: Path | None = common.svg()


@dataclass(frozen=True)
class HeadsShown:
    """The map, or the two answers."""

    found: "Heads | None"
    answers: "Answers | None"
    heads: list[tuple[int, int]]
    texts: tuple[str, str]
    first: str
    seconds: float


def run(asked: HeadsArguments, flags: dict[str, Any]) -> None:
    """Show what attention heads look at, or switch some off.

    With --off, it answers TEXT without these heads.

    lcp look heads --off 23.4 "The capital of France is"
    """
    name, words = common.words_of(asked.words, asked.model)
    text = common.text_of(words)
    if text and not asked.off:
        raise UsageError(
            "lcp look heads takes a text only with --off. Example: lcp look heads --off 23.4 "
            '"The capital of France is"'
        )

    def job(opened: "OpenModel") -> HeadsShown:
        return _off(opened, asked, text) if asked.off else _map(opened)

    shown = common.run(name, flags, job)
    common.publish(lambda page: _show(page, shown, asked), _json(shown), asked.as_json, asked.svg)


heads = options.command(HeadsArguments, run, (*common.SETTINGS, "max_tokens"))


def _map(opened: "OpenModel") -> HeadsShown:
    from lcp.look.heads import WORDS, heads, repeated

    model, begun = opened.model, time.monotonic()
    opened.tell("choosing words", 0, 1)
    usable, every = [], range(min(model.n_vocab, 30_000))
    for token in every:
        piece = model.piece(token)
        if piece[:1] == b" " and piece[1:].isalpha():
            usable.append(token)
    if len(usable) < WORDS:  # a vocabulary without words
        usable = [t for t in every if model.piece(t) and not model.is_control(t)]
    if len(usable) < LEAST:
        raise LcpError(f"The vocabulary of {opened.name} has no words to test heads with.")
    tokens = repeated(usable, [model.bos] if model.adds_bos and model.bos >= 0 else [])
    found = heads(opened.observe(len(tokens), rows=128), tokens, opened.tell)
    return HeadsShown(found, None, [], ("", ""), "", time.monotonic() - begun)


def _off(opened: "OpenModel", asked: HeadsArguments, text: str) -> HeadsShown:
    from lcp.look.heads import compare

    tokens = opened.tokens(text, chat=asked.chat, least=1)
    begun, most = time.monotonic(), opened.settings.max_tokens or ANSWER
    observed = opened.observe(len(tokens) + most)
    chosen = [common.head_of(word, observed.layers, observed.heads) for word in asked.off or ()]
    found = compare(observed, tokens, chosen, most, opened.model.is_end, opened.tell)
    texts = tuple(
        b"".join(map(opened.model.piece, answer)).decode("utf-8", "replace")
        for answer in (found.whole, found.without)
    )
    return HeadsShown(
        None, found, chosen, (texts[0], texts[1]), opened.piece(found.whole[0]),
        time.monotonic() - begun,
    )  # fmt: skip


def _json(shown: HeadsShown) -> dict[str, Any]:
    from lcp.look.heads import KINDS

    told: dict[str, Any] = {"seconds": round(shown.seconds, 3)}
    if found := shown.found:
        _, layers, count_ = found.shares.shape
        told["loss"] = {"first": found.loss_first, "second": found.loss_second}
        told["heads"] = [
            {"layer": layer, "head": head, "kind": found.kind(layer, head) or None,
             **{k: _share(found.shares[i, layer, head]) for i, k in enumerate(KINDS)}}
            for layer in range(layers) for head in range(count_)
        ]  # fmt: skip
    if answers := shown.answers:
        told["off"] = [{"layer": layer, "head": head} for layer, head in shown.heads]
        told["answer"], told["answer_without"] = shown.texts
        told |= {"kl": answers.kl, "p": answers.p[0], "p_without": answers.p[1]}
    return told


def _share(value: float) -> float | None:
    return float(value) if value == value else None  # NaN: no attention there


def _show(page: "Printout", shown: HeadsShown, asked: HeadsArguments) -> None:
    if shown.found:
        _show_map(page, shown.found)
    elif shown.answers:
        _show_answers(page, shown, shown.answers)
    page.line(f"{shown.seconds:.1f} s.", style="dim")


def _show_map(page: "Printout", found: "Heads") -> None:
    import math

    from lcp.look.heads import KINDS

    _, layers, heads = found.shares.shape
    page.title("What each head looks at", f"{layers} layers of {heads} heads")
    page.blank()
    ruler = "".join(f"{i:<10}" for i in range(0, heads, 10)).rstrip()
    page.line(f"layer   {ruler}  head", style="dim")
    kinds = {(i, j): found.kind(i, j) for i in range(layers) for j in range(heads)}
    for layer in range(layers):
        known = not math.isnan(found.shares[0, layer, 0])
        row = "".join(GLYPHS[kinds[layer, head]] for head in range(heads))
        page.line(f"{layer:>5}   {row if known else 'no attention'}")
    page.blank()
    rows = []
    for i, kind in enumerate((*KINDS, "")):
        own = [place for place, k in kinds.items() if k == kind]
        if kind:
            own.sort(key=lambda place, i=i: -found.shares[i][place])  # type: ignore[misc]
        best = "  ".join(f"{x}.{y} {found.shares[i][x, y]:.0%}" for x, y in own[:2]) if kind else ""
        rows.append([GLYPHS[kind], str(len(own)), MEANINGS[kind], best])
    page.listing([["", "heads", "look at", "the clearest"], *rows])
    page.blank()
    page.line(
        "Measured on random words said twice (Olsson 2022): a head is called after the kind of "
        "place that gets more than 40 % of its attention. The words have no meaning, so heads of "
        "grammar or facts do not show; lcp look swap finds those that a fact needs.",
        style="dim",
    )
    page.line(
        f"Loss on the words: {found.loss_first:.1f} nats the first time, {found.loss_second:.1f} "
        "the second: what it learns from the context alone.",
        style="dim",
    )


def _show_answers(page: "Printout", shown: HeadsShown, answers: "Answers") -> None:
    from lcp.terminal.token_charts import visible

    names = ", ".join(f"{layer}.{head}" for layer, head in shown.heads)
    page.line("With all heads", style="bold", indent=0)
    page.line(shown.texts[0].strip() or "(the answer ends at once)")
    page.blank()
    page.line(f"Without {count(len(shown.heads), 'head')}: {names}", style="bold", indent=0)
    page.line(shown.texts[1].strip() or "(the answer ends at once)")
    page.blank()
    page.line(
        f"{visible(shown.first)} has {answers.p[0]:.1%} as the first token, and "
        f"{answers.p[1]:.1%} without (KL {answers.kl:.3f} nats). A head switched off puts out "
        "zeros, which it never does by itself: that breaks more than what it knows. Where other "
        "heads do the same, nothing may change. lcp look swap asks a finer question.",
        style="dim",
    )
