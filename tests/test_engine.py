"""Messages in, a Reply out: the whole engine, with tiny models and a real one."""

import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from greedy import assert_says_what_a_fresh_one_says
from tiny import KINDS

from lcp.answers.output_parser import OutputParser
from lcp.engine.engine import LlamaEngine
from lcp.engine.model import Model
from lcp.engine.reply import ReplyBuilder, tag_tokens
from lcp.engine_interface import Chunk, Loading, Progress, PromptMessage, Reply, Request, Stats
from lcp.errors import ContextFull, ModelError, ModelNotFound, SettingsError, TemplateError
from lcp.settings import Sampling, Settings

NOW = datetime(2026, 11, 22)
GREEDY = Sampling(temp=0)
SETTINGS = Settings(ctx_size=1024, threads=1)
REPOSITORY = Path(__file__).parents[1]


def user(content):
    return PromptMessage("user", content)


SYSTEM = PromptMessage("system", "You are a helpful assistant.")
JAPAN = [SYSTEM, user("What is the capital of Japan?")]
STORY = [user("Tell me a long story.")]


@pytest.fixture
def engine(tiny):
    """A function that loads an engine with a model's path or a kind of tiny model."""
    engines = []

    def loaded(path="dense", settings=SETTINGS, **options):
        path = path if isinstance(path, Path) else tiny(path)
        engines.append(LlamaEngine(path, settings, now=NOW, **options))
        engines[-1].load().result()
        return engines[-1]

    yield loaded
    for one in engines:
        one.close()


@pytest.fixture(scope="module")
def real(smollm2):
    """A shared engine with the real model; its cache has what other tests left there."""
    with LlamaEngine(smollm2, Settings(ctx_size=4096, threads=1), now=NOW) as one:
        one.load().result()
        yield one


def ask(engine, messages, sampling=GREEDY, max_tokens=200, **request):
    """Ask, and return the finished reply."""
    reply = engine.reply(Request(messages, sampling, max_tokens, **request))
    chunks = [item for item in reply if isinstance(item, Chunk)]
    assert "".join(c.text for c in chunks if c.kind == "answer") == reply.text
    return reply


def said(engine, reply):
    """The reply as a message of the next turn."""
    return PromptMessage("assistant", reply.text, "", tuple(reply.tokens), engine.identity)


# how a reply ends


@pytest.mark.slow
def test_a_reply_ends_at_an_end_token(real):
    reply = ask(real, JAPAN)
    assert reply.ended == "end"
    assert "Tokyo" in reply.text
    assert not reply.thinking


@pytest.mark.slow
def test_a_reply_ends_at_its_token_limit(real):
    reply = ask(real, STORY, max_tokens=5)
    assert (reply.ended, reply.stats.reply_tokens, len(reply.tokens)) == ("length", 5, 5)


@pytest.mark.slow
def test_a_reply_ends_before_a_stop_string(real):
    reply = ask(real, JAPAN, stop=["nothing", "capital"])
    assert (reply.ended, reply.text) == ("stop", "The ")


@pytest.mark.slow
def test_a_stopped_reply_keeps_its_text(real):
    whole = ask(real, STORY, max_tokens=30)
    reply = real.reply(Request(STORY, GREEDY))
    for item in reply:
        if isinstance(item, Chunk):
            real.stop()
    assert reply.ended == "interrupted"
    assert reply.text and whole.text.startswith(reply.text)
    assert 0 < reply.stats.reply_tokens < 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_can_be_stopped_on_any_model(engine, kind):
    # A context of 1,024 tokens is full in 0.1 s: a busy machine may let the stop wait that long.
    one = engine(kind, Settings(ctx_size=32768, threads=1))

    def stopped(seed):
        reply = one.reply(Request(STORY, Sampling(temp=2, seed=seed)))
        for item in reply:
            if isinstance(item, Chunk):
                one.stop()
        return reply.ended

    # A random answer may end first: some have 17 tokens.
    assert any(stopped(seed) == "interrupted" for seed in range(5))


@pytest.mark.slow
def test_a_reply_ends_when_the_context_is_full(engine, smollm2):
    one = engine(smollm2, Settings(ctx_size=256, threads=2))
    reply = ask(one, [user("Tell me a long story. " * 30)])
    assert reply.ended == "full"
    assert reply.stats.ctx_used == reply.stats.ctx_size == one.size == 256
    assert reply.stats.prompt_tokens + reply.stats.reply_tokens == 256 + 1  # the last is not read


# statistics and notices


@pytest.mark.slow
def test_the_statistics_add_up(real):
    stats = ask(real, STORY, max_tokens=20).stats
    assert stats.prompt_tokens == stats.reused + stats.read == real.count(STORY)
    assert stats.ctx_used == stats.prompt_tokens + stats.reply_tokens - 1
    assert stats.ctx_size == real.size == 4096
    assert 0 < stats.read_s <= stats.ttft_s
    assert stats.tokens_per_second == pytest.approx(19 / stats.decode_s)
    assert (stats.moved, stats.dropped_turns) == (0, 0)
    assert stats.as_dict().keys() == vars(Stats()).keys()


def test_progress_reaches_its_total_before_the_answer(engine):
    items = list(engine().reply(Request([user("x" * 700)], GREEDY, max_tokens=3)))
    steps = [item for item in items if isinstance(item, Progress)]
    assert items[: len(steps)] == steps
    assert [step.done for step in steps] == [0, 512, steps[-1].total]


@pytest.mark.slow
def test_the_tokens_spell_the_text(real):
    reply = ask(real, STORY, Sampling(temp=1.5, seed=3), max_tokens=25)
    assert real.model.text(reply.tokens) == reply.text


@pytest.mark.parametrize("seed", range(4))
def test_the_tokens_of_random_bytes_spell_the_text(engine, seed):
    one = engine()
    reply = ask(one, STORY, Sampling(temp=2, seed=seed), max_tokens=40)
    assert reply.tokens
    assert one.model.text(reply.tokens) == reply.text


@pytest.mark.slow
def test_the_next_turn_reads_only_what_is_new(real):
    first = ask(real, JAPAN)
    question = user("And of Italy? Answer in one word.")
    messages = [*JAPAN, said(real, first), question]
    second = ask(real, messages)
    assert second.stats.reused >= first.stats.ctx_used
    assert second.stats.read == second.stats.prompt_tokens - second.stats.reused < 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_answer_is_never_read_again(engine, kind):
    one = engine(kind)
    first = ask(one, STORY, Sampling(temp=2, seed=1), max_tokens=50)
    second = ask(one, [*STORY, said(one, first), *STORY], max_tokens=2)
    held = first.stats.prompt_tokens + len(first.tokens)
    assert second.stats.reused >= min(held, first.stats.ctx_used)


def test_penalties_count_the_prompt(engine):
    """With a high penalty, no token of the prompt is sampled."""
    one = engine()
    sampling = Sampling(temp=0, presence_penalty=10, repeat_last_n=1000)
    letters = "".join(map(chr, range(32, 127)))
    for turn in range(8):
        prompt = one.model.tokenize("<s>[user] " + letters[turn:])
        reply = ask(one, [user(letters[turn:])], sampling, max_tokens=20)
        assert not set(prompt) & set(reply.tokens)


# seeds


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answer(smollm2):
    answers = []
    for _ in range(2):
        with LlamaEngine(smollm2, Settings(ctx_size=512, threads=1), now=NOW) as one:
            one.load().result()
            answers.append(ask(one, STORY, Sampling(temp=1.2, seed=42), max_tokens=10).tokens)
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_a_random_seed_is_reported_and_reproduces_the_answer(real):
    ask(real, STORY, max_tokens=1)  # both start with the same cache
    free = ask(real, STORY, Sampling(temp=1.5), max_tokens=12)
    again = ask(real, STORY, Sampling(temp=1.5, seed=free.seed), max_tokens=12)
    assert free.tokens == again.tokens
    assert ask(real, STORY, Sampling(temp=1.5), max_tokens=12).seed != free.seed


# interrupts


def test_a_stop_before_a_reply_does_not_stop_it(engine):
    one = engine()
    one.stop()
    assert ask(one, STORY, max_tokens=3).ended == "length"


def test_a_stop_while_the_prompt_is_read_keeps_the_tokens_read(engine):
    one = engine()
    question = [user("x" * 900)]
    reply = one.reply(Request(question, GREEDY))
    for item in reply:
        if item == Progress(0, 0, 512, one.count(question)):
            one.stop()
    assert (reply.ended, reply.text, reply.stats.reply_tokens) == ("interrupted", "", 0)
    again = ask(one, question, max_tokens=3)
    assert again.stats.reused == 512


def assert_fresh_answer(one, messages, max_tokens):
    """Assert that the engine answers as a new context would. Returns the reply."""
    reply = ask(one, messages, max_tokens=max_tokens)
    prompt = one._loaded.writer.write(messages).tokens
    assert_says_what_a_fresh_one_says(one._loaded.model, prompt, reply.sampled)
    return reply


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_after_interrupts_a_tiny_model_gives_the_same_answer_as_a_new_one(engine, kind):
    chance = random.Random(kind)
    one, messages = engine(kind), []
    for turn in range(3):
        messages = [*messages, user(f"{turn} " * 40)]
        stop_after = chance.randrange(1, 30)
        reply = one.reply(Request(messages, GREEDY, max_tokens=40))
        for seen, _ in enumerate(reply, 1):
            if seen == stop_after:
                one.stop()
        assert_fresh_answer(one, messages, max_tokens=8)
        messages.append(said(one, reply))


@pytest.mark.slow
def test_after_interrupts_the_real_model_gives_the_same_answer_as_a_new_one(engine, smollm2):
    chance = random.Random(1)
    settings = Settings(ctx_size=2048, threads=1)
    one = engine(smollm2, settings)
    messages = [SYSTEM]
    for question in ("Why is the sky blue?", "And at night?", "Name three stars.", "Thanks!"):
        messages.append(user(question))
        stopper = threading.Timer(chance.uniform(0, 1.5), one.stop)
        stopped = one.reply(Request(messages, GREEDY, max_tokens=40))
        stopper.start()
        list(stopped)
        stopper.join()
        reply = assert_fresh_answer(one, messages, max_tokens=30)
        messages.append(said(one, reply))


@pytest.mark.slow
def test_a_stop_while_a_long_prompt_is_read_takes_effect_at_once(real):
    """During a batch of 512 tokens, which takes seconds."""
    long = [user("The quick brown fox jumps over the lazy dog. " * 220)]
    assert real.count(long) > 2000
    reply = real.reply(Request(long, GREEDY))
    items = iter(reply)
    next(items)
    time.sleep(0.3)
    stopped_at = time.perf_counter()
    real.stop()
    rest = list(items)
    took = time.perf_counter() - stopped_at
    print(f"a stop took effect after {took:.3f} s")
    assert reply.ended == "interrupted" and not any(isinstance(i, Chunk) for i in rest)
    assert took < 1  # 0.2 on an idle machine
    assert ask(real, JAPAN).ended == "end"


# errors


def test_the_engine_works_after_a_template_error(engine):
    source = (
        "{% if messages|length > 1 %}{{ raise_exception('one question only') }}{% endif %}"
        "{{ messages[0].content }}"
    )
    one = engine(template=source)
    with pytest.raises(TemplateError, match="refuses these messages: one question only"):
        ask(one, [*STORY, PromptMessage("assistant", "No.")])
    assert ask(one, STORY, max_tokens=2).ended == "length"


def test_the_engine_works_after_a_prompt_that_is_too_large(engine):
    one = engine(settings=replace(SETTINGS, ctx_size=256))
    ask(one, STORY, max_tokens=2)
    with pytest.raises(ContextFull):
        ask(one, [user("x" * 300)])
    again = ask(one, STORY, max_tokens=2)
    assert again.stats.read == 1  # nothing was lost


def load_error(path, settings=SETTINGS, **options):
    with LlamaEngine(path, settings, now=NOW, **options) as one, pytest.raises(Exception) as raised:
        one.load().result()
    return raised.value


def test_load_raises_the_error_of_a_bad_file(tiny, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    assert type(load_error(tmp_path / "no.gguf")) is ModelNotFound
    assert type(load_error(tmp_path / "x.gguf")) is ModelError
    assert type(load_error(tiny(), template="{% if %}")) is TemplateError
    assert type(load_error(tiny(), replace(SETTINGS, kv_type="q8_0"))) is SettingsError


# closing


def test_loading_progress_reaches_one(tiny):
    with LlamaEngine(tiny(), SETTINGS, now=NOW) as one:
        steps = list(one.load())
    assert all(isinstance(step, Loading) for step in steps)
    assert steps[-1] == Loading(1.0)


def test_loading_is_reported_ten_times_a_second_not_for_each_tensor(smollm2):
    begun = time.monotonic()
    with LlamaEngine(smollm2, SETTINGS, now=NOW) as one:
        steps = list(one.load())
    assert len(steps) <= 3 + (time.monotonic() - begun) / 0.1
    assert steps[-1] == Loading(1.0)


def test_the_context_is_as_large_as_the_model_was_trained_for(engine):
    assert engine(settings=Settings(threads=1)).size == 4096


def test_a_model_without_a_template_uses_chatml(engine, tiny):
    one = engine(tiny(template=None))
    assert one.notices()[0].is_base
    assert engine().notices() == []
    assert ask(one, STORY, max_tokens=2).ended == "length"


def test_chunks_have_their_number_of_tokens(engine):
    one = engine()
    reply = one.reply(Request(STORY, Sampling(seed=1), max_tokens=30))
    tokens = [item.tokens for item in reply if isinstance(item, Chunk)]
    assert (
        sum(tokens) <= reply.stats.reply_tokens <= sum(tokens) + 4
    )  # bytes of incomplete characters


def test_a_rounded_up_context_is_reported(engine):
    one = engine(settings=Settings(threads=1, ctx_size=300))
    (notice,) = one.notices()
    assert "512" in notice and "300" in notice and "256" in notice


def test_an_engine_can_be_closed_twice_and_before_loading(tiny):
    for load in (True, False):
        one = LlamaEngine(tiny(), SETTINGS, now=NOW)
        if load:
            one.load().result()
        one.close()
        one.close()


def process(path, body):
    """A program with an engine; the test checks how it ends."""
    code = (
        "import sys, time, threading\n"
        "from datetime import datetime\n"
        "from pathlib import Path\n"
        "from lcp.engine.engine import LlamaEngine\n"
        "from lcp.engine_interface import PromptMessage, Request\n"
        "from lcp.settings import Sampling, Settings\n"
        "engine = LlamaEngine(Path(sys.argv[1]), Settings(ctx_size=2048), now=datetime.now())\n"
        "loading = engine.load()\n"
        "def reply(times=300):\n"
        "    loading.result()\n"
        "    question = PromptMessage('user', 'a lazy dog, ' * times)\n"
        "    return engine.reply(Request([question], Sampling(temp=0)))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code + body, str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "items = iter(reply()); next(items); engine.close()",
        "items = iter(reply()); next(items); time.sleep(0.3); engine.close(); list(items)",
        "items = iter(reply()); next(items); time.sleep(0.3)",  # exits without close
        "engine.close()",  # while it loads
        "pass",
    ],
)
def test_a_process_exits_cleanly_at_any_moment(smollm2, body):
    done = process(smollm2, body)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_an_error_during_a_computation_ends_the_process_with_that_error(smollm2):
    done = process(smollm2, "items = iter(reply()); next(items); raise ValueError('mine')")
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: mine\n")


@pytest.mark.slow
def test_closing_during_an_answer_exits_cleanly(smollm2):
    body = "for item in reply(9):\n    if type(item).__name__ == 'Chunk': break\nengine.close()\n"
    done = process(smollm2, body)
    assert (done.returncode, done.stderr) == (0, "")


# tokens to text


@pytest.fixture(scope="module")
def vocabulary(tiny):
    """A model whose words are <think>, as structure and as text, and a few more."""
    path = tiny(words=("Hm.", "Yes", " no", "[THINK]"), controls=("<think>", "</think>", "<eot>"))
    model = Model.load(path)
    yield model
    model.close()


def speak(model, *words, stop=(), prompt_tail=""):
    """A reply with these pieces, given as text or as bytes."""
    reply, chunks = Reply(seed=0), []
    builder = ReplyBuilder(
        reply, OutputParser(stop, prompt_tail), model, tag_tokens(model), chunks.append
    )
    for word in words:
        tokens = [3 + byte for byte in word] if isinstance(word, bytes) else model.tokenize(word)
        for token in tokens:
            if not builder.append(token):
                break
    builder.finish("end", 1, Progress(0, 0, 1, 1))
    assert "".join(c.text for c in chunks) == reply.thinking + reply.text
    return reply


def test_control_tokens_separate_thinking_from_the_answer(vocabulary):
    reply = speak(vocabulary, "<think>", "Hm.", "</think>", "\n", "Yes", " no")
    assert (reply.thinking, reply.text) == ("Hm.", "Yes no")
    assert reply.tokens == vocabulary.tokenize("Yes no")


def test_thinking_opened_by_the_prompt_is_not_in_the_tokens(vocabulary):
    reply = speak(vocabulary, "Hm.", "</think>", "Yes", prompt_tail="<think>\n")
    assert (reply.thinking, reply.text) == ("Hm.", "Yes")
    assert vocabulary.text(reply.tokens) == "Yes"


def test_other_control_tokens_have_no_text(vocabulary):
    reply = speak(vocabulary, "Yes", "<eot>", " no")
    assert reply.text == "Yes no"


def test_an_incomplete_character_at_the_end_is_not_in_the_tokens(vocabulary):
    reply = speak(vocabulary, "Yes", b"\xf0\x9f")
    assert reply.text == "Yes"
    assert reply.tokens == vocabulary.tokenize("Yes")


def test_bytes_that_are_not_text_keep_their_tokens(vocabulary):
    reply = speak(vocabulary, "Yes", b"\xff", " no")
    assert reply.text == "Yes\ufffd no"
    assert vocabulary.text(reply.tokens) == reply.text


def test_a_text_cut_by_a_stop_string_between_tokens_keeps_its_tokens(vocabulary):
    reply = speak(vocabulary, "Hm.", "Yes", stop=["es"])
    assert vocabulary.text(reply.tokens) == reply.text == "Hm.Y"


def test_an_empty_answer_has_no_tokens(vocabulary):
    reply = speak(vocabulary)
    assert (reply.text, reply.thinking, reply.tokens) == ("", "", [])
    assert reply.stats.tokens_per_second == 0
