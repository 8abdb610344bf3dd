"""The server of llama-cpp-python: it sends no counts, ends a chat that is too long without an
error, and cannot continue."""

import pytest
from fakes import server_chats
from llama_server import python_server

from lcp.errors import LcpError, ServerError

SIZE = 256
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(smollm2):
    with python_server(smollm2, SIZE) as address:
        yield address


@pytest.fixture
def start(address):
    with server_chats(address, temp=0, max_tokens=8, ctx_size=SIZE) as begin:
        yield begin


def test_an_answer_and_the_next_turn(start):
    chat = start()
    assert chat.engine.facts.kind.name == "llama-cpp-python" and not chat.engine.counts
    first = chat.ask("Tell me about Paris.")
    assert first.ended == "length" and first.stats.reply_tokens == 8 and first.text
    assert chat.ask("And London?").text
    assert start().ask("Tell me about Paris.").text == first.text


def test_a_truncated_answer_cannot_continue(start):
    chat = start()
    cut = chat.ask("Tell me about Paris.").text
    with pytest.raises(LcpError):
        chat.go_on()
    assert chat.conversation.turns()[-1].answer.content == cut


def test_estimates_keep_a_long_chat_in_the_window(start):
    chat = start(max_tokens=4)
    for n in range(4):
        reply = chat.ask(f"{n}. Tell me about the sea and the ships and the people there. " * 4)
        assert reply.ended in ("length", "end")
    assert len(chat.overflow.unseen())


def test_a_prompt_that_is_too_long_is_an_error_and_not_a_turn(start):
    chat = start(ctx_size=4096)
    with pytest.raises(ServerError):
        chat.ask("Tell me about the sea. " * 100)
    assert not chat.conversation.turns()
    assert chat.ask("Hi").text
