"""Dropping a middle part: the plan, and what each kind of memory does."""

import ctypes

import numpy as np
import pytest
import tiny as tiny_models
from hypothesis import given, settings
from hypothesis import strategies as st

from lcp.engine.cache_plan import MIN_RUN, plan
from lcp.engine.context import Context, Stopped
from lcp.engine.kv_cells import MemoryKind
from lcp.engine.llama_library import StopByte, library
from lcp.engine.model import Model

ONE_LAYER = ["dense", "moe"]
REREADS = ["recurrent", "hybrid", "hybrid_mrope", "swa"]
text = st.lists(st.integers(0, 9), max_size=120)


def after(held, todo):
    """The rest of `held` after the drops and the cut of a plan."""
    left = list(held[: todo.end])
    for begin, end in reversed(todo.drops):
        del left[begin:end]
    return left


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(text, text, text, text, text, st.booleans())
def test_any_plan_keeps_a_prefix_of_the_wanted_tokens(s, a, b, c, d, move):
    held, wanted = s + a + b + c, s + b + d + [77]
    todo = plan(held, wanted, move)
    assert after(held, todo) == wanted[: todo.keep]
    assert todo.keep + todo.read == len(wanted)
    assert todo.read >= 1
    assert 0 <= todo.moved <= todo.keep
    assert list(todo.drops) == sorted(todo.drops)
    assert not (todo.drops and not move)


def test_a_slide_moves_all_kept_tokens():
    system, old, kept, new = range(10), range(100, 160), range(200, 300), range(400, 420)
    held, wanted = [*system, *old, *kept], [*system, *kept, *new]
    todo = plan(held, wanted, move=True)
    assert (todo.drops, todo.keep, todo.moved, todo.read) == (((10, 70),), 110, 100, 20)


def test_turns_before_and_after_a_pinned_one_are_two_drops():
    a, pinned, b, kept = (range(n, n + 50) for n in (100, 200, 300, 400))
    todo = plan([1, *a, *pinned, *b, *kept], [1, *pinned, *kept, 9], move=True)
    assert todo.drops == ((1, 51), (101, 151))
    assert (todo.keep, todo.moved, todo.read) == (101, 100, 1)


def test_a_short_run_is_not_moved():
    short = list(range(200, 200 + MIN_RUN - 1))
    assert plan([1, 50, 51, *short], [1, *short, 9], move=True).moved == 0


def test_without_permission_nothing_is_moved():
    kept = list(range(200, 300))
    assert plan([1, *range(50, 90), *kept], [1, *kept, 9]).keep == 1


def tokens(n, seed):
    return [int(t) for t in np.random.default_rng(seed).integers(3, 259, n)]


def logits(context, model):
    row = library().llama_get_logits_ith(context.handle, -1)
    return np.ctypeslib.as_array(row, (model.n_vocab,)).copy()


def fed(model, wanted, **options):
    context = Context(model, 1024, StopByte(), threads=1, **options)
    for _ in context.feed(wanted):
        pass
    return context


def pos_max(context):
    return library().llama_memory_seq_pos_max(library().llama_get_memory(context.handle), 0)


@pytest.fixture(params=tiny_models.KINDS)
def kind(request):
    return request.param


@pytest.mark.slow
def test_a_slide_on_every_kind_of_memory(tiny, kind):
    model = Model.load(tiny(kind))
    system, old, kept, new = (tokens(n, n) for n in (40, 150, 200, 60))
    context = fed(model, system + old + kept)
    *_, progress = context.feed(system + kept + new, move=True)
    assert context.tokens == system + kept + new
    if kind in REREADS:
        assert progress.moved == 0
    else:
        assert (progress.moved, progress.total) == (200, 60)
    hole = len(old) if kind == "mrope" else 0
    assert pos_max(context) == len(context.tokens) - 1 + hole
    # a slide, and then other operations: cut back, continue
    for wanted in (system + kept + new[:30], system + kept + new + old, system, old):
        for _ in context.feed(wanted):
            pass
        assert context.tokens == wanted
    fresh = fed(model, old)
    assert np.array_equal(logits(context, model), logits(fresh, model))
    context.close()
    fresh.close()
    model.close()


@pytest.mark.parametrize("kind", ONE_LAYER)
def test_with_one_layer_a_moved_cache_equals_a_reread_one(tiny, kind, monkeypatch):
    # With one layer, keys and values depend only on their own token, so moving is exact if
    # the keys were rotated to their new positions.
    monkeypatch.setattr(tiny_models, "_LAYERS", 1)
    model = Model.load(tiny(kind, seed=41))
    system, old, kept, new = (tokens(n, n) for n in (40, 150, 200, 60))
    context, fresh = fed(model, system + old + kept), fed(model, system + kept + new)
    for _ in context.feed(system + kept + new, move=True):
        pass
    assert np.abs(logits(context, model) - logits(fresh, model)).max() < 2e-2
    context.close()
    fresh.close()
    model.close()


def test_a_sliding_window_of_full_size_is_moved(tiny):
    model = Model.load(tiny("swa"))
    system, old, kept, new = (tokens(n, n) for n in (40, 150, 200, 60))
    context = fed(model, system + old + kept, swa_full=True)
    *_, progress = context.feed(system + kept + new, move=True)
    assert progress.moved == 200
    context.close()
    model.close()


def test_a_stop_right_after_a_move_leaves_a_valid_context(tiny):
    model = Model.load(tiny("dense"))
    system, old, kept, new = (tokens(n, n) for n in (40, 150, 200, 600))
    stop = StopByte()
    context = Context(model, 1024, stop, threads=1)
    for _ in context.feed(system + old + kept):
        pass
    stop.set()
    with pytest.raises(Stopped):
        for _ in context.feed(system + kept + new, move=True):
            pass
    stop.clear()
    assert context.tokens == (system + kept + new)[: len(context.tokens)]
    assert len(context.tokens) > 240
    assert pos_max(context) == len(context.tokens) - 1
    for _ in context.feed(system + kept + new):
        pass
    assert context.tokens == system + kept + new
    context.close()
    model.close()


def test_a_feed_abandoned_after_a_move_can_be_saved(tiny, monkeypatch):
    monkeypatch.setattr(tiny_models, "_LAYERS", 1)
    model = Model.load(tiny("dense", seed=43))
    system, old, kept, new = (tokens(n, n) for n in (40, 150, 200, 60))
    context, fresh = fed(model, system + old + kept), fed(model, system + kept + new)
    feed = context.feed(system + kept + new, move=True)
    next(feed)
    feed.close()
    other = Context(model, 1024, StopByte(), threads=1)
    assert other.restore(context.save())
    for _ in other.feed(system + kept + new):
        pass
    assert np.abs(logits(other, model) - logits(fresh, model)).max() < 2e-2
    for each in (context, other, fresh):
        each.close()
    model.close()


@pytest.mark.slow
def test_a_saved_state_is_restored_on_every_kind_of_memory(tiny, kind):
    model = Model.load(tiny(kind))
    said = tokens(300, 1)
    context = fed(model, said)
    state = context.save()
    other = Context(model, 512, StopByte(), threads=1)
    assert other.restore(state)
    assert other.tokens == said
    more = said + tokens(40, 2)
    for one in (context, other):
        *_, progress = one.feed(more)
        assert progress.total == 40
    assert np.abs(logits(context, model) - logits(other, model)).max() < 1e-4
    small = Context(model, 256, StopByte(), threads=1)
    assert not small.restore(state)
    assert small.tokens == []
    for one in (context, other, small):
        one.close()
    model.close()


def test_a_state_of_another_shape_is_refused_and_the_cache_cleared(tiny):
    one, two = Model.load(tiny("dense")), Model.load(tiny("mla"))
    context, other = fed(one, tokens(60, 1)), fed(two, tokens(60, 1))
    assert not other.restore(context.save())
    assert other.tokens == []
    for _ in other.feed(tokens(50, 3)):
        pass
    fresh = fed(two, tokens(50, 3))
    assert np.array_equal(logits(other, two), logits(fresh, two))
    for each in (context, other, fresh):
        each.close()
    one.close()
    two.close()


def test_a_truncated_state_is_refused(tiny):
    model = Model.load(tiny("dense"))
    context = fed(model, tokens(60, 1))
    state = context.save()
    half = (ctypes.c_uint8 * (len(state.blob) // 2)).from_buffer_copy(state.blob)
    assert not context.restore(type(state)(state.tokens, state.positions, half))
    assert context.tokens == []
    context.close()
    model.close()


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (MemoryKind("free", "move"), ""), (MemoryKind("free", "hole"), ""),
        (MemoryKind("window", "move", 512), ""),
        (MemoryKind("window", "reread", 512), "512 tokens"),
        (MemoryKind("snapshot", "reread"), "reads the chat again"),
        (MemoryKind("free", "reread"), "reads the chat again"),  # llama.cpp cannot shift it
    ],
)  # fmt: skip
def test_a_memory_that_is_read_again_at_a_slide_has_a_notice(kind, told):
    assert told in kind.notice() and bool(told) == bool(kind.notice())
