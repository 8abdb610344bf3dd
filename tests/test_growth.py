"""A context that grows gives the same answers as one that was large from the beginning."""

import io
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import tiny as tiny_models
from fakes import new_chat
from greedy import assert_same, logits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_context import feed, say, tokens
from tiny import KINDS, WINDOW

from lcp.engine import context as context_module
from lcp.engine import kv_cache_file
from lcp.engine.context import Context, State, Stopped
from lcp.engine.engine import LlamaEngine
from lcp.engine.llama_library import StopByte, library
from lcp.engine.model import Model
from lcp.engine.params import N_BATCH
from lcp.engine_interface import Constraint, PromptMessage
from lcp.errors import ContextFull, NotEnoughMemory, TooLong
from lcp.session.store import Store
from lcp.settings import Layers, Settings
from lcp.terminal.screen import Screen

SIZE, SMALL = 2048, 256
NOW = datetime(2026, 11, 22, 9, 30, tzinfo=timezone.utc)
RECURRENT = ["recurrent", "hybrid", "hybrid_mrope"]
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """The memory of this computer, with `free` bytes (None: unknown)."""
    computer = SimpleNamespace(free=None, mapped=0, asked=lambda: None)

    def machine():
        computer.asked()
        return computer

    monkeypatch.setattr(context_module, "machine", machine)
    return computer


class Refusing(Context):
    """llama.cpp refuses the next `refusals` allocations."""

    refusals = 0

    def _allocate(self, cells):
        if self.refusals:
            self.refusals -= 1
            self.close()
            self.tokens = []
            raise NotEnoughMemory("failed to allocate buffer")
        super()._allocate(cells)


@contextmanager
def growing(model, size=SIZE, kind=Context, stop=None, **options):
    options = {"start": SMALL} | options
    with closing(kind(model, size, stop or StopByte(), threads=1, **options)) as one:
        yield one


def large(model, size=SIZE, **options):
    return growing(model, size, start=size, **options)


def cells(one):
    return library().llama_n_ctx(one.handle)


def holds_what_it_says(one):
    c = library()
    return c.llama_memory_seq_pos_max(c.llama_get_memory(one.handle), 0) == (
        one._cells.positions[-1] if one.tokens else -1
    ) and len(one._cells.positions) == len(one.tokens)


def assert_say_the_same(one, other, model, n=4, close=1e-3):
    assert one.tokens == other.tokens
    assert holds_what_it_says(one)
    (said, seen), (other_said, other_seen) = say(one, model, n), say(other, model, n)
    assert np.abs(seen[0] - other_seen[0]).max() < close
    assert_same(said, other_said, other_seen.__getitem__, lambda i: close)


# growing


@pytest.mark.slow
@every_kind
def test_an_answer_continues_while_the_context_grows_several_times(model, kind):
    m = model(kind)
    with growing(m) as one, large(m) as other:
        first = cells(one)
        assert (one.size, other.size, cells(other)) == (SIZE, SIZE, SIZE)
        assert first < SIZE
        for each in (one, other):
            feed(each, tokens(first - 20), boundary=first - 30)
        assert cells(one) == first
        said, seen = say(one, m, 600)
        other_said, other_seen = say(other, m, 600)
        assert cells(one) > first + 256
        assert one.tokens[: first - 20] == tokens(first - 20)
        assert_same(said, other_said, other_seen.__getitem__, lambda i: 1e-3)
        if said == other_said:
            assert np.abs(seen[-1] - other_seen[-1]).max() < 1e-3


@pytest.mark.slow
@every_kind
def test_a_long_prompt_gets_all_its_cells_at_once(model, kind):
    m = model(kind)
    with growing(m, size=4096) as one, large(m, size=4096) as other:
        first = cells(one)
        for wanted in (tokens(1300), tokens(1300) + tokens(1400, 1)):
            for each in (one, other):
                feed(each, wanted, len(wanted) - 3)
            doubled = next(first * 2**i for i in range(9) if first * 2**i >= len(wanted))
            assert cells(one) == min(doubled, 4096)
            assert_say_the_same(one, other, m)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*RECURRENT, "swa"])
def test_snapshots_survive_growing(model, kind):
    m = model(kind)
    with growing(m, size=4096) as one:
        feed(one, tokens(900), boundary=890)
        before = cells(one)
        feed(one, tokens(1500), boundary=1490)
        assert cells(one) > before
        for end in (1490, 890):
            assert feed(one, tokens(end) + tokens(9, end)).kept == end


def test_sliding_window_layers_that_keep_all_cells_never_grow(model):
    """A copied state has only the window, so a later cut would read everything again."""
    with growing(model("swa"), swa_full=True) as one:
        assert cells(one) == SIZE


def test_growing_does_not_change_the_kind_of_memory(model):
    m = model("swa")
    with growing(m, size=4096) as one, large(m, size=4096) as other:
        assert one.kind == other.kind
        assert WINDOW + N_BATCH < cells(one) < 4096


steps = st.lists(
    st.tuples(
        st.sampled_from(["extend", "extend", "extend", "cut", "diverge", "slide", "append"]),
        st.floats(0, 1),
        st.sampled_from([1, 2, WINDOW, 100, SMALL, SMALL + 1, N_BATCH + 1]),
        st.sampled_from([None, 0.5, 0.99, 1.0]),
    ),
    min_size=3,
    max_size=7,
)


def check_steps(m, steps):
    with growing(m) as one, large(m) as other:
        wanted = tokens(60)
        for seed, (step, where, n, boundary) in enumerate(steps):
            place = 1 + int(where * (len(wanted) - 1))
            if step in ("extend", "append"):
                wanted = wanted + tokens(n, seed)
            elif step == "cut":
                wanted = wanted[:place]
            elif step == "diverge":
                wanted = wanted[:place] + tokens(n, seed)
            elif step == "slide":
                wanted = wanted[: place // 2] + wanted[place:] + tokens(n, seed)
            wanted = wanted[: SIZE - 10]
            for each in (one, other):
                if step == "append" and each.tokens == wanted[: len(each.tokens)]:
                    for token in wanted[len(each.tokens) :][:300]:
                        each.append(token)
                at = None if boundary is None else int(boundary * len(wanted))
                feed(each, wanted, at, move=step == "slide")
            assert_say_the_same(one, other, m, close=0.03)
            wanted = list(one.tokens[: len(wanted)])


@pytest.mark.slow
@every_kind
@given(steps=steps)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_a_grown_context_gives_the_same_answers_as_a_large_one(model, kind, steps):
    check_steps(model(kind), steps)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "mrope", "mla", "moe", "hybrid"])
def test_a_context_grows_after_a_slide(model, kind):
    m = model(kind)
    system, old, kept = tokens(40, 1), tokens(60, 2), tokens(120, 3)
    slid = system + kept + tokens(20, 4)
    with growing(m) as one, large(m) as other:
        for each in (one, other):
            feed(each, system + old + kept)
            feed(each, slid, move=True)
        assert cells(one) == SMALL
        for each in (one, other):
            feed(each, slid + tokens(500, 5))
        assert cells(one) == 1024
        assert_say_the_same(one, other, m)


@pytest.mark.slow
@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_a_quantised_cache_grows(model, kv_type):
    m = model("dense", head=32)
    with growing(m, kv_type=kv_type) as one, large(m, kv_type=kv_type) as other:
        for each in (one, other):
            feed(each, tokens(200))
            feed(each, tokens(200) + tokens(400, 1))
        assert_say_the_same(one, other, m)


@pytest.fixture
def longrope(tmp_path, monkeypatch):
    """A model with one set of RoPE factors up to 600 tokens, and another in larger contexts."""

    def build(t):
        tiny_models.KINDS["dense"][1](t)
        t.gguf.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        t.gguf.add_rope_scaling_orig_ctx_len(600)
        t.put("rope_factors_short.weight", np.full(t.head // 2, 1.0))
        t.put("rope_factors_long.weight", np.full(t.head // 2, 4.0))

    monkeypatch.setitem(tiny_models.KINDS, "longrope", ("llama", build))
    with closing(Model.load(tiny_models.write(tmp_path / "longrope.gguf", "longrope"))) as m:
        yield m


def test_a_longrope_model_starts_above_its_border(longrope, monkeypatch):
    """llama.cpp chooses the set by the size of the context: keys of both must never mix."""
    m = longrope
    with growing(m, kind=Refusing) as one, large(m) as other, growing(m, size=512) as short:
        assert (cells(one), cells(short)) == (768, SMALL)
        for each in (one, other, short):
            feed(each, tokens(200))
        assert np.abs(logits(one, m) - logits(short, m)).max() > 0.01
        for each in (one, other):
            feed(each, tokens(1000))
        assert_say_the_same(one, other, m)
        monkeypatch.setattr(context_module, "START", SMALL)
        one.refusals = 2
        with pytest.raises(NotEnoughMemory):
            feed(one, tokens(1700))
        feed(one, tokens(100))
        assert cells(one) == 768


@pytest.mark.parametrize(("size", "usable"), [(1024, True), (512, False)])
def test_a_cache_with_the_other_rope_factors_is_not_used(longrope, tmp_path, size, usable):
    path = tmp_path / "a.kv"
    with growing(longrope, size) as one, growing(longrope) as other:
        feed(one, tokens(200))
        kv_cache_file.write(path, one.save(), one.fingerprint)
        assert isinstance(kv_cache_file.read(path, other.fingerprint), State) is usable


# the next context is prepared while an answer continues


@every_kind
def test_an_answer_grows_into_the_context_that_was_prepared(model, kind):
    m = model(kind)
    with growing(m) as one, large(m) as other:
        n = cells(one)
        for each in (one, other):
            feed(each, tokens(n - 80), boundary=n - 90)
        assert one._next is None  # reading a prompt prepares nothing
        for _ in range(80):
            one.append(7)
            other.append(7)
        prepared = one._next.result()
        assert cells(one) == n < prepared.cells
        for each in (one, other):
            each.append(8)
        assert one.handle == prepared.handle
        assert one._next is None
        assert_say_the_same(one, other, m, n=2)


def answering(one):
    """Fill it up to where the next context is prepared."""
    n = cells(one)
    feed(one, tokens(n - 20))
    one.append(7)
    return n


def test_a_new_chat_gives_the_memory_of_a_prepared_context_back(model):
    with growing(model("dense")) as one:
        answering(one)
        assert one._next
        feed(one, tokens(10))
        assert (one._next, cells(one)) == (None, SMALL)


def test_a_prompt_that_needs_more_than_was_prepared_gets_it(model, memory):
    with growing(model("dense")) as one:
        prepared = answering(one) * 2
        held = []
        memory.asked = lambda: held.append(one._next)  # how much is free
        feed(one, tokens(3 * SMALL))
        assert prepared < cells(one) == 4 * SMALL
        assert held and not any(held)


def test_nothing_is_prepared_without_memory_for_both_contexts(model, memory):
    with growing(model("dense")) as one:
        needs = one._needs(2 * SMALL)
        memory.free = needs
        n = answering(one)
        assert one._next is None
        feed(one, tokens(n + 1))  # one after the other they fit
        assert cells(one) == 2 * SMALL


def test_if_llama_cpp_refuses_to_prepare_growing_tries_again(model, monkeypatch):
    def refuse(*args):
        raise NotEnoughMemory("failed to allocate buffer")

    with growing(model("dense")) as one:
        with monkeypatch.context() as patched:
            patched.setattr(context_module, "allocate", refuse)
            n = answering(one)
            assert isinstance(one._next.exception(), NotEnoughMemory)
        for _ in range(20):
            one.append(7)
        assert cells(one) == 2 * n
        assert len(one.tokens) == n + 1


# stopping


@pytest.mark.slow
@every_kind
def test_a_stop_while_growing_leaves_a_valid_context(model, memory, kind):
    m, stop = model(kind), StopByte()
    with growing(m, stop=stop) as one, large(m) as other:
        n = cells(one)
        feed(one, tokens(n), boundary=n - 10)
        memory.asked = stop.set  # when growing begins
        if kind in RECURRENT:  # a single token is always finished
            one.append(7)
        else:
            with pytest.raises(Stopped):
                one.append(7)
        assert one.tokens == [*tokens(n), *([7] if kind in RECURRENT else [])]
        assert holds_what_it_says(one)
        assert cells(one) > n
        memory.asked = lambda: None
        stop.clear()
        for each in (one, other):
            feed(each, tokens(n))
            feed(each, [*tokens(n), 7, 8])
        assert_say_the_same(one, other, m, close=0.03)


# failing to grow


@every_kind
def test_growing_without_memory_changes_only_the_size(model, memory, kind):
    m = model(kind)
    with growing(m) as one:
        n = cells(one)
        feed(one, tokens(n - 6), boundary=n - 10)
        before, memory.free = logits(one, m), 0
        with pytest.raises(ContextFull) as raised:
            feed(one, tokens(n - 6) + tokens(60, 1))
        assert (raised.value.needed, raised.value.size) == (n + 54, n)
        assert one.tokens == tokens(n - 6)
        assert (logits(one, m) == before).all()
        stays = one.stays
        assert (stays.size, stays.promised, stays.free) == (n, SIZE, 0)
        assert stays.needed > 0
        assert (one.size, cells(one)) == (n, n)
        assert one.room(None) < n
        memory.free = None  # the size stays, because plans depend on it
        with pytest.raises(ContextFull):
            feed(one, tokens(n + 1))
        feed(one, tokens(100))
        assert holds_what_it_says(one)


def test_an_answer_ends_when_memory_runs_out(model, memory):
    with growing(model("dense")) as one:
        feed(one, tokens(SMALL - 1))
        memory.free = 0
        one.append(7)
        with pytest.raises(ContextFull):
            one.append(8)
        assert one.tokens == [*tokens(SMALL - 1), 7]


def test_drafts_do_not_grow_the_context(model, memory):
    with growing(model("dense"), rows=4) as one:
        feed(one, tokens(SMALL - 2))
        memory.free = 0
        assert one.append(7, [8, 9, 10]) == [8]
        assert (one.size, cells(one)) == (SIZE, SMALL)


def test_the_weights_stay_in_memory(model, memory):
    with growing(model("dense")) as one:
        memory.free = memory.mapped = 1 << 40
        with pytest.raises(ContextFull):
            feed(one, tokens(SMALL + 1))
        assert one.stays.free == 0


def test_if_memory_is_scarce_all_cells_are_allocated_at_once(model, memory):
    """The promised size must not fail later for lack of memory for a copy."""
    memory.free = 0
    with growing(model("dense")) as one:
        assert cells(one) == SIZE
    memory.free = 1 << 40
    with growing(model("dense")) as one:
        assert cells(one) == SMALL


@pytest.mark.slow
@every_kind
def test_if_llama_cpp_refuses_to_grow_the_old_size_is_restored(model, memory, kind):
    m, memory.free = model(kind), 1 << 40
    with growing(m, kind=Refusing) as one, large(m) as other:
        n = cells(one)
        for each in (one, other):
            feed(each, tokens(n - 6), boundary=n - 10)
        one.refusals = 1
        with pytest.raises(ContextFull):
            feed(one, tokens(n + 1))
        assert (cells(one), one.size) == (n, n)
        assert one.stays.free is None  # not the reason
        for each in (one, other):
            feed(each, [*tokens(n - 6), 7])
        assert_say_the_same(one, other, m, n=2, close=0.03)


def test_if_llama_cpp_refuses_the_old_size_too_the_next_prompt_tries_again(model):
    m = model("dense")
    with growing(m, kind=Refusing) as one, large(m) as other:
        feed(one, tokens(200))
        one.refusals = 2
        with pytest.raises(NotEnoughMemory):
            feed(one, tokens(300))
        assert one.tokens == []
        assert one.save() is None
        one.refusals = 1
        with pytest.raises(NotEnoughMemory):
            feed(one, tokens(250))
        for each in (one, other):
            feed(each, tokens(250))
        assert_say_the_same(one, other, m)


class Forgetful(Context):
    """Its state cannot be copied: llama.cpp returns none, or restores only half of it."""

    gives = 0.0

    def save(self):
        state = super().save()
        if not self.gives:
            return None
        half = type(state.blob)._type_ * int(len(state.blob) * self.gives)
        return State(state.tokens, state.positions, half.from_buffer_copy(state.blob))


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("gives", [0.0, 0.5])
def test_a_state_that_cannot_be_copied_is_read_again(model, kind, gives):
    m = model(kind)
    with growing(m, kind=Forgetful) as one, large(m) as other:
        one.gives, n = gives, cells(one)
        for each in (one, other):
            feed(each, tokens(n))
            each.append(7)
        assert cells(one) > n
        assert one.tokens == [*tokens(n), 7]
        assert_say_the_same(one, other, m, close=0.03)


# saved caches


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize(("size", "other_size"), [(768, SIZE), (SIZE, 768)])
def test_a_saved_cache_does_not_depend_on_the_size(model, kind, tmp_path, size, other_size):
    m, path, wanted = model(kind), tmp_path / "a.kv", tokens(700)
    with growing(m, size) as one, growing(m, other_size) as other:
        feed(one, wanted, boundary=690)
        kv_cache_file.write(path, one.save(), one.fingerprint)
        assert other.restore(kv_cache_file.read(path, other.fingerprint))
        assert other.tokens == wanted
        assert 700 <= cells(other) < SIZE
        for each in (one, other):
            feed(each, wanted + tokens(40, 1))
        assert_say_the_same(one, other, m, close=0.03)


def test_a_saved_cache_that_is_too_large_is_refused(model):
    m = model("dense")
    with growing(m) as one, growing(m, size=512) as other:
        feed(one, tokens(600))
        assert not other.restore(one.save())
        assert other.tokens == []
        feed(other, tokens(30))
        assert holds_what_it_says(other)


@pytest.mark.parametrize("all_cells", [True, False])
def test_a_saved_cache_does_not_depend_on_how_many_cells_a_sliding_window_keeps(
    model, tmp_path, all_cells
):
    m, path, wanted = model("swa"), tmp_path / "a.kv", tokens(700)
    with growing(m, swa_full=all_cells) as one, growing(m, swa_full=not all_cells) as other:
        feed(one, wanted)
        kv_cache_file.write(path, one.save(), one.fingerprint)
        assert other.restore(kv_cache_file.read(path, other.fingerprint))
        for each in (one, other):
            feed(each, wanted + tokens(40, 1))
        assert_say_the_same(one, other, m, close=0.03)
        # and a cut before the window is read again, not answered wrongly
        for each in (one, other):
            feed(each, tokens(500))
        assert_say_the_same(one, other, m, close=0.03)


# in a chat


@pytest.fixture
def told():
    """The notices for a person."""
    return io.StringIO()


@pytest.fixture
def chat(tiny, tmp_path, monkeypatch, told):
    """A function that begins a chat whose context has SMALL of 1,024 tokens at first."""
    monkeypatch.setattr(context_module, "START", SMALL)
    engines = []

    def begin(saved=True, **flags):
        engine = LlamaEngine(tiny("dense"), Settings(ctx_size=1024, threads=1), now=NOW)
        engines.append(engine)
        layers = Layers(flags={"temp": 0, "max_tokens": 20} | flags)
        store, screen = Store(tmp_path / "chats"), Screen(io.StringIO(), told)
        if not saved:
            store = None
        one = new_chat(engine, layers, "tiny", store=store, now=lambda: NOW, screen=screen)
        one.person = True
        one.load()
        one.ready()
        return one

    yield begin
    for engine in engines:
        engine.close()


def test_the_size_is_the_promised_size(chat):
    one = chat()
    assert one.engine.size == 1024
    assert cells(one.engine._loaded.context) == SMALL
    one.ask("Tell me of the sea. " * 30)
    assert one.stats.ctx_size == one.engine.size == 1024
    assert cells(one.engine._loaded.context) == 1024


def test_without_memory_for_a_prompt_the_window_slides(chat, told, memory, monkeypatch):
    monkeypatch.setattr(context_module, "_PREPARED", -1)  # else the answers before have prepared it
    one = chat()
    for _ in range(2):
        one.ask("Tell me of the sea. " * 4)
    memory.free = 0
    reply = one.ask("Tell me of the wind. " * 3)
    assert reply.stats.reply_tokens
    assert reply.stats.dropped_turns
    assert one.engine.size == reply.stats.ctx_size == SMALL
    assert "256 tokens instead of 1,024" in told.getvalue()
    one.ask("And the rain?")
    assert told.getvalue().count("lcp chat --continue") == 1


def test_without_memory_for_an_answer_the_window_slides_and_it_continues(chat, told, memory):
    one = chat(loop_guard="off")
    one.ask("Sea? " * 10)
    memory.free = 0
    one.set("max_tokens", "150")
    one.constraint = Constraint(
        "regex", "[a-z]{200}", "The letters"
    )  # otherwise, the answer may end
    reply = one.ask("Wind? " * 10)
    assert one.engine.size == SMALL
    assert reply.stats.prompt_tokens + reply.stats.reply_tokens > SMALL
    assert (reply.ended, reply.stats.dropped_turns) == ("length", 1)
    assert told.getvalue().count("lcp chat --continue") == 1


def test_the_chat_to_resume_is_named_only_if_there_is_one(chat, told, memory):
    one = chat(saved=False)
    one.ask("Sea? " * 10)
    memory.free = 0
    one.ask("Wind? " * 30)
    assert one.engine.size == SMALL
    assert f"{SMALL} tokens instead of 1,024" in told.getvalue()
    assert "--continue" not in told.getvalue()


def test_without_memory_and_without_sliding_the_message_is_refused(chat, memory):
    one = chat(overflow="stop")
    one.ask("Tell me of the sea. " * 4)
    memory.free = 0
    with pytest.raises(TooLong):
        one.ask("Tell me of the wind. " * 10)
    assert len(one.conversation.turns()) == 1


def test_reading_ahead_grows_only_for_tokens_that_it_reads(chat):
    engine = chat().engine
    context = engine._loaded.context

    def read(n):
        engine.look_ahead([PromptMessage("user", "a" * n)], "", 20)
        for _ in range(1000):
            engine.run_soon(lambda: None).result()
            done, total = engine.ahead
            if engine._ahead._planned is engine._ahead._wish and done >= total:
                return total

    assert read(150) < SMALL == cells(context)
    assert cells(context) == SMALL
    assert SMALL < read(400) < 512 == cells(context)
