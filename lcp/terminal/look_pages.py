"""The table of how much an answer needed each part of its prompt, for a command and the chat."""

from collections.abc import Sequence

from lcp.terminal.token_charts import bar

WITHOUT = (
    "lost: by how many nats the logarithm of the answer's probability falls without this part "
    "(1 nat: 2.7 times less likely; below 0: more likely). looked: the share of attention that it "
    "got during the answer, over all heads; where a model looks is not what it uses. "
    "Two parts that say the same hide each other, and what follows a part takes its place."
)
_BAR = 8


def without_rows(rows: Sequence[tuple[str, float, float | None]]) -> list[list[str]]:
    """The head and the rows of a table from (part, nats lost, attention), in their order."""
    most = max((abs(lost) for _, lost, _ in rows), default=0) or 1
    looked = any(attention is not None for *_, attention in rows)
    table = [["lost", *(["looked"] if looked else []), "", "without"]]
    for text, lost, attention in rows:
        share = [f"{attention or 0:.1%}"] if looked else []
        length = bar(abs(lost) / most, _BAR)
        table.append([f"{lost:+.1f}", *share, f"{length:·<{_BAR}}", text])
    return table


def without_sum(logp: float, sink: float | None) -> str:
    """A sentence on the answer as it is; `sink` is the attention that the first token got."""
    first = "" if sink is None else f" The first token got {sink:.0%} of the attention."
    return f"The logarithm of the answer's probability is {logp:.1f} nats.{first}"
