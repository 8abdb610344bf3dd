"""/model and /open: another model, or another saved chat, in the running program."""

import io
import json
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest
from fakes import ScriptedEngine
from terminal import ENTER, NOW, Pty

from lcp import commands
from lcp.chat import model_switch
from lcp.chat.chat import Chat
from lcp.chat.input_loop import InputLoop
from lcp.chat.services_interface import FoundModel, Services
from lcp.chat.toolbar_text import ToolbarText
from lcp.engine.engine import LlamaEngine
from lcp.engine_interface import PromptMessage
from lcp.errors import LcpError, ModelError, ModelNotFound, NotEnoughMemory
from lcp.session.conversation import Conversation
from lcp.session.store import Store, load
from lcp.settings import Layers
from lcp.terminal.keyboard import TypedLine
from lcp.terminal.screen import Screen
from lcp.worker import Task

PLENTY, LITTLE = 1 << 40, 20  # bytes of memory; a model's file has 8


@dataclass
class World:
    """A chat with the model "old" and its services. `life` records which engines start and end."""

    folder: object
    free: int = PLENTY
    scripts: dict = field(default_factory=dict)  # model -> the engines it gets, in order
    recommended: dict = field(default_factory=dict)
    life: list = field(default_factory=list)
    engines: list = field(default_factory=list)
    flags: dict = field(default_factory=dict)

    def __post_init__(self):
        self.store = Store(self.folder / "sessions", now=lambda: NOW)
        self.services = Services(
            find=self.find,
            models=lambda: {"old": "", "new": "Q4_0 98 MB"},
            engine=self.engine,
            free_memory=lambda: self.free,
            store=self.store,
        )
        conversation = Conversation.begin(lambda: NOW, "old")
        log = self.store.create(conversation.opening)
        screen = Screen(io.StringIO(), io.StringIO())
        first = self.engine(self.find("old"), None, NOW)
        self.chat = Chat(
            first,
            conversation,
            log,
            screen,
            "old",
            Layers(flags=self.flags),
            services=self.services,
        )

    def find(self, name):
        if name not in ("old", "new", "third"):
            raise ModelNotFound(f"There is no model called {name}.")
        path = self.folder / f"{name}.gguf"
        path.write_bytes(b"GGUF....")
        return FoundModel(name, path, self.recommended.get(name, {}))

    def engine(self, found, settings, now):
        script = self.scripts.setdefault(found.name, [])
        engine = script.pop(0) if script else ScriptedEngine(*[f"I am {found.name}."] * 9)
        close, load = engine.close, engine.load

        def closing():
            if not engine.closed:
                self.life.append(f"-{found.name}")
            close()

        def loading(constraint=None, saved=None):
            self.life.append(f"+{found.name}")
            return load(constraint)

        engine.close, engine.load = closing, loading
        self.engines.append((engine, settings, now))
        return engine

    def does(self, line):
        """Run a command and return what it prints."""
        self.chat.screen._err.file.seek(0)
        self.chat.screen._err.file.truncate()
        came = commands.run(self.chat, line)
        assert came is None or isinstance(came, Chat)
        self.chat = came or self.chat
        return self.chat.screen._err.file.getvalue()

    def refuses(self, line):
        """The error of a refused command, which must not change the chat."""
        before = dict(vars(self.chat))
        with pytest.raises(LcpError) as error:
            commands.run(self.chat, line)
        after = dict(vars(self.chat))
        if self.free != PLENTY:  # then the old model was loaded again
            for name in ("engine", "overflow", "stats", "_restoring"):
                del before[name], after[name]
        assert after == before
        return str(error.value)

    def events(self, type):
        return [e for e in load(self.chat.log.path)[0] if e["type"] == type]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    worlds = []

    def make(**more):
        worlds.append(World(tmp_path, **more))
        return worlds[-1]

    yield make
    for world in worlds:
        model_switch.close(world.chat)


def said(engine):
    return [m.content for m in engine.asked[-1].messages]


# /model


def test_model_without_arguments_lists_the_models(world):
    assert world().does("/model") == "*  old\n   new  Q4_0 98 MB\n"


def test_a_model_given_by_path_is_listed(world):
    here = world()
    here.chat.model = "/elsewhere/odd.gguf"
    assert here.does("/model").splitlines()[-1] == "*  /elsewhere/odd.gguf"


def test_the_next_answer_reads_the_conversation_with_the_new_model(world):
    here = world()
    here.chat.ask("Who are you?")
    assert "Switched to new" in here.does("/model new")
    here.chat.ask("And now?")
    assert said(here.chat.engine) == ["Who are you?", "I am old.", "And now?"]
    assert [e["model"] for e in here.events("answer")] == ["old", "new"]
    assert here.life == ["+new", "-old"]  # the old one was kept until the new one was loaded


def test_a_chat_resumes_with_the_model_it_switched_to(world):
    here = world()
    here.chat.ask("Hi.")
    here.does("/model new")
    assert [e["model"] for e in here.events("set")] == ["new"]
    again = Conversation.from_events(load(here.chat.log.path)[0])
    assert (again.model, again.settings) == ("new", {})


def test_recommended_settings_apply_only_to_their_model(world):
    here = world(recommended={"new": {"temp": 0.1, "top_k": 5}}, flags={"top_k": 7})
    here.does("/model new")
    assert (here.chat.settings.sampling.temp, here.chat.settings.sampling.top_k) == (0.1, 7)
    assert here.engines[-1][1].sampling.temp == 0.1
    here.does("/model third")
    assert here.chat.settings.sampling.temp == 0.8


def test_the_new_model_knows_when_the_conversation_began(world):
    here = world()
    here.does("/model new")
    assert here.engines[-1][2] == here.chat.conversation.created == NOW


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("nwe", "nwe"),
        ("old", "/model"),
    ],
)
def test_an_unknown_model_changes_nothing(world, name, fact):
    here = world()
    here.chat.ask("Hi.")
    assert fact in here.refuses(f"/model {name}")
    assert here.life == []


def broken(error=ModelError):
    return ScriptedEngine(fails=error("It cannot be loaded. Try another."))


def test_with_enough_memory_a_failed_switch_keeps_the_old_model_loaded(world):
    here = world(scripts={"new": [broken()]})
    here.chat.ask("Hi.")
    engine = here.chat.engine
    assert here.refuses("/model new") == "It cannot be loaded. Try another."
    assert (here.chat.engine, engine.closed) == (engine, False)
    assert here.life == ["+new", "-new"]
    here.chat.ask("And now?")
    assert said(engine) == ["Hi.", "I am old.", "And now?"]
    assert here.events("set") == []


@pytest.mark.parametrize("free", [LITTLE, None])
def test_with_little_memory_the_old_model_is_freed_first_and_reloaded_after_a_failure(world, free):
    here = world(scripts={"new": [broken(NotEnoughMemory)]}, free=free)
    here.chat.ask("Hi.")
    assert here.refuses("/model new") == "It cannot be loaded. Try another."
    assert here.life == ["-old", "+new", "-new", "+old"]
    here.chat.ask("And now?")
    assert said(here.chat.engine) == ["Hi.", "I am old.", "And now?"]
    here.does("/model new")
    assert here.life[4:] == ["-old", "+new"]


def test_if_memory_runs_out_the_old_model_is_freed(world):
    here = world(scripts={"new": [broken(NotEnoughMemory), ScriptedEngine("I fit.")]})
    here.does("/model new")
    assert here.life == ["+new", "-new", "-old", "+new"]
    assert here.chat.ask("Hi.").text == "I fit."


def test_if_no_model_can_be_loaded_the_chat_ends(world):
    here = world(free=LITTLE, scripts={"new": [broken()]})
    here.scripts["old"] = [broken()]
    with pytest.raises(ModelError):
        commands.run(here.chat, "/model new")
    assert here.chat.loading is not None  # so the loop of the chat ends


def test_the_toolbar_counts_with_the_new_model(world):
    here = world()
    status = ToolbarText(here.chat)
    here.chat.ask("Hi.")
    before = status()[0]
    here.scripts["new"] = [ScriptedEngine(size=8)]
    here.scripts["new"][0].count = lambda messages: 7
    here.does("/model new")
    status = ToolbarText(here.chat)
    assert (before[0], status()[0][0]) == ("context 4/4,096 (0 %)", "context 7/8 (88 %)")


class Slow(ScriptedEngine):
    """A model that loads until it is stopped."""

    def load(self, constraint=None, saved=None):
        def job(_):
            while not self.stopped:
                time.sleep(0.01)
            raise ModelError("Loading was stopped. Start again to load it.")

        task = Task(job)
        threading.Thread(target=task.run).start()
        threading.Timer(0.5, os.kill, (os.getpid(), self.signal)).start()
        return task


@pytest.mark.parametrize("free", [PLENTY, LITTLE])
def test_ctrl_c_while_switching_keeps_the_old_model(world, free):
    slow = Slow()
    slow.signal = signal.SIGINT
    here = world(scripts={"new": [slow]}, free=free)
    here.chat.ask("Hi.")
    assert here.refuses("/model new").startswith("Loading was stopped.")
    assert here.chat.ask("And now?").text == "I am old."
    assert slow.closed


def test_sigterm_while_loading_ends_the_chat(world):
    slow = Slow()
    slow.signal = signal.SIGTERM
    here = world(scripts={"new": [slow]})
    log = here.chat.log
    with pytest.raises(SystemExit) as left:
        commands.run(here.chat, "/model new")
    assert (left.value.code, slow.closed, here.chat.log) == (143, True, log)


# /open


def another(here, *questions, name="", model="old", **settings):
    """Another saved chat; its id."""
    chat = Conversation.begin(lambda: NOW, model)
    with here.store.create(chat.opening) as log:
        for question in questions:
            log.append(chat.ask(question))
            facts = {"ended": "end", "sampling": {}, "seed": 1, "stats": {}}
            log.append(chat.answer(f"Said to {question}", model=model, **facts))
        if name:
            log.append(chat.rename(name))
        if settings:
            log.append(chat.set(**settings))
    return log.id


def test_resume_switches_to_another_chat(world):
    here = world()
    here.chat.ask("Hi.")
    left, kv = here.chat.log, here.chat.log.path.with_suffix(".kv")
    kv.write_bytes(b"of an older state")
    id = another(here, "Why?", "And then?", name="why")
    text = here.does("/open why")
    assert f"Resumed {id} (2 turns) · why · Why?\n\n> And then?\n\n" in text
    assert here.chat.screen._out.file.getvalue().endswith("Said to And then?\n")
    here.chat.ask("So?")
    assert said(here.chat.engine)[-1] == "So?"
    assert said(here.chat.engine)[:2] == ["Why?", "Said to Why?"]
    assert (here.chat.log.id, len(here.events("answer"))) == (id, 3)
    assert here.chat.engine.restored == here.chat.log.path.with_suffix(".kv")
    assert not kv.exists()  # a useless cache is not kept, as at the end of a chat
    log, events, notices = here.store.open(left.id)  # it is not locked any more
    log.close()
    assert (notices, [e["type"] for e in events]) == ([], ["begin", "user", "answer"])


def test_settings_belong_to_their_chat(world):
    here = world(flags={"top_k": 7})
    here.does("/set temp 0.5")
    another(here, "Why?", name="why", min_p=0.2, horoscope="good")
    here.does("/open why")
    sampling = here.chat.settings.sampling
    assert (sampling.temp, sampling.min_p, sampling.top_k) == (0.8, 0.2, 7)
    assert here.chat.settings.sources["min_p"] == "conversation"


def test_a_chat_whose_model_is_missing_names_the_next_step(world):
    here, conversation = world(), Conversation.begin(lambda: NOW, "gone")
    with here.store.create(conversation.opening) as log:
        log.append(conversation.ask("Hi."))
    assert f"lcp chat --resume {log.id} -m NAME" in here.refuses(f"/open {log.id}")


def test_resume_loads_the_model_of_the_chat(world):
    here = world()
    another(here, "Why?", name="why", model="new")
    here.does("/open why")
    assert (here.chat.model, here.life) == ("new", ["+new", "-old"])


@pytest.mark.parametrize(
    ("argument", "fact"),
    [
        ("", "/open NAME or ID"),
        ("OWN", "already open"),
        ("nowhere", "'nowhere'"),
        ("lost", "gone"),
        ("broken", "It cannot be loaded. Try another."),
    ],
)
def test_a_failed_resume_changes_nothing(world, argument, fact):
    here = world(scripts={"new": [broken()]})
    here.chat.ask("Hi.")
    ids = {name: another(here, "Why?", name=name, model=model)
           for name, model in (("lost", "gone"), ("broken", "new"))}  # fmt: skip
    argument = here.chat.log.id if argument == "OWN" else argument
    assert fact in here.refuses(f"/open {argument}")
    here.chat.ask("And now?")
    assert len(here.events("answer")) == 2
    for id in ids.values():
        log, _, notices = here.store.open(id)  # and it is not locked
        log.close()
        assert notices == []


def test_with_no_save_a_resumed_chat_is_not_written(world):
    here = world()
    here.chat.log.close()
    here.chat.log = type(here.chat.log).nowhere()
    id = another(here, "Why?")
    before = here.store.find(id).read_bytes()
    here.does(f"/open {id}")
    here.chat.ask("So?")
    assert here.store.find(id).read_bytes() == before


def test_a_chat_that_is_open_elsewhere_continues_in_a_copy(world):
    here = world()
    id = another(here, "Why?", name="why")
    log, _, _ = here.store.open(id)
    with log:
        text = here.does("/open why")
        assert f"The chat {id} is open in another lcp" in text
        assert here.chat.conversation.name == ""  # the other chat keeps the name
        here.chat.ask("So?")
    assert here.chat.log.id != id


# real models


@pytest.fixture
def two(tiny, tmp_path):
    """A chat with a real tiny model, and a second model."""
    models = {"one": tiny("dense"), "two": tiny("swa"), "broken": tmp_path / "broken.gguf"}
    models["broken"].write_bytes(b"GGUF" + bytes(100))
    services = Services(
        find=lambda name: FoundModel(name, models[name]),
        engine=lambda found, s, now: LlamaEngine(found.path, s, now=now),
        free_memory=lambda: PLENTY,
        store=Store(tmp_path / "sessions"),
    )
    conversation = Conversation.begin(lambda: NOW, "one")
    layers = Layers(flags={"temp": 0, "max_tokens": 4, "ctx_size": 512, "threads": 1})
    screen = Screen(io.StringIO(), io.StringIO())
    log = services.store.create(conversation.opening)
    engine = services.engine(services.find("one"), layers.resolve(), NOW)
    chat = Chat(engine, conversation, log, screen, "one", layers, services=services)
    chat.load()
    yield chat
    model_switch.close(chat)


def test_real_models_answer_in_turn_in_one_conversation(two):
    first = two.ask("The sea is wide and the wind is strong.")
    made_by = two.engine.identity
    two = commands.run(two, "/model two")
    assert two.engine.identity != made_by
    second = two.ask("And the ship?")
    assert second.stats.reused == 0  # nothing from another model's cache
    third = two.ask("And the gulls?")
    assert third.stats.reused >= second.stats.prompt_tokens
    answers = [e for e in load(two.log.path)[0] if e["type"] == "answer"]
    assert [e["model"] for e in answers] == ["one", "two", "two"]
    assert [e["text"] for e in answers] == [first.text, second.text, third.text]
    # a model that reads it all for the first time gives the same answer
    services, now = two.services, two.conversation.created
    with services.engine(services.find("two"), two.settings, now) as fresh:
        fresh.load().result()
        request = two.conversation.turns()[:-1]
        messages = [m for t in request for m in (t.user, t.answer)]
        assert fresh.count([PromptMessage(m.role, m.content) for m in messages]) > 0


def test_a_broken_file_keeps_the_real_model_loaded(two):
    before = two.ask("The sea is wide and the wind is strong.")
    with pytest.raises(ModelError):
        commands.run(two, "/model broken")
    after = two.ask("And the ship?")
    assert after.stats.reused >= before.stats.prompt_tokens
    assert two.conversation.model == "one"


def test_a_resumed_chat_loads_its_kv_cache(two):
    """Nothing of it is read again."""
    before = two.ask("The sea is wide and the wind is strong.")
    two.engine.save(two.log.path.with_suffix(".kv")).result()
    first, conversation = two.log.id, Conversation.begin(lambda: NOW, "one")
    with two.services.store.create(conversation.opening) as log:
        log.append(conversation.ask("Another one?"))
    kept = two.log.path.with_suffix(".kv").read_bytes()
    two = commands.run(two, f"/open {log.id}")  # such a short chat leaves no cache
    two.services.store.find(first).with_suffix(".kv").write_bytes(kept)
    commands.run(two, "/retry")
    two = commands.run(two, f"/open {first}")
    after = two.ask("And the ship?")
    assert after.stats.reused >= before.stats.prompt_tokens


def test_the_loop_continues_with_the_chat_that_a_command_returns(world):
    here, lines = world(), ["/model\u00a0new", "Who are you?", "/model\told", "And you?"]

    class Person:
        ahead = kept = nullcontext

        def read(self, text):
            if not lines:
                raise EOFError
            return TypedLine(lines[0], is_command=lines.pop(0).startswith("/"))

    first = here.chat
    talk = InputLoop(here.chat, Person(), commands.run)
    talk.run()
    here.chat = talk.chat
    assert talk.chat is not first and talk.chat.model == "old"
    assert [e["model"] for e in here.events("answer")] == ["new", "old"]


@pytest.mark.slow
def test_switching_and_resuming_in_a_terminal(home, tiny, tmp_path):
    (home / "data" / "models").mkdir(parents=True)
    for name, kind in (("one", "dense"), ("two", "swa")):
        (home / "data" / "models" / f"{name}.gguf").write_bytes(tiny(kind).read_bytes())
    command = [sys.executable, "-m", "lcp", "chat", "-n", "3", "--seed", "1"]
    with Pty(*command, "one", home=home) as chat:
        chat.sees("one · /help")
        chat.sees("\n>")
        chat.type("Hello there." + ENTER)
        chat.sees("tokens/s")
        chat.type("/save greeting" + ENTER)
        chat.sees("This chat is now called greeting")
        chat.ends()
    with Pty(*command, "two", home=home) as chat:
        chat.sees("\n>")
        chat.type("/open greeting" + ENTER)
        chat.sees("Resumed ")
        chat.sees("\n> Hello there.\n")
        chat.type("/model two" + ENTER)
        chat.sees("Switched to two")
        chat.type("And now?" + ENTER)
        chat.waits(lambda: chat.screen().count("tokens/s") >= 1, "no answer")
        chat.ends()
    (path,) = (home / "data" / "sessions").glob("*.jsonl")
    events = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    answers = [e["model"] for e in events if e["type"] == "answer"]
    assert answers == ["one", "two"]
    with Pty(*command[:4], "--resume", "greeting", home=home) as chat:
        chat.sees("two · /help")
        chat.sees("\n> And now?\n")
        chat.sees("context ")
        chat.ends()


def test_tab_offers_models_and_gguf_files_after_model(world, tmp_path, monkeypatch):
    here = world()
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for name in ("mine.GGUF", "notes.txt", "sub/deep.gguf"):
        (folder / name).touch()
    _, candidates = commands.completions(lambda: here.chat)["model"]

    def offered(begun):
        return [word if isinstance(word, str) else word[0] for word in candidates(begun)]

    assert offered("") == ["old", "new", "mine.GGUF", "sub/"]
    assert "sub/deep.gguf" in offered("sub/")
