"""`lcp look` with tiny models and the real one: what it finds, and what it refuses."""

import ctypes
import os
import signal
import time

import numpy as np
import pytest
from gemma import forward, read
from tiny import KINDS

from lcp.cli import free_memory
from lcp.cli.look.common import Work
from lcp.engine.context import Context
from lcp.engine.llama_library import StopByte, library
from lcp.engine.model import Model
from lcp.engine.observer import Observer
from lcp.engine.sampler import Sampler, TokenCandidates
from lcp.errors import NotSupported, UsageError
from lcp.look import next as sampling
from lcp.look.attention import links, maps
from lcp.look.distributions import log_softmax, softmax
from lcp.look.heads import KINDS as PLACES
from lcp.look.heads import compare, heads, repeated
from lcp.look.layers import layers
from lcp.look.swap import places, swap
from lcp.look.swap import read as read_prompts
from lcp.look.without import sentences, without
from lcp.modelfile.model_files import local
from lcp.modelfile.weights import Weights
from lcp.settings import Sampling

TEXT = "The quick brown fox"
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"


def silent(what, done, total):
    pass


@pytest.fixture
def observed(tiny, monkeypatch):
    """A function that makes an Observer of a kind of tiny model."""
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


def test_a_second_ctrl_c_frees_nothing_that_the_work_still_uses():
    work, ended = Work(), []

    def job():
        os.kill(os.getpid(), signal.SIGINT)
        while not work.stop.is_set():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        work(job)
    work.close()
    assert ended


# look layers


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layer_predicts_what_the_model_predicts(observed, kind):
    """They are bit-identical: states in the last layer go through llama.cpp's own matrices."""
    one = observed(kind, quant="Q8_0")
    found = layers(one, tokens_of(one), tell=silent)
    assert np.array_equal(found.lens[-1], found.true)
    assert found.error < 0.05 * np.abs(found.true).max()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_add_up_to_the_logits(observed, kind):
    one = observed(kind)
    found = layers(one, tokens_of(one), tell=silent)
    assert found.error < 1e-4 * np.abs(found.true).max()
    assert found.lens.shape == (2, one.vocabulary)


@pytest.mark.parametrize("kind", ["dense", "swa", "mrope", "moe", "mla"])
def test_the_heads_add_up_to_the_attention(observed, kind):
    """Also where a norm follows (swa), and where what attention adds has no name (mrope, moe)."""
    one = observed(kind)
    tokens = tokens_of(one)
    found = layers(one, tokens, heads=True, tell=silent)
    for layer in range(2):
        whole = next(x.logits for x in found.added if (x.name, x.layer) == ("attention", layer))
        heads = sum(x.logits for x in found.heads if x.layer == layer)
        assert np.allclose(heads, whole, rtol=1e-3, atol=1e-3)


def test_what_a_head_writes_before_a_norm_equals_a_numpy_model(observed):
    one = observed("swa")
    tokens = tokens_of(one)
    found = layers(one, tokens, heads=True, tell=silent)
    facts, weight = model = read(one.model.path)
    right = forward(model, tokens)
    last = right["l_out-1"][-1]
    eps = facts["gemma3.attention.layer_norm_rms_epsilon"]
    scale = weight("output_norm") / np.sqrt((last**2).mean() + eps)
    assert len(found.heads) == 8
    for part in found.heads:
        vector = right[f"heads-{part.layer}"][-1, part.head]
        logits = (vector * scale) @ weight("output").T
        assert np.abs(part.logits - logits).max() < 1e-4 * np.abs(found.true).max()


def test_heads_that_do_not_add_to_the_state_are_refused(observed):
    """Here, the output of the heads is raised to the third power before it is added."""
    one = observed()
    decode = one.decode

    def bent(tokens, watch=None, **more):
        watch = watch or {}

        def cube(x, name):
            new = watch[name](x) if name in watch else None
            return (x if new is None else new) ** 3

        own = {f"kqv_out-{i}": lambda x, i=i: cube(x, f"kqv_out-{i}") for i in range(2)}
        return decode(tokens, {**watch, **own}, **more)

    one.decode = bent
    with pytest.raises(NotSupported, match="heads"):
        layers(one, tokens_of(one), heads=True, tell=silent)


@pytest.mark.slow
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
    assert lines[-1].endswith(" s.") and "&#160;s." not in picture.read_text("utf-8")
    picture.write_text("mine", "utf-8")
    assert "--svg" in look("layers", tiny(), TEXT, "--svg", picture, code=2)
    assert picture.read_text("utf-8") == "mine"


@pytest.mark.slow
def test_free_memory_is_read_once_the_weights_are_in_it(look, tiny, monkeypatch):
    loaded, load = [], Model.load
    monkeypatch.setattr(Model, "load", lambda *a, **k: [loaded.append(1), load(*a, **k)][1])
    monkeypatch.setattr(free_memory, "free", lambda: 1000 if loaded else None)
    assert "memory" in look("layers", tiny(), TEXT, code=1)


# look swap


@pytest.mark.slow
def test_swapped_states_give_the_logits_of_a_numpy_model(observed):
    one = observed()
    a, b = tokens_of(one), tokens_of(one, TEXT.replace("quick", "quack"))
    x, y = 70, 80
    found = swap(one, read_prompts(one, a, b, silent), x, y, silent)

    def margin(logits):
        return logits[-1, x] - logits[-1, y]

    of_a, of_b = forward(read(one.model.path), a), forward(read(one.model.path), b)
    whole, none = margin(of_a["logits"]), margin(of_b["logits"])
    assert found.places == places(a, b)
    for place, row in zip(found.places, found.shares, strict=True):
        for layer, share in enumerate(row):
            state = {(layer, place): of_a[f"l_out-{layer}"][place]}
            right = margin(forward(read(one.model.path), b, state=state)["logits"])
            assert share == pytest.approx((right - none) / (whole - none), abs=1e-3)
    assert found.p_a[0] == pytest.approx(softmax(of_a["logits"][-1])[x], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "swa", "mrope", "mla", "moe"])
def test_the_last_state_of_a_gives_its_whole_answer(observed, kind):
    one = observed(kind, quant="Q8_0")
    a, b = tokens_of(one), tokens_of(one, TEXT.replace("quick", "quack"))
    found = swap(one, read_prompts(one, a, b, silent), 70, 80, silent)
    assert found.shares[-1, -1] == 1.0
    assert np.all(found.shares[:-1, -1] == 0.0)  # too late for the last token


def test_each_swapped_head_equals_a_separate_run(observed):
    one = observed()
    a, b = tokens_of(one), tokens_of(one, TEXT.replace("quick", "quack"))
    found = swap(one, read_prompts(one, a, b, silent), 70, 80, silent)
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


def test_answers_that_the_prompts_hardly_change_are_refused(observed):
    one = observed()
    a, b = tokens_of(one), tokens_of(one, TEXT.replace("quick", "quack"))
    prompts = read_prompts(one, a, b, silent)
    order = np.argsort(prompts.logits_a - prompts.logits_b)
    x, y = order[100:102]  # both are more likely after A by the same factor
    with pytest.raises(UsageError, match="nats"):
        swap(one, prompts, int(x), int(y), silent)


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
    """The stages of sampling after these tokens, and a function that samples again."""
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
        return sampler.select(candidates)

    return found, draw, lambda: (sampler.close(), context.close())


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_samples_follow_the_shown_distribution(observed, number):
    """20,000 tokens of llama.cpp's whole chain, by chi-square; rare tokens count together."""
    one, n = observed(), 20_000
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


def test_stages_show_what_they_drop(observed):
    one = observed()
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "swa", "recurrent", "hybrid"])
def test_the_loss_is_the_change_of_the_log_probability_without_a_span(observed, tiny, kind):
    one = observed(kind)
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


def test_the_attention_is_summed_over_the_whole_answer(observed):
    """In any number of batches."""
    found = []
    for rows in (8, 64):
        one = observed(rows=rows)
        prompt, answer = tokens_of(one), one.model.tokenize("abcdefghijklmnopqrst")
        assert one.most_rows == rows and 8 < len(answer) < 64
        found.append(without(one, prompt, [prompt[:5] + prompt[9:]], answer, silent))
    assert found[0].sink == pytest.approx(found[1].sink, rel=1e-3)
    assert found[0].spans[0].attention == pytest.approx(found[1].spans[0].attention, rel=1e-3)


def test_sentences():
    assert sentences("One. Two!  Three?\nFour") == ["One. ", "Two!  ", "Three?\n", "Four"]
    assert sentences("3.14 is pi") == ["3.14 is pi"]
    assert sentences("") == []
    many = "".join(f"Line {i}.\n" for i in range(100))
    assert len(sentences(many)) <= 40 and "".join(sentences(many)) == many


@pytest.mark.slow
def test_the_command_without(look, shown, tiny):
    found = look("without", tiny(), "A cat sat. A dog ran. Who ran?", "-n", 5)
    assert [span["text"] for span in found["spans"]] == ["A cat sat. ", "A dog ran. ", "Who ran?"]
    assert len(found["tokens"]) <= 5
    given = look("without", tiny(), "A cat sat. Who?", "--answer", "cat", "--raw")
    assert given["answer"] == "cat"
    assert any("A cat sat." in line for line in shown("without", tiny(), "A cat sat. Who?"))


# errors

ALL = ["swap", "next", "without", "layers"]


@pytest.mark.parametrize("command", ALL)
def test_a_text_is_needed(look, tiny, command):
    words = [tiny(), "", ""] if command == "swap" else [tiny(), ""]
    assert "text" in look(command, *words, code=2)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["next", "layers"])
def test_longer_than_trained(look, tiny, command):
    short = tiny(facts={"llama.context_length": 64})
    assert "64" in look(command, short, "x" * 100, code=1)


def test_an_answer_longer_than_trained(look, tiny):
    short = tiny(facts={"llama.context_length": 64})
    said = look("without", short, "A. B?", "--raw", "--answer", "x" * 100, code=1)
    assert "trained for 64" in said


@pytest.mark.parametrize("words", [["next", "hi", "--chat"], ["without", "A. B?"]])
def test_a_template_that_does_not_work_is_no_reason_for_a_flag_that_look_does_not_have(
    look, tiny, words
):
    said = look(words[0], tiny(template="{{ m.content "), *words[1:], code=1)
    assert "another model" in said and "--chat-template" not in said


@pytest.mark.slow
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
        (["layers", "abc", "--over", ""], 2, "token"),
        (["without", "One sentence only"], 2, "sentence"),
    ],
)
def test_invalid_arguments_are_errors(look, tiny, words, code, said):
    assert said in look(words[0], tiny(), *words[1:], code=code)


def test_a_model_that_does_not_generate_text(look, tiny):
    path = tiny(facts={"llama.pooling_type": 3})
    assert "embedding model" in look("next", path, "abc", code=1)


@pytest.mark.slow
def test_a_text_of_one_token_is_too_short(look, tiny):
    path = tiny(add_bos=False)
    assert "1 token" in look("attention", path, "a", code=2)
    assert "1 token" in look("swap", path, "a", "b", code=2)
    assert look("layers", path, "a")["layers"]
    assert look("next", path, "a")["steps"]


@pytest.mark.slow
def test_models_whose_tensors_have_no_names(look, tiny):
    assert "recurrent" in look("swap", tiny("recurrent"), "abc", "abd", code=1)
    assert "heads" in look("layers", tiny("recurrent"), "abc", "--heads", code=1)
    assert "heads" in look("layers", tiny("hybrid_mrope"), "abc", "--heads", code=1)
    assert "no name" in look("layers", tiny("hybrid"), "abc", "--heads", code=1)
    assert look("attention", tiny("hybrid"), "abc")["links"][0]["carried"] is None
    base = tiny(template=None)
    assert "--raw" in look("without", base, "A. B.", code=1)
    assert "base model" in look("next", base, "A. B.", "--chat", code=1)
    assert look("next", base, "A. B.")["steps"]


# look heads


def test_heads_are_classified_by_what_they_look_at(observed):
    one = observed()
    tokens = repeated(range(70, 100), [1])
    assert tokens[1:31] == tokens[31:] and len(set(tokens)) == 31
    found = heads(one, tokens, silent)
    right = forward(read(one.model.path), tokens)
    rows = range(32, 60)
    for layer in range(2):
        a = right[f"kq_soft_max-{layer}"]
        for kind, back in (("previous", 1), ("induction", 29), ("copy", 30), ("itself", 0)):
            share = np.mean([a[:, row, row - back] for row in rows], 0)
            assert found.shares[PLACES.index(kind), layer] == pytest.approx(share, rel=1e-4)
        first = a[:, 32:60, 0].mean(1)
        assert found.shares[PLACES.index("first"), layer] == pytest.approx(first, rel=1e-4)
    losses = -log_softmax(right["logits"][:-1])[range(60), tokens[1:]]
    assert found.loss_first == pytest.approx(losses[1:30].mean(), rel=1e-4)
    assert found.loss_second == pytest.approx(losses[31:].mean(), rel=1e-4)


def test_an_answer_with_a_head_switched_off(observed):
    one, off = observed(), [(0, 1), (1, 3)]
    tokens = tokens_of(one)
    found = compare(one, tokens, off, 3, lambda token: False, silent)
    model = read(one.model.path)
    with_all, without_them = list(tokens), list(tokens)
    p = []
    for answer, heads_off in ((with_all, ()), (without_them, off)):
        for _ in range(3):
            logits = forward(model, answer, off=heads_off)["logits"][-1]
            p += [softmax(logits)] if len(answer) == len(tokens) else []
            answer.append(int(logits.argmax()))
    assert found.whole == with_all[-3:] and found.without == without_them[-3:]
    assert found.p == pytest.approx((p[0][found.whole[0]], p[1][found.whole[0]]), rel=1e-4)
    assert found.kl == pytest.approx((p[0] * np.log(p[0] / p[1])).sum(), rel=1e-3)


def test_the_command_heads(look, shown, tiny):
    found = look("heads", tiny())
    assert len(found["heads"]) == 8
    off = look("heads", tiny(), TEXT, "--off", "1.2", "--off", "1.2", "-n", 4)
    assert off["off"] == [{"layer": 1, "head": 2}] and off["kl"] > 0
    assert any("nats" in line for line in shown("heads", tiny()))
    assert any("1.2" in line for line in shown("heads", tiny(), TEXT, "--off", "1.2"))


@pytest.mark.slow
def test_the_heads_of_the_real_model(look):
    found = look("heads")
    by = {(one["layer"], one["head"]): one for one in found["heads"]}
    assert by[11, 1]["kind"] == "previous" and by[18, 6]["kind"] == "induction"
    assert found["loss"]["second"] < found["loss"]["first"] / 3


# look attention


def carried_by(model, tokens, layer, head):
    """What a head takes from each token, weighted by the length of what arrives; and the length of
    the last state before it."""
    facts, weight = model
    gemma = facts["general.architecture"] == "gemma3"
    seen = forward(model, tokens)
    before = seen[f"l_out-{layer - 1}"] if layer else weight("token_embd")[tokens]
    before = before * 8 if gemma and not layer else before
    h = before / np.sqrt((before**2).mean(-1, keepdims=True) + 1e-5)
    own = slice(16 * head, 16 * head + 16)
    value = (h @ weight(f"blk.{layer}.attn_v").T)[:, own]
    arrives = value @ weight(f"blk.{layer}.attn_output").T[own]
    read_ = seen[f"kq_soft_max-{layer}"][head]
    if gemma:  # the scale of the norm that follows, at the last token
        added = np.linalg.norm(seen[f"heads-{layer}"][-1, head])
        arrives = arrives * added / np.linalg.norm(read_[-1] @ arrives)
    weighted = read_ * np.linalg.norm(arrives, axis=1)
    return read_, weighted, np.linalg.norm(before[-1])


@pytest.mark.parametrize("kind", ["dense", "swa"])
@pytest.mark.parametrize("place", [(0, 1), (1, 3)])
def test_what_a_head_reads_and_carries(observed, kind, place):
    one, (layer, head) = observed(kind), place
    tokens = tokens_of(one)
    (found,) = maps(one, tokens, layer, [head], silent)
    read_, weighted, state = carried_by(read(one.model.path), tokens, layer, head)
    assert found.read == pytest.approx(read_, abs=1e-5)
    right = weighted / weighted.sum(-1, keepdims=True)
    assert found.carried == pytest.approx(right, abs=1e-4)
    every, sink = links(one, tokens, 1000, silent)
    assert len(every) == 16 and 0 < sink < 1
    for link in every:
        if (link.layer, link.head) == place:
            assert link.read == pytest.approx(read_[-1, link.source], rel=1e-3)
            assert link.carried == pytest.approx(right[-1, link.source], rel=1e-3)
            assert link.strength == pytest.approx(weighted[-1, link.source] / state, rel=1e-3)


@pytest.mark.slow
def test_the_command_attention(look, shown, tiny):
    found = look("attention", tiny(), TEXT)
    assert found["links"][0]["strength"] >= found["links"][-1]["strength"]
    one = look("attention", tiny(), TEXT, "--head", "1.0")["heads"][0]
    assert np.array(one["read"]).sum(1) == pytest.approx(np.ones(len(found["tokens"])), rel=1e-4)
    assert len(look("attention", tiny(), TEXT, "--layer", 1)["heads"]) == 4
    for more in ([], ["--head", "1.0"], ["--layer", "0"]):
        assert any("carried" in line for line in shown("attention", tiny(), TEXT, *more))
    swa = look("attention", tiny("swa"), TEXT)
    assert 0 < swa["links"][0]["carried"] <= 1
    assert len(look("layers", tiny("swa"), TEXT, "--heads")["heads"]) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "words, code, said",
    [
        (["attention", TEXT, "--head", "2.0"], 2, "heads 0 to 3"),
        (["attention", TEXT, "--head", "x"], 2, "LAYER.HEAD"),
        (["attention", TEXT, "--layer", "7"], 2, "There is no layer 7"),
        (["attention", TEXT, "--layer", "-1"], 2, "There is no layer -1"),
        (["attention", TEXT, "--layer", "1", "--head", "1.0"], 2, "--layer"),
        (["attention", "x" * 400, "--layer", "1"], 1, "300"),
        (["heads", TEXT, "--off", "0.9"], 2, "0.9"),
        (["heads", TEXT], 2, "--off"),
        (["heads", "--off", "0.1"], 2, "text"),
    ],
)
def test_numbers_of_heads_and_layers_that_do_not_exist(look, tiny, words, code, said):
    assert said in look(words[0], tiny(), *words[1:], code=code)


@pytest.mark.slow
def test_models_without_heads(look, tiny):
    assert "no attention" in look("heads", tiny("recurrent"), code=1)
    assert "no attention" in look("attention", tiny("recurrent"), TEXT, code=1)
    assert "no names" in look("heads", tiny("hybrid"), TEXT, "--off", "0.1", code=1)
    assert "cannot be looked at" in look(
        "heads", tiny("hybrid_mrope"), TEXT, "--off", "1.1", code=1
    )


# the real model


@pytest.mark.slow
def test_the_real_model_equals_a_numpy_model(smollm2, tmp_path, observed):
    """Its copy in F16: with quantized weights llama.cpp rounds the states to 8 bits, too."""
    c, path = library(), tmp_path / "f16.gguf"
    params = c.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = 1, True
    assert not c.llama_model_quantize(
        str(smollm2).encode(), str(path).encode(), ctypes.byref(params)
    )
    one, seen = observed(path=path, size=256), {}
    tokens = one.model.tokenize(FRANCE)
    names = [f"l_out-{layer}" for layer in range(30)]
    watch = {n: lambda x, n=n: seen.update({n: x[0].copy()}) for n in names}
    logits = one.decode(tokens, watch, rows=range(5))
    weights = Weights(path)  # gguf's own reader takes ten seconds for this vocabulary

    def weight(name, other=""):
        found = name if f"{name}.weight" in weights.tensors else other
        return weights.rows(f"{found}.weight").squeeze()

    right = forward((local(path).header.values, weight), tokens)
    for name in names:
        assert np.abs(seen[name] - right[name]).max() < 5e-3 * np.abs(right[name]).max()
    assert np.abs(logits - right["logits"]).max() < 5e-3 * np.abs(right["logits"]).max()


@pytest.mark.slow
def test_the_last_layer_of_the_real_model_predicts_what_it_predicts(smollm2, observed):
    one = observed(path=smollm2, kv_type="f16")
    found = layers(one, one.model.tokenize(FRANCE), tell=silent)
    assert np.array_equal(found.lens[-1], found.true)
    assert found.error < 0.5
