"""ContextTable: which contexts are shown, their figures, and what fits on a GPU."""

import headers
import pytest

from lcp.machine import Machine
from lcp.modelfile.context_and_gpu_layers import verdict
from lcp.modelfile.context_table import context_table, contexts
from lcp.modelfile.facts import facts
from lcp.modelfile.memory_needs import ALL, Figures, exact
from lcp.modelfile.model_files import local

pytestmark = pytest.mark.slow  # processes, servers and time-outs

GIB = 1 << 30
PLENTY = Machine(free=1024 * GIB, total=1024 * GIB)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A model of 8B parameters; only its header is real."""
    return local(headers.write(tmp_path_factory.mktemp("models") / "m.gguf", "llama"))


def of(model, machine=PLENTY, **options):
    return context_table(model, facts(model), machine, **options)


@pytest.mark.parametrize(
    ("trained", "asked", "shown"),
    [
        (8192, None, [2048, 4096, 8192]),
        (10_000, None, [2048, 4096, 8192, 10_000]),
        (512, None, [512]),
        (0, None, [2048, 4096, 8192, 16_384, 32_768]),
        (4096, 3000, [2048, 3000, 4096]),
        (4096, 100_000, [2048, 4096, 100_000]),
        (2**32 - 1, None, [2048 << i for i in range(10)]),
    ],
)
def test_contexts_double_up_to_what_the_model_was_trained_for(trained, asked, shown):
    assert contexts(trained, asked) == shown


def test_the_rows_have_llama_cpps_figures(llama):
    seen = of(llama)
    wishes = [(row.context, row.kv_type) for row, _ in seen.rows]
    assert wishes == [(n, kv) for n in contexts(131_072, None) for kv in ("f16", "q8_0")]
    told = exact(llama.header, wishes)
    assert [row for row, _ in seen.rows] == list(told.rows)
    assert (seen.needs.source, seen.needs.weights) == (told.source, told.weights)
    assert {said for _, said in seen.rows} == {"fits"}
    assert (seen.largest, seen.choice.ctx_size, seen.fits) == (131_072, 32_768, True)


def test_the_next_larger_context_does_not_fit(llama):
    machine = Machine(free=8 * GIB, total=16 * GIB)
    seen = of(llama, machine)
    assert 2048 < seen.largest < 131_072 and seen.largest % 256 == 0
    told = exact(llama.header, [(seen.largest, "f16"), (seen.largest + 256, "f16")])
    assert [verdict(told, row, machine) == "fits" for row in told.rows] == [True, False]
    assert seen.choice.ctx_size <= seen.largest


def test_a_maximum_that_is_not_a_multiple_of_256(tmp_path):
    path = headers.write(tmp_path / "m.gguf", "llama", context_length=10_000)
    seen = of(local(path))
    assert (seen.largest, seen.rows[-1][0].context) == (10_000, 10_240)


def test_no_context_fits(llama):
    seen = of(llama, Machine(free=GIB // 4, total=2 * GIB))
    assert (seen.largest, seen.fits) == (0, False)
    assert seen.choice.refusal
    assert {said for _, said in seen.rows} == {"no"}


def test_weights_are_not_repacked_if_the_copies_do_not_fit(llama):
    seen = of(llama, Machine(free=GIB, total=2 * GIB))
    assert (seen.largest, seen.fits, seen.choice.refusal) == (0, False, None)
    assert (seen.chosen, "pages") in seen.rows
    assert seen.needs.weights_anon == 0


def test_a_requested_context_is_a_row_and_the_choice(llama):
    seen = of(llama, ctx_size=5000, kv_type="q4_0")
    assert (seen.choice.ctx_size, seen.choice.kv_type) == (5000, "q4_0")
    assert (seen.chosen.context, seen.chosen.kv_type, seen.asked) == (5120, "q4_0", True)
    assert (seen.chosen, "fits") in seen.rows
    assert {row.kv_type for row, _ in seen.rows} == {"f16", "q4_0", "q8_0"}


def test_the_reason_of_llama_cpps_refusal_is_shown(llama):
    """A quantised cache needs flash attention."""
    seen = of(llama, kv_type="q8_0", flash_attn="off")
    assert (seen.chosen, seen.fits, seen.largest) == (None, False, 0)
    assert seen.refused
    assert {row.kv_type for row, _ in seen.rows} == {"f16"}


@pytest.mark.slow
def test_a_larger_gpu_has_a_larger_context(llama):
    layers = [of(llama, gpu_memory=gib * GIB).choice.n_gpu_layers for gib in (1, 6, 24)]
    assert layers[0] == 0
    assert 0 < layers[1] < 33
    assert layers[2] == ALL


def test_a_requested_number_of_layers_is_used(llama):
    seen = of(llama, gpu_memory=24 * GIB, n_gpu_layers=10)
    assert seen.choice.n_gpu_layers == 10
    gpu = next(device for device in seen.chosen.devices if device.name == "GPU")
    assert 0 < gpu.weights < seen.needs.weights / 2


def test_figures_do_not_depend_on_the_order_of_questions(llama):
    wishes = [(n, kv) for n in (2048, 4096) for kv in ("q8_0", "f16")]
    figures = Figures(llama, "off")
    (first,) = figures.needs(wishes[1:2], ALL).rows
    figures.needs(wishes[2:], 0)
    told = exact(llama.header, wishes, n_gpu_layers=0, flash_attn="off")
    again = figures.needs([*wishes, wishes[1]], ALL)
    assert again.rows == told.rows
    assert again.rows[0] is first  # it was not computed again
    assert again.refused == told.refused
    assert set(told.refused) == {(2048, "q8_0"), (4096, "q8_0")}
