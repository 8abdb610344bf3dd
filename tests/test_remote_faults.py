"""All that a server can do wrong, and all kinds of servers: a local server sends what the
test wrote. No received text is lost, nothing waits past its limit, and no key is shown."""

import itertools
import json
import socket
import threading
import time
from dataclasses import replace

import pytest
from fakes import server_chats
from scripted_server import (
    HELLO,
    WHOLE,
    ScriptedServer,
    answer,
    delta,
    json_page,
    serving,
    usage,
)

from lcp.chat.toolbar_text import ToolbarText
from lcp.engine_interface import Chunk, Constraint, PromptMessage, Request
from lcp.engine_notices import ConnectionLost
from lcp.errors import ChooseModel, LcpError, NotSupported, ServerError
from lcp.remote import http_client, reply, retrying_client
from lcp.remote.llama_server import LlamaServer
from lcp.remote.server_errors import error_in
from lcp.servers.address import parse
from lcp.session.store import Store
from lcp.settings import Layers

KEY = "sk-5ecret-of-the-person"
DIALECTS = {"vllm": "reasoning", "sglang": "reasoning_content", "library": "reasoning"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http_client, "ASK_S", 5.0)
    monkeypatch.setattr(reply, "AFTER_S", 0.3)


@pytest.fixture
def server():
    with ScriptedServer(serving()) as scripted:
        yield scripted


@pytest.fixture
def start(server, tmp_path):
    """A function that begins a chat with the server."""
    with server_chats(server.address, Store(tmp_path / "sessions"), KEY) as begin:
        yield begin
    for file in (tmp_path / "sessions").rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes()


def said(chat):
    return chat.screen._err.file.getvalue()


def ask(server, start, *events, **how):
    """The reply to a question that is answered with these events."""
    server.pages["/v1/chat/completions"] = answer(*events, **how)
    return start().ask("Hi")


# differences between servers that lcp accepts


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_lines_with_any_line_end(server, start, end):
    reply = ask(server, start, *HELLO, usage(9, 3), "[DONE]", end=end)
    assert (reply.text, reply.ended) == ("Hello there.", "end")


def test_an_answer_in_single_bytes_is_the_same(server, start):
    def page(connection):
        connection.head(Content_Type="text/event-stream")
        text = "".join(
            f"data: {json.dumps(v)}\r\n\r\n" for v in (*HELLO[:2], delta("ö"), *HELLO[2:])
        )
        for byte in text.encode():
            connection.send(bytes([byte]))

    server.pages["/v1/chat/completions"] = page
    assert start().ask("Hi").text == "Helloö there."


def test_comments_pings_empty_choices_and_null_have_no_text(server, start):
    def page(connection):
        connection.head(Content_Type="text/event-stream")
        connection.send(": ping\n\n:\n\nevent: ping\n\n")
        connection.events({"choices": []}, delta(None, content=None), *HELLO)
        connection.send(":\n\n")
        connection.events(usage(9, 3), "[DONE]")

    server.pages["/v1/chat/completions"] = page
    assert start().ask("Hi").text == "Hello there."


def test_usage_and_done_are_optional(server, start):
    reply = ask(server, start, *HELLO)
    assert (reply.text, reply.ended) == ("Hello there.", "end")
    assert reply.stats.reply_tokens == 2 and reply.stats.ctx_used > 0


def test_an_answer_that_is_not_streamed_is_accepted(server, start):
    whole = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}
    server.pages["/v1/chat/completions"] = json_page(json.dumps(whole, indent=2).encode())
    assert start().ask("Hi").text == "Hello."


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thinking_in_its_own_field_is_separated(server, start, name):
    thought = delta("", **{name: "Let me think."})
    reply = ask(server, start, thought, delta("\n\nHello."), delta(ended="stop"))
    assert (reply.thinking, reply.text) == ("Let me think.", "Hello.")


def test_thinking_in_the_text_is_separated(server, start):
    reply = ask(server, start, delta("<thi"), delta("nk>Hm.</think>\n\nHello"), delta(ended="stop"))
    assert (reply.thinking.strip(), reply.text) == ("Hm.", "Hello")


def test_thinking_that_was_cut_goes_on_where_the_server_can(server, start):
    begun = (delta("", reasoning_content="Let me"), delta(ended="length"))
    rest = (delta("", reasoning_content=" see."), delta("\n\nHello"), delta(ended="stop"))
    for owner in ("llamacpp", "vllm"):
        pages = iter([answer(*begun), answer(*rest)])
        page = lambda connection, pages=pages: next(pages)(connection)  # noqa: E731
        server.pages |= serving(owner, max_model_len=2048, chat=page)
        chat = start()
        assert chat.ask("Hi").thinking == "Let me"
        if owner == "vllm":
            with pytest.raises(NotSupported):
                chat.go_on()
            assert chat.conversation.turns()[-1].answer.thinking == "Let me"
            continue
        reply = chat.go_on()
        assert (reply.thinking, reply.text, reply.ended) == ("Let me see.", "Hello", "end")
        body = server.bodies()[-1]
        assert body["messages"][-1] == {
            "role": "assistant", "content": "", "reasoning_content": "Let me",
        }  # fmt: skip
        assert body["continue_final_message"] and not body["add_generation_prompt"]


@pytest.mark.parametrize("owner", DIALECTS)
def test_thinking_is_sent_back_in_the_field_of_the_kind(server, start, owner):
    server.pages |= serving(owner, max_model_len=2048)
    engine = start().engine
    before = [PromptMessage("user", "a"), PromptMessage("assistant", "b", "why")]
    engine.count(before)
    for _ in engine.reply(Request.by(Layers().resolve(), [*before, PromptMessage("user", "c")])):
        pass
    assert server.bodies()[-1]["messages"][1][DIALECTS[owner]] == "why"


def test_the_kind_of_a_server_is_discovered(server, start):
    assert start().engine.facts.kind.name == "OpenAI-compatible server"
    for owner, name in (("vllm", "vLLM"), ("sglang", "SGLang"), ("library", "Ollama")):
        server.pages |= serving(owner)
        assert start().engine.facts.kind.name == name
    server.pages |= serving("someone") | {"/api/v0/models": json_page({"data": []})}
    assert start().engine.facts.kind.name == "LM Studio"
    del server.pages["/api/v0/models"]
    server.pages["/extras/tokenize/count"] = json_page({"count": 1})
    assert start().engine.facts.kind.name == "llama-cpp-python"


def test_the_size_of_the_context_is_discovered(server, start):
    server.pages |= serving("vllm", max_model_len=2048)
    assert start().engine.size == 2048
    server.pages |= serving("library", "qwen3:4b") | {
        "/api/ps": json_page({"models": [{"name": "qwen3:4b", "context_length": 8192}]})
    }
    chat = start()
    assert chat.engine.size == 8192 and "drops the oldest" in said(chat) and "temp 1" in said(chat)
    server.pages |= serving("me")
    chat = start()
    assert chat.engine.size == 4096 and "4,096" in said(chat)
    chat = start(ctx_size=1000)
    assert chat.engine.size == 1000 and not chat.engine.counts


def test_chosen_settings_are_sent_in_the_fields_of_the_kind(server, start):
    server.pages |= serving("vllm", max_model_len=2048)
    start(temp=0.5, repeat_penalty=1.2, top_k=7).ask("Hi")
    (body,) = server.bodies()
    assert body["temperature"] == 0.5 and body["repetition_penalty"] == 1.2 and body["top_k"] == 7
    assert not {"top_p", "min_p", "chat_template_kwargs", "max_tokens"} & body.keys()
    server.pages |= serving("library")
    chat = start(top_k=7)
    chat.ask("Hi")
    assert "top_k" not in server.bodies()[-1] and "top_k" in said(chat)


def test_thinking_is_turned_off_in_the_field_of_the_kind(server, start):
    server.pages |= serving("vllm", max_model_len=2048)
    start(think="off").ask("Hi")
    assert server.bodies()[-1]["chat_template_kwargs"]["enable_thinking"] is False
    server.pages |= serving("library")
    start(think="off").ask("Hi")
    assert server.bodies()[-1]["reasoning_effort"] == "none"
    start(reasoning_effort="low").ask("Hi")
    assert server.bodies()[-1]["reasoning_effort"] == "low"


def test_constraints_are_sent_in_the_fields_of_the_kind(server, start):
    server.pages |= serving("vllm", max_model_len=2048)
    chat = start()
    chat.constraint = Constraint("regex", "[a-z]+", "The expression")
    chat.ask("Hi")
    assert server.bodies()[-1]["structured_outputs"] == {"regex": "[a-z]+"}
    chat.constraint = Constraint("grammar", 'root ::= "a"', "The grammar")
    with pytest.raises(NotSupported):
        chat.ask("Hi")


def test_vllm_counts_and_others_are_estimated(server, start):
    server.pages |= serving("vllm", max_model_len=2048)
    server.pages["/tokenize"] = json_page({"count": 77, "max_model_len": 2048})
    chat = start()
    assert chat.engine.counts and chat.engine.count([PromptMessage("user", "x")]) == 77
    del server.pages["/tokenize"]
    assert chat.engine.count([PromptMessage("user", "y" * 400)]) > 50
    server.pages |= serving("someone", chat=answer(*HELLO, usage(500, 3)))
    chat = start()
    chat.ask("word " * 400)
    assert chat.engine.used(chat.overflow.visible()) == 503  # learned from the usage


def test_an_estimate_is_marked_in_the_toolbar(server, start):
    server.pages |= serving("vllm", max_model_len=2048, chat=answer(*HELLO))
    chat = start()
    chat.ask("Hi")
    assert ToolbarText(chat)()[0][0].startswith("context about")
    server.pages["/v1/chat/completions"] = answer(*HELLO, usage(500, 3))
    chat = start()
    chat.ask("Hi")
    assert ToolbarText(chat)()[0][0].startswith("context 503/")


def test_cached_tokens_are_reported_if_the_server_tells_them(server, start):
    told = usage(100, 3, prompt_tokens_details={"cached_tokens": 64})
    stats = ask(server, start, *HELLO, told).stats
    assert (stats.prompt_tokens, stats.reused, stats.read) == (100, 64, 36)
    stats = ask(server, start, *HELLO, usage(100, 3)).stats
    assert (stats.prompt_tokens, stats.reused, stats.read) == (100, 0, 0)


# errors


def test_a_server_that_does_not_listen(start):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match=rf"127.0.0.1:{port}"):
        start(f"http://127.0.0.1:{port}")


def test_an_answer_without_a_finish_reason_is_broken_and_kept(server, start):
    server.pages["/v1/chat/completions"] = answer(delta("Hello"), "[DONE]")
    chat = start()
    reply = chat.ask("Hi")
    assert (reply.text, reply.ended) == ("Hello", "interrupted")
    assert isinstance(reply.notice, ConnectionLost)
    assert chat.conversation.turns()[-1].answer.ended == "interrupted"
    assert "/retry" in said(chat)
    assert len(server.bodies()) == 1  # an answer that has begun is not requested again


@pytest.mark.parametrize("begun", [True, False])
def test_a_connection_reset(server, start, begun):
    def page(connection):
        connection.head(Content_Type="text/event-stream")
        if begun:
            connection.events(delta("Hello"))
        connection.reset()

    server.pages["/v1/chat/completions"] = page
    chat = start()
    if begun:
        reply = chat.ask("Hi")
        assert (reply.text, reply.ended) == ("Hello", "interrupted")
        assert len(server.bodies()) == 1
    else:
        with pytest.raises(ServerError):
            chat.ask("Hi")
        assert len(server.bodies()) == retrying_client.TRIES


def test_a_connection_closed_before_an_answer_is_retried(server, start):
    pages = iter([lambda connection: None, lambda connection: connection.reset(), WHOLE])
    server.pages["/v1/chat/completions"] = lambda connection: next(pages)(connection)
    assert start().ask("Hi").text == "Hello there."


def stopped_soon(chat):
    """Ask, and stop after a moment, as Ctrl-C does. Returns the reply and the seconds it took."""
    chat.engine.load()  # an earlier task
    reply = chat.engine.reply(Request.by(chat.settings, [PromptMessage("user", "Hi")]))
    threading.Timer(0.3, chat.engine.stop).start()
    began = time.monotonic()
    for _ in reply:
        pass
    return reply, time.monotonic() - began


def test_a_stop_while_waiting_for_headers_and_in_a_stall(server, start):
    server.pages["/v1/chat/completions"] = lambda connection: connection.hang()
    reply, seconds = stopped_soon(start())
    assert reply.ended == "interrupted" and seconds < 3

    def stall(connection):
        connection.head(Content_Type="text/event-stream")
        connection.events(delta("Hello"))
        connection.hang()

    server.pages["/v1/chat/completions"] = stall
    reply, seconds = stopped_soon(start())
    assert (reply.text, reply.ended) == ("Hello", "interrupted") and seconds < 3


def test_text_before_a_pause_is_given_without_waiting_for_more(server, start):
    def page(connection):
        connection.head(Content_Type="text/event-stream")
        connection.events(delta("one"), delta(" two"), delta(" three"))
        connection.hang()

    server.pages["/v1/chat/completions"] = page
    chat = start()
    reply = chat.engine.reply(Request.by(chat.settings, [PromptMessage("user", "Hi")]))
    threading.Timer(10, chat.engine.stop).start()
    began, text = time.monotonic(), ""
    for item in reply:
        text += item.text if isinstance(item, Chunk) else ""
        if text == "one two three":
            break
    assert time.monotonic() - began < 8
    chat.engine.stop()


def test_a_stop_closes_the_connection(server, start):
    closed = threading.Event()

    def page(connection):
        connection.head(Content_Type="text/event-stream")
        connection.peer.recv(1)  # until the client closes
        closed.set()

    server.pages["/v1/chat/completions"] = page
    stopped_soon(start())
    assert closed.wait(5)


def test_garbage_is_not_an_answer(server, start):
    server.pages["/v1/chat/completions"] = answer(delta("Hello"), "{not json")
    assert start().ask("Hi").ended == "interrupted"
    server.pages["/v1/chat/completions"] = json_page(b"\xff\x00garbage")
    with pytest.raises(ServerError):
        start().ask("Hi")
    server.pages["/v1/chat/completions"] = json_page(
        b"<html>login</html>", Content_Type="text/html"
    )
    with pytest.raises(ServerError):
        start().ask("Hi")


def test_status_200_without_an_answer(server, start):
    server.pages["/v1/chat/completions"] = answer()
    with pytest.raises(ServerError):
        start().ask("Hi")


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "it broke", "code": 500}},
        {"error": "it broke"},
        {"object": "error", "message": "it broke"},
        {"detail": "it broke"},
    ],
)
@pytest.mark.parametrize("how", ["status", "event", "late event"])
def test_errors_of_every_shape(server, start, error, how):
    pages = {
        "status": json_page(error, 400),
        "event": answer(error),
        "late event": answer(delta("Hello"), error),
    }
    server.pages["/v1/chat/completions"] = pages[how]
    chat = start()
    if how == "late event":
        assert chat.ask("Hi").text == "Hello" and "it broke" in said(chat)
    else:
        with pytest.raises(ServerError, match="it broke"):
            chat.ask("Hi")
        assert not chat.conversation.turns()


def test_a_wrong_key(server, start):
    server.pages["/v1/models"] = json_page({"error": {"message": f"bad key {KEY}"}}, 401)
    with pytest.raises(ServerError, match="LCP_API_KEY") as caught:
        start()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("before", [(), (delta("Hello"),)])
@pytest.mark.parametrize("at", [0, 290])
def test_a_key_in_an_event_is_not_shown(server, start, before, at):
    event = {"error": {"message": f"{'x' * at} bad key {KEY}"}}
    server.pages["/v1/chat/completions"] = answer(*before, event)
    chat = start()
    try:
        why = chat.ask("Hi").notice.why
    except ServerError as error:
        why = str(error)
    assert KEY[:8] not in why + said(chat)


@pytest.mark.parametrize("at", ["?k=", f"?{'x' * 70}="])
def test_a_key_in_a_redirect_is_not_shown(server, start, at):
    server.pages["/v1/models"] = json_page({}, 307, Location=f"https://{KEY}.other/{at}{KEY}")
    with pytest.raises(ServerError) as caught:
        start()
    assert KEY[:8] not in str(caught.value) + str(caught.value.change)


def test_a_key_in_a_configured_header_is_not_shown():
    hide = http_client.HttpClient(parse("box"), "a+b/c", {"Authorization": f"Bearer {KEY}"}).hide
    assert hide(f"bad {KEY}, a+b/c, a%2Bb%2Fc") == "bad ***, ***, ***"


@pytest.mark.slow
def test_a_long_answer_of_a_server_that_does_not_tell_its_context(server, start):
    words = [delta(f"word {n} ") for n in range(6000)]
    server.pages["/v1/chat/completions"] = answer(*words, delta(ended="stop"))
    reply = start().ask("Hi")
    assert reply.ended == "end" and reply.text.endswith("word 5999 ")


def test_a_503_does_not_always_mean_loading(server, start):
    server.pages["/v1/models"] = json_page({"error": "maintenance"}, 503)
    with pytest.raises(ServerError, match="maintenance"):
        start()


@pytest.mark.parametrize(
    "proxy", ["u:secret@127.0.0.1:1", "socks5h://u:secret@127.0.0.1:1", "u:secret"]
)
def test_the_password_of_a_proxy_is_not_shown(start, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(LcpError, match="http_proxy") as caught:
        start("http://llm.example.com")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bad", [[1], "m", 3, True, None, {"params": [1]}])
def test_malformed_facts_cause_no_traceback(server, start, bad):
    names = ("default_generation_settings", "chat_template_caps", "total_slots")
    rows = [bad, {"id": bad, "id_task": bad}, {"id": 1, "id_task": None}]
    for owner in ("llamacpp", "library", "lmstudio", "vllm"):
        server.pages |= serving(owner, meta=bad, max_model_len=bad) | {
            "/props": json_page(dict.fromkeys(names, bad)),
            "/api/ps": json_page({"models": [bad, {"name": "m", "context_length": bad}]}),
            "/api/v0/models": json_page({"data": [bad, {"id": "m", "max_context_length": bad}]}),
            "/slots": json_page(rows),
            "/tokenize": json_page({"tokens": rows, "count": bad}),
        }
        engine = start().engine
        assert engine.size and engine.tokens("text") >= 1
        llama_server = LlamaServer(engine._http, replace(engine.facts, slots=2), dict)
        assert llama_server.slot() in (1, 3)  # 3: a row with a valid id


def test_lm_studios_trained_size_is_not_the_context(server, start):
    row = {"id": "m", "max_context_length": 131072}
    server.pages["/api/v0/models"] = json_page({"data": [row]})
    assert (start().engine.facts.size, start().engine.facts.trained) == (0, 131072)
    server.pages["/api/v0/models"] = json_page({"data": [row | {"loaded_context_length": 8192}]})
    assert start().engine.size == 8192


def test_an_empty_answer_of_a_server_that_does_not_tell_its_context(server, start):
    server.pages["/v1/chat/completions"] = answer()
    with pytest.raises(ServerError) as caught:
        start().ask("Hi")
    assert "ctx_size" in caught.value.change and len(server.bodies()) == 1


def test_the_error_counts_the_tokens_of_the_messages_only():
    message = (
        "This model's maximum context length is 4096 tokens. However, you requested 4100 tokens "
        "(3900 in the messages, 200 in the completion)."
    )
    told = error_in({"error": {"message": message}}, str)
    assert (told.tokens, told.size) == (3900, 4096)


def test_the_key_and_the_headers_are_sent(server, start):
    start(headers={"X-Team": "blue"}).ask("Hi")
    for asked in server.asked:
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert asked.headers["x-team"] == "blue"
        assert "x-conversation-id" not in asked.headers


def test_busy_servers_are_retried_after_their_delay(server, start):
    busy = json_page({"error": "slow down"}, 429, Retry_After="0")
    pages = iter([busy, json_page({}, 503, Retry_After="0"), WHOLE])
    server.pages["/v1/chat/completions"] = lambda connection: next(pages)(connection)
    assert start().ask("Hi").text == "Hello there."
    server.pages["/v1/chat/completions"] = json_page({}, 429, Retry_After="3600")
    with pytest.raises(ServerError):
        start().ask("Hi")


def test_lcp_waits_while_the_server_loads_its_model(server, start):
    loading = json_page({"error": {"message": "Loading model", "code": 503}}, 503, Retry_After="0")
    listed = server.pages["/v1/models"]
    pages = iter([loading, loading, listed])
    server.pages["/v1/models"] = lambda connection: next(pages)(connection)
    later = itertools.chain([loading] * 4, itertools.repeat(WHOLE))
    server.pages["/v1/chat/completions"] = lambda connection: next(later)(connection)
    assert start().ask("Hi").text == "Hello there."


def test_a_redirect_to_another_origin_is_not_followed(server, start):
    with ScriptedServer(serving()) as other:
        there = f"{other.address}/v1/models"
        server.pages["/v1/models"] = json_page({}, 307, Location=there)
        with pytest.raises(ServerError, match=other.address):
            start()
        assert not other.asked
    server.pages |= serving()
    server.pages["/v1/chat/completions"] = json_page({}, 308, Location="/here")
    server.pages["/here"] = WHOLE
    assert start().ask("Hi").text == "Hello there."
    server.pages["/here"] = json_page({}, 308, Location="/here")
    with pytest.raises(ServerError):
        start().ask("Hi")


def endless(connection):
    connection.head(Content_Type="application/json")
    while True:
        connection.send(b" " * 65536)


def test_a_short_answer_that_never_ends(server, start):
    server.pages["/v1/models"] = endless
    began = time.monotonic()
    with pytest.raises(ServerError):
        start()
    assert time.monotonic() - began < 10


def test_a_list_of_models_that_never_arrives(server, start, monkeypatch):
    monkeypatch.setattr(http_client, "ASK_S", 0.5)
    server.pages["/v1/models"] = lambda connection: connection.hang()
    with pytest.raises(ServerError):
        start()


def test_a_stream_that_never_ends_after_the_answer_is_closed(server, start):
    def page(connection):
        connection.head(Content_Type="text/event-stream")
        connection.events(*HELLO)
        connection.hang()

    server.pages["/v1/chat/completions"] = page
    reply = start().ask("Hi")
    assert (reply.text, reply.ended) == ("Hello there.", "end")


def test_an_answer_that_never_ends_is_stopped(server, start):
    def page(connection):
        connection.head(Content_Type="text/event-stream")
        for n in itertools.count():
            connection.events(delta(f"word {n} "))

    server.pages["/v1/chat/completions"] = page
    reply = start(max_tokens=5).ask("Hi")
    assert reply.ended == "interrupted" and reply.text.startswith("word 0")
    assert isinstance(reply.notice, ConnectionLost)


def test_a_line_that_never_ends_is_an_error(server, start, monkeypatch):
    monkeypatch.setattr("lcp.remote.events.LARGEST", 1 << 20)

    def page(connection):
        connection.head(Content_Type="text/event-stream")
        connection.events(delta("Hello"))
        while True:
            connection.send("data: " + "x" * 65536)

    server.pages["/v1/chat/completions"] = page
    assert start().ask("Hi").ended == "interrupted"


def test_an_answer_that_repeats_itself_is_stopped(server, start):
    server.pages["/v1/chat/completions"] = answer(*[delta("ha ")] * 400, delta(ended="stop"))
    reply = start().ask("Hi")
    assert reply.ended == "length" and len(reply.text) < 1000


def test_a_stop_string_across_events(server, start):
    server.pages["/v1/chat/completions"] = answer(
        delta("one E"), delta("ND two"), delta(ended="stop")
    )
    reply = start(stop="END").ask("Hi")
    assert (reply.text, reply.ended) == ("one ", "stop")


@pytest.mark.parametrize(
    ("told", "ended"),
    [({"stop_reason": None}, "end"), ({"stop_reason": 2}, "end"), ({"stop_reason": "END"}, "stop"),
     ({"matched_stop": "END"}, "stop"), ({}, "end")],
)  # fmt: skip
def test_stop_strings_are_sent_where_the_server_tells_whether_one_came(server, start, told, ended):
    last = delta(ended="stop")
    last["choices"][0] |= told
    server.pages |= serving("vllm", max_model_len=2048, chat=answer(delta("Hello"), last))
    reply = start(stop=("END", "THE END", ""), think="off").ask("Hi")
    assert (reply.text, reply.ended) == ("Hello", ended)
    assert server.bodies()[-1]["stop"] == ["END"]  # "THE END" comes after it
    start(stop="END").ask("Hi")  # it may think: the thinking may have the string
    server.pages |= serving("library")
    start(stop="END", think="off").ask("Hi")  # it does not tell
    assert not {"stop"} & (server.bodies()[-1].keys() | server.bodies()[-2].keys())


def test_escape_sequences_do_not_reach_the_terminal(server, start):
    evil = "\x1b]0;pwned\x07\x1b[2J\u202e"
    server.pages |= serving("someone", f"m{evil}", answer(delta("Hello"), {"error": evil}))
    chat = start()
    assert chat.ask("Hi").ended == "interrupted"
    for stream in (chat.screen._err.file, chat.screen._out.file):
        assert not {"\x1b", "\x07", "\u202e"} & set(stream.getvalue())


# too long


TOO_LONG = {
    "llama-server": {
        "error": {
            "code": 400, "message": "request (7083 tokens) exceeds the available context size",
            "type": "exceed_context_size_error", "n_prompt_tokens": 7083, "n_ctx": 4096,
        }
    },
    "vLLM": {
        "error": {
            "message": "You passed 7083 input tokens and requested 16 output tokens. However, "
            "the model's context length is only 4096 tokens, resulting in a maximum input "
            "length of 4080",
            "type": "BadRequestError", "code": 400,
        }
    },
    "SGLang": {
        "object": "error",
        "message": "The input (7083 tokens) is longer than the model's context length "
        "(4096 tokens).",
    },
    "llama-cpp-python": {
        "error": {
            "message": "This model's maximum context length is 4096 tokens. However, you requested "
            "7083 tokens (7000 in the messages, 83 in the completion).",
            "code": "context_length_exceeded",
        }
    },
    "LM Studio": {
        "error": "Trying to keep the first 7083 tokens when context the overflows. However, the "
        "model is loaded with context length of only 4096 tokens"
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOO_LONG)
@pytest.mark.parametrize("how", ["status", "event"])
def test_a_prompt_that_is_too_long_corrects_the_count_and_is_retried_once(server, start, kind, how):
    error = TOO_LONG[kind]
    refused = json_page(error, 400) if how == "status" else answer(error)
    chat = start(ctx_size=8192, max_tokens=64)
    for n in range(3):
        chat.ask(f"{n} " + "word " * 1000)
    pages = iter([refused, WHOLE])
    server.pages["/v1/chat/completions"] = lambda connection: next(pages)(connection)
    reply = chat.ask("And now?")
    assert reply.text == "Hello there." and chat.engine.size == 4096
    first, second = server.bodies()[-2:]
    assert len(second["messages"]) < len(first["messages"]) and "no longer sees" in said(chat)


def test_a_question_that_is_too_long_by_itself_is_refused(server, start):
    server.pages["/v1/chat/completions"] = json_page(TOO_LONG["vLLM"], 400)
    chat = start(ctx_size=8192)
    with pytest.raises(LcpError):
        chat.ask("word " * 4000)
    assert not chat.conversation.turns()
    with pytest.raises(LcpError):
        chat.ask("short")


# which model


def test_the_model_is_the_only_one_or_the_named_one(server, start):
    cards = [{"id": name, "owned_by": "vllm"} for name in ("big", "org/small")]
    server.pages["/v1/models"] = json_page({"data": cards})
    with pytest.raises(ChooseModel, match="big, org/small") as caught:
        start()
    assert caught.value.exit_code == 2
    assert start(f"{server.address}#small").model == f"{server.address}#org/small"
    with pytest.raises(ChooseModel):
        start(f"{server.address}#other")
    server.pages["/v1/models"] = json_page({"data": []})
    with pytest.raises(ServerError):
        start()
    del server.pages["/v1/models"]
    chat = start(f"{server.address}#m")
    chat.ask("Hi")
    assert server.bodies()[-1]["model"] == "m"


def test_no_proxy_for_this_computer(server, start, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert start().ask("Hi").text == "Hello there."


def test_chunks_have_their_number_of_tokens(server, start):
    items = []
    chat = start()
    request = Request.by(chat.settings, [PromptMessage("user", "Hi")])
    for item in chat.engine.reply(request):
        items.append(item)
    assert sum(item.tokens for item in items if isinstance(item, Chunk)) == 2
