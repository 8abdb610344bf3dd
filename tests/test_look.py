"""`lcp look`, on tiny models and on the real one: what it finds, and what it refuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import KINDS

from lcp.engine.context import Context
from lcp.engine.llama_library import StopByte, library
from lcp.engine.model import Model
from lcp.engine.observe import Observer
from lcp.engine.sampler import Sampler, TokenCandidates
from lcp.look import next as sampling
from lcp.look.lab import log_softmax, softmax
from lcp.look.layers import layers
from lcp.look.swap import places, swap
from lcp.look.without import sentences, without
from lcp.settings import Sampling

sys.path.append(str(Path(__file__).parents[1] / "docs/how-it-works"))
from attention_in_50_lines import forward

TEXT = "The quick brown fox"
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"


def silent(what, done, total):
    pass


@pytest.fixture
def look(lcp_main, capsys):
    """A function: the words of a command to its JSON, or to its error if it is refused."""

    def run(*words, code=0):
        got = lcp_main("look", *map(str, words), *(["--json"] if code == 0 else []))
        out, err = capsys.readouterr()
        assert got == code, err
        return json.loads(out) if code == 0 else err

    return run


@pytest.fixture
def shown(lcp_main, capsys, monkeypatch):
    """A function: the words of a command to the lines that a person reads."""

    def run(*words, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        assert lcp_main("look", *map(str, words)) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        return lines

    return run


@pytest.fixture
def lab(tiny, monkeypatch):
    """A function: a kind of tiny model to an Observer of it."""
    monkeypatch.setenv("LCP_EXTRA_BUFTS", "0")
    made = []

    def make(kind="dense", quant=None, path=None, **options):
        model = Model.load(path or tiny(kind, quant=quant, kv_heads=4), 0)
        options = {"size": 1024, "rows": 64, "sequences": 64, "kv_type": "f32", **options}
        made.append(Observer(model, StopByte(), threads=2, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.model.close()


def tokens_of(one, text=TEXT):
    return [1, *one.model.tokenize(text)]


# look layers


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_says_what_the_model_says(lab, kind):
    """Bit for bit: what is written into the last layer goes through llama.cpp's own matrices."""
    one = lab(kind, quant="Q8_0")
    found = layers(one, tokens_of(one), tell=silent)
    assert np.array_equal(found.lens[-1], found.true)
    assert found.error < 0.05 * np.abs(found.true).max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_add_up_to_the_logits(lab, kind):
    one = lab(kind)
    found = layers(one, tokens_of(one), tell=silent)
    assert found.error < 1e-4 * np.abs(found.true).max()
    assert found.lens.shape == (2, one.vocabulary)


def test_the_heads_add_up_to_the_attention(lab):
    one = lab()
    found = layers(one, tokens_of(one), heads=True, tell=silent)
    for layer in range(2):
        whole = next(x.logits for x in found.added if (x.name, x.layer) == ("attention", layer))
        heads = sum(x.logits for x in found.heads if x.layer == layer)
        assert np.allclose(heads, whole, rtol=1e-3, atol=1e-4)


def test_the_command_layers(look, shown, tiny, tmp_path):
    found = look("layers", tiny(), TEXT, "--heads")
    assert [row["layer"] for row in found["layers"]] == [0, 1]
    last = found["layers"][-1]
    assert last["rank"] == 1
    assert last["says"][0]["p"] == pytest.approx(found["answer"]["p"], rel=1e-5)
    assert len(found["heads"]) == 8
    picture = tmp_path / "layers.svg"
    lines = shown("layers", tiny(), TEXT, "--svg", picture)
    assert TEXT in lines[0]
    assert "feed-forward" in picture.read_text("utf-8")


# look swap


def test_swapped_states_give_the_logits_of_another_program(lab):
    one = lab()
    a, b = tokens_of(one), tokens_of(one, TEXT.replace("quick", "quack"))
    x, y = 70, 80
    found = swap(one, a, b, x, y, silent)

    def margin(logits):
        return logits[-1, x] - logits[-1, y]

    of_a, of_b = forward(one.model.path, a), forward(one.model.path, b)
    whole, none = margin(of_a["logits"]), margin(of_b["logits"])
    assert found.places == places(a, b)
    for place, row in zip(found.places, found.shares, strict=True):
        for layer, share in enumerate(row):
            state = {(layer, place): of_a[f"l_out-{layer}"][place]}
            right = margin(forward(one.model.path, b, state=state)["logits"])
            assert share == pytest.approx((right - none) / (whole - none), abs=1e-3)
    assert found.p_a[0] == pytest.approx(softmax(of_a["logits"][-1])[x], rel=1e-4)


@pytest.mark.parametrize("kind", ["dense", "swa", "mrope", "mla", "moe"])
def test_the_last_state_of_a_is_all_of_its_answer(lab, kind):
    one = lab(kind, quant="Q8_0")
    a, b = tokens_of(one), tokens_of(one, TEXT.replace("quick", "quack"))
    found = swap(one, a, b, 70, 80, silent)
    assert found.shares[-1, -1] == 1.0
    assert np.all(found.shares[:-1, -1] == 0.0)  # too late for the last token


def test_each_swapped_head_is_as_in_a_run_of_its_own(lab):
    one = lab()
    a, b = tokens_of(one), tokens_of(one, TEXT.replace("quick", "quack"))
    found = swap(one, a, b, 70, 80, silent)
    outputs = {}
    names = [f"kqv_out-{layer}" for layer in range(2)]
    one.clear()
    one.decode(b, {n: lambda x, n=n: outputs.update({n: x[0, -1].copy()}) for n in names})
    assert len(found.heads) == 8
    for head in found.heads:
        name, own = f"kqv_out-{head.layer}", slice(head.head * 16, head.head * 16 + 16)

        def put(x, name=name, own=own):
            x = x.copy()
            x[0, -1, own] = outputs[name][own]
            return x

        one.clear()
        assert softmax(one.decode(a, {name: put})[0])[70] == pytest.approx(head.p, rel=1e-3)
        assert head.kl >= 0


def test_only_some_tokens_of_long_prompts_are_swapped():
    a = list(range(100))
    b = [*a[:10], 500, *a[11:50], 501, *a[51:]]
    assert places(a, b) == [10, 50, *range(90, 100)]


@pytest.mark.slow
def test_the_capital_of_france(look):
    found = look("swap", FRANCE, ITALY)
    assert found["a"]["answer"]["text"] == " Paris"
    assert (found["left_in_layer"], found["arrived_in_layer"]) == (23, 23)
    first = found["heads"][0]
    assert (first["layer"], first["head"]) == (23, 4)
    assert first["reads"][0]["text"] == " France"
    assert first["writes"][0]["text"] == " France"
    assert len(found["heads"]) == 270


def test_the_command_swap(shown, tiny):
    lines = shown("swap", tiny(), "abc quick", "abc quack", "--tokens", "x", "y")
    assert any("layer" in line and "0" in line for line in lines)
    assert sum("%" in line for line in lines) > 4


# look next

SETTINGS = [
    Sampling(),
    Sampling(temp=0.3),
    Sampling(temp=1.7, top_k=0),
    Sampling(top_k=5, top_p=1.0, min_p=0.0),
    Sampling(top_k=0, top_p=0.5, min_p=0.0),
    Sampling(top_k=0, top_p=1.0, min_p=0.2),
    Sampling(temp=1.0, top_k=0, top_p=1.0, min_p=0.0),
    Sampling(repeat_penalty=1.5),
    Sampling(frequency_penalty=0.7, presence_penalty=0.4),
    Sampling(temp=2.5, top_k=100, top_p=0.99, min_p=0.01, repeat_penalty=0.8),
]


def stages_of(one, chosen, tokens, seed):
    """The stages of a choice after these tokens, and a function that chooses again."""
    context = Context(one.model, 256, StopByte(), threads=2, flash_attn="off")
    list(context.feed(tokens))
    sampler = Sampler(one.model, chosen, seed, tokens)
    candidates = TokenCandidates(one.vocabulary)
    candidates.fill(context)
    found = [sampling.first(candidates.left()[1])]
    for name in sampler.stages(candidates):
        if name not in sampling.CHOOSING and not name.startswith("?"):
            found.append(sampling.after(name, candidates.left(), found[-1]))

    def draw():
        candidates.fill(context)
        return sampler.draw(candidates)

    return found, draw, lambda: (sampler.close(), context.close())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_draws_follow_the_shown_distribution(lab, number):
    """20,000 tokens of llama.cpp's whole chain, by chi-square; rare tokens count together."""
    one, n = lab(), 20_000
    found, draw, close = stages_of(one, SETTINGS[number], tokens_of(one), seed=number)
    p = found[-1].p
    counts = np.bincount([draw() for _ in range(n)], minlength=len(p))
    close()
    assert counts[p == 0].sum() == 0
    often = n * p >= 5
    right = np.append(n * p[often], n * p[~often].sum())
    seen = np.append(counts[often], counts[~often].sum())
    right, seen = right[right > 0], seen[right > 0]
    chi, free = ((seen - right) ** 2 / right).sum(), len(right) - 1
    assert chi < free + 4 * np.sqrt(2 * free) + 4


def test_stages_say_what_they_drop(lab):
    one = lab()
    found, _, close = stages_of(one, Sampling(top_k=5, temp=0.5), tokens_of(one), seed=1)
    close()
    by = {stage.name: stage for stage in found}
    first, top_k, temp = by["model"], by["top-k"], by["temp"]
    best = np.sort(first.p)[::-1]
    assert top_k.left == 5
    assert top_k.dropped == pytest.approx(1 - best[:5].sum())
    assert np.sort(top_k.p)[::-1][:5] == pytest.approx(best[:5] / best[:5].sum())
    assert temp.bits < top_k.bits < first.bits
    assert not by["min-p"].changed


def test_the_command_next(look, shown, tiny):
    path = tiny()
    found = look("next", path, TEXT, "--seed", 3, "--steps", 4, "--top-k", 10)
    assert [stage["left"] for stage in found["steps"][0]["stages"]][1] == 10
    again = look("next", path, TEXT, "--seed", 3, "--steps", 4, "--top-k", 10)
    chosen = [step["token"] for step in found["steps"]]
    assert chosen == [step["token"] for step in again["steps"]]
    forked = look("next", path, TEXT, "--fork", "z", "--steps", 2, "--temp", 0)
    assert forked["steps"][0]["token"]["text"] == "z" and forked["steps"][0]["forked"]
    greedy = forked["steps"][1]
    assert greedy["token"]["id"] == greedy["stages"][0]["tokens"][0]["id"]
    assert any("top-k" in line for line in shown("next", path, TEXT))


# look without


@pytest.mark.parametrize("kind", ["dense", "swa", "recurrent", "hybrid"])
def test_it_is_the_log_probability_after_the_prompt_without_a_span(lab, tiny, kind):
    one = lab(kind)
    parts = [[1, *one.model.tokenize("abc def. ")], one.model.tokenize("ghi jkl. "),
             one.model.tokenize("mno?")]  # fmt: skip
    answer = one.model.tokenize("xyz")
    prompt = [*parts[0], *parts[1], *parts[2]]
    variants = [[1, *parts[1], *parts[2]], parts[0] + parts[2], parts[0] + parts[1]]
    found = without(one, prompt, variants, answer, silent)

    def fresh(prompt):
        context = Context(one.model, 256, StopByte(), threads=2, flash_attn="off", kv_type="f16")
        sums, tokens = 0.0, list(prompt)
        for token in answer:
            list(context.feed(tokens))
            logits = library().llama_get_logits_ith(context.handle, -1)
            row = np.ctypeslib.as_array(logits, (one.vocabulary,))
            sums += log_softmax(row)[token]
            tokens.append(token)
        context.close()
        return sums

    whole = fresh(prompt)
    assert found.logp.sum() == pytest.approx(whole, abs=0.02)
    for span, variant in zip(found.spans, variants, strict=True):
        assert span.lost == pytest.approx(whole - fresh(variant), abs=0.03)
    assert [span.end - span.start for span in found.spans] == [9, 9, 4]
    if kind in ("dense", "swa"):
        assert found.sink + sum(span.attention for span in found.spans) <= 1.0001
    else:
        assert (found.sink is None) == (kind == "recurrent")


def test_sentences():
    assert sentences("One. Two!  Three?\nFour") == ["One. ", "Two!  ", "Three?\n", "Four"]
    assert sentences("3.14 is pi") == ["3.14 is pi"]
    assert sentences("") == []
    many = "".join(f"Line {i}.\n" for i in range(100))
    assert len(sentences(many)) <= 40 and "".join(sentences(many)) == many


def test_the_command_without(look, shown, tiny):
    found = look("without", tiny(), "A cat sat. A dog ran. Who ran?", "-n", 5)
    assert [span["text"] for span in found["spans"]] == ["A cat sat. ", "A dog ran. ", "Who ran?"]
    assert len(found["tokens"]) <= 5
    given = look("without", tiny(), "A cat sat. Who?", "--answer", "cat", "--raw")
    assert given["answer"] == "cat"
    assert any("A cat sat." in line for line in shown("without", tiny(), "A cat sat. Who?"))


# what cannot be looked at

ALL = ["swap", "next", "without", "layers"]


@pytest.mark.parametrize("command", ALL)
def test_a_text_is_needed(look, tiny, command):
    words = [tiny(), "", ""] if command == "swap" else [tiny(), ""]
    assert "text" in look(command, *words, code=2)


@pytest.mark.parametrize("command", ["next", "layers"])
def test_longer_than_trained(look, tiny, command):
    short = tiny(facts={"llama.context_length": 64})
    assert "64" in look(command, short, "x" * 100, code=1)


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["swap", "abc"], 2, "two prompts"),
        (["swap", "abc", "abc"], 2, "same"),
        (["swap", "abc", "abcd"], 2, "[d]"),
        (["swap", "abc", "abd", "--tokens", "x", "x"], 2, "--tokens"),
        (["swap", "abc", "abd", "--tokens", "xyzzy", "a"], 2, "xyzzy"),
        (["next", "abc", "--fork", "xyzzy"], 2, "xyzzy"),
        (["next", "abc", "--steps", "0"], 2, "--steps"),
        (["layers", "abc", "--over", "99999"], 2, "99999"),
        (["without", "One sentence only"], 2, "sentence"),
    ],
)
def test_what_has_no_meaning_is_refused_with_a_sentence(look, tiny, words, code, said):
    assert said in look(words[0], tiny(), *words[1:], code=code)


def test_a_model_that_does_not_write(look, tiny):
    path = tiny(facts={"llama.pooling_type": 3})
    assert "embedding model" in look("next", path, "abc", code=1)


def test_models_that_cannot_be_looked_at(look, tiny):
    assert "recurrent" in look("swap", tiny("recurrent"), "abc", "abd", code=1)
    assert "heads" in look("layers", tiny("recurrent"), "abc", "--heads", code=1)
    assert "heads" in look("layers", tiny("hybrid_mrope"), "abc", "--heads", code=1)
    base = tiny(template=None)
    assert "--raw" in look("without", base, "A. B.", code=1)
    assert "base model" in look("next", base, "A. B.", "--chat", code=1)
    assert look("next", base, "A. B.")["steps"]
