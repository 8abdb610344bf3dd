"""`lcp look attention`: where heads look, and what they carry from there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import option
from lcp.errors import LcpError, UsageError

if TYPE_CHECKING:
    from lcp.look.attention import HeadMap
    from lcp.terminal.printout import Printout

LINKS = 16
ROWS = 24  # tokens of a map


@dataclass(frozen=True)
class AttentionArguments(LookArguments):
    """What was typed after `lcp look attention`, except the settings."""

    head: str | None = option("--head", "LAYER.HEAD", "Show this head, for every token.")
    layer: int | None = option("--layer", "N", "Show all heads of this layer, for the last token.")
    chat: bool = common.as_chat()


def run(asked: AttentionArguments, flags: dict[str, Any]) -> None:
    """Show where attention heads look and what they carry.

    lcp look attention --head 23.4 "The capital of France is"
    """
    name, text = common.text_of(asked)
    if asked.head is not None and asked.layer is not None:
        raise UsageError("--head and --layer cannot be combined. Give one of them.")

    with common.models(name, flags) as (opened,):
        from lcp.look.attention import MOST, links, maps

        tokens, tell = opened.tokens(text, chat=asked.chat), opened.work.tell
        if len(tokens) > MOST:
            raise LcpError(
                f"The text has {len(tokens):,} tokens, and lcp look attention takes at most "
                f"{MOST}. Give a shorter text."
            )
        observed = opened.observe(max(len(tokens), 128), rows=128)
        data: dict[str, Any] = {"text": text, "tokens": [opened.piece(t) for t in tokens]}
        found: list[HeadMap] = []
        if asked.head is None and asked.layer is None:
            strongest, data["sink"] = opened.work(links, observed, tokens, LINKS, tell)
            data["links"] = [
                {"layer": one.layer, "head": one.head, "token": one.source,
                 "text": data["tokens"][one.source], "read": one.read, "carried": one.carried,
                 "strength": one.strength}
                for one in strongest
            ]  # fmt: skip
        else:
            if asked.layer is not None and not 0 <= asked.layer < observed.layers:
                raise UsageError(
                    f"There is no layer {asked.layer}: this model has the layers 0 to "
                    f"{observed.layers - 1}."
                )
            place = f"{asked.layer}.0" if asked.head is None else asked.head
            layer, head = common.head_of(place, observed.layers, observed.heads)
            heads = list(range(observed.heads)) if asked.head is None else [head]
            found = opened.work(maps, observed, tokens, layer, heads, tell)
            data["heads"] = [
                {"layer": one.layer, "head": one.head, "read": one.read.tolist(),
                 "carried": None if one.carried is None else one.carried.tolist()}
                for one in found
            ]  # fmt: skip
        common.publish(asked, opened, data, lambda page: _show(page, opened, data, found))


attention = options.command(AttentionArguments, run, common.SETTINGS)


def _show(
    page: "Printout", opened: OpenModel, data: Mapping[str, Any], maps: "list[HeadMap]"
) -> None:
    from lcp.terminal.token_charts import visible

    pieces = [visible(piece) for piece in data["tokens"]]
    if not maps:
        _show_links(page, data, pieces)
    elif len(maps) == 1:
        _show_head(page, maps[0], pieces)
    else:
        _show_layer(page, maps, pieces)
    page.blank()
    page.note(
        "read: the share of attention. carried: the same, weighted by how much arrives from that "
        "token (Kobayashi 2020). Many heads look at the first token and take next to nothing from "
        "it, so it has its own figure. Where a head looks is not what the answer needed (Jain & "
        "Wallace 2019); lcp look swap and lcp look without measure that. There is no mean over all "
        "heads, because it would show the first token and little else."
    )
    page.of_this_run(f"{opened.work.seconds:.1f} s.")


def _show_links(page: "Printout", data: Mapping[str, Any], pieces: list[str]) -> None:
    from lcp.terminal.token_charts import bar

    links = data["links"]
    page.title(
        f"What heads bring to the last token, {pieces[-1]}", f"first token: {data['sink']:.0%} read"
    )
    page.blank()
    most = max(one["strength"] or one["read"] for one in links) or 1
    rows = [
        [
            f"{one['layer']}.{one['head']}", f"{one['read']:.0%}",
            "" if one["carried"] is None else f"{one['carried']:.0%}",
            "" if one["strength"] is None else f"{one['strength']:.2f}",
            f"{bar((one['strength'] or one['read']) / most, 10):·<10}", pieces[one["token"]],
        ]
        for one in links
    ]  # fmt: skip
    page.table(["head", "read", "carried", "adds", "", "from"], rows, drop=(4,), cut=True)
    page.blank()
    page.line("adds: the length of what arrives, divided by that of the state it is added to.")


def _show_head(page: "Printout", one: "HeadMap", pieces: list[str]) -> None:
    last = range(max(0, len(pieces) - ROWS), len(pieces))
    for what, numbers in (("read", one.read), ("carried", one.carried)):
        if numbers is None:
            continue
        page.line(f"Head {one.layer}.{one.head}, {what}: each row is what a token takes.")
        page.blank()
        labels = [f"{i} {pieces[i]}" for i in last]
        notes = [f"{_first(numbers[i])}{_best(numbers[i], pieces)}" for i in last]
        rows = [[0.0, *numbers[i, 1:]] for i in last]
        page.grid(labels, rows, "token", notes=notes)
        page.blank()


def _show_layer(page: "Printout", maps: "list[HeadMap]", pieces: list[str]) -> None:
    page.line(f"Layer {maps[0].layer}: what each head takes for the last token, {pieces[-1]}")
    for what in ("read", "carried"):
        known = [(m, m.read if what == "read" else m.carried) for m in maps]
        rows = [(m, numbers[-1]) for m, numbers in known if numbers is not None]
        if not rows:
            continue
        page.blank()
        labels = [f"{what} {m.layer}.{m.head}" for m, _ in rows]
        notes = [f"{_first(row)}{_best(row, pieces)}" for _, row in rows]
        page.grid(labels, [[0.0, *row[1:]] for _, row in rows], "token", notes=notes)


def _first(row: Any) -> str:
    return f"first {row[0]:>4.0%}  "


def _best(row: Any, pieces: list[str]) -> str:
    """The strongest place, except the first."""
    if len(row) < 2:
        return ""
    at = int(row[1:].argmax()) + 1
    return f"{pieces[at]} {row[at]:.0%}" if row[at] >= 0.005 else ""
