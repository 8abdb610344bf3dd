"""`lcp look layers`: what each layer would answer, and which parts wrote the model's answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import option, switch

if TYPE_CHECKING:
    from lcp.look.layers import Contribution, LayersFound
    from lcp.terminal.printout import Printout


@dataclass(frozen=True)
class LayersArguments(LookArguments):
    """What was typed after `lcp look layers`, except the settings."""

    over: str | None = option(
        "--over", "TOKEN", "Compare the answer with this token, not with the second best."
    )
    heads: bool = switch("--heads", "Also show the attention heads that decided most.")
    chat: bool = common.as_chat()


def run(asked: LayersArguments, flags: dict[str, Any]) -> None:
    """Show what each layer would answer, and what it adds.

    Each layer is read as if the model stopped there.
    """
    name, text = common.text_of(asked)

    with common.models(name, flags) as (opened,):
        from lcp.look import layers

        tokens = opened.tokens(text, chat=asked.chat, least=1)
        other = None if asked.over is None else opened.token(asked.over)
        observed = opened.observe(len(tokens) + opened.model.n_layers, rows=128)
        found = opened.work(
            layers.layers, observed, tokens, heads=asked.heads, tell=opened.work.tell
        )
        data = {"text": text, **_data(opened, found, other)}
        common.publish(asked, opened, data, lambda page: _show(page, opened, data))


layers = options.command(LayersArguments, run, common.SETTINGS)


def _data(opened: OpenModel, found: "LayersFound", other: int | None) -> dict[str, Any]:
    """What JSON has of all numbers that were found."""
    from lcp.look.distributions import best, rank, softmax
    from lcp.look.layers import strongest

    p = softmax(found.true)
    answer, second = best(found.true, 2)
    rival = second if other is None else other

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
            "says": [opened.named(t, p=float(shares[t])) for t in best(logits, 3)], "added": added,
        })  # fmt: skip
    heads = [
        {
            "layer": one.layer, "head": one.head, "added": part(one),
            "writes": [opened.piece(t) for t in best(one.logits, 5)],
        }
        for one in strongest(found.heads, answer, rival, 8)
    ]  # fmt: skip
    return {
        "answer": opened.named(answer, p=float(p[answer])),
        "other": opened.named(rival, p=float(p[rival])),
        "layers": rows, "heads": heads, "error": found.error if found.added else 0.0,
    }  # fmt: skip


def _show(page: "Printout", opened: OpenModel, data: Mapping[str, Any]) -> None:
    from lcp.terminal.token_charts import visible

    answer, other = (visible(data[name]["text"]) for name in ("answer", "other"))
    page.title(
        data["text"], f"→ {answer} {data['answer']['p']:.0%}, {other} {data['other']['p']:.0%}"
    )
    page.blank()
    # Where attention and feed-forward are not known apart, there is one sum of the layer.
    columns = [n for n in ("attention", "feed-forward", "layer") if n in data["layers"][0]["added"]]
    head = ["layer", "rank", *columns, "would say"]
    rows = []
    for row in data["layers"]:
        said = " · ".join(f"{visible(t['text'])} {t['p']:.0%}" for t in row["says"])
        added = (f"{row['added'][c]:+.2f}" if c in row["added"] else "" for c in columns)
        rows.append([str(row["layer"]), f"{row['rank']:,}", *added, said])
    page.table(head, rows, cut=True)
    if data["heads"]:
        page.blank()
        page.line("The heads that decided most, and the words that they write:")
        page.table(
            ["head", "+", "writes"],
            [
                [f"{h['layer']}.{h['head']}", f"{h['added']:+.2f}",
                 " ".join(visible(w) for w in h["writes"])]
                for h in data["heads"]
            ],
            cut=True,
        )  # fmt: skip
    page.blank()
    page.note(
        f"Each row: the next token if the model stopped after this layer, where {answer} ranks "
        f"among all tokens, and what the layer adds to the logit of {answer} minus that of "
        f"{other}. The last row is the model's own answer. Early layers work for later ones, in a "
        "form that the last norm and the output matrix cannot read. A nonsense word there does "
        "not mean that the layer knows nothing (Belrose 2023). A layer may also act through later "
        "ones, which its numbers do not show. lcp look swap shows causes."
    )
    page.note(f"The parts add up to the logits within {data['error']:.2f}.")
    page.of_this_run(f"{opened.work.seconds:.1f} s.")
