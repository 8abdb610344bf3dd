"""A chat as a person experiences it: each test runs in this process and in a real terminal."""

import io
import json
import os
import signal
from contextlib import nullcontext

import pytest
from fakes import Said, ScriptedEngine, new_chat
from terminal import (
    ALT_ENTER,
    CTRL_C,
    CTRL_D,
    CTRL_J,
    ENTER,
    NOW,
    InProcess,
    Scene,
    ScriptedPty,
    in_both,
)

from lcp import commands
from lcp.chat import saved_cache
from lcp.chat.chat import Chat
from lcp.chat.input_loop import InputLoop
from lcp.engine_notices import ThinkingEnded
from lcp.errors import LcpError, NotSupported
from lcp.session.conversation import Conversation
from lcp.session.store import Store
from lcp.settings import Layers
from lcp.terminal.keyboard import TypedLine
from lcp.terminal.screen import Screen
from lcp.worker import Task

ENDLESS = Said("Once upon a time", forever=True)
PASTE = "\x1b[200~{}\x1b[201~"


def said(terminal, type="answer"):
    return [event["text"] for event in terminal.events() if event["type"] == type]


@in_both("Hello there.", "I am fine.")
def test_a_question_gets_an_answer_and_the_chat_continues(chat):
    chat.type("Hi." + ENTER)
    chat.sees("Hello there.")
    chat.type("How are you?" + ENTER)
    chat.sees("I am fine.")
    chat.ends()
    assert said(chat, "user") == ["Hi.", "How are you?"]
    assert said(chat) == ["Hello there.", "I am fine."]


@in_both()
def test_ctrl_d_on_an_empty_line_ends_the_chat(chat):
    chat.type(CTRL_D)
    assert chat.leaves() == 0


@in_both()
def test_exit_ends_the_chat(chat):
    chat.type("/exit" + ENTER)
    assert chat.leaves() == 0


@in_both("Never asked.")
def test_an_empty_line_is_ignored(chat):
    chat.type(ENTER + "   " + ENTER + "/stats" + ENTER)
    chat.sees("There is no answer yet.")


@in_both(ENDLESS, "Here again.")
def test_ctrl_c_during_an_answer_keeps_the_chat_and_the_partial_answer(chat):
    chat.type("A story." + ENTER)
    chat.sees("Once upon a time")
    chat.type(CTRL_C)
    chat.sees("(/continue)")
    chat.type("Still here?" + ENTER)
    chat.sees("Here again.")
    chat.ends()
    answer = next(event for event in chat.events() if event["type"] == "answer")
    assert (answer["text"], answer["ended"]) == ("Once upon a time", "interrupted")


@pytest.mark.slow
@in_both(Said(reading=True, forever=True), "Here again.")
def test_ctrl_c_while_the_prompt_is_read_keeps_the_chat(chat):
    chat.type("word " * 100 + ENTER)
    chat.sees("reading 50 %")
    chat.type(CTRL_C)
    chat.type("Still here?" + ENTER)
    chat.sees("Here again.")
    assert "reading" not in chat.screen()
    assert "stopped (/retry)" in chat.screen()  # there is nothing to continue
    chat.ends()
    assert said(chat) == ["", "Here again."]


@pytest.mark.slow
@in_both(ENDLESS, "You typed ahead.")
def test_text_typed_during_an_answer_is_in_the_next_line(chat):
    chat.type("A story." + ENTER)
    chat.sees("Once upon a time")
    chat.type("before, ")
    chat.type(CTRL_C)
    chat.type("and after")
    chat.sees("> before, and after")
    chat.type(ENTER)
    chat.sees("You typed ahead.")
    chat.ends()
    assert said(chat, "user") == ["A story.", "before, and after"]


@in_both(ENDLESS, "You typed ahead.")
def test_a_line_entered_during_an_answer_is_sent_after_it(chat):
    chat.type("A story." + ENTER)
    chat.sees("Once upon a time")
    chat.type("Next!" + ENTER)
    chat.type(CTRL_C)
    chat.sees("You typed ahead.")
    assert chat.screen().count("Next!") == 1
    chat.ends()
    assert said(chat, "user") == ["A story.", "Next!"]


@pytest.mark.parametrize("new_line", [ALT_ENTER, CTRL_J], ids=["Alt-Enter", "Ctrl-J"])
@in_both("Two lines.")
def test_a_key_inserts_a_line_break_without_sending(chat, new_line):
    chat.type("one" + new_line + "two" + ENTER)
    chat.sees("Two lines.")
    chat.ends()
    assert said(chat, "user") == ["one\ntwo"]


@in_both("Pasted.")
def test_pasted_lines_are_not_sent(chat):
    chat.type(PASTE.format("def f():\r    return 1\r"))
    chat.sees("return 1")
    chat.type("What is this?" + ENTER)
    chat.sees("Pasted.")
    chat.ends()
    assert said(chat, "user") == ["def f():\n    return 1\nWhat is this?"]


@pytest.mark.slow
@in_both("One.", "Two.", "Three.", "Four.")
def test_ctrl_c_while_editing_a_question_keeps_the_conversation(chat):
    chat.type("First?" + ENTER)
    chat.sees("One.")
    chat.type("Second?" + ENTER)
    chat.sees("Two.")
    chat.type("/edit 1" + ENTER)
    chat.waits(lambda: chat.screen().count("> First?") == 2, "not offered")
    chat.type(CTRL_C)
    chat.sees("as it was before /edit")
    chat.type("Third?" + ENTER)
    chat.sees("Three.")
    chat.type("/edit" + ENTER)
    chat.waits(lambda: chat.screen().count("> Third?") == 2, "not offered")
    chat.type(" Really?" + ENTER)
    chat.waits(lambda: chat.screen().count("tokens/s") == 4, "not answered")
    chat.type(CTRL_C)  # the message was sent: nothing is taken back
    chat.ends()
    parents = {e["id"]: e["parent"] for e in chat.events()}
    _, two, three, four = (e for e in chat.events() if e["type"] == "answer")
    assert parents[three["parent"]] == parents[four["parent"]] == two["id"]
    assert chat.events()[-1] == four


@in_both("Asked.")
def test_ctrl_c_at_the_prompt_clears_the_line(chat):
    chat.type("not this")
    chat.sees("> not this")
    chat.type(CTRL_C + "but this" + ENTER)
    chat.sees("> but this")
    assert "not this" not in chat.screen()
    chat.sees("Asked.")
    chat.waits(lambda: chat.screen().endswith("(0 %)\n\n>"), "there is no next prompt")
    assert "leaves." not in chat.screen()
    chat.type(CTRL_C)
    chat.sees("Ctrl-D or /exit leaves.")
    chat.ends()
    assert said(chat, "user") == ["but this"]


@in_both("Asked.")
def test_ctrl_d_on_a_line_with_text_does_not_end_the_chat(chat):
    chat.type("still here" + CTRL_D + ENTER)
    chat.sees("Asked.")
    chat.ends()
    assert said(chat, "user") == ["still here"]


@in_both(Said("Four.", thinking="Two and two."), Said("Nine.", thinking="Three times three."))
def test_thinking_folds_to_one_line_unless_it_is_hidden(chat):
    chat.type("2 + 2?" + ENTER)
    chat.sees(" s\nFour.")
    assert "\nthought for " in chat.screen()
    assert "Two and two." not in chat.screen()
    chat.type("/set think hide" + ENTER)
    chat.sees("hide")
    chat.type("3 * 3?" + ENTER)
    chat.sees("Nine.")
    assert chat.screen().count("thought for ") == 1
    chat.ends()
    assert chat.events()[-1]["thinking"] == "Three times three."


@in_both(Said("Four.", thinking="Two and two."), Said("Nine.", thinking="Three times three."))
def test_think_show_unfolds_thinking_for_good(chat):
    chat.type("2 + 2?" + ENTER)
    chat.sees("Four.")
    assert "Two and two." not in chat.screen()
    chat.type("/think show" + ENTER)
    chat.sees("Thinking: on (shown whole)\nTwo and two.\n")
    chat.type("3 * 3?" + ENTER)
    chat.sees("> 3 * 3?\nThree times three.\n\nNine.")


@pytest.mark.slow
@in_both("Short enough.", size=64)
def test_a_question_that_is_too_long_returns_to_the_input_line(chat):
    chat.type("word " * 60 + ENTER)
    chat.sees("60 tokens, room for 48")
    chat.waits(lambda: chat.screen().count("> word word") == 2, "it is not offered again")
    chat.type(CTRL_C + "word" + ENTER)
    chat.sees("Short enough.")
    chat.ends()
    assert said(chat, "user")[-1] == "word"


@in_both("a " * 20, "b " * 20, "c.", size=64)
def test_turns_that_leave_the_window_are_announced(chat):
    chat.type("one" + ENTER + "two" + ENTER)
    chat.sees("b b b")
    chat.type(("three " * 10) + ENTER)
    chat.sees("c.")
    chat.sees("no longer sees your first turn")
    chat.ends()
    assert chat.events()[-1]["stats"]["dropped_turns"] == 1


@in_both("Wide.", "Narrow.")
def test_a_narrower_terminal_gets_narrower_tables(chat):
    chat.type("Hi." + ENTER)
    chat.sees("Wide.")
    chat.resize(40, 24)
    chat.type("/help retry" + ENTER)
    chat.sees("See also")
    chat.type("Hi." + ENTER)
    chat.sees("Narrow.")
    assert "answer" in chat.screen() and max(map(len, chat.screen().split("\n"))) <= 40


@in_both("First.", "Second.")
def test_an_unwritable_folder_is_reported_once_and_the_chat_continues(chat):
    (chat.home / "data").write_text("a file where the folder should be")
    chat.type("One?" + ENTER)
    chat.sees("First.")
    chat.type("Two?" + ENTER)
    chat.sees("Second.")
    chat.ends()
    assert chat.screen().count("This chat is no longer saved") == 1


@in_both("First.", saved=False)
def test_a_chat_that_is_not_saved_leaves_no_file(chat):
    chat.type("One?" + ENTER)
    chat.sees("First.")
    chat.ends()
    assert not (chat.home / "data" / "sessions").exists()


def test_a_full_disk_is_reported_once_and_the_chat_continues(tmp_path):
    import resource

    def body(chat):
        chat.type("One?" + ENTER)
        chat.sees("First.")
        chat.type("Two?" + ENTER)
        chat.sees("Second.")
        chat.ends()
        assert chat.screen().count("This chat is no longer saved (File too large") == 1
        assert "Two?" not in chat.log()

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # room for the first question; its answer is larger
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        InProcess(Scene(["First. " * 100, "Second."]), tmp_path).live(body)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# requests to the engine


def a_chat(*answers, layers=None, **scene):
    return new_chat(ScriptedEngine(*answers, **scene), layers, now=lambda: NOW, screen=Screen())


def asked(chat):
    return [(m.role, m.content) for m in chat.engine.asked[-1].messages]


def test_the_model_sees_all_earlier_messages():
    chat = a_chat("Hello.", "Good.")
    chat.conversation.set_system("Be kind.")
    chat.ask("Hi.")
    chat.ask("How are you?")
    assert asked(chat) == [
        ("system", "Be kind."),
        ("user", "Hi."),
        ("assistant", "Hello."),
        ("user", "How are you?"),
    ]
    assert chat.engine.asked[-1].messages[2].tokens == (0,)  # the sampled ids


def test_the_request_has_the_chosen_settings():
    flags = {"temp": "0", "seed": "5", "max_tokens": "9", "stop": ["END"], "think": "off"}
    chat = a_chat("Hello.", layers=Layers(flags=flags))
    chat.ask("Hi.")
    request = chat.engine.asked[-1]
    assert (request.sampling.temp, request.sampling.seed) == (0, 5)
    assert (request.max_tokens, request.stop, request.thinking_tokens) == (9, ("END",), 0)
    assert chat.engine.variables["enable_thinking"] is False


def test_a_retry_repeats_the_request_and_keeps_both_answers():
    chat = a_chat("No.", "Yes.")
    chat.ask("Really?")
    commands.run(chat, "/retry")
    assert asked(chat) == [("user", "Really?")]
    assert [m.content for m in chat.conversation.nodes.values()] == ["Really?", "No.", "Yes."]
    assert chat.conversation.turns()[-1].answer.content == "Yes."


def test_an_answer_during_which_the_window_slides_is_one_message(capsys):
    chat = a_chat(Said("It is", ended="full", notice=ThinkingEnded(5)), Said(" Rome."))
    assert chat.ask("Where is it?").text == "It is Rome."
    assert "5 tokens" in capsys.readouterr().err


def test_a_failed_question_is_not_in_the_next_prompt():
    chat = a_chat("Fine.", size=64)
    with pytest.raises(LcpError, match="room for 48"):
        chat.ask("word " * 60)
    assert chat.conversation.turns() == []
    chat.ask("word")
    assert asked(chat) == [("user", "word")]


def test_ctrl_c_during_an_answer_interrupts_the_reply(monkeypatch):
    chat = a_chat(ENDLESS)
    signal.setitimer(signal.ITIMER_REAL, 0.5)  # a person, a moment later
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        reply = chat.ask("A story.")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (reply.text, reply.ended) == ("Once upon a time", "interrupted")


def test_an_error_while_loading_does_not_end_the_chat(capsys):
    class Person:
        ahead = kept = nullcontext
        lines = iter([TypedLine("/nothing", is_command=True)])

        def read(self, text):
            for line in self.lines:
                return line
            raise EOFError

    chat = a_chat()
    chat.loading = Task(lambda emit: None)  # it has not begun
    InputLoop(chat, Person(), commands.run).run()
    assert "There is no command /nothing." in capsys.readouterr().err


def test_ctrl_c_while_loading_returns_the_question_to_the_input_line():
    class Loading:
        done, error = False, None

        def call_when_done(self, tell):
            pass

        def __iter__(self):
            raise KeyboardInterrupt

    lines, offered = ["Why?", "Why so?"], []

    class Person:
        ahead = kept = nullcontext

        def read(self, text):
            offered.append(text)
            if len(offered) == 2:
                chat.loading = None  # it has been loaded in the meantime
            if lines:
                return TypedLine(lines.pop(0))
            raise EOFError

    chat = a_chat("Because.")
    chat.loading = Loading()
    InputLoop(chat, Person(), commands.run).run()
    assert offered == ["", "Why?", ""]
    assert asked(chat) == [("user", "Why so?")]  # not both of them


def test_a_question_that_edit_offers_is_not_read_ahead():
    """The turns after it would leave the cache and be read again after Ctrl-C."""

    class Person:
        ahead = kept = nullcontext
        lines = iter([TypedLine("One?"), TypedLine("Two?"), TypedLine("/edit 1", is_command=True)])

        def read(self, text):
            for line in self.lines:
                return line
            if text:
                looked.append(chat.engine.looked)
                raise KeyboardInterrupt
            raise EOFError

    looked = []
    chat = a_chat()
    InputLoop(chat, Person(), commands.run).run()
    assert looked == [None]  # and nothing else either
    assert len(chat.conversation.turns()) == 2


def test_rereading_a_resumed_chat_is_announced(capsys):
    chat = a_chat("One.", "Two.")
    chat.ask("word " * 60)
    chat.stats = None  # as in another program
    chat.engine.cached = 100
    capsys.readouterr()
    chat.ask("And now?")
    assert "re-read 61 tokens" in capsys.readouterr().err


# signals, in a real terminal

TERMINATING = [(signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), TERMINATING)
def test_a_signal_at_the_prompt_restores_the_terminal(tmp_path, number, code):
    with ScriptedPty(Scene([]), tmp_path) as chat:
        chat.sees(">")
        chat.type("half a line")
        chat.sees("half a line")
        assert chat.modes() != chat.modes_before
        chat.kill(number)
        assert chat.leaves() == code
        assert chat.modes() == chat.modes_before


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), TERMINATING)
def test_a_signal_during_an_answer_saves_the_partial_answer(tmp_path, number, code):
    with ScriptedPty(Scene([ENDLESS]), tmp_path) as chat:
        chat.sees(">")
        chat.type("A story." + ENTER)
        chat.sees("Once upon a time")
        assert chat.modes() != chat.modes_before
        chat.kill(number)
        assert chat.leaves() == code
        assert chat.modes() == chat.modes_before
        assert said(chat) == ["Once upon a time"]
        assert chat.events()[-1]["ended"] == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("leave", [CTRL_D, "/exit" + ENTER, "A story." + ENTER])
def test_the_chat_restores_the_terminal_at_its_end(tmp_path, leave):
    with ScriptedPty(Scene([ENDLESS]), tmp_path) as chat:
        chat.sees(">")
        chat.type(leave)
        if "story" in leave:
            chat.sees("Once upon a time")
            chat.type(CTRL_C + CTRL_D)
        assert chat.leaves() == 0
        assert chat.modes() == chat.modes_before


@pytest.mark.slow
def test_closing_the_terminal_during_an_answer_saves_the_partial_answer(tmp_path):
    with ScriptedPty(Scene([ENDLESS]), tmp_path) as chat:
        chat.sees(">")
        chat.type("A story." + ENTER)
        chat.sees("Once upon a time")
        chat.hang_up()
        chat.leaves()
        assert said(chat) == ["Once upon a time"]


@pytest.mark.slow
def test_a_kill_loses_only_the_unfinished_answer(tmp_path):
    with ScriptedPty(Scene(["Hello.", ENDLESS]), tmp_path) as chat:
        chat.sees(">")
        chat.type("Hi." + ENTER)
        chat.sees("Hello.")
        chat.type("A story." + ENTER)
        chat.sees("Once upon a time")
        chat.kill(signal.SIGKILL)
        assert chat.leaves() == -signal.SIGKILL
        kept = [json.dumps(event) for event in chat.events()]
    assert said(chat, "user") == ["Hi.", "A story."]
    assert said(chat) == ["Hello."]
    conversation = Conversation.from_events(map(json.loads, kept))
    assert conversation.turns()[-1].user.content == "A story."
    assert conversation.turns()[-1].answer is None


# unsupported features of an engine


def test_a_chat_works_with_an_engine_that_saves_no_cache(tmp_path):
    class Forgetful(ScriptedEngine):
        restore = ScriptedEngine.save

        def seconds_to_read(self, n):
            return 99.0  # a cache would be worth saving

    conversation = Conversation.begin(lambda: NOW, "scripted")
    with Store(tmp_path).create(conversation.opening) as log:
        chat = Chat(Forgetful("Hello."), conversation, log, Screen(), "scripted", Layers())
        chat.load(tmp_path / "some.kv")
        assert chat.ask("Hi.").text == "Hello."
        saved_cache.save(chat)
    assert not list(tmp_path.glob("*.kv"))


class Caching(ScriptedEngine):
    """Its KV cache has 3 MiB, or `fails` to be saved."""

    def __init__(self, saving=None):
        super().__init__()
        self.saving = saving

    def seconds_to_read(self, n):
        return 99.0

    def save(self, path):
        def job(_):
            if self.saving:
                raise self.saving
            return path.write_bytes(bytes(3 << 20))

        task = Task(job)
        task.run()
        return task


@pytest.mark.parametrize(
    ("mib", "fails", "kept"),
    [(3, None, True), (2, None, False), (3, MemoryError(), False), (3, OSError("full"), False)],
)
def test_a_cache_is_called_saved_only_if_it_is_kept(tmp_path, mib, fails, kept):
    told, other = io.StringIO(), tmp_path / "other.kv"
    other.write_bytes(bytes(1 << 20))
    chat = new_chat(
        Caching(fails),
        Layers(flags={"kv_files": mib}),
        store=Store(tmp_path),
        screen=Screen(err=told),
    )
    chat.ask("Hi.")
    saved_cache.save(chat)
    assert chat.log.path.with_suffix(".kv").exists() is kept
    assert other.exists() is not kept  # it makes room for a newer one only
    assert ("is saved" in told.getvalue()) is kept
    assert ("is not saved" in told.getvalue()) is not kept


@pytest.mark.parametrize(("cached", "left"), [(0, 123), (100, 23), (123, 0), (9999, 0)])
def test_a_saved_cache_tells_how_many_tokens_resuming_reads(tmp_path, cached, left, monkeypatch):
    monkeypatch.setattr(saved_cache, "REREAD", 0)
    told = io.StringIO()
    chat = new_chat(Caching(), store=Store(tmp_path), screen=Screen(err=told))
    chat.ask("Hi.")
    chat.engine.cached, chat.engine.used = cached, lambda messages: 123
    saved_cache.save(chat)
    assert (f"reads only {left} tokens" if left else "reads nothing") in told.getvalue()


def test_an_emptied_chat_keeps_no_cache(tmp_path):
    chat = new_chat(Caching(), store=Store(tmp_path))
    chat.ask("Hi.")
    cache = chat.log.path.with_suffix(".kv")
    cache.write_bytes(b"older")
    chat.engine.seconds_to_read = lambda n: n * 10.0
    chat.go(None)  # /clear
    saved_cache.save(chat)
    assert not cache.exists()


def test_an_older_cache_that_cannot_be_removed_stays(tmp_path):
    chat = new_chat(ScriptedEngine(), Layers(), store=Store(tmp_path))
    chat.ask("Hi.")
    (cache := chat.log.path.with_suffix(".kv")).mkdir()
    chat.engine.seconds_to_read = lambda n: 0.1  # reading it again is no work
    saved_cache.save(chat)
    assert cache.exists()


@pytest.mark.parametrize("line", ["/tokens", "/probs"])
def test_an_unsupported_command_shows_the_engines_error(line):
    chat = a_chat("Hello.")
    chat.ask("Hi.")
    with pytest.raises(NotSupported):
        commands.run(chat, line)


def test_the_speed_test_runs_only_in_a_persons_chat():
    class Person:
        ahead = kept = nullcontext
        lines = iter([TypedLine("Hello", is_command=False)])

        def read(self, text):
            for line in self.lines:
                return line
            raise EOFError

    chat = a_chat()
    chat.ask("A script asks.")
    assert chat.engine.measured == 0
    InputLoop(chat, Person(), commands.run).run()
    assert chat.engine.measured == 1
