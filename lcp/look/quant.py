"""What another quant, or another type of KV cache, changes: at each token of a text, in a greedy
answer, and in the weights.

The measure is the Kullback-Leibler divergence of the next-token probabilities, as in llama.cpp's
perplexity tool: 0 if nothing changes. It is never exactly 0 in practice, because llama.cpp computes
a batch of many tokens with other kernels than single tokens. That difference is the noise floor.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from lcp.look.distributions import Array, best, log_softmax
from lcp.look.observed_model import ObservedModel, Tell

TEXT = """The lighthouse keeper counted the steps every evening. There were two hundred and eleven,
and he had never once arrived at a different number, although he hoped for it. From the gallery he
could see the harbour, the fishing boats, and on clear days the mountains on the other side of the
bay, which belonged to another country. His sister wrote to him from there. "Dear Tom," she would
begin, "the winter has been mild, and the children are learning to swim." He answered on Sundays.

Water boils at 100 degrees Celsius at sea level. At an altitude of 3,000 metres, the pressure of the
air is about 70 kPa, and water boils at 90 degrees. This is why pasta takes longer in the mountains.

def mean(numbers):
    \"\"\"The average of a list of numbers.\"\"\"
    total = 0
    for number in numbers:
        total += number
    return total / len(numbers)

The invoice lists three items: 12 chairs at 45.50 EUR, 2 tables at 310.00 EUR, and delivery. The sum
is 1,166.00 EUR, payable within 30 days. Please quote the number 2024-0817 with your payment.
"""
SAMPLE = 1 << 20  # numbers of a tensor that are compared


@dataclass(frozen=True)
class Distance:
    """The divergence of the probabilities from those of the reference, at each token of a text."""

    kl: Array  # nats
    same: Array  # whether the most likely token is the same
    nats: Array  # minus the log probability of the next token of the text

    @property
    def mean(self) -> float:
        return float(self.kl.mean())

    def quantile(self, share: float) -> float:
        """The divergence below which this share of all tokens is."""
        return float(np.quantile(self.kl, share))

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.nats.mean()))


def distances(
    base: ObservedModel, others: Sequence[ObservedModel], tokens: list[int], tell: Tell
) -> list[Distance]:
    """The distances of the reference itself (all zeros), then of each of the others. They read the
    text in pieces, so that only one piece of logits is in memory."""
    models = (base, *others)
    found: list[list[tuple[Array, Array, Array]]] = [[] for _ in models]
    for model in models:
        model.clear()
    for start in range(0, len(tokens), base.most_rows):
        part = tokens[start : start + base.most_rows]
        following = tokens[start + 1 : start + len(part) + 1]
        reference: Array | None = None
        for model, rows in zip(models, found, strict=True):
            tell("comparing", start, len(tokens))
            logp = log_softmax(model.decode(part, rows=range(len(part))))
            reference = logp if reference is None else reference
            kl = (np.exp(reference) * (reference - logp)).sum(1)
            nats = -logp[np.arange(len(following)), following]
            rows.append((np.maximum(kl, 0), reference.argmax(1) == logp.argmax(1), nats))
    return [Distance(*(np.concatenate(x) for x in zip(*rows, strict=True))) for rows in found]


@dataclass(frozen=True)
class Choice:
    """A token of a greedy answer: the most likely one, and the second."""

    token: int
    p: float
    second: int
    p_second: float


def greedy(
    model: ObservedModel, prompt: list[int], most: int, ends: Callable[[int], bool], tell: Tell
) -> list[Choice]:
    """The most likely answer, token by token."""
    model.clear()
    found: list[Choice] = []
    new = prompt
    while len(found) < most:
        tell("answering", len(found), most)
        logp = log_softmax(model.decode(new)[0])
        first, second = best(logp, 2)
        found.append(Choice(first, float(np.exp(logp[first])), second, float(np.exp(logp[second]))))
        if ends(first):
            break
        new = [first]
    return found


def first_difference(a: Sequence[Choice], b: Sequence[Choice]) -> int | None:
    """The number of equal tokens before two answers differ; None if they do not."""
    both = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in both if x.token != y.token), None)


# the weights


class Tensor(Protocol):
    """What lcp needs to know about a tensor of a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def elements(self) -> int: ...
    @property
    def quant(self) -> str: ...
    @property
    def n_bytes(self) -> int | None: ...


Rows = Callable[[str, int, int], Array]  # name of a tensor, first row, end -> the rows


@dataclass
class Group:
    """The tensors of one name in all layers, in one file or in two."""

    name: str
    weights: int = 0
    bytes: list[int] = field(default_factory=list)  # of each file
    quants: list[list[str]] = field(default_factory=list)  # of each file
    error: float | None = None  # length of the difference / length of the first file's weights


def groups(files: Sequence[Mapping[str, Tensor]]) -> list[Group]:
    """The groups of the first file, the largest first."""
    found: dict[str, Group] = {}
    for name, tensor in files[0].items():
        key = _group(name)
        group = found.setdefault(key, Group(key, 0, [0] * len(files), [[] for _ in files]))
        group.weights += tensor.elements
        for i, file in enumerate(files):
            if name in file:
                group.bytes[i] += file[name].n_bytes or 0
                if file[name].quant not in group.quants[i]:
                    group.quants[i].append(file[name].quant)
    return sorted(found.values(), key=lambda group: -group.bytes[0])


def errors(
    found: Iterable[Group], a: Mapping[str, Tensor], b: Mapping[str, Tensor],
    rows_a: Rows, rows_b: Rows, tell: Tell,
) -> None:  # fmt: skip
    """Set in each group how far the second file's weights are from the first file's. Of a large
    tensor, only some rows are compared, from all over it."""
    names = [n for n, t in a.items() if n in b and b[n].shape == t.shape]
    sums: dict[str, Array] = {}
    for done, name in enumerate(names):
        tell("comparing weights", done, len(names))
        for begin, end in _pieces(a[name]):
            x, y = rows_a(name, begin, end), rows_b(name, begin, end)
            both = np.array([((x - y) ** 2).sum(dtype=float), (x**2).sum(dtype=float)])
            sums[_group(name)] = sums.get(_group(name), 0) + both
    for group in found:
        if group.name in sums and sums[group.name][1]:
            group.error = float(np.sqrt(sums[group.name][0] / sums[group.name][1]))


def _group(name: str) -> str:
    return re.sub(r"^blk\.\d+\.", "", name).removesuffix(".weight")


def _pieces(tensor: Tensor) -> list[tuple[int, int]]:
    """Ranges of rows: all rows, or sixteen ranges from all over a large tensor."""
    count = tensor.elements // tensor.shape[0]
    most = max(16, SAMPLE // tensor.shape[0])
    if count <= most:
        return [(0, count)]
    return [(count * i // 16, count * i // 16 + most // 16) for i in range(16)]
