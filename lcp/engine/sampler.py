"""Sampler: llama.cpp's own chain of samplers, set up with the sampling settings.

lcp implements no sampler itself. Each reply has a Sampler of its own.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterator, Sequence
from itertools import compress

from lcp.engine.context import Context
from lcp.engine.llama_library import library
from lcp.engine.model import Model
from lcp.settings import Sampling


class Sampler:
    """Logits in, one token out."""

    def __init__(
        self, model: Model, sampling: Sampling, seed: int, previous: Sequence[int] = ()
    ) -> None:
        """`previous`: the tokens so far, for the penalties."""
        c = library()
        self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        s, keep = sampling, 1  # every filter leaves at least one token
        # llama.cpp's order (common/common.h): penalties, top-k, top-p, min-p, temperature, dist
        stages = [
            c.llama_sampler_init_penalties(
                model.n_vocab,
                s.repeat_last_n,
                s.repeat_penalty,
                s.frequency_penalty,
                s.presence_penalty,
            )
        ]
        if s.temp == 0:
            stages += [c.llama_sampler_init_greedy()]
        else:
            if s.top_k > 0:
                stages += [c.llama_sampler_init_top_k(s.top_k)]
            stages += [
                c.llama_sampler_init_top_p(s.top_p, keep),
                c.llama_sampler_init_min_p(s.min_p, keep),
                c.llama_sampler_init_temp(s.temp),
                c.llama_sampler_init_dist(seed),
            ]
        for stage in stages:
            c.llama_sampler_chain_add(self._chain, stage)
        for token in previous[-s.repeat_last_n :] if s.repeat_last_n else ():
            self.accept(token)

    def sample(self, context: Context, row: int = -1) -> int:
        """Sample a token from a row of logits, by default those of the last token in the context,
        and accept it."""
        return int(library().llama_sampler_sample(self._chain, context.handle, row))

    def select(self, candidates: TokenCandidates) -> int:
        """Sample one of the candidates; -1 if all are impossible. Removes some of them."""
        candidates.apply(self._chain)
        chosen = candidates.array.data[candidates.array.selected]
        return int(chosen.id) if chosen.logit > -float("inf") else -1

    def stages(self, candidates: TokenCandidates) -> Iterator[str]:
        """Apply the samplers one after another. Yields the name of each, which starts with "?" if
        the sampler is off. The last one selects a token."""
        c = library()
        for i in range(c.llama_sampler_chain_n(self._chain)):
            stage = c.llama_sampler_chain_get(self._chain, i)
            candidates.apply(stage)
            yield c.llama_sampler_name(stage).decode("utf-8", "replace")

    def accept(self, token: int) -> None:
        """Add a token to those that the penalties count."""
        library().llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the chain and its samplers."""
        library().llama_sampler_free(self._chain)


class TokenCandidates:
    """Tokens with their logits, in the form that llama.cpp's samplers take."""

    def __init__(self, n: int) -> None:
        c = library()
        self._n = n
        self._data = (c.llama_token_data * n)()
        self.array = c.llama_token_data_array()
        # A token_data is an id, a logit and a p. Strided views write one field of all, in C.
        raw = memoryview(self._data).cast("B")
        self._ids, self._logits = raw.cast("i")[0::3], raw.cast("f")[1::3]
        self._all = memoryview(array("i", range(n)))

    def fill(self, context: Context, row: int = -1) -> None:
        """Hold all tokens, with the logits of a row of the context."""
        logits = library().llama_get_logits_ith(context.handle, row)
        floats = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self._n)).contents
        self._ids[:] = self._all
        self._logits[:] = memoryview(floats).cast("B").cast("f")
        self._reset(self._n)

    def fill_only(self, context: Context, wanted: bytes, row: int = -1) -> int:
        """Hold the tokens whose byte in `wanted` is not 0, with their logits. Returns how many."""
        logits = library().llama_get_logits_ith(context.handle, row)
        floats = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self._n)).contents
        ids = array("i", compress(range(self._n), wanted))
        self._ids[: len(ids)] = memoryview(ids)
        self._logits[: len(ids)] = memoryview(array("f", compress(floats, wanted)))
        self._reset(len(ids))
        return len(ids)

    def left(self) -> tuple[memoryview[int], memoryview[float]]:
        """The ids and logits of the candidates that are left, in their order: views of memory that
        the next sampler changes. (`p` is stale after some samplers.)"""
        kind = library().llama_token_data * self.array.size
        raw = memoryview(ctypes.cast(self.array.data, ctypes.POINTER(kind)).contents).cast("B")
        return raw.cast("i")[0::3], raw.cast("f")[1::3]

    @property
    def selected(self) -> int:
        """The token that the last sampler selected; -1 if none did."""
        at = self.array.selected
        return int(self.array.data[at].id) if at >= 0 else -1

    def put(self, token: int) -> None:
        """Hold only this token."""
        self._data[0].id, self._data[0].logit = token, 1.0
        self._reset(1)

    def forbid(self, token: int) -> None:
        """Make a token impossible. Call it right after `fill`, while token i is the i-th."""
        self._logits[token] = -float("inf")

    def possible(self, index: int = 0) -> bool:
        """Whether no sampler made this candidate impossible."""
        return self._logits[index] > -float("inf")

    def apply(self, sampler: object) -> None:
        """Apply a sampler of llama.cpp to the candidates."""
        library().llama_sampler_apply(sampler, ctypes.byref(self.array))

    def _reset(self, size: int) -> None:
        a = self.array
        a.data, a.size, a.selected, a.sorted = self._data, size, -1, False
