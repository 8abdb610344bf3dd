"""`lcp look quant` and `lcp look cache`: differences and their noise floor; times and bytes."""

import gguf
import ggufs
import numpy as np
import pytest

from lcp.engine.llama_library import StopByte
from lcp.engine.model import Model
from lcp.engine.observer import Observer
from lcp.errors import NotSupported
from lcp.look import quant
from lcp.look.cache import measure
from lcp.look.distributions import log_softmax
from lcp.modelfile.weights import Weights


@pytest.fixture
def observed(tiny, monkeypatch):
    """A function that makes an Observer of a file, which watches nothing."""
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "0")
    made = []

    def make(path, **options):
        model = Model.load(path, 0)
        options = {"size": 512, "rows": 64, "watched": False, **options}
        made.append(Observer(model, StopByte(), threads=2, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.model.close()


def silent(what, done, total):
    pass


TOKENS = [1, *range(60, 200)]


# quant


def test_a_quant_that_only_llama_cpp_can_read(tmp_path):
    path = tmp_path / "odd.gguf"
    pairs = ggufs.described("llama", block_count=1)
    path.write_bytes(ggufs.gguf(pairs, [("output.weight", (32, 4), ggufs.Q8_1_TENSOR)]))
    with pytest.raises(NotSupported, match="Q8_1"):
        Weights(path).rows("output.weight")


@pytest.mark.slow
def test_the_distance_of_a_file_from_itself_is_zero_and_the_floor_is_small(observed, tiny):
    path = tiny(quant="Q4_0")
    base = observed(path)
    own, again, single = quant.distances(
        base, [observed(path), observed(path, rows=1)], TOKENS, silent
    )
    assert own.kl.max() == again.kl.max() == 0.0
    assert own.same.all() and own.perplexity == again.perplexity
    assert single.kl.mean() < 0.05
    assert len(own.kl) == len(TOKENS) and len(own.nats) == len(TOKENS) - 1


def test_the_distance_is_the_divergence_of_the_probabilities(observed, tiny):
    a, b = observed(tiny(), kv_type="f32"), observed(tiny(quant="Q4_0"), kv_type="f32")
    own, found = quant.distances(a, [b], TOKENS, silent)
    p, q = (log_softmax(_all(one)) for one in (a, b))
    assert found.kl == pytest.approx((np.exp(p) * (p - q)).sum(1), rel=1e-3, abs=1e-7)
    right = -q[np.arange(len(TOKENS) - 1), TOKENS[1:]].mean()
    assert np.log(found.perplexity) == pytest.approx(right, rel=1e-4)
    assert found.kl.mean() > 10 * own.kl.mean()


def _all(observed):
    observed.clear()
    return observed.decode(TOKENS, rows=range(len(TOKENS)))


def test_answers_differ_from_the_first_different_token(observed, tiny):
    a = quant.greedy(observed(tiny()), TOKENS, 12, lambda t: False, silent)
    b = quant.greedy(observed(tiny()), TOKENS, 12, lambda t: False, silent)
    assert quant.first_difference(a, b) is None
    c = [*a[:5], a[5].__class__(a[5].second, 0.1, a[5].token, 0.1)]
    assert quant.first_difference(a, c) == 5
    assert all(x.p >= x.p_second for x in a)
    assert len(quant.greedy(observed(tiny()), TOKENS, 12, lambda t: True, silent)) == 1


def test_errors_of_groups_of_weights(tiny):
    files = [tiny(), tiny(quant="Q4_0")]
    a, b = (Weights(path) for path in files)
    found = quant.groups([a.tensors, b.tensors])
    quant.errors(found, a.tensors, b.tensors, a.rows, b.rows, silent)
    x, y = ({t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(p).tensors}
            for p in files)  # fmt: skip
    down = [f"blk.{i}.ffn_down.weight" for i in range(2)]
    right = np.sqrt(
        sum(((x[n] - y[n]) ** 2).sum() for n in down) / sum((x[n] ** 2).sum() for n in down)
    )
    group = next(g for g in found if g.name == "ffn_down")
    assert group.error == pytest.approx(right, rel=1e-4)
    assert group.quants == [["F32"], ["Q4_0"]]
    assert sum(g.weights for g in found) == sum(t.elements for t in a.tensors.values())


@pytest.mark.slow
def test_the_command_quant(look, shown, tiny):
    a, b = tiny(), tiny(quant="Q4_0")
    found = look("quant", a, b, "-n", 6)
    assert found["other"]["kl"] > max(floor["kl"] for floor in found["floors"])
    assert 0 <= found["other"]["same_first"] <= 1
    same = look("quant", a, a, "-n", 6)
    assert same["other"]["kl"] == 0 and same["same_tokens"] is None
    out = "\n".join(shown("quant", a, b, "-n", 4))
    assert "floor" in out and "ffn_down" in out and "Q4_0" in out
    assert "no difference" in " ".join(" ".join(shown("quant", a, a, "-n", 4)).split())


@pytest.mark.slow
def test_one_model_with_another_kv_cache_type(look, shown, tiny):
    path = tiny(head=32)
    assert look("quant", path, "-n", 2)["other"] is None
    assert "floor" in " ".join(shown("quant", path, "-n", 2))
    q8, q4 = (look("quant", path, "--kv", t, "-n", 2)["other"]["kl"] for t in ("q8_0", "q4_0"))
    assert 0 < q8 < q4


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, code, said",
    [(["A", "A", "A"], 2, "two"), (["A", "A", "--kv", "q8_0"], 2, "--kv"),
     (["A", "--kv", "q9"], 2, "q8_0"), (["A", "other"], 2, "vocabular"),
     (["A", "--text", ""], 2, "text"), (["A", "--kv", "q8_0"], 1, "another type")],
)  # fmt: skip
def test_models_that_cannot_be_compared(look, tiny, words, code, said):
    files = {"A": tiny(), "other": tiny(words=["the", "th"])}
    words = [files.get(w, w) for w in words]
    assert said in look("quant", *words, *(() if "--text" in words else ("--text", "the th")),
                        code=code)  # fmt: skip


# cache


def test_the_answer_is_the_same_with_and_without_the_cache(observed, tiny):
    one = observed(tiny(), kv_type="f32")
    ticks = iter(range(10_000))
    found = measure(one, TOKENS[:20], 12, silent, clock=lambda: next(ticks))
    right, held = [], list(TOKENS[:20])
    for _ in range(12):
        one.clear()
        right.append(int(one.decode(held)[0].argmax()))
        held.append(right[-1])
    assert found.tokens == right and not found.differences
    assert found.cached == sorted(found.cached) and found.again == sorted(found.again)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "swa", "recurrent", "hybrid", "mla"])
def test_the_command_cache(look, shown, tiny, kind):
    path = tiny(kind, kv_heads=2) if kind == "dense" else tiny(kind)
    found = look("cache", path, "-n", 8)
    assert len(found["tokens"]) == len(found["seconds_without"]) == 8
    layers, head = 2, 16
    if kind == "dense":
        assert abs(found["bytes_per_token"] - 2 * layers * 2 * head * 2) <= 64
    if kind == "recurrent":
        assert found["bytes_per_token"] < 16
    out = "\n".join(shown("cache", path, "-n", 8))
    assert ("recurrent" in out) == (kind == "recurrent")


@pytest.mark.slow
def test_an_answer_too_long_to_repeat_without_a_cache(look, tiny):
    assert "1,024" in look("cache", tiny(), "-n", 5000, code=2)
