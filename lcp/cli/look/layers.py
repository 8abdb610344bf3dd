"""`lcp look layers`: what each layer would say, and who wrote the answer."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.options import option, switch

if TYPE_CHECKING:
    from lcp.cli.look.common import OpenModel
    from lcp.look.layers import Contribution, LayersFound
    from lcp.terminal.printout import Printout


@dataclass(frozen=True)
class LayersArguments:
    """What was typed after `lcp look layers`, except the settings."""

    words: list[str] | None = common.texts()
    model: str | None = common.model_name()
    over: str | None = option(
        "--over", "TOKEN", "Compare the answer with this token, not the second."
    )
    heads: bool = switch("--heads", "Also show the attention heads that decided most.")
    chat: bool = common.as_chat()
    as_json: bool = common.as_json()
    svg: Path | None = common.svg()


@dataclass(frozen=True)
class LayersShown:
    """What was found, with the words of its tokens."""

    text: str
    answer: tuple[int, str, float]  # id, piece, probability
    other: tuple[int, str, float]
    rows: list[dict[str, Any]]
    heads: list[dict[str, Any]]
    error: float
    split: bool  # attention and feed-forward are known apart
    seconds: float


def run(asked: LayersArguments, flags: dict[str, Any]) -> None:
    """Show what each layer would say, and who wrote the answer.

    Each layer is read as if the model stopped there.
    """
    name, words = common.words_of(asked.words, asked.model)
    text = common.text_of(words)

    def job(opened: "OpenModel") -> LayersShown:
        from lcp.look import layers

        tokens = opened.tokens(text, chat=asked.chat, least=1)
        begun = time.monotonic()
        observed = opened.observe(len(tokens) + opened.model.n_layers, rows=128)
        found = layers.layers(observed, tokens, heads=asked.heads, tell=opened.tell)
        other = None if asked.over is None else opened.token(asked.over)
        return _read(opened, text, found, other, begun)

    shown = common.run(name, flags, job)
    common.publish(lambda page: _show(page, shown), _json(shown), asked.as_json, asked.svg)


layers = options.command(LayersArguments, run, common.SETTINGS)


def _read(
    opened: "OpenModel", text: str, found: "LayersFound", other: int | None, begun: float
) -> LayersShown:
    """The numbers that are shown, of all those that were found."""
    from lcp.look.distributions import best, rank, softmax
    from lcp.look.layers import strongest

    p = softmax(found.true)
    answer, second = best(found.true, 2)
    rival = second if other is None else other

    def named(token: int, share: float) -> dict[str, Any]:
        return {"id": token, "text": opened.piece(token), "p": float(share)}

    def part(one: "Contribution") -> float:
        return float(one.logits[answer] - one.logits[rival])

    by = {(one.name, one.layer): one for one in found.added}
    rows = []
    for layer, logits in enumerate(found.lens):
        shares = softmax(logits)
        added = {n: part(by[n, layer]) for n in ("attention", "feed-forward", "layer")
                 if (n, layer) in by}  # fmt: skip
        rows.append({
            "layer": layer, "rank": rank(logits, answer),
            "says": [named(t, shares[t]) for t in best(logits, 3)], "added": added,
        })  # fmt: skip
    heads = [
        {
            "layer": one.layer, "head": one.head, "added": part(one),
            "writes": [named(t, 0)["text"] for t in best(one.logits, 5)],
        }
        for one in strongest(found.heads, answer, rival, 8)
    ]  # fmt: skip
    return LayersShown(
        text, (answer, opened.piece(answer), float(p[answer])),
        (rival, opened.piece(rival), float(p[rival])), rows, heads,
        found.error if found.added else 0.0, ("attention", 0) in by,
        time.monotonic() - begun,
    )  # fmt: skip


def _json(shown: LayersShown) -> dict[str, Any]:
    def named(one: tuple[int, str, float]) -> dict[str, Any]:
        return {"id": one[0], "text": one[1], "p": one[2]}

    return {
        "text": shown.text, "answer": named(shown.answer), "other": named(shown.other),
        "layers": shown.rows, "heads": shown.heads, "error": shown.error,
        "seconds": round(shown.seconds, 3),
    }  # fmt: skip


def _show(page: "Printout", shown: LayersShown) -> None:
    from lcp.terminal.token_charts import visible

    answer, other = visible(shown.answer[1]), visible(shown.other[1])
    page.title(shown.text, f"→ {answer} {shown.answer[2]:.0%}, {other} {shown.other[2]:.0%}")
    page.blank()
    columns = ("attention", "feed-forward") if shown.split else ("layer",)
    head = ["layer", "rank", *columns, "would say"]
    rows = []
    for row in shown.rows:
        said = "  ".join(f"{visible(t['text'])} {t['p']:.0%}" for t in row["says"])
        added = (f"{row['added'][c]:+.2f}" if c in row["added"] else "" for c in columns)
        rows.append([str(row["layer"]), f"{row['rank']:,}", *added, said])
    page.table(head, rows, cut=16)
    if shown.heads:
        page.blank()
        page.line("The heads that decided most, and the words that they write:")
        page.table(
            ["head", "+", "writes"],
            [
                [f"{h['layer']}.{h['head']}", f"{h['added']:+.2f}",
                 " ".join(visible(w) for w in h["writes"])]
                for h in shown.heads
            ],
            cut=16,
        )  # fmt: skip
    page.blank()
    page.line(
        f"Each row: the next token if the model stopped after this layer, where {answer} ranks "
        f"among all tokens, and what the layer adds to the logit of {answer} minus that of "
        f"{other}. The last row is the model's own answer. Early layers work for later ones, in a "
        "form that the last norm and the output matrix cannot read: a nonsense word there does "
        "not mean that the layer knows nothing (Belrose 2023). A part may also act through later "
        "ones; that is not in its number. lcp look swap shows causes.",
        style="dim",
    )
    page.line(
        f"{shown.seconds:.1f} s. The parts add up to the logits within {shown.error:.2f}.",
        style="dim",
    )
