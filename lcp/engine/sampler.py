"""Samples tokens with llama.cpp's own chain of samplers, made from the settings."""

import ctypes
from array import array
from collections.abc import Sequence
from itertools import compress

from lcp.engine.context import Context
from lcp.engine.model import Model
from lcp.engine.native import library
from lcp.settings import Sampling


class Sampler:
    """Samples the tokens of one reply: logits in, a token out."""

    def __init__(
        self, model: Model, sampling: Sampling, seed: int, said: Sequence[int] = ()
    ) -> None:
        """`said` are the tokens so far, for the penalties of repeated tokens."""
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

    def sample(self, context: Context) -> int:
        """Sample a token from the logits of the last token in the context, and accept it."""
        return int(library().llama_sampler_sample(self._chain, context.handle, -1))

    def draw(self, candidates: "TokenCandidates") -> int:
        """Sample one of the candidates; -1 if all are impossible. Removes some candidates."""
        candidates.apply(self._chain)
        drawn = candidates.array.data[candidates.array.selected]
        return int(drawn.id) if drawn.logit > -float("inf") else -1

    def accept(self, token: int) -> None:
        """Count a token for the penalties."""
        library().llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        """Free the chain and its samplers."""
        library().llama_sampler_free(self._chain)


class TokenCandidates:
    """Tokens with their logits, in the array that llama.cpp's samplers work on."""

    def __init__(self, n: int) -> None:
        c = library()
        self._n = n
        self._data = (c.llama_token_data * n)()
        self.array = c.llama_token_data_array()
        # Strided views write each field at C speed: a llama_token_data is id, logit, p.
        raw = memoryview(self._data).cast("B")
        self._ids = raw.cast("i")[0::3]
        self._logits, self._p = raw.cast("f")[1::3], raw.cast("f")[2::3]
        self._all = memoryview(array("i", range(n)))

    def fill(self, context: Context, row: int = -1) -> None:
        """Take all tokens, with the logits of a row of the last batch (-1: of its last token)."""
        logits = library().llama_get_logits_ith(context.handle, row)
        floats = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self._n)).contents
        self._ids[:] = self._all
        self._logits[:] = memoryview(floats).cast("B").cast("f")
        self._reset(self._n)

    def fill_only(self, context: Context, wanted: bytes) -> int:
        """Take the tokens whose byte in `wanted` is not 0. Returns how many they are."""
        logits = library().llama_get_logits_ith(context.handle, -1)
        floats = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float * self._n)).contents
        ids = array("i", compress(range(self._n), wanted))
        self._ids[: len(ids)] = memoryview(ids)
        self._logits[: len(ids)] = memoryview(array("f", compress(floats, wanted)))
        self._reset(len(ids))
        return len(ids)

    def put(self, token: int) -> None:
        """Take one token."""
        self._data[0].id, self._data[0].logit = token, 1.0
        self._reset(1)

    def forbid(self, token: int) -> None:
        """Make a token impossible. Only right after `fill`, while token i has index i."""
        self._logits[token] = -float("inf")

    def possible(self, index: int = 0) -> bool:
        """Whether a candidate is still possible."""
        return self._logits[index] > -float("inf")

    def p(self, index: int) -> float:
        """The probability of a candidate, once a sampler has computed it."""
        return self._p[index]

    def apply(self, sampler: object) -> None:
        """Apply one of llama.cpp's samplers to the candidates."""
        library().llama_sampler_apply(sampler, ctypes.byref(self.array))

    def _reset(self, size: int) -> None:
        a = self.array
        a.data, a.size, a.selected, a.sorted = self._data, size, -1, False
