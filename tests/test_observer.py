"""Watching and replacing tensors, compared with an independent forward pass."""

import numpy as np
import pytest
from gemma import forward, read
from tiny import KINDS

from lcp.engine.context import Context, Stopped
from lcp.engine.llama_library import StopByte, library
from lcp.engine.model import Model
from lcp.engine.observer import Observer
from lcp.errors import ContextFull, NotEnoughMemory

TEXT = "The quick brown fox jumps over the lazy dog again"  # longer than the window of swa
# The GELU of swa is a table of half-precision numbers: a last bit of x may decide between two. In
# the first layer that happens to 2 of 50 tokens (1.5e-5); the median of the others is 7e-8.
reference = pytest.mark.parametrize("kind, limit", [("dense", 1e-5), ("swa", 2e-5)])


@pytest.fixture(scope="module")
def observer(tiny):
    """A function that makes an Observer of a kind of tiny model and closes it later."""
    made, models = [], {}

    def make(kind="dense", quant=None, kv_heads=4, stop=None, **options):
        key = (kind, quant, kv_heads)
        if key not in models:
            models[key] = Model.load(tiny(kind, quant=quant, kv_heads=kv_heads), 0)
        options = {"size": 256, "rows": 64, "kv_type": "f32", **options}
        made.append(Observer(models[key], stop or StopByte(), threads=2, **options))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LCP_EXTRA_BUFTS", "0")
        yield make
    for one in made:
        one.close()
    for model in models.values():
        model.close()


def tokens_of(one, text=TEXT):
    return [1, *one.model.tokenize(text)]


def far(a, b):
    """The largest difference between arrays, relative to the largest number."""
    return np.abs(a - b).max() / np.abs(b).max()


@reference
def test_attention_states_and_logits_equal_those_of_a_numpy_model(observer, kind, limit):
    one, seen = observer(kind, kv_heads=2), {}
    tokens = tokens_of(one)
    names = [f"{name}-{layer}" for name in ("kq_soft_max", "l_out") for layer in range(2)]
    watch = {name: lambda x, name=name: seen.update({name: x.copy()}) for name in names}
    logits = one.decode(tokens, watch, rows=range(len(tokens)))
    right = forward(read(one.model.path), tokens)
    for layer in range(2):
        attention = seen[f"kq_soft_max-{layer}"][:, :, : len(tokens)]
        assert far(attention, right[f"kq_soft_max-{layer}"]) < limit
        assert far(seen[f"l_out-{layer}"][0], right[f"l_out-{layer}"]) < limit
    assert far(logits, right["logits"]) < limit


@reference
def test_a_switched_off_head_has_no_effect(observer, kind, limit):
    one, (layer, head) = observer(kind, kv_heads=2), (1, 2)
    tokens = tokens_of(one)

    def off(x):
        x = x.copy()
        x[0, :, head * 16 : (head + 1) * 16] = 0
        return x

    before = one.decode(tokens)
    one.clear()
    without = one.decode(tokens, {f"kqv_out-{layer}": off})
    right = forward(read(one.model.path), tokens, off=[(layer, head)])["logits"][-1:]
    assert far(without, right) < limit
    assert far(before, right) > 1000 * limit


@reference
def test_a_replaced_state_has_an_effect(observer, kind, limit):
    one, state = observer(kind, kv_heads=2), np.linspace(-1, 1, 64, dtype=np.float32)
    tokens = tokens_of(one)

    def put(x):
        x = x.copy()
        x[0, 5] = state
        return x

    patched = one.decode(tokens, {"l_out-0": put})
    right = forward(read(one.model.path), tokens, state={(0, 5): state})["logits"][-1:]
    assert far(patched, right) < limit


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_watching_changes_nothing(observer, kind):
    one = observer(kind)
    tokens = tokens_of(one)
    plain = Context(
        one.model, 256, StopByte(), threads=2, kv_type="f32", flash_attn="off", swa_full=True
    )
    list(plain.feed(tokens))
    logits = library().llama_get_logits_ith(plain.handle, -1)
    right = np.ctypeslib.as_array(logits, (one.vocabulary,)).copy()
    plain.close()
    seen = []
    watch = {name: lambda x: seen.append(x.shape) for name in one.names if "view" not in name}
    assert np.array_equal(one.decode(tokens, watch)[0], right)
    assert len(seen) > 20
    one.clear()
    assert np.array_equal(one.decode(tokens, {"l_out-0": lambda x: x})[0], right)


@pytest.mark.slow
def test_a_long_text_is_read_in_batches(observer):
    one = observer(size=1024)
    tokens = tokens_of(one, TEXT * 15)
    rows = [3, *range(100, 400), len(tokens) - 1]
    logits = one.decode(tokens, rows=rows)
    assert one.n_tokens == len(tokens) > one.batch
    right = forward(read(one.model.path), tokens)["logits"]
    assert far(logits, right[rows]) < 1e-4
    one.clear()
    sums = one.decode(tokens, rows=rows, reduce=lambda part, x: x.sum(1))
    assert np.allclose(sums, logits.sum(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["dense", "swa", "mrope", "moe"])
def test_each_ending_of_a_batch_equals_a_separate_run(observer, kind):
    """Q8_0 is computed row by row, so batches of any shape give bit-identical results."""
    one = observer(kind, quant="Q8_0", sequences=8)
    tokens = tokens_of(one)
    endings = [tokens[-3:], [5, 6, 7], [9]]
    one.decode(tokens[:-3])
    together = one.branch(endings)
    assert one.n_tokens == len(tokens) - 3
    assert far(together, one.branch(endings)) == 0
    for row, ending in zip(together, endings, strict=True):
        one.clear()
        one.decode(tokens[:-3])
        assert far(one.decode(ending)[0], row) < 1e-6


def test_an_error_in_a_watching_function_is_raised(observer):
    one = observer()

    def broken(x):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        one.decode([1, 2], {"l_out-0": broken})
    one.clear()
    with pytest.raises(ValueError, match="l_out-0"):
        one.decode([1, 2], {"l_out-0": lambda x: x[:, :1]})
    one.clear()
    assert one.decode([1, 2]).shape == (1, one.vocabulary)


def test_limits_of_an_observer(observer):
    stop = StopByte()
    one = observer(stop=stop)
    with pytest.raises(ContextFull):
        one.decode([1] * 257)
    one.clear()
    stop.set()
    with pytest.raises(Stopped):
        one.decode([1, 2])
    with pytest.raises(NotEnoughMemory, match="MB"):
        observer(free=1000)
