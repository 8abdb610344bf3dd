"""Sampler: llama.cpp's own chain of samplers, made from the numbers.

Nothing of it is re-implemented; one Sampler lives for one reply.
"""

from collections.abc import Sequence

from lcp.engine.context import Context
from lcp.engine.model import Model
from lcp.engine.native import library
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
            c.llama_sampler_accept(self._chain, token)

    def sample(self, context: Context) -> int:
        """Draw a token from the logits of the last token the context read."""
        return int(library().llama_sampler_sample(self._chain, context.handle, -1))

    def close(self) -> None:
        """Free the chain and its samplers."""
        library().llama_sampler_free(self._chain)
