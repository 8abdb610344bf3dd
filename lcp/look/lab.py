"""What an experiment asks of a model under observation, and the names of its parts.

llama.cpp names the tensors of its graph, but not in the same way for all models. `Parts` finds
the names of one model, and says what cannot be looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lcp.errors import NotSupported

Array = np.ndarray[Any, np.dtype[Any]]
Watch = Mapping[str, Callable[[Array], Array | None]]
Tell = Callable[[str, int, int], None]  # what is being done; how much of how much


class Lab(Protocol):
    """A model and a context whose tensors can be watched and replaced; see engine/observe.py."""

    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def names(self) -> frozenset[str]: ...
    @property
    def most_rows(self) -> int: ...
    @property
    def batch(self) -> int: ...
    def clear(self) -> None: ...
    def cut(self, n: int) -> int: ...
    def decode(
        self,
        tokens: Sequence[int],
        watch: Watch | None = None,
        *,
        rows: Sequence[int] | None = None,
        reduce: Callable[[Sequence[int], Array], Array] | None = None,
    ) -> Array: ...
    def branch(self, endings: Sequence[Sequence[int]], watch: Watch | None = None) -> Array: ...


class Kept(dict[str, Array]):
    """Copies of what was seen of each tensor, by its name."""

    def last(self, *names: str) -> Watch:
        """Watching functions that keep the numbers of the last token: (width,)."""
        return {name: self._keep(name, lambda x: x[0, -1]) for name in names}

    def all(self, *names: str) -> Watch:
        """Watching functions that keep the numbers of all tokens of a batch: (tokens, width)."""
        return {name: self._keep(name, lambda x: x[0] if len(x) == 1 else x) for name in names}

    def part(self, what: Callable[[Array], Array], *names: str) -> Watch:
        """Watching functions that keep a part of each tensor."""
        return {name: self._keep(name, what) for name in names}

    def _keep(self, name: str, what: Callable[[Array], Array]) -> Callable[[Array], None]:
        def keep(x: Array) -> None:
            self[name] = np.array(what(x))

        return keep


@dataclass(frozen=True)
class Parts:
    """The names of the tensors between the parts of a model, layer by layer.

    The state of a token begins as `begin`. Attention (or what a layer has instead) adds to it and
    gives `middle`; the feed-forward adds to that and gives `after`. A `middle` is "" where the
    graph has no name for it; then only the sum of both is known.
    """

    begin: str
    middle: tuple[str, ...]
    after: tuple[str, ...]
    attention: tuple[str, ...]  # the maps of all heads; "" in a layer without attention
    heads: tuple[str, ...]  # the outputs of all heads, side by side
    values: tuple[str, ...]  # what heads take from each token
    out: tuple[str, ...]  # what attention adds, if nothing follows it
    normal: str  # the state after the last norm: what the output matrix multiplies

    @classmethod
    def of(cls, lab: Lab) -> "Parts":
        """The names in this model. NotSupported if its layers have none."""
        names = lab.names

        def each(*spellings: str) -> tuple[str, ...]:
            return tuple(
                next((f"{s}-{layer}" for s in spellings if f"{s}-{layer}" in names), "")
                for layer in range(lab.layers)
            )

        after = each("l_out")
        if not all(after):
            raise NotSupported(
                "llama.cpp does not name the states between the layers of this model "
                f"(layer {after.index('')} has no l_out), so they cannot be looked at. "
                "Choose another model."
            )
        begin = next(n for n in ("inp_scaled", "inp_embd", "embd", after[0]) if n in names)
        return cls(
            begin,
            each("ffn_inp", "sa_out"),
            after,
            each("kq_soft_max"),
            each("kqv_out"),
            each("Vcur"),
            each("attn_out"),
            "result_norm" if "result_norm" in names else "",
        )

    def with_heads(self) -> list[int]:
        """The layers whose heads can be told apart. NotSupported if there are none."""
        found = [layer for layer, name in enumerate(self.heads) if name]
        if not found:
            why = "its gated attention has no name in llama.cpp" if any(self.attention) else (
                "it has no attention"
            )  # fmt: skip
            raise NotSupported(
                f"The heads of this model cannot be looked at: {why}. Choose another model."
            )
        return found


def softmax(logits: Array) -> Array:
    """Probabilities, along the last axis."""
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(-1, keepdims=True)
    return x


def log_softmax(logits: Array) -> Array:
    """Logarithms of probabilities, in nats."""
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    return x


def entropy(p: Array) -> Array:
    """How open the choice is, in bits: 3 bits are as open as 8 equal choices (Shannon 1948)."""
    return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)


def divergence(logs: Array, others: Array) -> Array:
    """How far distributions are from the first one, in nats, from what log_softmax gives (Kullback
    & Leibler 1951): one number for each row of `others`."""
    p = np.exp(logs)
    return np.maximum(0, p @ logs - others @ p)


def best(numbers: Array, n: int) -> list[int]:
    """The indexes of the n largest numbers, the largest first."""
    n = min(n, len(numbers))
    found = np.argpartition(-numbers, n - 1)[:n]
    return [int(i) for i in found[np.argsort(-numbers[found], kind="stable")]]


def rank(logits: Array, token: int) -> int:
    """1 if the token is the most likely one."""
    return int((logits > logits[token]).sum()) + 1
