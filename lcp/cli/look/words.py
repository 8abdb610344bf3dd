"""`lcp look words`: words with nearly the same vector in the embedding table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import argument, option
from lcp.errors import NotSupported, UsageError

if TYPE_CHECKING:
    from lcp.modelfile.header import TensorInfo
    from lcp.terminal.printout import Printout

TABLE = "token_embd.weight"
MOST = 12  # words, so that the matrix fits


@dataclass(frozen=True)
class WordsArguments(LookArguments):
    """What was typed after `lcp look words`, except the settings."""

    words: list[str] | None = argument("[MODEL] WORD...", "Model name or file, then words.")
    top: int = option("--top", "N", "Show the N nearest words of each; default: 8.", 8)


def run(asked: WordsArguments, flags: dict[str, Any]) -> None:
    """Show words with nearly the same vector in the embedding table.

    lcp look words cat dog car
    """
    name, words = common.words_of(asked)
    if not words:
        raise UsageError("Give a word or more: lcp look words cat dog car")
    if len(words) > MOST:
        raise UsageError(f"{len(words)} words are too many for a table. Give at most {MOST}.")
    if not 1 <= asked.top <= 100:
        raise UsageError(f"--top must be from 1 to 100 (got {asked.top}).")

    with common.models(name, flags) as (opened,):
        from lcp.look.words import nearest
        from lcp.modelfile.weights import Weights, row_count

        tokens = [opened.token(word) for word in words]
        weights = Weights(opened.model.path)
        if TABLE not in weights.tensors:
            raise NotSupported(f"{opened.name} has no {TABLE}. Choose another model: lcp list.")
        tensor = weights.tensors[TABLE]

        def rows(begin: int, end: int) -> Any:
            opened.work.tell("comparing", begin, row_count(tensor))
            return weights.rows(TABLE, begin, end)

        found = opened.work(nearest, rows, row_count(tensor), tokens, asked.top)
        data = {
            "words": [
                opened.named(token, nearest=[opened.named(t, cosine=x) for t, x in near])
                for token, near in zip(tokens, found.near, strict=True)
            ],
            "matrix": found.matrix.tolist(), "usual": found.usual, "shared": found.shared,
        }  # fmt: skip
        common.publish(asked, opened, data, lambda page: _show(page, opened, data, tensor))


words = options.command(WordsArguments, run, common.SETTINGS)


def _show(
    page: "Printout", opened: OpenModel, data: Mapping[str, Any], tensor: "TensorInfo"
) -> None:
    from lcp.terminal.token_charts import visible

    names = [visible(word["text"]) for word in data["words"]]
    near = ["  ".join(f"{visible(n['text'])} {n['cosine']:.2f}" for n in word["nearest"])
            for word in data["words"]]  # fmt: skip
    page.table(["word", "nearest"], list(zip(names, near, strict=True)), cut=True)
    page.blank()
    if len(names) > 1:
        rows = [
            [name, *(f"{x:.2f}" for x in row)]
            for name, row in zip(names, data["matrix"], strict=True)
        ]
        page.table(["", *names], rows)
        page.blank()
    width, count = tensor.shape[0], tensor.shape[1]
    page.note(
        f"The cosine of the angle between two rows of {TABLE} ({count:,} tokens, {width:,} "
        f"numbers each, {tensor.quant}), without the part that all rows share: 1 is the same "
        f"direction. Of random pairs, 19 of 20 are below {data['usual']:.2f}; with the shared "
        f"part, half of them would be above {data['shared']:.2f}. Before the first layer, a token "
        "is only its row: the bank of a river and a bank for money have the same."
    )
    page.of_this_run(f"{opened.work.seconds:.1f} s.")
