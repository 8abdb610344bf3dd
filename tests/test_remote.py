"""The engine of a server, with llama.cpp's own server and the real model: the promises of a chat
hold, by the server's own counts."""

import json
import threading
import time
from dataclasses import replace
from itertools import pairwise
from socket import create_server

import pytest
from fakes import does, server_chats
from llama_server import llama_server

from lcp.chat.error_advice import with_advice
from lcp.engine_interface import Chunk, Constraint, Progress, PromptMessage, Request
from lcp.errors import LcpError, NotSupported
from lcp.remote import server_kinds
from lcp.remote.engine import RemoteEngine
from lcp.servers.address import parse
from lcp.settings import Sampling

pytestmark = pytest.mark.slow  # a server is started
SIZE = 512
LONG = "Tell me about the sea, the ships, the wind and the people who live by it, please. " * 3


@pytest.fixture(scope="module")
def box(smollm2):
    """The address of a llama-server."""
    with llama_server(smollm2, SIZE) as address:
        yield address


@pytest.fixture
def start(box):
    """A function that begins a chat with the server."""
    with server_chats(box, temp=0, max_tokens=12) as begin:
        yield begin


def said(chat):
    return chat.screen._err.file.getvalue()


def user(text):
    return [PromptMessage("user", text)]


def test_an_answer_streams_and_has_the_statistics_of_the_server(start):
    chat = start()
    items = list(chat.engine.reply(Request.by(chat.settings, user("Say hello."))))
    assert len([item for item in items if isinstance(item, Chunk)]) > 1
    reply = chat.ask("Say hello to me.")
    assert reply.ended in ("end", "length") and reply.text
    assert reply.stats.reply_tokens == 12 or reply.ended == "end"
    assert reply.stats.prompt_tokens == chat.engine.count(user("Say hello to me."))
    assert reply.stats.read + reply.stats.reused == reply.stats.prompt_tokens
    assert reply.stats.ctx_size == SIZE
    assert chat.screen._out.file.getvalue().strip() == reply.text.strip()


def test_the_log_names_the_model_of_the_server(start, box):
    chat = start()
    assert chat.model.startswith(f"{box}#") and chat.model.endswith(".gguf")
    assert chat.ask("Hi").ended
    assert chat.conversation.turns()[-1].answer.model == chat.model


def test_next_turn_retry_undo_and_branches_are_not_read_again(start):
    chat = start()
    first = chat.ask(LONG).stats
    second = chat.ask("And the fish?").stats
    assert second.reused >= first.prompt_tokens
    does(chat, "/retry")
    again = chat.stats
    assert again.prompt_tokens == second.prompt_tokens and again.read <= 4
    does(chat, "/undo")
    other = chat.ask("And the birds?").stats
    assert other.reused >= first.prompt_tokens
    does(chat, "/branch 1")
    assert chat.ask("And the fish?").stats.reused >= first.prompt_tokens


def slides(chat, what):
    """Ask until turns have left the window twice. Returns the numbers of those answers."""
    asked = [chat.ask(f"{n} {what}: {LONG}").stats for n in range(6)]
    found = [now for before, now in pairwise(asked) if now.dropped_turns > before.dropped_turns]
    assert found and "no longer sees" in said(chat)
    return found


def test_a_slide_is_moved_and_not_read_again(start):
    chat = start(ctx_size=384, max_tokens=4)
    question = chat.engine.count(user(f"1 moved: {LONG}"))
    for stats in slides(chat, "moved"):
        assert stats.moved > 32 and stats.read <= question
    assert "re-read" not in said(chat)


def test_rereading_a_chat_is_announced(start):
    chat = start(ctx_size=384, max_tokens=4, slide="reread")
    for stats in slides(chat, "read again"):
        assert not stats.moved
    assert "re-read" in said(chat)


def test_a_stop_ends_an_answer_at_once(start):
    chat = start(max_tokens=400)
    reply = chat.engine.reply(Request.by(chat.settings, user("Count from one to a thousand.")))
    for item in reply:
        if isinstance(item, Chunk):
            began = time.monotonic()
            chat.engine.stop()
            break
    for _ in reply:
        pass
    assert reply.ended == "interrupted" and reply.text
    assert time.monotonic() - began < 5
    assert chat.ask("Hi").ended != "interrupted"


def test_the_tokens_of_a_stopped_answer_are_counted_when_there_is_time(start):
    chat = start(max_tokens=400)

    def stop():
        while not (chat.engine._reply and chat.engine._reply.text):
            time.sleep(0.02)
        chat.engine.stop()

    threading.Thread(target=stop, daemon=True).start()
    assert chat.ask("Count from one to a thousand.").ended == "interrupted"
    visible = chat.overflow.visible()
    deadline = time.monotonic() + 30
    while not chat.engine.counts_exactly(visible) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert chat.engine.used(visible) == chat.engine.count(visible)


def test_a_stop_before_the_first_word_gives_no_answer(start):
    chat = start()
    reply = chat.engine.reply(Request.by(chat.settings, user(LONG * 2)))
    chat.engine.stop()
    assert not [item for item in reply if isinstance(item, Chunk)]
    assert reply.ended == "interrupted" and not reply.text


def test_a_stop_string_ends_the_answer_and_is_cut(start):
    whole = start(max_tokens=30).ask("Tell me about Paris.").text
    word = whole.split()[5]
    reply = start(max_tokens=30, stop=word).ask("Tell me about Paris.")
    assert reply.ended == "stop" and word not in reply.text
    assert whole.startswith(reply.text)


@pytest.mark.parametrize("places", [[(20, 24)], [(15, 40), (18, 20)], [(25, 27), (24, 30)]])
def test_a_stop_string_gives_the_same_text_if_the_server_cuts_it(start, monkeypatch, places):
    whole = start(max_tokens=30).ask("Tell me about Paris.").text
    stops = tuple(whole[begin:end] for begin, end in places)
    cut = start(max_tokens=30, stop=stops).ask("Tell me about Paris.")
    monkeypatch.setattr(server_kinds, "LLAMA", replace(server_kinds.LLAMA, stops=True))
    sent = start(max_tokens=30, stop=stops).ask("Tell me about Paris.")
    assert sent.text == cut.text and len(cut.text) < 30
    assert (cut.ended, sent.ended) == ("stop", "end")  # this server does not tell


def test_a_seed_gives_the_same_answer_again(start):
    answers = {start(temp=1.5, seed=s).ask("Tell me a story.").text for s in (1, 1, 2)}
    assert len(answers) == 2


def test_only_chosen_settings_are_sent(start):
    chat = start()
    assert chat.settings.sources["temp"] == "flag"
    assert chat.settings.sources["top_k"] == "server"
    assert chat.settings.sampling.top_k == Sampling().top_k
    assert Request.by(chat.settings, []).chosen == {"temp", "max_tokens"}


def test_an_answer_follows_a_schema_and_a_grammar_but_no_regex(start, box):
    chat = start(max_tokens=60)
    form = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    chat.constraint = Constraint("schema", json.dumps(form), "The schema")
    assert "n" in json.loads(chat.ask("How many legs has a cat?").text)
    chat.constraint = Constraint("grammar", 'root ::= "yes" | "no"', "The grammar")
    assert chat.ask("Is water wet?").text in ("yes", "no")
    engine = RemoteEngine(parse(box), chat.settings)
    with pytest.raises(NotSupported):
        engine.load(Constraint("regex", "[a-z]+", "The expression")).result()
    engine.close()


def test_a_truncated_answer_continues(start):
    chat = start(max_tokens=8)
    cut = chat.ask("Tell me about Paris.")
    assert cut.ended == "length"
    does(chat, "/continue")
    answer = chat.conversation.turns()[-1].answer
    assert answer.content.startswith(cut.text) and len(answer.content) > len(cut.text)
    whole = start(max_tokens=answer.stats["reply_tokens"] + 8).ask("Tell me about Paris.").text
    assert whole.startswith(answer.content[:-8])


def test_an_answer_with_a_schema_continues_and_one_with_a_grammar_does_not(start):
    chat = start(max_tokens=10)
    form = {"type": "object", "properties": {"n": {"enum": ["a long value"]}}, "required": ["n"]}
    chat.constraint = Constraint("schema", json.dumps(form), "The schema")
    assert chat.ask("Give the value.").ended == "length"
    for _ in range(3):
        if chat.conversation.turns()[-1].answer.ended == "length":
            chat.go_on()
    assert json.loads(chat.conversation.turns()[-1].answer.content) == {"n": "a long value"}
    chat.constraint = Constraint("grammar", 'root ::= ("one " | "two ")+ "end"', "The grammar")
    cut = chat.ask("Count.")
    with pytest.raises(NotSupported):
        chat.go_on()  # llama-server would begin the grammar again
    assert chat.conversation.turns()[-1].answer.content == cut.text


THINKING = """
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""


@pytest.fixture(scope="module")
def thinking(smollm2, tmp_path_factory):
    """The address of a llama-server whose model thinks."""
    file = tmp_path_factory.mktemp("thinking") / "template.jinja"
    file.write_text(THINKING)
    with llama_server(smollm2, SIZE, "--jinja", "--chat-template-file", str(file)) as address:
        yield address


def test_truncated_thinking_continues(start, thinking):
    chat = start(thinking, max_tokens=8)
    cut = chat.ask("Tell me about Paris.")
    assert cut.ended == "length" and cut.thinking and not cut.text
    does(chat, "/continue")
    answer = chat.conversation.turns()[-1].answer
    assert answer.thinking.startswith(cut.thinking) and len(answer.thinking) > len(cut.thinking)


def test_a_fork_keeps_the_thinking(start, thinking):
    chat = start(thinking, max_tokens=20, reasoning_budget=8, token_probs="on")
    reply = chat.ask("Tell me about Paris.")
    assert reply.thinking and reply.text
    rows = chat.engine.probs([], PromptMessage("assistant", reply.text)).result()
    does(chat, "/fork 2 2")
    forked = chat.conversation.turns()[-1].answer
    assert forked.thinking == reply.thinking
    assert forked.content.startswith(rows[0].text + rows[1].others[1].text)


def test_a_restarted_server_is_not_called_a_change_of_the_chat(smollm2, start):
    with create_server(("127.0.0.1", 0)) as free:
        port = ("--port", str(free.getsockname()[1]))
    with llama_server(smollm2, SIZE, *port) as address:
        chat = start(address)
        chat.ask(LONG)
    with pytest.raises(LcpError):
        chat.ask("And the fish?")
    with llama_server(smollm2, SIZE, *port):
        stats = chat.ask("And the fish?").stats
    assert stats.reused < 32 and len(chat.conversation.turns()) == 2
    assert "re-read" in said(chat) and "no longer had them" in said(chat)


def test_an_answer_continues_after_turns_leave_a_full_context(smollm2, start):
    with llama_server(smollm2, 256) as small:
        chat = start(small, max_tokens=4, loop_guard="off")
        chat.ask(LONG)
        chat.set("max_tokens", "auto")
        form = {"type": "array", "items": {"enum": ["one", "two"]}, "minItems": 200}
        chat.constraint = Constraint("schema", json.dumps(form), "The schema")
        reply = chat.ask("Count.")
    assert reply.ended == "full" and reply.stats.dropped_turns == 1
    assert reply.stats.reply_tokens > 256 - reply.stats.prompt_tokens


def test_counts_come_from_the_server(start):
    chat = start()
    assert chat.engine.counts and chat.engine.size == SIZE
    assert chat.engine.count(user("Hi")) + 1 >= chat.engine.count(user("a"))
    assert chat.engine.tokens("<|im_end|>") > 1
    assert chat.engine.tokens("hello hello") == 2
    text = "one two three four five six seven"
    assert text.endswith(chat.engine.clip(text, 3)) and chat.engine.clip(text, 3)
    assert chat.engine.tokens(chat.engine.clip(text, 3)) <= 3


def test_a_count_that_fails_is_an_estimate(start):
    chat = start()
    chat.engine._llama_server._http.address = parse("http://127.0.0.1:1")
    assert chat.engine.count(user("a new question " * 20)) > 40


def test_typed_text_is_read_ahead(start):
    chat = start()
    chat.ask("Hi")
    chat.engine.look_ahead(chat.overflow.visible(), LONG, 12)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, total = chat.engine.ahead
        if total and done >= total:
            break
        time.sleep(0.02)
    reply = chat.ask(LONG)
    assert reply.stats.read < 24


def test_the_prompt_and_the_templates_system_text(start):
    chat = start()
    assert "SmolLM" in chat.engine.template.own_system()
    assert "SmolLM" not in chat.engine.template.own_system(silent=True)
    rows = chat.engine.prompt(user("Hi"))
    assert "".join(text for _, text in rows).count("<|im_start|>") == 3
    assert len(rows) == chat.engine.count(user("Hi"))


def test_probabilities_come_with_the_answer(start):
    chat = start(token_probs="on")
    answer = chat.ask("Tell me about Paris.").text
    task = chat.engine.probs([], PromptMessage("assistant", answer))
    rows = task.result()
    assert "".join(row.text for row in rows).strip() == answer.strip()
    assert all(0 < row.p <= 1 for row in rows) and len(rows[0].others) == 10
    does(chat, "/fork 2 2")
    forked = chat.conversation.turns()[-1].answer.content
    assert forked.startswith(rows[0].text + rows[1].others[1].text)
    again = chat.engine.probs([], PromptMessage("assistant", forked)).result()
    assert "".join(row.text for row in again).strip() == forked.strip()
    assert again[1].text == rows[1].others[1].text and again[1].others == rows[1].others
    plain = start()
    plain.ask("Hi")
    with pytest.raises(LcpError) as caught:
        does(plain, "/probs")
    assert "--token-probs on" in with_advice(caught.value)


def test_unsupported_requests_are_errors(start, tmp_path):
    chat = start(threads=3, kv_type="q8_0")
    assert "threads" in said(chat) and "kv_type" in said(chat)
    with pytest.raises(NotSupported):
        chat.engine.save(tmp_path / "cache")
    assert chat.engine.restore(tmp_path / "cache").result() == ""


def test_raw_text_continues(start):
    chat = start(raw="on")
    reply = chat.ask("The capital of France is")
    assert reply.text and reply.ended in ("end", "length")
    assert reply.stats.prompt_tokens == chat.engine.tokens("The capital of France is")


def test_progress_of_reading_is_reported(start):
    chat = start()
    reply = chat.engine.reply(Request.by(chat.settings, user("Another one. " + LONG)))
    seen = [item for item in reply if isinstance(item, Progress)]
    assert seen[-1].done == seen[-1].total > 0
    assert seen[-1].kept + seen[-1].total == reply.stats.prompt_tokens


def test_one_of_several_slots_is_reused(smollm2, start):
    with llama_server(smollm2, 512, "-np", "2", "--no-kv-unified") as address:
        chat, other = start(address), start(address)
        assert chat.engine.facts.slots == 2 and chat.engine.size == 256
        first = chat.ask("Tell me about the sea.").stats
        other.ask("Tell me about the moon.")
        assert {chat.engine._llama_server.slot(), other.engine._llama_server.slot()} == {0, 1}
        assert chat.ask("And the ships?").stats.reused >= first.prompt_tokens
