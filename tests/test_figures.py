"""How full the context is: all displays agree."""

import json
import re
from datetime import datetime, timezone

import pytest
from fakes import new_chat

from lcp.chat.toolbar_text import ToolbarText
from lcp.engine.engine import LlamaEngine
from lcp.engine_interface import PromptMessage
from lcp.settings import Layers, Settings

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=timezone.utc)
SIZE = 512


@pytest.fixture
def begin(tiny):
    """Begins a chat with a tiny model whose tokens are bytes."""
    engines = []

    def make(**choices):
        engine = LlamaEngine(
            tiny("dense", quant="Q8_0"), Settings(ctx_size=SIZE, threads=1), now=NOW
        )
        engines.append(engine)
        layers = Layers(flags={"temp": 0, "max_tokens": 12} | choices)
        chat = new_chat(engine, layers, "tiny", now=lambda: NOW)
        chat.load()
        chat.ready()
        return chat

    yield make
    for engine in engines:
        engine.close()


def figure(chat):
    """Tokens and size in the toolbar."""
    line = next(text for text, _ in ToolbarText(chat)() if text.startswith("context"))
    used, size, share = map(int, re.findall(r"\d+", line.replace(",", "")))
    assert share == round(100 * used / size) <= 100
    return used, size


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["slide", "truncate", "stop"])
def test_a_full_context_is_never_more_than_100_percent(begin, policy):
    """The end of the turn and the generation prompt have no cells yet."""
    chat = begin(max_tokens=None, overflow=policy, loop_guard="off")
    reply = chat.ask("Tell me a story. " * 20)
    assert reply.ended in ("full", "end")
    assert figure(chat) == (reply.stats.ctx_used, SIZE)


def test_the_toolbar_and_the_statistics_agree_after_each_command(begin):
    chat = begin()
    figures = [figure(chat)]
    for question in ("One?", "Two? " * 9, "Three?"):
        reply = chat.ask(question)
        figures.append(figure(chat))
        assert figures[-1] == (reply.stats.ctx_used, reply.stats.ctx_size)
        assert chat.conversation.turns()[-1].answer.stats == json.loads(
            json.dumps(reply.stats.as_dict())
        )
        shares = dict(chat.overflow.shares(chat.settings))
        assert shares["system"] + shares["pinned"] + shares["turns"] == reply.stats.ctx_used
    while chat.conversation.turns():
        assert figure(chat) == figures.pop()
        chat.go(chat.conversation.turns()[-1].user.parent)
    assert figure(chat) == figures.pop() == (0, SIZE)


def test_the_next_prompt_has_the_tokens_of_the_toolbar_and_the_question(begin):
    chat = begin()
    chat.ask("One?")
    used = figure(chat)[0]
    alone = chat.engine.count([PromptMessage("user", "Two?")])
    assert chat.ask("Two?").stats.prompt_tokens == used + alone - 1  # there is one BOS
