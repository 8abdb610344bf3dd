"""A model whose tensors an experiment can watch and replace, and the names of these tensors.

llama.cpp names the tensors of its graph, but not in the same way for all models. `TensorNames`
finds the names in one model, or says what this model does not show.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lcp.errors import NotSupported
from lcp.look.distributions import Array

# Names of what the first layer gets, the last step first.
_BEGIN = ("inp_scaled", "inp_embd_scaled", "inp_norm", "inpL", "inp_embd", "embd")
Watch = Mapping[str, Callable[[Array], Array | None]]
Tell = Callable[[str, int, int], None]  # reports progress: what, how much, of how much


class ObservedModel(Protocol):
    """A model and a context whose tensors can be watched and replaced; see engine/observer.py."""

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


class Activations(dict[str, Array]):
    """Copies of tensors by name."""

    def last(self, *names: str) -> Watch:
        """Watching functions that copy the numbers of the last token: (width,)."""
        return {name: self._keep(name, lambda x: x[0, -1]) for name in names}

    def all(self, *names: str) -> Watch:
        """Watching functions that copy the numbers of all tokens of a batch: (tokens, width)."""
        return {name: self._keep(name, lambda x: x[0] if len(x) == 1 else x) for name in names}

    def part(self, what: Callable[[Array], Array], *names: str) -> Watch:
        """Watching functions that copy a part of each tensor."""
        return {name: self._keep(name, what) for name in names}

    def _keep(self, name: str, what: Callable[[Array], Array]) -> Callable[[Array], None]:
        def keep(x: Array) -> None:
            self[name] = np.array(what(x))

        return keep


@dataclass(frozen=True)
class TensorNames:
    """The names of the tensors between the parts of a model, layer by layer.

    The state of a token starts as `begin`. Attention (or what a layer has instead) adds to it,
    which gives `middle`. The feed-forward adds to that, which gives `after`. A `middle` is "" if
    the graph has no name for it; then only the sum of both is known.
    """

    begin: str
    middle: tuple[str, ...]
    after: tuple[str, ...]
    attention: tuple[str, ...]  # the maps of all heads; "" in a layer without attention
    heads: tuple[str, ...]  # the outputs of all heads, side by side
    values: tuple[str, ...]  # what heads take from each token
    normal: str  # the state after the last norm: what the output matrix multiplies

    @classmethod
    def of(cls, model: ObservedModel) -> "TensorNames":
        """The names in this model. NotSupported if its layers have no names."""
        names = model.names

        def each(*spellings: str) -> tuple[str, ...]:
            return tuple(
                next((f"{s}-{layer}" for s in spellings if f"{s}-{layer}" in names), "")
                for layer in range(model.layers)
            )

        after = each("l_out")
        if not all(after):
            raise NotSupported(
                "llama.cpp does not name the states between the layers of this model "
                f"(layer {after.index('')} has no l_out), so they cannot be looked at. "
                "Choose another model."
            )
        begin = next(n for n in (*_BEGIN, after[0]) if n in names)
        return cls(
            begin,
            each("ffn_inp", "sa_out"),
            after,
            each("kq_soft_max"),
            each("kqv_out"),
            each("Vcur"),
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
