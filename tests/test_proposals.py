"""Proposed tokens: evaluated in one batch, they give the same answer as token by
token. They are forced (the keys of a schema) or drafts (text that repeats)."""

import json
import re
import threading
from contextlib import closing
from datetime import datetime

import pytest
from fakes import gbnf
from greedy import assert_differs_by_batches_only
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import KINDS

from lcp.answers.output_parser import OutputParser
from lcp.engine.constrained_sampling import ConstrainedSampler
from lcp.engine.context import Context
from lcp.engine.engine import LlamaEngine
from lcp.engine.llama_library import StopByte, library
from lcp.engine.llguidance_matcher import LlguidanceMatcher
from lcp.engine.sampler import Sampler
from lcp.engine_interface import Chunk, Constraint, PromptMessage, Request
from lcp.settings import Sampling, Settings

NOW = datetime(2026, 11, 22)
STORY = [PromptMessage("user", "Tell me a story.")]
KEYS = ["name", "colour", "size in cm", "ünïcode", 'a\\"b', "last"]
every_kind = pytest.mark.parametrize("kind", KINDS)
WORDS = ["name", '": "', "colour", '", "', "size", " in cm"]  # tokens of several characters


def schema(keys=KEYS, value=None):
    value = value or {"type": "string", "maxLength": 3}
    rules = {"type": "object", "properties": {key: value for key in keys}, "required": keys}
    return Constraint("schema", json.dumps(rules), "The schema")


def regex(pattern):
    return Constraint("regex", pattern, "The expression")


@pytest.fixture(scope="module")
def engine(tiny):
    """A function that loads an engine with a tiny model."""
    engines = {}

    def loaded(kind="dense", size=2048, **options):
        key = repr((kind, size, options))
        if key not in engines:
            path = tiny(kind, quant="Q8_0", **options)
            engines[key] = LlamaEngine(path, Settings(ctx_size=size, threads=1), now=NOW)
            engines[key].load().result()
        return engines[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LCP_EXTRA_BUFTS", "0")
        yield loaded
    for one in engines.values():
        one.close()


def ask(engine, messages=STORY, sampling=None, max_tokens=300, **request):
    sampling = sampling or Sampling(2.0, seed=1)
    reply = engine.reply(Request(messages, sampling, max_tokens, **request))
    list(reply)
    assert holds(engine, [*prompt(engine, messages), *reply.sampled])
    return reply


def prompt(engine, messages=STORY):
    return [token for token, _ in engine.prompt(messages)]


def holds(engine, said):
    """Assert that the cache has these tokens except the last ones, and llama.cpp as many."""
    context = engine._loaded.context
    n, c = len(context.tokens), library()
    last = c.llama_memory_seq_pos_max(c.llama_get_memory(context.handle), 0)
    return context.tokens == said[:n] and last + 1 == n and n >= len(said) - 1


def token_by_token(engine, form, sampling, most=300):
    """The answer of a new context that evaluates each token alone."""
    loaded = engine._loaded
    model, tokens = loaded.model, prompt(engine)
    matcher = LlguidanceMatcher(form, model, loaded.answering.tokenizer)
    guide = ConstrainedSampler(matcher, model, parser := OutputParser(), frozenset())
    sampler, said = Sampler(model, sampling, sampling.seed, tokens), []
    with closing(sampler), closing(Context(model, 2048, StopByte(), threads=1)) as context:
        list(context.feed(tokens))
        while not guide.complete and len(said) < most:
            token = guide.sample(sampler, context)
            if token is None or model.is_end(token):
                break
            parser.feed(model.piece(token))
            said.append(token)
            context.append(token)
    return said


# forced tokens


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(2.0, seed=3, repeat_penalty=1.3)])
def test_keys_are_read_in_batches_without_changing_the_answer(engine, kind, sampling):
    one = engine(kind)
    reply = ask(one, sampling=sampling, constraint=schema())
    assert reply.ended == "end"
    assert list(json.loads(reply.text)) == KEYS
    plain = token_by_token(one, schema(), Sampling(**{**vars(sampling), "seed": reply.seed}))
    assert_differs_by_batches_only(one.model, prompt(one), reply.sampled, plain)


def test_fewer_batches_are_read_than_tokens(engine):
    one, ahead = engine("dense"), []
    context = one._loaded.context
    append = context.append

    def counting(*args, **more):
        evaluated = append(*args, **more)
        ahead.append(len(evaluated))
        return evaluated

    context.append = counting
    try:
        reply = ask(one, constraint=schema(["a long name of a key"]))
    finally:
        del context.append
    assert len(ahead) + sum(ahead) == len(context.tokens) - len(prompt(one))
    assert max(ahead) >= len("a long name of a key")
    assert (reply.stats.drafted, reply.stats.accepted) == (0, 0)  # nothing was drafted


def test_forced_text_is_spelled_as_by_the_tokenizer(engine):
    one = engine(words=WORDS)
    reply = ask(one, constraint=schema(["name", "colour"]))
    text = re.fullmatch(r'\{"(name": ")[^"]*"(, "colour": ")[^"]*"\}', reply.text)
    for certain in text.groups():
        # the last mark may share a token with the text after it: it is left to the model
        spelled = one.model.tokenize(certain.rstrip('" '), special=False)
        assert any(reply.sampled[i : i + len(spelled)] == spelled for i in range(200))


def test_a_tokenizer_that_adds_a_space_spells_keys_correctly(engine):
    one = engine(words=WORDS, add_space_prefix=True)
    for seed in range(3):
        reply = ask(one, sampling=Sampling(2.0, seed=seed), constraint=schema())
        assert list(json.loads(reply.text)) == KEYS


def test_a_key_that_is_spelled_like_a_tag_of_the_model(engine):
    """The token of the tag is not text of an answer."""

    def user_defined(keys):
        keys["tokenizer.ggml.token_type"].value[-1] = 4

    one = engine(words=["<b>"], change=user_defined)
    reply = ask(one, constraint=schema(["<b>bold"]))
    assert list(json.loads(reply.text)) == ["<b>bold"]


def test_a_regex_has_forced_tokens(engine):
    one = engine()
    pattern = "(yes|no), that is all I know about it[.!]"
    reply = ask(one, constraint=regex(pattern))
    assert re.fullmatch(pattern, reply.text)
    sampling = Sampling(2.0, seed=1)
    plain = token_by_token(one, regex(pattern), sampling)
    assert_differs_by_batches_only(one.model, prompt(one), reply.sampled, plain)


@pytest.mark.parametrize(
    ("pattern", "ended"), [("(yes|no) k{1000}[.]", "end"), ("(k[ab]l){1000}", "length")]
)
def test_text_that_must_repeat_does_not_stop_the_answer(engine, pattern, ended):
    """Only a cycle in which the model chooses something is its own."""
    reply = ask(
        engine("dense", loops=True),
        sampling=Sampling(0),
        max_tokens=1500,
        constraint=regex(pattern),
        loop_guard=True,
    )
    assert reply.ended == ended
    assert bool(re.fullmatch(pattern, reply.text)) is (ended == "end")
    assert bool(reply.notice) is (ended == "length")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "swa", "hybrid", "recurrent"])
@pytest.mark.parametrize("most", [1, 2, 5, 20, 21, 22])
def test_max_tokens_can_end_within_forced_text(engine, kind, most):
    one = engine(kind)
    whole = ask(one, sampling=Sampling(0), constraint=schema())
    cut = ask(one, sampling=Sampling(0), constraint=schema(), max_tokens=most)
    assert (cut.ended, len(cut.sampled)) == ("length", most)
    assert whole.text.startswith(cut.text)
    # as many as without: the last one is not evaluated
    assert len(one._loaded.context.tokens) == len(prompt(one)) + most - 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "swa", "hybrid", "recurrent"])
def test_a_stop_string_can_be_within_forced_text(engine, kind):
    one = engine(kind)
    whole = ask(one, sampling=Sampling(0), constraint=schema())
    cut = ask(one, sampling=Sampling(0), constraint=schema(), stop=["colo"])
    assert (cut.ended, cut.text) == ("stop", whole.text.partition("colo")[0])
    again = ask(one, sampling=Sampling(0), constraint=schema())
    assert_differs_by_batches_only(one.model, prompt(one), again.sampled, whole.sampled)


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_the_context_can_be_full_within_forced_text(engine, kind):
    one = engine(kind, size=256)
    long = schema(["k" * 300])
    reply = ask(one, constraint=long, max_tokens=None)
    assert reply.ended == "full"
    assert reply.text.startswith('{"kkk')
    assert len(one._loaded.context.tokens) == 256


OPENED = "{% for m in messages %}[{{ m.content }}]{% endfor %}<think>\n"


@pytest.mark.parametrize("kind", ["dense", "recurrent"])
@pytest.mark.parametrize("limit", [0, 3])
def test_the_end_of_the_thinking_and_then_keys_are_forced(engine, kind, limit):
    one = engine(kind, controls=["<think>", "</think>"], template=OPENED)
    reply = ask(one, constraint=schema(), thinking_tokens=limit)
    assert reply.ended == "end"
    assert list(json.loads(reply.text)) == KEYS
    assert ("no time" if limit == 0 else "answer now") not in reply.text


def test_an_answer_truncated_within_a_key_continues(engine):
    one = engine()
    whole = ask(one, sampling=Sampling(0), constraint=schema())
    cut = ask(one, sampling=Sampling(0), constraint=schema(), max_tokens=4)
    begun = PromptMessage("assistant", cut.text, "", tuple(cut.sampled), one.identity)
    rest = ask(one, sampling=Sampling(0), constraint=schema(), begun=begun)
    assert rest.sampled[:4] == cut.sampled
    assert list(json.loads(rest.text)) == KEYS
    assert_differs_by_batches_only(one.model, prompt(one), rest.sampled, whole.sampled)


# drafts

# A model that repeats itself: a negative penalty makes earlier tokens likely.
PARROT = {"frequency_penalty": -3.0, "repeat_last_n": 512}
REPEATS = gbnf('root ::= ("the sea is " ("blue" | "grey") ", "){9,} "."')
PIECES = st.lists(st.sampled_from(["salt ", "wind and sea ", "a b c d ", "x"]), max_size=12)


def both(engine, messages=STORY, sampling=None, **request):
    """The answer with drafts and the one without."""
    sampling = sampling or Sampling(0.5, seed=7, **PARROT)
    return (
        ask(engine, messages, sampling, speculate=True, **request),
        ask(engine, messages, sampling, **request),
    )


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("sampling", [Sampling(0), Sampling(0, **PARROT), None])
def test_drafts_do_not_change_the_answer(engine, kind, sampling, loops):
    one = engine(kind, loops=loops)
    drafted, plain = both(one, sampling=sampling, max_tokens=150)
    assert plain.stats.drafted == 0
    assert 0 <= drafted.stats.accepted <= drafted.stats.drafted
    if assert_differs_by_batches_only(one.model, prompt(one), drafted.sampled, plain.sampled):
        assert (drafted.text, drafted.ended) == (plain.text, plain.ended)
        assert drafted.tokens == plain.tokens


def test_speculate_off_drafts_nothing(engine):
    for choice, drafts in (("auto", True), ("off", False)):
        settings = Settings(Sampling(0), speculate=choice, max_tokens=200)
        reply = engine("dense").reply(Request.by(settings, STORY, constraint=REPEATS))
        list(reply)
        assert bool(reply.stats.drafted) is drafts


@pytest.mark.slow
@every_kind
def test_drafts_only_if_the_memory_can_be_cut_freely(engine, kind):
    one = engine(kind)
    drafted, _ = both(one, constraint=REPEATS, max_tokens=200)
    freely = one._loaded.context.takes_back_freely
    assert freely == (kind not in ("recurrent", "hybrid", "hybrid_mrope"))
    assert bool(drafted.stats.drafted) == freely


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pieces=PIECES,
    seed=st.integers(0, 99),
    temp=st.sampled_from([0, 0.5, 1]),
    kind=st.sampled_from(["dense", "swa", "moe", "mrope"]),
    most=st.integers(1, 90),
    form=st.sampled_from([None, REPEATS, regex("(the sea is (blue|grey), )+[.]"), schema()]),
)
def test_drafts_for_prompts_that_repeat(engine, pieces, seed, temp, kind, most, form):
    one, messages = engine(kind), [PromptMessage("user", "".join(pieces))]
    sampling = Sampling(temp, seed=seed, **PARROT)
    drafted, plain = both(one, messages, sampling, max_tokens=most, constraint=form)
    said = prompt(one, messages)
    if assert_differs_by_batches_only(one.model, said, drafted.sampled, plain.sampled):
        assert (drafted.text, drafted.ended) == (plain.text, plain.ended)


def test_a_stop_string_can_be_within_a_draft(engine):
    one = engine("swa")
    drafted, _ = both(one, constraint=REPEATS, max_tokens=200, sampling=Sampling(0))
    assert drafted.stats.accepted > 50
    stop = drafted.text[120:125]
    for reply in both(one, constraint=REPEATS, sampling=Sampling(0), stop=[stop]):
        assert reply.ended == "stop"
        assert reply.text == drafted.text.partition(stop)[0]


@pytest.mark.slow
def test_ctrl_c_within_a_draft_keeps_the_partial_answer(engine):
    one = engine("dense")
    rule = gbnf('root ::= "the sea is blue, "{110,}')
    for seconds in (0.05, 0.1, 0.15, 0.2):
        request = Request(STORY, Sampling(0), 1800, speculate=True, constraint=rule)
        reply = one.reply(request)
        timer = threading.Timer(seconds, one.stop)
        timer.start()
        text = "".join(item.text for item in reply if isinstance(item, Chunk))
        timer.join()
        assert reply.ended in ("interrupted", "length")
        assert text == reply.text
        assert holds(one, [*prompt(one), *reply.sampled])


def test_probabilities_belong_to_the_generated_answer(engine):
    one = engine("swa")
    for reply in both(one, constraint=REPEATS, max_tokens=60):
        said = PromptMessage("assistant", reply.text, "", tuple(reply.sampled), one.identity)
        found = one.probs(STORY, said).result()
        assert [p.token for p in found] == reply.sampled


def test_the_answer_to_a_second_question_reads_no_token_twice(engine):
    one = engine("dense")
    first = ask(one, constraint=REPEATS, max_tokens=100, speculate=True)
    assert first.stats.drafted
    answer = PromptMessage("assistant", first.text, "", tuple(first.tokens), one.identity)
    second = ask(one, [*STORY, answer, PromptMessage("user", "More?")], max_tokens=1)
    assert second.stats.reused >= first.stats.prompt_tokens + len(first.tokens) - 1


# the real model

COPY = (
    "Repeat this text exactly: The lighthouse keeper climbed the stairs every evening. He carried \
a small lamp and a book of old stories. The sea was calm that night, and the boats came home."
)


@pytest.fixture(scope="module")
def real(smollm2):
    with LlamaEngine(smollm2, Settings(ctx_size=1024, threads=1), now=NOW) as one:
        one.load().result()
        yield one


@pytest.mark.slow
def test_a_copy_is_drafted(real):
    messages = [PromptMessage("user", COPY)]
    drafted, plain = both(real, messages, Sampling(0), max_tokens=60)
    assert_differs_by_batches_only(
        real.model, prompt(real, messages), drafted.sampled, plain.sampled
    )
    assert drafted.stats.drafted  # how many depends on the cost of batches on this machine
    assert drafted.stats.accepted > drafted.stats.drafted / 2


@pytest.mark.slow
def test_a_real_object_has_its_keys(real):
    reply = ask(real, sampling=Sampling(0), constraint=schema())
    assert list(json.loads(reply.text)) == KEYS
    plain = token_by_token(real, schema(), Sampling(0, seed=reply.seed))
    assert_differs_by_batches_only(real.model, prompt(real), reply.sampled, plain)
