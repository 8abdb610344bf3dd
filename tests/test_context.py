"""The KV cache: whatever was in it, it gives the same answers as a new one.

Tiny models of every kind of memory. A new context reads the tokens in batches split at the same
places, so that both can be compared to the third digit.
"""

import os
import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from greedy import assert_same, logits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import KINDS, WINDOW

from lcp.engine.context import Context, Stopped
from lcp.engine.llama_library import StopByte, library
from lcp.engine.params import N_BATCH
from lcp.engine_interface import Progress
from lcp.errors import ContextFull, NotEnoughMemory, SettingsError

SIZE = 2048
# Kinds by what can be cut from their memory.
CUT_FREELY = ["dense", "mrope", "mla", "moe"]
RECURRENT = ["recurrent", "hybrid", "hybrid_mrope"]
every_kind = pytest.mark.parametrize("kind", KINDS)


class Watched(Context):
    """A Context that records where its batches ended."""

    edges = ()

    def feed(self, wanted, boundary=None, move=False):
        for progress in super().feed(wanted, boundary, move):
            self._note_edge()
            yield progress

    def append(self, token, ahead=(), each=False):
        evaluated = super().append(token, ahead, each)
        self._note_edge()
        return evaluated

    def _note_edge(self):
        n = len(self.tokens)
        self.edges = [*(edge for edge in self.edges if edge < n), *([n] if n else [])]


@contextmanager
def context(model, size=SIZE, stop=None, **options):
    one = Watched(model, size, stop or StopByte(), threads=1, **options)
    try:
        yield one
    finally:
        one.close()


def tokens(n, seed=0):
    """`n` random tokens that are text."""
    return random.Random(seed).choices(range(3, 259), k=n)


def feed(one, wanted, boundary=None, move=False):
    """Feed tokens. Returns the last Progress."""
    *_, progress = one.feed(wanted, boundary, move)
    return progress


def say(one, model, n=4):
    """The next `n` most likely tokens, and the logits from which they were selected."""
    said, seen = [], []
    for i in range(n):
        if i:
            one.append(said[-1])
        seen.append(logits(one, model))
        said.append(int(seen[-1].argmax()))
    return said, seen


def holds_what_it_says(one):
    c = library()
    return c.llama_memory_seq_pos_max(c.llama_get_memory(one.handle), 0) + 1 == len(one.tokens)


def assert_says_what_a_fresh_one_says(one, model, wanted, close=1e-3):
    """Assert nearly the same logits and the same tokens, except for near ties."""
    assert one.tokens == wanted
    assert holds_what_it_says(one)
    edges = one.edges
    said, seen = say(one, model)
    with context(model) as fresh:
        for edge in edges:
            feed(fresh, wanted[:edge])
        fresh_said, fresh_seen = say(fresh, model)
    # Mostly 0; 0.0001 where cells lie in another order; 0.006 where a token was read in a batch
    # that is cut back to it, and alone. A wrong state is off by 0.003 to 9.
    assert np.abs(seen[0] - fresh_seen[0]).max() < close
    assert_same(said, fresh_said, fresh_seen.__getitem__, lambda i: close)


# what is kept, and that it is correct


def turns(boundary):
    """Prompts as in a chat, with names: [(name, tokens, boundary), ...]."""
    first, question, other = tokens(60, 1), tokens(40, 2), tokens(45, 3)
    long = tokens(N_BATCH + 100, 4)
    prompts = [
        ("first", first),
        ("extended", first + question),
        ("repeated", first + question),
        ("another end", first + other),
        ("cut back", first + other[:5]),
        ("beyond a batch", first + other + long),
        ("another end again", first + other + long[:-9] + question),
        ("cut back by one", first + other + long[:-9] + question[:-1]),
        ("cut deep", first + question),
        ("something else", tokens(30, 5)),
        ("one token", tokens(1, 5)),
    ]
    return [(name, wanted, len(wanted) - 3 if boundary else None) for name, wanted in prompts]


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("boundary", [True, False], ids=["boundary", "no boundary"])
def test_a_reused_cache_gives_the_same_answer_as_a_new_one(model, kind, boundary):
    m = model(kind)
    with context(m) as one:
        for _name, wanted, at in turns(boundary):
            feed(one, wanted, at if at and at > 0 else None)
            assert_says_what_a_fresh_one_says(one, m, wanted)


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("quant", ["Q8_0", "Q4_0"])
def test_with_quantized_weights_a_reused_cache_gives_the_same_answer(model, kind, quant):
    m = model(kind, quant=quant)
    with context(m) as one:
        for _name, wanted, boundary in turns(boundary=True)[:5]:
            feed(one, wanted, boundary)
            assert_says_what_a_fresh_one_says(one, m, wanted, close=0.2)


steps = st.lists(
    st.tuples(
        st.sampled_from(["extend", "extend", "cut", "diverge", "diverge", "repeat", "other"]),
        st.floats(0, 1),  # where
        st.sampled_from([1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 100, N_BATCH, N_BATCH + 1]),
        st.sampled_from([None, 0.0, 0.5, 0.99, 1.0]),  # the boundary
    ),
    min_size=2,
    max_size=6,
)


def prompts(steps):
    """Prompts, each a change of the one before: [(tokens, boundary), ...]."""
    wanted = tokens(50)
    for seed, (step, where, n, boundary) in enumerate(steps):
        place = 1 + int(where * (len(wanted) - 1))
        if step == "extend":
            wanted = wanted + tokens(n, seed)
        elif step == "cut":
            wanted = wanted[:place]
        elif step == "diverge":
            wanted = wanted[:place] + tokens(n, seed)
        elif step == "other":
            wanted = tokens(n, seed)
        wanted = wanted[: SIZE - 10]
        yield wanted, None if boundary is None else int(boundary * len(wanted))


@pytest.mark.slow
@every_kind
@given(steps=steps)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_any_order_of_prompts_gives_the_same_answers_as_new_caches(model, kind, steps):
    m = model(kind)
    with context(m) as one:
        for wanted, boundary in prompts(steps):
            progress = feed(one, wanted, boundary)
            assert progress.kept + progress.done == len(wanted) and progress.done == progress.total
            assert_says_what_a_fresh_one_says(one, m, wanted, close=0.03)


@every_kind
def test_the_next_turn_reads_only_what_is_new(model, kind):
    m = model(kind)
    with context(m) as one:
        feed(one, tokens(100))
        said, _ = say(one, m, n=20)
        held = list(one.tokens)
        assert held == tokens(100) + said[:-1]
        progress = feed(one, held + tokens(30, 1))
    assert progress == Progress(kept=len(held), moved=0, done=30, total=30)


@pytest.mark.parametrize("kind", [*CUT_FREELY, "swa"])
def test_attention_keeps_the_common_prefix_to_the_token(model, kind):
    m = model(kind)
    with context(m) as one:
        feed(one, tokens(300))
        assert feed(one, tokens(250) + tokens(10, 1)).kept == 250


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_state_goes_back_to_the_boundary(model, kind):
    m = model(kind)
    with context(m) as one:
        feed(one, tokens(300), boundary=290)
        say(one, m, n=20)
        wanted = tokens(295) + tokens(10, 1)
        assert feed(one, wanted).kept == 290
        assert_says_what_a_fresh_one_says(one, m, wanted)


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_state_without_a_snapshot_is_read_again(model, kind):
    m = model(kind)
    with context(m) as one:
        feed(one, tokens(300))
        assert feed(one, tokens(299)).kept == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*RECURRENT, "swa"])
def test_snapshots_of_all_recent_turns_can_be_restored(model, kind):
    """Undo, several times: snapshots are kept at the ends of the last four turns."""
    m = model(kind)
    with context(m) as one:
        ends = [300, 700, 1100, 1500, 1900]
        for end in ends:
            feed(one, tokens(end), boundary=end - 3)
        for end in reversed(ends[1:]):
            wanted = tokens(end - 3) + tokens(5, end)
            assert feed(one, wanted).kept == end - 3
            assert_says_what_a_fresh_one_says(one, m, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*RECURRENT, "swa"])
def test_a_snapshot_of_removed_tokens_is_not_restored(model, kind):
    m = model(kind)
    with context(m) as one:
        for end in (800, 1000):
            feed(one, tokens(end), boundary=end - 10)
        other = tokens(790) + tokens(1200, 1)
        feed(one, other)  # another text after 790, which includes the snapshot at 990
        wanted = other[:995] + tokens(5, 2)
        assert feed(one, wanted).kept < 990
        assert_says_what_a_fresh_one_says(one, m, wanted)


@pytest.mark.slow
def test_a_sliding_window_is_cut_by_more_than_its_length_with_a_snapshot(model):
    m = model("swa")
    for boundary, kept in ((900, 900), (None, 0)):
        with context(m) as one:
            feed(one, tokens(1000), boundary)
            feed(one, tokens(1900))
            wanted = tokens(950) + tokens(20, 1)
            assert feed(one, wanted).kept == kept
            assert_says_what_a_fresh_one_says(one, m, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("short", [0, 1, 2])
def test_the_edge_of_a_sliding_window_is_exact(model, short):
    """A cut to n tokens needs the window before n; one token less is read again."""
    c, m = library(), model("swa")
    with context(m) as one:
        feed(one, tokens(1900))
        oldest = c.llama_memory_seq_pos_min(c.llama_get_memory(one.handle), 0)
        assert oldest > 0
        wanted = tokens(oldest + WINDOW - short) + tokens(5, 1)
        assert feed(one, wanted).kept == (0 if short else oldest + WINDOW)
        assert_says_what_a_fresh_one_says(one, m, wanted)


def test_progress_is_reported_after_each_batch(model):
    with context(model("dense")) as one:
        feed(one, tokens(100))
        steps = list(one.feed(tokens(100) + tokens(2 * N_BATCH + 1, 1)))
    total = 2 * N_BATCH + 1
    assert steps == [
        Progress(100, 0, done, total) for done in (0, N_BATCH, 2 * N_BATCH, 2 * N_BATCH + 1)
    ]


def test_a_context_smaller_than_a_batch_computes(model):
    m = model("dense")
    with context(m, size=300) as one:
        feed(one, tokens(one.size - 10))
        assert_says_what_a_fresh_one_says(one, m, tokens(one.size - 10))


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_a_quantized_cache_is_reused_exactly(model, kv_type):
    m = model("dense", head=32)
    wanted = tokens(40) + tokens(30, 1)
    with context(m, kv_type=kv_type) as one, context(m, kv_type=kv_type) as fresh:
        feed(one, tokens(60))
        assert feed(one, wanted).kept == 40
        feed(fresh, wanted)
        assert say(one, m)[0] == say(fresh, m)[0]


# interrupts


@pytest.mark.slow
@every_kind
def test_a_feed_stopped_before_it_begins_reads_nothing(model, kind):
    m, stop = model(kind), StopByte()
    with context(m, stop=stop) as one:
        feed(one, tokens(60), boundary=50)
        stop.set()
        with pytest.raises(Stopped):
            feed(one, tokens(60) + tokens(600, 1))
        assert one.tokens == tokens(50 if kind in RECURRENT else 60)
        assert holds_what_it_says(one)
        stop.clear()
        wanted = tokens(60) + tokens(600, 1)
        feed(one, wanted)
        assert_says_what_a_fresh_one_says(one, m, wanted)


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("batches", [1, 2])
def test_a_feed_stopped_between_batches_resumes_there_if_possible(model, kind, batches):
    m, stop = model(kind), StopByte()
    wanted = tokens((batches + 1) * N_BATCH)
    with context(m, stop=stop) as one:
        reading = one.feed(wanted, boundary=N_BATCH)
        for _ in range(batches + 1):  # the first report comes before the first batch
            next(reading)
        stop.set()
        with pytest.raises(Stopped):
            list(reading)
        assert one.tokens == wanted[: N_BATCH if kind in RECURRENT else batches * N_BATCH]
        assert holds_what_it_says(one)
        stop.clear()
        assert feed(one, wanted).kept >= N_BATCH
        assert_says_what_a_fresh_one_says(one, m, wanted)


@pytest.mark.slow
@every_kind
def test_a_feed_abandoned_between_batches_leaves_a_valid_context(model, kind):
    m = model(kind)
    with context(m) as one:
        reading = one.feed(tokens(1200))
        next(reading), next(reading)
        reading.close()
        assert one.tokens == tokens(N_BATCH)
        feed(one, tokens(1200))
        assert_says_what_a_fresh_one_says(one, m, tokens(1200))


@pytest.mark.slow
@every_kind
def test_a_stop_at_any_moment_of_a_feed_leaves_a_valid_context(model, kind):
    m, stop, chance, stopped = model(kind), StopByte(), random.Random(kind), 0
    with context(m, stop=stop) as one:
        for seed in range(12):
            held = list(one.tokens)
            kept = chance.randrange(len(held) + 1)
            wanted = (held[:kept] + tokens(1100, seed))[: SIZE - 10]
            timer = threading.Timer(chance.uniform(0, 0.03), stop.set)
            timer.start()
            try:
                feed(one, wanted, boundary=chance.choice([None, len(wanted) // 3]))
            except Stopped:
                stopped += 1
            timer.join()
            stop.clear()
            assert one.tokens == wanted[: len(one.tokens)]
            assert holds_what_it_says(one)
            feed(one, wanted)
            assert_says_what_a_fresh_one_says(one, m, wanted, close=0.03)
    assert stopped > 2


@every_kind
def test_a_stop_during_a_step_leaves_a_valid_context(model, kind):
    m, stop = model(kind), StopByte()
    with context(m, stop=stop) as one:
        feed(one, tokens(80), boundary=70)
        stop.set()
        if kind in RECURRENT:  # the step is finished: half of it would break the state
            one.append(7)
        else:
            with pytest.raises(Stopped):
                one.append(7)
        held = tokens(80) + ([7] if kind in RECURRENT else [])
        assert one.tokens == held
        assert holds_what_it_says(one)
        with pytest.raises(Stopped):  # the next batch is not finished
            feed(one, held + tokens(600, 1))
        stop.clear()
        feed(one, [*held, 8, 9])
        assert_says_what_a_fresh_one_says(one, m, [*held, 8, 9])


@pytest.mark.slow
@every_kind
def test_a_stop_at_any_moment_of_an_answer_leaves_a_valid_context(model, kind):
    m, stop = model(kind), StopByte()
    chance = random.Random(kind)
    with context(m, stop=stop) as one:
        feed(one, tokens(80), boundary=70)
        for _ in range(4):
            timer = threading.Timer(chance.uniform(0, 0.02), stop.set)
            timer.start()
            try:
                while not stop.is_set() and len(one.tokens) < SIZE:
                    one.append(int(logits(one, m).argmax()))
            except Stopped:
                pass
            timer.join()
            stop.clear()
            assert holds_what_it_says(one)
            held = [*one.tokens, 8]
            feed(one, held)
            assert_says_what_a_fresh_one_says(one, m, held)


def test_a_stop_takes_effect_within_a_batch(model):
    m, stop = model("dense"), StopByte()
    with context(m, stop=stop) as one:
        reading = one.feed(tokens(1500))
        next(reading)
        begun = time.process_time()
        next(reading)
        whole, begun = time.process_time() - begun, time.process_time()
        stop.set()
        with pytest.raises(Stopped):
            next(reading)
        assert time.process_time() - begun < whole / 2
    assert one.tokens == tokens(1500)[:N_BATCH]


# a full context


@every_kind
def test_a_prompt_larger_than_the_context_changes_nothing(model, kind):
    m = model(kind)
    with context(m, size=256) as one:
        feed(one, tokens(100))
        before = logits(one, m)
        with pytest.raises(ContextFull) as raised:
            feed(one, tokens(257))
        assert (raised.value.needed, raised.value.size) == (257, 256)
        assert one.tokens == tokens(100)
        assert holds_what_it_says(one)
        assert (logits(one, m) == before).all()


@every_kind
def test_a_step_beyond_the_context_changes_nothing(model, kind):
    m = model(kind)
    with context(m, size=256) as one:
        feed(one, tokens(255), boundary=200)
        one.append(7)
        before = logits(one, m)
        with pytest.raises(ContextFull):
            one.append(8)
        assert one.tokens == [*tokens(255), 7]
        assert holds_what_it_says(one)
        assert (logits(one, m) == before).all()
        feed(one, tokens(100))
        assert_says_what_a_fresh_one_says(one, m, tokens(100))


# several tokens at once


@every_kind
def test_forced_tokens_are_evaluated_in_one_batch(model, kind):
    m = model(kind)
    with context(m) as one:
        feed(one, tokens(80), boundary=70)
        assert one.append(7, tokens(20, 1)) == tokens(20, 1)
        held = [*tokens(80), 7, *tokens(20, 1)]
        assert_says_what_a_fresh_one_says(one, m, held)


@every_kind
def test_each_token_of_a_batch_leaves_logits_and_can_be_removed(model, kind):
    m, ahead = model(kind), tokens(5, 1)
    with context(m, rows=6) as one, context(m) as fresh:
        feed(one, tokens(80), boundary=70)
        feed(fresh, tokens(80))
        assert one.takes_back_freely == (kind in CUT_FREELY)
        assert one.append(7, ahead, each=True) == ahead
        rows = np.ctypeslib.as_array(library().llama_get_logits(one.handle), (6, m.n_vocab)).copy()
        for row, token in zip(rows, [7, *ahead], strict=True):
            fresh.append(token)
            assert np.abs(row - logits(fresh, m)).max() < 0.01
        one.take_back(3)
        assert holds_what_it_says(one)
        held = [*tokens(80), 7, *ahead[:2]]
        if kind in CUT_FREELY:
            assert one.tokens == held
        feed(one, [*held, 9])
        feed(fresh, [*held, 9])
        assert np.abs(logits(one, m) - logits(fresh, m)).max() < 0.01


@every_kind
def test_no_more_tokens_are_evaluated_than_fit(model, kind):
    m = model(kind)
    with context(m, size=256, rows=4) as one:
        feed(one, tokens(249), boundary=200)
        assert one.append(7, tokens(9, 1), each=True) == tokens(3, 1)  # as many rows
        assert one.append(7, tokens(9, 1)) == tokens(2, 1)  # as much room
        with pytest.raises(ContextFull):
            one.append(8, tokens(9, 1))
        assert holds_what_it_says(one)


def test_full_size_sliding_window_layers_cut_freely_until_a_file_is_loaded(model):
    m = model("swa")
    with context(m, swa_full=True) as one, context(m, swa_full=True) as other:
        feed(one, tokens(3 * WINDOW))
        assert one.takes_back_freely
        one.take_back(1)
        assert one.tokens == tokens(3 * WINDOW)[:-1]
        other.restore(one.save())
        assert not other.takes_back_freely


# invalid settings


@pytest.mark.parametrize(
    "options",
    [{"kv_type": "q8_0"}, {"kv_type": "q4_0"}, {"kv_type": "q8_0", "flash_attn": "off"}],
    ids=str,
)
def test_a_cache_type_that_the_model_cannot_use_is_an_error(model, options):
    with pytest.raises(SettingsError) as raised:
        Context(model("dense"), 256, StopByte(), threads=1, **options)
    sentence = str(raised.value)
    assert f"cannot use a {options['kv_type']} KV cache" in sentence
    assert raised.value.change == {"kv_type": "f16", "flash_attn": "auto"}
    assert "\n" not in sentence


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "swa"])
def test_a_context_larger_than_memory_is_an_error(tiny, kind):
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from lcp.engine.context import Context\n"
        "from lcp.engine.model import Model\n"
        "from lcp.engine.llama_library import StopByte\n"
        "from lcp.errors import NotEnoughMemory\n"
        "model = Model.load(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "try: Context(model, 1 << 30, StopByte(), threads=1)\n"
        "except NotEnoughMemory as error: print(error, *error.change)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny(kind))],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.stdout.startswith(
        "There is not enough memory for a context of 1,073,741,824 tokens ("
    )
    assert done.stdout.endswith(" ctx_size kv_type\n")
    assert issubclass(NotEnoughMemory, Exception)
