"""Reading ahead while a person types."""

import time
from datetime import datetime, timezone

import pytest

from lcp.common_prefix import common_prefix
from lcp.engine.engine import LlamaEngine
from lcp.engine_interface import HELD_BACK, PromptMessage, Request, room_in
from lcp.settings import Sampling, Settings

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=timezone.utc)
GREEDY = Sampling(temp=0)
SAID = [
    PromptMessage("user", "Tell me of the sea. " * 20),
    PromptMessage("assistant", "It is wide. " * 20),
]


@pytest.fixture
def engine(tiny):
    with LlamaEngine(tiny("dense", quant="Q8_0"), Settings(ctx_size=1024), now=NOW) as one:
        one.load().result()
        yield one


def settle(engine):
    """Wait until the engine thread has nothing more to read."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, total = engine.ahead
        if engine._ahead._planned is engine._ahead._wish and done >= total:
            return
        time.sleep(0.01)
    raise AssertionError(f"read {engine.ahead} tokens in 20 s")


def held(engine):
    return engine.model.text(engine._loaded.context.tokens)


def answer(engine, messages):
    reply = engine.reply(Request(messages, GREEDY, max_tokens=4))
    for _ in reply:
        pass
    return reply


def test_the_conversation_is_read_before_anything_is_typed(engine):
    engine.look_ahead(SAID, "", 100)
    settle(engine)
    assert held(engine).endswith("It is wide. It is wide. \n[user] ")


def test_the_speed_of_reading_ahead_tells_how_long_a_chat_takes_to_read(engine):
    assert engine.seconds_to_read(1000) == 0
    engine.look_ahead(SAID, "", 100)
    settle(engine)
    assert 0 < engine.seconds_to_read(1000) < 60
    assert engine.seconds_to_read(2000) == pytest.approx(2 * engine.seconds_to_read(1000))


def test_without_reading_ahead_no_tokens_are_counted(engine):
    engine.look_ahead(SAID, "And what of the mountains, are they wide?", 100)
    settle(engine)
    assert engine.ahead[0] == engine.ahead[1] > 0
    engine.rest()
    assert engine.ahead == (0, 0)


def test_typed_text_is_read_except_its_end(engine):
    typed = "And what of the mountains, are they as wide as the sea?"
    engine.look_ahead(SAID, typed, 100)
    settle(engine)
    read = held(engine).rpartition("[user] ")[2]
    assert typed.startswith(read)
    assert len(read) == len(typed) - HELD_BACK  # a token is a byte here


def test_enter_finds_the_message_read(engine):
    typed = "And what of the mountains? " * 5
    engine.look_ahead(SAID, typed, 100)
    settle(engine)
    reply = answer(engine, [*SAID, PromptMessage("user", typed)])
    assert reply.stats.read <= HELD_BACK + len("\n[assistant] ")
    assert reply.stats.prompt_tokens == reply.stats.read + reply.stats.reused


def test_reading_ahead_does_not_change_answers(engine, tiny):
    question = PromptMessage("user", "And what of the mountains? " * 3)
    for typed in ("And what", "And what of the rivers?", "", question.content):
        engine.look_ahead(SAID, typed, 100)
        settle(engine)
    ahead = answer(engine, [*SAID, question])
    with LlamaEngine(tiny("dense", quant="Q8_0"), Settings(ctx_size=1024), now=NOW) as fresh:
        fresh.load().result()
        assert answer(fresh, [*SAID, question]).sampled == ahead.sampled


def test_a_changed_text_is_read_up_to_the_change(engine):
    for typed in ("one two three four five six", "one two thr", "one two three and seven"):
        engine.look_ahead(SAID, typed, 100)
        settle(engine)
    assert "one two three and s".startswith(held(engine).rpartition("[user] ")[2])


def test_reading_ahead_only_fills_free_cells(engine):
    engine.look_ahead(SAID, "word " * 400, 100)
    settle(engine)
    assert len(engine._loaded.context.tokens) <= room_in(engine.size, 100)


def test_text_typed_while_loading_is_read_afterwards(tiny):
    with LlamaEngine(tiny("dense"), Settings(ctx_size=1024), now=NOW) as engine:
        engine.look_ahead(SAID, "", 100)
        assert engine.ahead == (0, 0)
        engine.load().result()
        settle(engine)
        assert "[user] Tell me" in held(engine)


def test_enter_interrupts_reading_ahead(engine):
    long = [PromptMessage("user", "x" * 700)]
    engine.look_ahead(long, "", 100)
    reply = answer(engine, [PromptMessage("user", "short")])
    assert reply.ended in ("length", "end")
    assert engine.model.text(engine._loaded.context.tokens).startswith("<s>[user] short")


def test_a_stop_while_reading_ahead_stops_only_that(engine):
    engine.look_ahead(SAID, "", 100)
    engine.stop()
    assert answer(engine, [*SAID, PromptMessage("user", "?")]).ended == "length"


def test_reading_ahead_resumes_after_a_stopped_answer(engine):
    engine.look_ahead(SAID, "", 100)
    settle(engine)
    reply = engine.reply(Request([*SAID, PromptMessage("user", "?")], GREEDY))
    for _ in reply:
        engine.stop()
    assert reply.ended == "interrupted"
    engine.look_ahead(SAID, "And what of the mountains, are they as wide as the sea?", 100)
    settle(engine)
    assert "And what of the mountains" in held(engine)


def test_changed_template_variables_are_read_ahead(tiny):
    """Whether thinking is on, or its effort, may be at the start of the prompt."""
    source = "{{ enable_thinking }} {% for m in messages %}[{{ m.content }}]{% endfor %}[answer]"
    path = tiny("dense", quant="Q8_0", template=source)
    question = PromptMessage("user", "And what of the mountains?")
    with LlamaEngine(path, Settings(ctx_size=1024), now=NOW) as engine:
        engine.load().result()
        for think in (True, False):
            engine.variables = {"enable_thinking": think}
            engine.look_ahead(SAID, "And what of", 100)
            settle(engine)
            assert held(engine).startswith(f"<s>{think}")
            reply = answer(engine, [*SAID, question])
            assert reply.stats.read < 40 < 400 < reply.stats.reused


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recurrent", "hybrid", "hybrid_mrope", "swa", "mrope"])
def test_with_every_kind_of_memory_reading_ahead_gives_the_same_answer(tiny, kind):
    path = tiny(kind, quant="Q8_0")
    question = PromptMessage("user", "And what of the mountains?")
    with LlamaEngine(path, Settings(ctx_size=1024), now=NOW) as engine:
        engine.load().result()
        for typed in ("And wh", "And who is there?", "And what of the"):
            engine.look_ahead(SAID, typed, 100)
            settle(engine)
        done = common_prefix(
            engine._loaded.context.tokens, engine._loaded.writer.write([*SAID, question]).tokens
        )
        assert done > 400
        ahead = answer(engine, [*SAID, question])
        assert ahead.stats.read < 100
    with LlamaEngine(path, Settings(ctx_size=1024), now=NOW) as fresh:
        fresh.load().result()
        assert answer(fresh, [*SAID, question]).sampled == ahead.sampled
