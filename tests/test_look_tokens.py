"""`lcp look tokens` and `lcp look words`: pieces, merges, and the embedding table."""

import gguf
import numpy as np
import pytest

from lcp.engine.model import Model
from lcp.look.tokens import broken, by_list, by_score, merge
from lcp.modelfile.weights import Weights, merges

STORY = (
    "Tokenization isn't trivial: naïve splitting of “unbelievable” or 1234567 fails.\n\n"
    "    def f(x):\n        return x ** 2  # größer, 大きい, 🦜\n"
)


@pytest.fixture
def real(smollm2):
    model = Model.load(smollm2, 0)
    yield model
    model.close()


# merges


def test_the_lowest_pair_is_merged_first_and_then_the_first_of_equals():
    rank = by_list([("a", "a"), ("b", "c"), ("aa", "aa")])
    steps = [(m.rank, m.parts) for m in merge("bcaaaa", rank)]
    assert steps == [
        (1, ["b", "c", "aa", "a", "a"]), (1, ["b", "c", "aa", "aa"]), (2, ["bc", "aa", "aa"]),
        (3, ["bc", "aaaa"]),
    ]  # fmt: skip
    by = by_score({"ab": -2.0, "bc": -1.0, "abc": -3.0})
    assert [m.parts for m in merge("abc", by)] == [["a", "bc"], ["abc"]]


def test_merges_build_every_token_of_the_real_vocabulary(real):
    """The merges build each token of a text from the characters of the token."""
    rank = by_list(merges(real.path))
    tokens = set(real.tokenize(STORY + real.path.name))
    built = [t for t in tokens if len(real.spelling(t)) > 1]
    assert len(built) > 25
    for token in built:
        assert list(merge(real.spelling(token), rank))[-1].parts == [real.spelling(token)]


def test_merges_by_score_equal_those_of_llamacpp(tiny):
    """SentencePiece: a word becomes the same tokens as in llama.cpp."""
    path = tiny(words=["th", "he", "the", "er", "re", " t", "ere"])
    model = Model.load(path, 0)
    rank = by_score({model.spelling(t): model.score(t) for t in range(model.n_vocab)})
    for text in ("there", "ththe", " three", "erere"):
        parts = list(merge(text.replace(" ", "▁"), rank))[-1].parts
        spelled = [model.spelling(t) for t in model.tokenize(text)]
        as_bytes = [f"<0x{ord(p):02X}>" if len(p) == 1 and p != "▁" else p for p in parts]
        assert as_bytes == spelled
    model.close()


# look tokens


@pytest.mark.slow
def test_the_bytes_of_the_tokens_are_the_text(look, smollm2):
    found = look("tokens", smollm2, STORY)
    assert b"".join(bytes.fromhex(t["bytes"]) for t in found["tokens"]).decode() == STORY
    assert (found["characters"], found["bytes"]) == (len(STORY), len(STORY.encode()))
    parrot = [t["text"] for t in found["tokens"] if broken(bytes.fromhex(t["bytes"]))]
    assert any(r"\x" in text for text in parrot)
    assert not any(t["special"] for t in found["tokens"])


@pytest.mark.slow
def test_the_template_adds_control_tokens(look, smollm2):
    found = look("tokens", smollm2, "Hi", "--chat")
    special = {t["text"] for t in found["tokens"] if t["special"]}
    assert special == {"<|im_start|>", "<|im_end|>"}


@pytest.mark.slow
def test_merges_are_shown(look, lcp_main, capsys, smollm2):
    found = look("tokens", smollm2, " believe", "--merges")
    assert found["tokens"][0]["merges"][-1]["parts"] == [" believe"]
    assert [len(m["parts"]) for m in found["tokens"][0]["merges"]][-3:] == [3, 2, 1]
    assert lcp_main("look", "tokens", str(smollm2), "naïve believers", "--merges") == 0
    out = capsys.readouterr().out
    assert "merge" in out and max(map(len, out.splitlines())) <= 80


@pytest.mark.slow
def test_a_file_longer_than_the_model_was_trained_for_is_counted(look, tiny, tmp_path):
    file = tmp_path / "long.txt"
    file.write_text("word " * 500)
    short = tiny(facts={"llama.context_length": 64})
    found = look("tokens", short, f"@{file}")
    assert found["characters"] >= 2500
    assert found["tokens"][0]["special"]  # BOS
    assert "text" in look("tokens", short, "", code=2)


# look words


@pytest.mark.slow
def test_cosines_leave_out_what_all_rows_share(look, tiny):
    path = tiny(quant="Q8_0", words=["ca", "cat", "do", "dog"])
    raw = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight")
    table = gguf.dequantize(raw.data, raw.tensor_type).astype(float)
    table -= table.mean(0)
    top = np.linalg.svd(table, full_matrices=False)[2][0]
    table -= np.outer(table @ top, top)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    found = look("words", path, "cat", "dog", "--top", 3)
    ids = [word["id"] for word in found["words"]]
    right = table[ids] @ table.T
    assert found["matrix"] == [pytest.approx(list(row), abs=1e-4) for row in right[:, ids]]
    for word, row in zip(found["words"], right, strict=True):
        best = [int(i) for i in np.argsort(-row) if i != word["id"]][:3]
        assert [near["id"] for near in word["nearest"]] == best


@pytest.mark.slow
@pytest.mark.parametrize("quant", [None, "Q8_0", "Q4_0"])
def test_rows_of_weights(tiny, quant):
    path = tiny(quant=quant)
    weights = Weights(path)
    for tensor in gguf.GGUFReader(path).tensors:
        right = gguf.dequantize(tensor.data, tensor.tensor_type)
        right = right.reshape(-1, right.shape[-1])
        assert np.array_equal(weights.rows(tensor.name), right)
        assert np.array_equal(weights.rows(tensor.name, 1, 3), right[1:3])


@pytest.mark.slow
def test_words_that_cannot_be_compared(look, tiny):
    assert "word" in look("words", tiny(), code=2)
    assert "several" in look("words", tiny(), "xyzzy", code=2)
    assert "--top" in look("words", tiny(), "a", "--top", "0", code=2)
    assert "12" in look("words", tiny(), *"abcdefghijklm", code=2)


@pytest.mark.slow
def test_related_words_are_near(look, smollm2):
    found = look("words", smollm2, " Paris", " London", " banana", "--top", 4)
    (_, london, banana), *_ = found["matrix"]
    assert london > found["usual"] > banana
    assert " London" in [near["text"] for near in found["words"][0]["nearest"]] + [" London"]
