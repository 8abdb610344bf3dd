"""Random chats with a server: after any actions in any order, the server's cache gives
the same answer as a request without it, and nothing is lost on the disk."""

import io

import httpx2
import pytest
import test_random_chats as local
from llama_server import llama_server

from lcp.chat.chat import Chat
from lcp.remote.engine import RemoteEngine
from lcp.remote.request_body import messages
from lcp.servers.address import parse
from lcp.session.conversation import Conversation
from lcp.session.store import Store
from lcp.terminal.screen import Screen

SIZE = local.SIZE
CLOSE = 0.05  # natural logarithm: two tokens as likely as that may change places in another batch
an_editor = local.an_editor


class Life(local.Life):
    """A chat with a server, and everything that can happen to it."""

    def begin(self, id):
        store = Store(self.folder)
        if id is None:
            conversation = Conversation.begin(lambda: local.NOW, self.path)
            log = store.create(conversation.opening)
        else:
            log, events, _ = store.open(id)
            conversation = Conversation.from_events(events)
        self.engine = RemoteEngine(parse(self.path), self.layers.resolve())
        screen = Screen(io.StringIO(), io.StringIO())
        self.chat = Chat(self.engine, conversation, log, screen, self.path, self.layers)
        self.chat.load()
        self.chat.ready()

    def check(self, answered):
        chat = self.chat
        chat.typed.drop()
        self.engine.rest()
        self.engine._worker.submit(lambda emit: None).result()
        self.check_log()
        if answered and chat.stats:
            assert chat.stats.ctx_used <= chat.stats.ctx_size == SIZE
            assert chat.stats.read + chat.stats.reused == chat.stats.prompt_tokens
            self.moved = chat.stats.moved > 0 or (self.moved and chat.stats.reused > 0)
        turns = chat.conversation.turns()
        said = turns[-1].answer if turns else None
        asked = chat.overflow.visible()[:-1]
        if not answered or self.moved or not said or not said.content or not asked:
            return
        if said.id in self.not_said or turns[-1].user.content != asked[-1].content:
            return
        if said.ended in ("length", "end"):
            self.check_fresh(asked, said.content)

    def check_fresh(self, asked, said):
        """Without the cache, the server gives the same answer, except for near ties."""
        facts = self.engine.facts
        body = {
            "messages": messages(facts.kind, asked), "temperature": 0, "max_tokens": 12,
            "cache_prompt": False, "logprobs": True, "top_logprobs": 2,
        }  # fmt: skip
        choice = httpx2.post(f"{self.path}/v1/chat/completions", json=body, timeout=60).json()
        choice = choice["choices"][0]
        fresh, said = (text.rstrip("\ufffd") for text in (choice["message"]["content"], said))
        # A stream lacks an incomplete character at its end.
        if not fresh.startswith(said) or len(fresh) - len(said) > 4:
            rows = [row["top_logprobs"] for row in choice["logprobs"]["content"]]
            margins = [row[0]["logprob"] - row[1]["logprob"] for row in rows if len(row) == 2]
            assert min(margins, default=1) < CLOSE, (said, fresh)
        self.compared += 1

    compared = 0


@pytest.mark.slow
def test_random_chats_with_a_server(tiny, tmp_path, monkeypatch):
    """The answers are compared with those of requests that use no cache."""
    monkeypatch.setattr(local, "Life", Life)
    compared = []
    monkeypatch.setattr(Life, "leave", leaving(Life.leave, compared))
    with llama_server(tiny("dense", quant="Q8_0"), SIZE, "-b", "64") as address:
        for seed in range(4):
            local.live(address, tmp_path / f"{seed}", seed, 15)
    assert sum(compared) > 4


def leaving(leave, compared):
    """Count what was compared when a life ends."""

    def left(life):
        compared.append(life.compared)
        life.compared = 0
        leave(life)

    return left
