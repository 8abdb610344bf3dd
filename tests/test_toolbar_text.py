"""The toolbar: what it shows, and what fits."""

import pytest
from fakes import ScriptedEngine, new_chat, weighed
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.utils import get_cwidth
from terminal import NOW

from lcp import commands
from lcp.chat.overflow import Overflow
from lcp.chat.toolbar_text import ToolbarText
from lcp.chat.typed_message import EXACT
from lcp.engine.engine import LlamaEngine
from lcp.engine_interface import Stats
from lcp.errors import TemplateError
from lcp.session.log import Log
from lcp.settings import Layers, Settings
from lcp.terminal.screen import Screen
from lcp.terminal.toolbar import fitting
from lcp.worker import Task


class Reading(ScriptedEngine):
    """An engine that has read 3 of 12 tokens ahead."""

    ahead = (3, 12)


class Refusing(ScriptedEngine):
    """An engine whose template refuses all messages."""

    def count(self, messages):
        raise TemplateError("It refuses.")


def a_chat(*answers, engine=ScriptedEngine, size=100):
    return new_chat(engine(*answers, size=size), model="models/scripted", screen=Screen())


def typed(chat, text, status=None):
    """The toolbar after this text was typed and counted."""
    chat.look_ahead(text)
    weighed(chat)
    return (status or ToolbarText(chat))()


def test_the_toolbar_shows_the_state():
    chat = a_chat("three words more", engine=Reading)
    status = ToolbarText(chat)
    assert status()[0] == ("context 0/100 (0 %)", "")
    chat.ask("one two")
    assert [text for text, _ in status()] == [
        "context 5/100 (5 %)",
        "reading ahead 3/12 tokens",
        "scripted",
        "20.0 tokens/s",
        "not saved",
    ]


def test_the_meter_counts_the_typed_text():
    chat = a_chat("three words more", size=1000)
    chat.ask("one two")
    assert typed(chat, "word " * 745)[0] == ("context 5+745/1,000 (75 %)", "warn")
    assert typed(chat, "word " * 99)[0] == ("context 5/1,000 (0 %)", "")


def test_the_meter_never_exceeds_the_window():
    """Turns that do not fit leave with the next question; until then, it shows 100 %."""
    chat = a_chat("word " * 40, size=30)
    chat.ask("one two")
    assert ToolbarText(chat)()[0] == ("context 30/30 (100 %)", "bad")


@pytest.mark.parametrize("max_tokens", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_all_views_show_the_tokens_in_the_cache(smollm2, capsys, max_tokens):
    """An answer that filled the window once showed 519 of 512: its end marks were counted."""
    layers = Layers(flags={"temp": "0", "max_tokens": max_tokens, "overflow": "stop"})
    settings = Settings(ctx_size=256, threads=1)
    with LlamaEngine(smollm2, settings, now=NOW) as engine:
        chat = new_chat(engine, layers, "real", now=lambda: NOW, screen=Screen())
        chat.load()
        chat.ask("Tell me a very long story of two brothers and a dragon, in ten chapters.")
        held, answer = engine.cached, chat.conversation.turns()[-1].answer
        used = int(ToolbarText(chat)()[0][0].split()[1].split("/")[0].replace(",", ""))
        assert held <= used <= min(held + 4, 256)  # the end of the turn is not read yet
        assert sum(n for name, n in chat.overflow.shares(chat.settings)[:3]) == used
        chat.say_status()
        assert f"context {used}/256" in capsys.readouterr().err
        assert answer.ended == ("length" if max_tokens else "full")


def test_the_toolbar_shows_the_name_of_the_chat(tmp_path):
    chat = a_chat()
    chat.log = Log(tmp_path / "20261122-0931-tail.jsonl")
    assert ToolbarText(chat)()[-1] == ("20261122-0931-tail", "")
    chat.keep(chat.conversation.rename("llamas"))
    assert ToolbarText(chat)()[-1] == ("llamas", "")
    chat.log.problem = "The disk is full."
    assert ToolbarText(chat)()[-1] == ("not saved", "")


def test_the_toolbar_shows_how_much_of_the_model_is_loaded():
    chat = a_chat()
    chat.model = "models/scripted.gguf"
    chat.loading = Task(lambda _: None)
    chat.engine.loaded = 0.434
    assert ToolbarText(chat)() == [("loading scripted (43 %)", "")]
    chat.loading.run()
    chat.loading = None
    assert ("scripted", "") in ToolbarText(chat)()


def test_the_files_of_a_message_are_counted_while_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("one two")
    (tmp_path / "b.txt").write_text("three " * 500)
    (tmp_path / "big.txt").write_text("12 " * (EXACT // 3))
    (tmp_path / "photo").write_bytes(b"\0")
    (tmp_path / "src").mkdir()
    chat = a_chat(size=200_000)
    status = ToolbarText(chat)

    def first(text):
        return typed(chat, text, status)[0]

    assert first("see @a.txt") == ("a.txt: 7 bytes, 5 tokens", "")
    assert first("see @a.txt @b.txt") == ("2 files: 3.01 kB, 508 tokens", "")
    said, style = first("see @big.txt @a.txt")
    assert (said[:26], style) == ("2 files: 262 kB, about 87,", "")
    assert first("see @photo @a.txt")[1] == "bad"
    assert first("see @src")[1] == first("see @b/c.txt, please")[1] == "warn"
    assert "@src/*" in first("see @src")[0]
    assert "b/c.txt" in first("see @b/c.txt, please")[0]
    assert first("@someone said")[0].startswith("context")
    chat.read_ahead = False
    assert first("see @a.txt") == ("a.txt: 7 bytes, 5 tokens", "")
    assert first("")[0].startswith("context")


@pytest.mark.parametrize(("words", "style"), [(74, ""), (75, "warn"), (89, "warn"), (90, "bad")])
def test_the_meter_has_another_colour_when_the_window_is_nearly_full(words, style):
    chat = a_chat()
    chat.keep(chat.conversation.set_system("word " * words))
    assert ToolbarText(chat)()[0] == (f"context {words}/100 ({words} %)", style)


def test_the_meter_goes_back_with_the_conversation():
    chat = a_chat("three words more")
    status = ToolbarText(chat)
    chat.ask("one two")
    assert status()[0][0].startswith("context 5/100")
    commands.run(chat, "/undo")
    assert status()[0][0].startswith("context 0/100")


@pytest.mark.parametrize(
    ("size", "figure"),
    [
        (40, "context 20/40 (50 %)"),  # two turns and the next answer fit
        (100, "context 60/100 (60 %)"),  # as it was
        (400, "context 60/400 (15 %)"),
    ],
)
def test_a_chat_that_is_resumed_in_another_window_shows_what_fits_there(size, figure):
    before = a_chat(*["five words are in this"] * 6)
    for _ in range(6):
        before.ask("five words are in this")
    chat = a_chat(size=size)
    chat.conversation = before.conversation
    chat.overflow = Overflow(chat.engine, chat.conversation)
    assert ToolbarText(chat)()[0][0] == figure


def test_turns_that_were_out_of_a_smaller_window_count_in_a_larger_one():
    before = a_chat(*["five words are in this"] * 4, size=40)
    for _ in range(4):
        before.ask("five words are in this")
    assert before.overflow.out
    chat = a_chat(size=400)
    chat.conversation = before.conversation
    chat.overflow = Overflow(chat.engine, chat.conversation)
    assert ToolbarText(chat)()[0][0] == "context 40/400 (10 %)"


def test_a_template_that_does_not_work_costs_only_the_number():
    chat = a_chat(engine=Refusing)
    chat.keep(chat.conversation.ask("Hi."))
    assert ToolbarText(chat)()[0] == ("context 0/100 (0 %)", "")


@pytest.mark.slow
def test_an_idle_chat_is_not_counted_again():
    """It was computed from all turns eight times a second: 6 % of a core for 500 turns."""
    chat = a_chat("Fine.", size=100_000)
    for _ in range(500):
        chat.ask("Hi.")
    status, looked = ToolbarText(chat), []
    for name in ("visible", "turns"):
        method = getattr(chat.overflow, name)
        setattr(chat.overflow, name, lambda *a, method=method: looked.append(1) or method(*a))
    first = status()
    assert looked
    looked.clear()
    assert all(status() is first for _ in range(5))
    assert not looked


@pytest.mark.parametrize(
    "change",
    [
        lambda chat: chat.keep(chat.conversation.ask("Hi.")),
        lambda chat: chat.keep(chat.conversation.set_system("Be brief.")),
        lambda chat: chat.keep(chat.conversation.rename("llamas")),
        lambda chat: setattr(chat, "model", "models/other"),
        lambda chat: setattr(chat, "stats", Stats(tokens_per_second=20.0)),
        lambda chat: setattr(chat.engine, "ahead", (3, 12)),
        lambda chat: setattr(chat.log, "problem", "The disk is full."),
        lambda chat: typed(chat, "word " * 200),
        lambda chat: setattr(chat, "loading", Task(lambda _: None)),
    ],
)
def test_every_change_is_shown(tmp_path, change):
    class Moving(ScriptedEngine):
        ahead = (0, 0)

    chat = a_chat(engine=Moving, size=1000)
    chat.log = Log(tmp_path / "20261122-0931-tail.jsonl")
    status = ToolbarText(chat)
    before = status()
    change(chat)
    assert status() != before


# what fits


def shown(parts, columns):
    return "".join(text for _, text in fitting(parts, columns))


def test_the_last_parts_are_dropped_first():
    parts = [("context 5/100", "warn"), ("a model", ""), ("20 tokens/s", "")]
    assert shown(parts, 80) == "context 5/100 · a model · 20 tokens/s"
    assert shown(parts, 38) == "context 5/100 · a model · 20 tokens/s"
    assert shown(parts, 37) == "context 5/100 · a model"
    assert shown(parts, 20) == "context 5/100"
    assert shown(parts, 10) == "context …"
    assert fitting(parts, 80)[0] == ("", "")
    assert ("class:state.warn", "context 5/100") in fitting(parts, 80)


def test_nothing_in_the_toolbar_can_act_on_the_terminal():
    assert shown([("\x1b[2J\nmodel", "")], 80) == "␛[2J model"


@pytest.mark.slow
@given(st.lists(st.tuples(st.text("ab 世界\n\x1b", max_size=30), st.just(""))), st.integers(2, 60))
def test_the_toolbar_is_never_wider_than_the_terminal(parts, columns):
    assert get_cwidth(shown(parts, columns)) < columns
