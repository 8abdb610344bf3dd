"""When two greedy answers count as the same.

llama.cpp adds numbers in another order if the same tokens come in batches of another size, so the
logits of a reused cache and of a new one need not be bit-identical. On a CPU with AVX2 only,
SmolLM2's logits differ by up to 0.88 between one batch and one token at a time.
"""

from contextlib import closing

import numpy as np

from lcp.common_prefix import common_prefix
from lcp.engine.context import Context
from lcp.engine.llama_library import StopByte, library

CLOSE = 0.01


def logits(context, model):
    """A copy of the logits of the last token."""
    row = library().llama_get_logits_ith(context.handle, -1)
    return np.ctypeslib.as_array(row, (model.n_vocab,)).copy()


def logits_after(model, *batches):
    """The logits after these tokens, evaluated in these batches by a new context."""
    size = sum(map(len, batches))
    with closing(Context(model, size, StopByte(), threads=1)) as fresh:
        held = []
        for batch in batches:
            held += batch
            for _ in fresh.feed(held):
                pass
        return logits(fresh, model)


def split_difference(model, tokens):
    """How much other batches of the same tokens change the logits after them on this machine."""
    alone = logits_after(model, *([token] for token in tokens))
    return np.abs(logits_after(model, tokens) - alone).max()


def assert_same(said, fresh_said, scores, difference):
    """`said` has the tokens of `fresh_said`. A first difference counts only where the fresh scores
    set the two tokens further apart than CLOSE and than twice the difference that other batches
    make.

    `scores` and `difference` are functions of an index: the fresh logits of that token, and the
    difference that batches make there.
    """
    for i, (token, fresh_token) in enumerate(zip(said, fresh_said, strict=False)):
        if token != fresh_token:
            row = scores(i)
            assert row[fresh_token] - row[token] <= max(CLOSE, 2 * difference(i))
            return


def assert_says_what_a_fresh_one_says(model, prompt, said):
    """Assert that `said` begins the greedy answer of a context that evaluates `prompt` at once."""
    fresh_said, rows = [], []
    size = len(prompt) + len(said) + 1
    with closing(Context(model, size, StopByte(), threads=1)) as fresh:
        for _ in fresh.feed(prompt):
            pass
        for token in said:
            rows.append(logits(fresh, model))
            fresh_said.append(int(rows[-1].argmax()))
            if token != fresh_said[-1]:
                break
            fresh.append(token)

    def difference(i):
        return split_difference(model, [*prompt, *fresh_said[:i]])

    assert_same(said, fresh_said, rows.__getitem__, difference)


def assert_differs_by_batches_only(model, prompt, said, others):
    """Two answers to `prompt` are the same, or where they first differ, the logits do: the tokens
    before were read in other batches. Returns whether they are the same."""
    same = common_prefix(said, others)  # one of them may end there
    if same == max(len(said), len(others)):
        return True
    assert split_difference(model, [*prompt, *said[:same]]) > 0
    return False
