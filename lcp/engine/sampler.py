"""Sampler: llama.cpp's own chain of samplers, made from the numbers.

Nothing of it is re-implemented; one Sampler lives for one reply.
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
        self, model: Model, sampling: Sampling, seed: int, said: Sequence[int] = ()
    ) -> None:
        """`said`: the tokens so far, for the penalties that look back at them."""
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
        for token in said[-s.repeat_last_n :] if s.repeat_last_n else ():
            self.accept(token)

    def sample(self, context: Context, row: int = -1) -> int:
        """Draw a token from a row of logits, by default those of the last token the context read,
        and accept it."""
        return int(library().llama_sampler_sample(self._chain, context.handle, row))

    def draw(self, candidates: TokenCandidates) -> int:
        """Draw one of the candidates, some of which are gone afterwards; -1 where all are
        impossible."""
        candidates.apply(self._chain)
        drawn = candidates.array.data[candidates.array.selected]
        return int(drawn.id) if drawn.logit > -float("inf") else -1

    def stages(self, candidates: TokenCandidates) -> Iterator[str]:
        """Apply the samplers one after another; after each, its name, with "?" in front if it is
        off. The last one selects a token."""
        c = library()
        for i in range(c.llama_sampler_chain_n(self._chain)):
            stage = c.llama_sampler_chain_get(self._chain, i)
            candidates.apply(stage)
            yield c.llama_sampler_name(stage).decode("utf-8", "replace")

    def accept(self, token: int) -> None:
        """The token was said: the penalties count it."""
        library().llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the chain and its samplers."""
        library().llama_sampler_free(self._chain)


class TokenCandidates:
    """Tokens with their logits, as llama.cpp's samplers take them: to look at one by one."""

    def __init__(self, n: int) -> None:
        c = library()
        self._n = n
        self._data = (c.llama_token_data * n)()
        self.array = c.llama_token_data_array()
        # The fields are written as strided views, in C: a token_data is an id, a logit, a p.
        raw = memoryview(self._data).cast("B")
        self._ids = raw.cast("i")[0::3]
        self._logits, self._p = raw.cast("f")[1::3], raw.cast("f")[2::3]
        self._all = memoryview(array("i", range(n)))

    def fill(self, context: Context, row: int = -1) -> None:
        """All tokens, with the logits of one of the last tokens the context read."""
        logits = library().llama_get_logits_ith(context.handle, row)
        floats = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self._n)).contents
        self._ids[:] = self._all
        self._logits[:] = memoryview(floats).cast("B").cast("f")
        self._reset(self._n)

    def fill_only(self, context: Context, wanted: bytes, row: int = -1) -> int:
        """The tokens with a byte other than 0 in `wanted`, and their logits; how many they are."""
        logits = library().llama_get_logits_ith(context.handle, row)
        floats = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self._n)).contents
        ids = array("i", compress(range(self._n), wanted))
        self._ids[: len(ids)] = memoryview(ids)
        self._logits[: len(ids)] = memoryview(array("f", compress(floats, wanted)))
        self._reset(len(ids))
        return len(ids)

    def left(self) -> tuple[memoryview[int], memoryview[float]]:
        """The ids and the logits of those that are left, in their order; views of memory that the
        next sampler changes. (`p` is stale after some samplers.)"""
        kind = library().llama_token_data * self.array.size
        raw = memoryview(ctypes.cast(self.array.data, ctypes.POINTER(kind)).contents).cast("B")
        return raw.cast("i")[0::3], raw.cast("f")[1::3]

    @property
    def selected(self) -> int:
        """The token that the last sampler selected; -1 if none did."""
        at = self.array.selected
        return int(self.array.data[at].id) if at >= 0 else -1

    def put(self, token: int) -> None:
        """This token alone."""
        self._data[0].id, self._data[0].logit = token, 1.0
        self._reset(1)

    def forbid(self, token: int) -> None:
        """Make a token impossible; right after `fill`, while token i is the i-th."""
        self._logits[token] = -float("inf")

    def possible(self, index: int = 0) -> bool:
        """Whether a candidate has not been refused."""
        return self._logits[index] > -float("inf")

    def p(self, index: int) -> float:
        """The probability of a candidate, after a sampler that computes it."""
        return self._p[index]

    def apply(self, sampler: object) -> None:
        """Let a sampler of llama.cpp work on them."""
        library().llama_sampler_apply(sampler, ctypes.byref(self.array))

    def _reset(self, size: int) -> None:
        a = self.array
        a.data, a.size, a.selected, a.sorted = self._data, size, -1, False
