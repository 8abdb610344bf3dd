"""Random chats: after any actions in any order, the cache holds what a new context would
have read, gives the same answers, and nothing is lost on the disk."""

import io
import random
import re
import shutil
import time
from datetime import datetime, timezone

import pytest
from fakes import weighed
from greedy import assert_says_what_a_fresh_one_says

from lcp.chat import saved_cache
from lcp.chat.chat import Chat
from lcp.chat.toolbar_text import ToolbarText
from lcp.engine import context
from lcp.engine.engine import LlamaEngine
from lcp.engine.llama_library import library
from lcp.engine_interface import Chunk
from lcp.errors import LcpError, SessionError, TooLong
from lcp.session.conversation import Conversation
from lcp.session.store import Store, load
from lcp.settings import Layers, Settings
from lcp.terminal.screen import Screen

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=timezone.utc)
SIZE = 512
WORDS = ["sea", "salt", "wind", "rope", "mast", "star", "deck", "gull", "tide", "fog"]
LAYERS = Layers(flags={"temp": 0, "max_tokens": 12, "kv_files": 64})
LONGER = Layers(flags={**LAYERS.flags, "max_tokens": 60})


class Life:
    """A chat, and everything that can happen to it."""

    def __init__(self, path, folder, seed, layers=LAYERS):
        self.path, self.folder, self.layers, self.size = path, folder, layers, SIZE
        self.drafted = 0
        self.random = random.Random(seed)
        self.moved = False  # something moved, so answers may differ
        self.not_said = set()  # edited answers, which no model would generate
        self.begin(None)

    def begin(self, id):
        store = Store(self.folder)
        if id is None:
            conversation = Conversation.begin(lambda: NOW, "tiny")
            log = store.create(conversation.opening)
        else:
            log, events, _ = store.open(id)
            conversation = Conversation.from_events(events)
        self.engine = LlamaEngine(self.path, Settings(ctx_size=self.size, threads=1), now=NOW)
        screen = Screen(io.StringIO(), io.StringIO())
        self.chat = Chat(self.engine, conversation, log, screen, "tiny", self.layers)
        self.chat.load(log.path.with_suffix(".kv"))
        self.chat.ready()

    # actions

    def ask(self):
        question = " ".join(self.random.choices(WORDS, k=self.random.randint(1, 30)))
        self.chat.ask(question)

    def ask_and_stop(self):
        reply_to = self.engine.reply
        left = self.random.randint(0, 8)

        def stopping(request):
            reply = reply_to(request)
            task = reply.task

            class Impatient:
                def __iter__(self):
                    seen = 0
                    for item in task:
                        seen += isinstance(item, Chunk)
                        if seen >= left:
                            engine.stop()
                        yield item

            reply.task = Impatient()
            return reply

        engine, self.engine.reply = self.engine, stopping
        try:
            self.ask()
        finally:
            del self.engine.reply

    def type_ahead(self):
        self.chat.look_ahead(" ".join(self.random.choices(WORDS, k=self.random.choice([6, 200]))))
        weighed(self.chat)
        time.sleep(self.random.random() / 20)

    def undo(self):
        self.do("undo", self.random.choice(["", "1", "2"]))

    def edit(self):
        self.do("edit", self.turn())
        self.ask()

    def retry(self):
        self.do("retry", self.turn())

    def edit_answer(self):
        """Other text is before the answer then, and it continues."""
        self.do("edit", "answer")
        self.do("continue", "")
        self.not_said.add(self.chat.conversation.turns()[-1].answer.id)

    def branch(self):
        self.do("branch", self.turn())

    def switch(self):
        leaves = self.chat.conversation.branches()
        self.do("branches", str(self.random.randint(1, len(leaves))) if leaves else "")

    def pin(self):
        self.do("pin", self.turn())

    def forget(self):
        self.do("forget", self.turn())

    def save_and_resume(self):
        monkey, saved_cache.WORTH_SAVING = saved_cache.WORTH_SAVING, 0.0
        try:
            saved_cache.save(self.chat)
        finally:
            saved_cache.WORTH_SAVING = monkey
        self.leave()
        self.size = self.random.choice([SIZE, SIZE, SIZE * 2, SIZE // 2])
        self.resume()

    def kill(self):
        """After kill -9, only the files are left."""
        self.folder.mkdir(exist_ok=True)
        copy = self.folder / "copy"
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("copy"))
        self.leave()
        for file in copy.iterdir():
            shutil.copy(file, self.folder / file.name)
        shutil.rmtree(copy)
        self.resume()

    def resume(self):
        log = self.chat.log  # without a question there is no file
        self.begin(log.id if log.path.exists() else None)

    def leave(self):
        self.chat.log.close()
        self.engine.close()

    def do(self, name, argument):
        from lcp import commands

        commands.run(self.chat, f"/{name} {argument}")

    def turn(self):
        return str(self.random.randint(1, max(1, len(self.chat.conversation.turns()))))

    # what must be true after each action

    def check(self, answered):
        """`answered`: the last action was an answer."""
        chat = self.chat
        chat.typed.drop()
        self.engine._ahead.rest()  # nothing may run while llama.cpp is used below
        self.engine._worker.submit(lambda emit: None).result()
        held = self.engine._loaded.context.tokens
        cells = self.engine._loaded.context._cells
        top = library().llama_memory_seq_pos_max(cells._memory, 0)
        assert len(cells.positions) == len(held)
        assert top == (cells.positions[-1] if held else -1)
        assert len(held) <= self.size
        self.check_figures(answered)
        self.check_log()
        if answered and chat.stats:
            self.drafted += chat.stats.drafted
            self.moved = chat.stats.moved > 0 or (self.moved and chat.stats.reused > 0)
        turns = chat.conversation.turns()
        if not answered or not turns or not turns[-1].answer or not turns[-1].answer.tokens:
            return
        said = turns[-1].answer
        # The cache begins with the rendered prompt of the window.
        visible = chat.overflow.visible()
        if visible and visible[-1].tokens == said.tokens and said.ended != "full":
            prompt = self.engine._loaded.writer.write(visible[:-1]).tokens
            if held[: len(prompt)] == prompt:  # the last command may have gone to another branch
                spoken = prompt + list(said.tokens)
                n = min(len(spoken), len(held))
                assert spoken[:n] == held[:n]
                if not self.moved and said.id not in self.not_said:
                    assert_says_what_a_fresh_one_says(self.engine.model, prompt, said.tokens)

    def check_log(self):
        """The log rebuilds the same conversation."""
        now = self.chat.conversation
        if self.chat.log.path.exists():
            events, unread = load(self.chat.log.path)
            again = Conversation.from_events(events)
            assert unread == 0
            assert (again.turns(), again.nodes) == (now.turns(), now.nodes)
            assert (again.pinned, again.forgotten) == (now.pinned, now.forgotten)

    def check_figures(self, answered):
        """The toolbar, /context and the statistics agree, and show at most 100 %."""
        chat = self.chat
        line = next(text for text, _ in ToolbarText(chat)() if text.startswith("context"))
        used, size, share = map(int, re.findall(r"\d+", line.replace(",", "")))
        assert used <= size == self.size
        assert share <= 100
        shares = dict(chat.overflow.shares(chat.settings))
        assert sum(shares.values()) == size
        assert used == shares["system"] + shares["pinned"] + shares["turns"]
        assert min(shares.values()) >= 0
        turns = chat.conversation.turns()
        hidden = turns and turns[-1].user.id in chat.conversation.forgotten  # and answered again
        if answered and turns and turns[-1].answer and not hidden:
            stats = turns[-1].answer.stats
            assert used == stats["ctx_used"]
            if chat.stats and chat.stats.ttft_s == stats["ttft_s"]:
                assert chat.stats.as_dict() == stats


OPERATIONS = [
    *["ask"] * 6, "ask_and_stop", "ask_and_stop", "type_ahead", "type_ahead", "undo", "edit",
    "retry", "retry", "edit_answer", "branch", "switch", "pin", "forget", "save_and_resume", "kill",
]  # fmt: skip

ANSWERS = ("ask", "ask_and_stop", "edit", "retry")


def live(path, folder, seed, steps, layers=LAYERS):
    """Run so many random actions. Returns how many tokens were drafted."""
    life = Life(path, folder, seed, layers)
    try:
        for _ in range(steps):
            operation = life.random.choice(OPERATIONS)
            answered = operation in ANSWERS
            try:
                getattr(life, operation)()
            except (TooLong, LcpError) as error:
                assert not isinstance(error, SessionError), error
                assert str(error).endswith(".")
                answered = False
            life.check(answered)
    finally:
        life.leave()
    return life.drafted


@pytest.fixture(autouse=True)
def half_the_cells_at_first(monkeypatch):
    """Every longer chat makes its context grow."""
    monkeypatch.setattr(context, "START", SIZE // 2)


@pytest.fixture(autouse=True)
def an_editor(tmp_path, monkeypatch):
    """It puts a word in front."""
    (tmp_path / "editor").write_text('#!/bin/sh\nprintf "salt %s" "$(cat "$1")" > "$1"\n')
    (tmp_path / "editor").chmod(0o700)
    monkeypatch.setenv("VISUAL", str(tmp_path / "editor"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "swa", "hybrid", "recurrent", "mrope"])
def test_200_random_chats(tiny, kind, tmp_path):
    for seed in range(100, 140):
        live(tiny(kind, quant="Q8_0"), tmp_path / f"{seed}", seed, 15)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dense", "mrope", "moe"])
def test_random_chats_with_drafts(tiny, kind, tmp_path):
    path = tiny(kind, quant="Q8_0", loops=True)
    assert sum(live(path, tmp_path / f"{seed}", seed, 15, LONGER) for seed in range(2))
