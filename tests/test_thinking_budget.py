"""The limit of thinking, in tokens: after it, the thinking is closed and the answer begins."""

import re
from datetime import datetime

import pytest
from fakes import does, gbnf, new_chat

from lcp.answers.output_parser import OutputParser
from lcp.engine.engine import LlamaEngine
from lcp.engine.model import Model
from lcp.engine.reply import ReplyBuilder, tag_tokens
from lcp.engine.thinking_budget import LAST_WORDS, ThinkingBudget
from lcp.engine_interface import PromptMessage, Reply, Request
from lcp.engine_notices import ThinkingEnded
from lcp.settings import Layers, Sampling, Settings

OPENED = "{% for m in messages %}[{{ m.content }}]{% endfor %}<think>\n"
STORY = [PromptMessage("user", "Tell me a story.")]
CONTROLS = ("<think>", "</think>", "[THINK]", "[/THINK]")
HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>")


@pytest.fixture(scope="module")
def engine(tiny):
    path = tiny("dense", controls=CONTROLS, template=OPENED)
    with LlamaEngine(path, Settings(ctx_size=1024), now=datetime(2026, 11, 22)) as one:
        one.load().result()
        yield one


@pytest.fixture(scope="module")
def model(tiny):
    one = Model.load(tiny(controls=(*CONTROLS, *HARMONY), words=("Hm.", "Yes", "assistant")))
    yield one
    one.close()


def ask(engine, seed=0, **more):
    reply = engine.reply(Request(STORY, Sampling(seed=seed), **more))
    for _ in reply:
        pass
    return reply


def thought(engine, reply):
    """How many tokens are before the last words."""
    closer = engine.model.tokenize(LAST_WORDS + "</think>")
    ids = reply.sampled
    return next(i for i in range(len(ids)) if ids[i : i + len(closer)] == closer)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 3, 4, 5])  # a random model closes it early with 1 and 2
def test_thinking_ends_with_its_budget_and_the_answer_begins(engine, seed):
    free = ask(engine, seed, max_tokens=20)
    assert free.thinking and not free.text
    reply = ask(engine, seed, thinking_tokens=12, max_tokens=90)
    # an incomplete character is not cut
    assert 12 <= thought(engine, reply) <= 15
    assert reply.sampled[:12] == free.sampled[:12]
    assert reply.thinking.endswith(LAST_WORDS)
    assert reply.text
    assert reply.notice == ThinkingEnded(12)


def test_without_a_budget_the_model_ends_its_thinking(engine):
    assert ask(engine, max_tokens=50).notice is None


@pytest.mark.parametrize("seed", range(3))
def test_thinking_is_ended_at_once_if_it_is_off(engine, seed):
    reply = ask(engine, seed, thinking_tokens=0, max_tokens=20)
    assert (reply.thinking, reply.notice) == ("", None)
    assert reply.sampled[:1] == engine.model.tokenize("</think>")
    assert reply.text


def test_the_engine_evaluates_the_inserted_text(engine):
    """The cache holds the whole answer, including the last words."""
    reply = ask(engine, thinking_tokens=5, max_tokens=90)
    held = engine._loaded.context.tokens
    assert held[-(len(reply.sampled) - 1) :] == reply.sampled[:-1]


def test_the_answer_after_a_budget_matches_its_grammar(engine):
    reply = ask(engine, thinking_tokens=8, constraint=gbnf('root ::= "yes" | "no"'))
    assert reply.thinking.endswith(LAST_WORDS)
    assert (reply.text in ("yes", "no"), reply.ended) == (True, "end")


def test_a_continued_answer_has_used_a_part_of_its_budget(engine):
    cut = ask(engine, thinking_tokens=20, max_tokens=15)
    assert cut.ended == "length" and not cut.text
    begun = PromptMessage("assistant", "", "", tuple(cut.sampled), engine.identity)
    rest = ask(engine, thinking_tokens=20, max_tokens=80, begun=begun)
    assert rest.sampled[:15] == cut.sampled
    assert 20 <= thought(engine, rest) <= 23


def test_an_answer_truncated_in_its_thinking_continues_with_the_thinking(engine):
    chat = new_chat(engine, Layers(flags={"max_tokens": 15, "seed": 0}), "tiny")
    cut = chat.ask("Tell me a story.")
    assert (cut.ended, cut.text) == ("length", "")
    chat.set("max_tokens", "90")
    assert does(chat, "/continue")
    whole = chat.conversation.turns()[-1].answer
    assert whole.sampled[:15] == tuple(cut.sampled)
    assert whole.thinking.startswith(cut.thinking)


# all ways to close the thinking


def spoken(model, limit, *words, tail=""):
    """The result of the parser for a model that samples these words and then thinks for ever."""
    reply, chunks, shown = Reply(seed=0), [], tag_tokens(model)
    parser = OutputParser(prompt_tail=tail)
    builder = ReplyBuilder(reply, parser, model, shown, chunks.append)
    budget = ThinkingBudget(limit, model, parser, builder)
    ids = {model.piece(token): [token] for token in range(model.n_vocab)}
    wanted = [t for word in words if word for t in ids.get(word.encode()) or model.tokenize(word)]
    for _ in range(400):
        coming = budget.due() or wanted
        if not coming:
            break
        builder.append(coming.pop(0))
    builder._give(parser.flush())
    return reply.thinking, reply.text


@pytest.mark.parametrize(
    ("opener", "tail"),
    [
        ("<think>", ""),
        ("", "<think>\n"),
        ("[THINK]", ""),
        ("<thinking>", ""),  # spelled in letters
        ("<|channel|>analysis<|message|>", ""),
        ("", "<|start|>assistant<|channel|>analysis<|message|>"),
    ],
)
@pytest.mark.parametrize("limit", [0, 1, 2])
def test_each_kind_of_thinking_is_closed_by_its_own_tag(model, opener, tail, limit):
    thinking, text = spoken(model, limit, opener, *["Hm."] * limit, "Yes", "Yes", tail=tail)
    assert thinking == "Hm." * limit + (LAST_WORDS if limit else "")
    assert text == "YesYes"


def test_an_answer_without_thinking_is_not_limited(model):
    assert spoken(model, 0, *["Yes"] * 9) == ("", "Yes" * 9)


def test_thinking_within_its_budget_is_unchanged(model):
    assert spoken(model, 2, "<think>", "Hm.", "</think>", "Yes") == ("Hm.", "Yes")


def test_thinking_ends_only_after_a_whole_character(model):
    thinking, _ = spoken(model, 1, "<think>", "ü", "Yes")  # two tokens, a byte each
    assert re.fullmatch("ü" + re.escape(LAST_WORDS), thinking)
