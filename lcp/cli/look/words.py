"""`lcp look words`: words with nearly the same vector in the embedding table."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.options import argument, option
from lcp.errors import NotSupported, UsageError

if TYPE_CHECKING:
    from lcp.cli.look.common import OpenModel
    from lcp.look.words import Nearest
    from lcp.terminal.printout import Printout

TABLE = "token_embd.weight"
MOST = 12  # words, so that the matrix fits


@dataclass(frozen=True)
class WordsArguments:
    """What was typed after `lcp look words`, except the settings."""

    words: list[str] | None = argument("[MODEL] WORD...", "Model name or file, then words.")
    model: str | None = common.model_name()
    top: int = option("--top", "N", "Show N words near each; 8 if not given.", 8)
    as_json: bool = common.as_json()
    svg: Path | None = common.svg()


@dataclass(frozen=True)
class WordsShown:
    """The neighbours of some tokens, and their names."""

    tokens: list[int]
    pieces: dict[int, str]
    shape: tuple[int, ...]
    quant: str
    found: "Nearest"
    seconds: float


def run(asked: WordsArguments, flags: dict[str, Any]) -> None:
    """Show words with nearly the same vector in the embedding table.

    lcp look words cat dog car
    """
    name, words = common.words_of(asked.words, asked.model)
    if not words:
        raise UsageError("Give a word or more: lcp look words cat dog car")
    if len(words) > MOST:
        raise UsageError(f"{len(words)} words are too many for a table. Give at most {MOST}.")
    if not 1 <= asked.top <= 100:
        raise UsageError(f"--top must be from 1 to 100 (got {asked.top}).")

    def job(opened: "OpenModel") -> WordsShown:
        from lcp.look.words import nearest
        from lcp.modelfile.weights import Weights, row_count

        begun = time.monotonic()
        tokens = [opened.token(word) for word in words]
        weights = Weights(opened.model.path)
        if TABLE not in weights.tensors:
            raise NotSupported(f"{opened.name} has no {TABLE}. Choose another model: lcp list.")
        tensor = weights.tensors[TABLE]

        def rows(begin: int, end: int) -> Any:
            opened.tell("comparing", begin, row_count(tensor))
            return weights.rows(TABLE, begin, end)

        found = nearest(rows, row_count(tensor), tokens, asked.top)
        named = {t for near in found.near for t, _ in near} | {*tokens}
        pieces = {t: opened.piece(t) for t in named}
        return WordsShown(
            tokens, pieces, tensor.shape, tensor.quant, found, time.monotonic() - begun
        )

    shown = common.run(name, flags, job)
    common.publish(lambda page: _show(page, shown), _json(shown), asked.as_json, asked.svg)


words = options.command(WordsArguments, run, common.SETTINGS)


def _json(shown: WordsShown) -> dict[str, Any]:
    def named(token: int) -> dict[str, Any]:
        return {"id": token, "text": shown.pieces[token]}

    return {
        "words": [
            {**named(token), "nearest": [{**named(t), "cosine": cosine} for t, cosine in near]}
            for token, near in zip(shown.tokens, shown.found.near, strict=True)
        ],
        "matrix": [[float(x) for x in row] for row in shown.found.matrix],
        "usual": shown.found.usual,
        "shared": shown.found.shared,
        "seconds": round(shown.seconds, 3),
    }  # fmt: skip


def _show(page: "Printout", shown: WordsShown) -> None:
    from lcp.terminal.token_charts import visible

    names = [visible(shown.pieces[t]) for t in shown.tokens]
    page.table(
        ["word", "nearest"],
        [
            [name, "  ".join(f"{visible(shown.pieces[t])} {cosine:.2f}" for t, cosine in near)]
            for name, near in zip(names, shown.found.near, strict=True)
        ],
        cut=20,
    )
    page.blank()
    if len(names) > 1:
        rows = [
            [name, *(f"{x:.2f}" for x in row)]
            for name, row in zip(names, shown.found.matrix, strict=True)
        ]
        page.table(["", *names], rows)
        page.blank()
    width, count = shown.shape[0], shown.shape[1]
    page.line(
        f"The cosine of the angle between two rows of {TABLE} ({count:,} tokens, {width:,} "
        f"numbers each, {shown.quant}), without the part that all rows share: 1 is the same "
        f"direction. Of random pairs, 19 of 20 are below {shown.found.usual:.2f}; with the shared "
        f"part, half of them would be above {shown.found.shared:.2f}. A row is all that a token is "
        "before the first layer: the bank of a river and one for money have the same.",
        style="dim",
    )
    page.line(f"{shown.seconds:.1f} s.", style="dim")
