"""`lcp look heads`: a map of all attention heads; an answer without some of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import option
from lcp.errors import LcpError, UsageError

if TYPE_CHECKING:
    from lcp.look.heads import Heads
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
class HeadsArguments(LookArguments):
    """What was typed after `lcp look heads`, except the settings."""

    off: list[str] | None = option(
        "--off", "LAYER.HEAD", "Answer TEXT without this head; may be repeated."
    )
    chat: bool = common.as_chat()


def run(asked: HeadsArguments, flags: dict[str, Any]) -> None:
    """Show what attention heads look at, or switch some off.

    With --off, answers TEXT without these heads.

    lcp look heads --off 23.4 "The capital of France is"
    """
    name, text = common.text_of(asked)
    if text and not asked.off:
        raise UsageError(
            "lcp look heads takes a text only with --off. Example: lcp look heads --off 23.4 "
            '"The capital of France is"'
        )

    with common.models(name, flags) as (opened,):
        (_off if asked.off else _map)(opened, asked, text)


heads = options.command(HeadsArguments, run, (*common.SETTINGS, "max_tokens"))


def _map(opened: OpenModel, asked: HeadsArguments, _: str) -> None:
    from lcp.look.heads import heads

    tokens = opened.work(_random_words, opened)
    found = opened.work(heads, opened.observe(len(tokens), rows=128), tokens, opened.work.tell)
    common.publish(asked, opened, _map_json(found), lambda page: _show_map(page, opened, found))


def _random_words(opened: OpenModel) -> list[int]:
    """Random words of the vocabulary, twice."""
    from lcp.look.heads import WORDS, repeated

    model = opened.model
    opened.work.tell("choosing words", 0, 1)
    usable, every = [], range(min(model.n_vocab, 30_000))
    for token in every:
        piece = model.piece(token)
        if piece[:1] == b" " and piece[1:].isalpha():
            usable.append(token)
    if len(usable) < WORDS:  # a vocabulary without words
        usable = [t for t in every if model.piece(t) and not model.is_control(t)]
    if len(usable) < LEAST:
        raise LcpError(f"The vocabulary of {opened.name} has no words to test heads with.")
    return repeated(usable, [model.bos] if model.adds_bos and model.bos >= 0 else [])


def _off(opened: OpenModel, asked: HeadsArguments, text: str) -> None:
    from lcp.look.heads import compare

    tokens = opened.tokens(text, chat=asked.chat, least=1)
    most = opened.settings.max_tokens or ANSWER
    observed = opened.observe(len(tokens) + most)
    named = [common.head_of(word, observed.layers, observed.heads) for word in asked.off or ()]
    off = list(dict.fromkeys(named))
    found = opened.work(compare, observed, tokens, off, most, opened.model.is_end, opened.work.tell)
    with_all, without = (
        b"".join(map(opened.model.piece, answer)).decode("utf-8", "replace")
        for answer in (found.whole, found.without)
    )
    data = {
        "off": [{"layer": layer, "head": head} for layer, head in off],
        "answer": with_all, "answer_without": without,
        "kl": found.kl, "p": found.p[0], "p_without": found.p[1],
    }  # fmt: skip
    first = opened.visible(found.whole[0])
    common.publish(asked, opened, data, lambda page: _show_answers(page, opened, data, first))


def _map_json(found: "Heads") -> dict[str, Any]:
    from lcp.look.heads import KINDS

    def share(value: float) -> float | None:
        return float(value) if value == value else None  # NaN: no attention there

    _, layers, heads = found.shares.shape
    return {
        "loss": {"first": found.loss_first, "second": found.loss_second},
        "heads": [
            {"layer": layer, "head": head, "kind": found.kind(layer, head) or None,
             **{k: share(found.shares[i, layer, head]) for i, k in enumerate(KINDS)}}
            for layer in range(layers) for head in range(heads)
        ],
    }  # fmt: skip


def _show_map(page: "Printout", opened: OpenModel, found: "Heads") -> None:
    import math

    from lcp.look.heads import KINDS

    _, layers, heads = found.shares.shape
    page.title("What each head looks at", f"{layers} layers of {heads} heads")
    page.blank()
    ruler = "".join(f"{i:<10}" for i in range(0, heads, 10)).rstrip()
    page.note(f"layer   {ruler}  head")
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
    page.note(
        "Measured on a text of random words that appears twice (Olsson 2022). A head is named "
        "after the kind of token that gets more than 40 % of its attention. The words have no "
        "meaning, so heads for grammar or facts do not show here; lcp look swap finds the heads "
        "that a fact needs."
    )
    page.note(
        f"Loss on the words: {found.loss_first:.1f} nats the first time, {found.loss_second:.1f} "
        "the second time. The model gains the difference from the context alone."
    )
    page.of_this_run(f"{opened.work.seconds:.1f} s.")


def _show_answers(page: "Printout", opened: OpenModel, data: Mapping[str, Any], first: str) -> None:
    off = [f"{one['layer']}.{one['head']}" for one in data["off"]]
    without = f"Without head {off[0]}" if len(off) == 1 else f"Without the heads {', '.join(off)}"
    for title, answer in (
        ("With all heads", "answer"),
        (without, "answer_without"),
    ):
        page.line(title, style="bold", indent=0)
        page.line(data[answer].strip() or "(the answer ends at once)")
        page.blank()
    page.note(
        f"{first} has {data['p']:.1%} as the first token, and "
        f"{data['p_without']:.1%} without (KL {data['kl']:.3f} nats). A head that is switched off "
        "outputs zeros, which it never does by itself. That breaks more than what the head knows. "
        "If other heads do the same, nothing may change. lcp look swap asks a finer question."
    )
    page.of_this_run(f"{opened.work.seconds:.1f} s.")
