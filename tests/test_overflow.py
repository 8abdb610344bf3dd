"""Which part of a conversation the model sees if it is larger than the window."""

import re
from datetime import datetime, timezone
from itertools import count, pairwise

import pytest
from fakes import Words
from hypothesis import given, settings
from hypothesis import strategies as st

from lcp.chat import window_notices
from lcp.chat.error_advice import with_advice
from lcp.chat.overflow import CONDENSE, Overflow
from lcp.engine_interface import Progress, PromptMessage, room_in
from lcp.errors import TooLong
from lcp.session.conversation import Conversation
from lcp.settings import Settings

NOW = datetime(2026, 11, 22, 9, 31, tzinfo=timezone.utc)
POLICIES = ["slide", "summarize", "truncate", "stop"]


class Measured(Words):
    """An engine that has read before, so that its speed is known."""

    leaves_holes = False

    def seconds_to_read(self, n):
        return n / 100


class Scene:
    """A conversation, its engine, and the Overflow that fits it into the context.

    The words of turn 3 are "3.0 3.1 3.2 ...", so that a window shows what it kept.
    """

    def __init__(self, size=400, **choices):
        ids = (f"id{n}" for n in count())
        self.chat = Conversation.begin(lambda: NOW, "scripted", new_id=lambda: next(ids))
        self.engine = Measured(size)
        self.settings = Settings(**choices)
        self.overflow = Overflow(self.engine, self.chat)
        self.condensed = []

    def ask(self, words, condense=None):
        """Ask a question. Returns its window."""
        self.chat.ask(self.text(len(self.chat.turns()), 0, words))
        return self.fit(condense)

    def answer(self, words, **facts):
        last = self.chat.turns()[-1].user.content.split()
        said = self.text(len(self.chat.turns()) - 1, len(last), words)
        usual = {"ended": "end", "model": "scripted", "sampling": {}, "seed": 1}
        usual |= {"stats": {}, "out": sorted(self.overflow.out)}
        return self.chat.answer(said, **{**usual, **facts})

    def turns(self, *sizes, condense=None):
        """Add turns of so many words, half of them in the answer. Returns the last window."""
        for words in sizes:
            window = self.ask(words - words // 2, condense)
            self.answer(words // 2)
        return window

    def fit(self, condense=None, **more):
        return self.overflow.fit(self.settings, condense or self.note, **more)

    def note(self, asked, covers):
        """The model summarizes."""
        self.condensed.append((asked, self.numbers(covers)))
        self.chat.summarize(f"Note {len(self.condensed)}.", covers)
        return True

    def id(self, n):
        return self.chat.turns()[n].user.id

    def numbers(self, ids):
        """The numbers of these turns."""
        return [n for n, turn in enumerate(self.chat.turns()) if turn.user.id in ids]

    @staticmethod
    def text(turn, begin, words):
        return " ".join(f"{turn}.{n}" for n in range(begin, begin + words))


def said(messages):
    return [(m.role, m.content) for m in messages]


def shown(messages):
    """The numbers of the turns whose words are in the messages."""
    words = {word for m in messages for word in re.findall(r"(\d+)\.\d", m.content)}
    return sorted(map(int, words))


def stopped(asked, covers):
    """The person does not wait for the note."""
    return False


@pytest.mark.parametrize("policy", POLICIES)
def test_a_chat_that_fits_is_sent_whole(policy):
    scene = Scene(overflow=policy)
    scene.chat.set_system("Be brief.")
    window = scene.turns(20, 20, 20)
    assert [m.role for m in window.messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert (window.out, window.newly_out, window.tokens) == (frozenset(), (), 52)
    assert scene.overflow.visible()[:-1] == window.messages
    assert (len(scene.overflow.unseen()), scene.condensed) == (0, [])


# slide


def test_the_oldest_turns_leave_until_an_eighth_of_the_window_is_free():
    scene = Scene(400)  # room for 300, an eighth is 50
    scene.turns(100, 100, 60)
    window = scene.ask(80)
    assert (window.newly_out, window.tokens) == ((scene.id(0),), 240)
    assert shown(window.messages) == [1, 2, 3]
    assert scene.overflow.visible() == window.messages
    assert scene.overflow.out == window.out == {scene.id(0)}
    assert len(scene.overflow.unseen()) == 1


def test_a_slide_says_what_the_model_no_longer_sees_and_how_to_keep_it():
    scene = Scene(400)
    scene.turns(100, 100, 60)
    window = scene.ask(80)
    told = window_notices.reading(scene.overflow, window, Progress(160, 150, 80, 80), 0.2, 260)
    assert "first turn" in told and "/pin 1" in told
    scene.answer(1)
    window = scene.ask(150)
    told = window_notices.reading(scene.overflow, window, Progress(160, 150, 80, 80), 0.2, 260)
    assert "your first 3 turns" in told


def test_a_slide_names_the_turns_where_a_pinned_one_stays_between_them():
    scene = Scene(400)
    scene.turns(60, 30, 60, 100)
    scene.chat.pin(scene.id(1))
    window = scene.ask(150)
    told = window_notices.reading(scene.overflow, window, Progress(160, 150, 80, 80), 0.2, 260)
    assert "turns 1, 3" in told


def test_a_notice_says_if_only_the_question_is_left():
    scene = Scene(400)
    scene.chat.set_system("Be brief.")
    scene.turns(100, 100)
    window = scene.ask(290)
    told = window_notices.reading(scene.overflow, window, Progress(2, 0, 290, 290), 0.2, 202)
    assert "only this question" in told


def test_rereading_after_a_slide_is_announced_with_its_tokens():
    scene = Scene(400)
    scene.turns(100, 100, 60)
    window = scene.ask(80)  # 160 of history, 80 of question
    told = window_notices.reading(scene.overflow, window, Progress(7, 0, 233, 233), 38.77, 260)
    assert "re-read 153 tokens" in told
    assert "38.8 s" in told
    told = window_notices.reading(scene.overflow, window, Progress(160, 0, 80, 80), 0.2, 260)
    assert "re-read" not in told, "a question is new"
    told = window_notices.reading(scene.overflow, window, Progress(7, 0, 233, 233, 150), 9, 260)
    assert "re-read 153 tokens" in told and "no longer had them" in told


def test_a_slide_happens_every_few_turns():
    scene = Scene(400)
    slides = [bool(scene.turns(20).newly_out) for _ in range(40)]
    assert 6 <= sum(slides) <= 12
    assert (True, True) not in set(pairwise(slides))


def test_a_longer_answer_limit_leaves_more_room():
    scene = Scene(400, max_tokens=150)
    assert scene.turns(100, 100).tokens == 150
    assert scene.numbers(scene.ask(60).out) == [0]


def test_pinned_turns_stay_and_forgotten_turns_leave():
    scene = Scene(400)
    scene.turns(100, 60, 60)
    scene.chat.pin(scene.id(0))
    scene.chat.forget(scene.id(1))
    assert shown(scene.overflow.visible()) == [0, 2]
    assert len(scene.overflow.unseen()) == 1
    assert shown(scene.ask(150).messages) == [0, 3]
    assert len(scene.overflow.unseen()) == 2

    scene.chat.forget(scene.id(1), False)
    assert shown(scene.overflow.visible()) == [0, 1, 3]


def test_the_last_question_is_sent_even_if_forgotten():
    scene = Scene()
    scene.turns(20, 20)
    scene.chat.forget(scene.id(1))
    assert shown(scene.overflow.visible()) == [0], "an answered turn is not at hand"
    scene.chat.go(scene.id(1))
    assert shown(scene.fit().messages) == [0, 1]


def test_all_turns_can_be_forgotten():
    scene = Scene()
    scene.turns(20)
    scene.chat.forget(scene.id(0))
    assert scene.overflow.visible() == []
    assert shown(scene.ask(10).messages) == [1]


@pytest.mark.parametrize("policy", ["slide", "summarize", "truncate"])
def test_a_resumed_chat_has_its_old_window(policy):
    scene = Scene(400, overflow=policy)
    scene.turns(60, 60, 60, 60, 60)
    scene.chat.pin(scene.id(0))
    scene.chat.forget(scene.id(2))
    scene.turns(*[60] * 4)
    again = Overflow(Measured(400), scene.chat)
    assert (again.visible(), len(again.unseen())) == (
        scene.overflow.visible(),
        len(scene.overflow.unseen()),
    )
    assert len(again.unseen()) > 1


def test_a_chat_resumed_before_its_last_answer_has_the_window_of_the_one_before():
    scene = Scene(400)
    scene.turns(*[60] * 8)
    scene.ask(10)
    assert scene.overflow.out
    assert Overflow(Measured(400), scene.chat).visible() == scene.overflow.visible()


def test_invalid_ids_lose_only_the_window_of_a_resumed_chat():
    scene = Scene(400)
    events = [scene.chat.opening, scene.chat.ask("One?"), scene.answer(10) | {"out": "many"}]
    again = Conversation.from_events(events)
    assert (len(again.turns()), Overflow(Measured(400), again).out) == (1, frozenset())


# going back


def test_after_going_back_turns_return_to_the_window():
    scene = Scene(400)
    scene.turns(100, 100, 60, 100)
    assert scene.numbers(scene.overflow.out) == [0]
    scene.overflow.settle(scene.settings)
    assert scene.numbers(scene.overflow.out) == [0], "nothing has changed"
    scene.chat.go(scene.chat.turns()[2].user.parent)
    assert shown(scene.overflow.visible()) == [1]
    scene.overflow.settle(scene.settings)
    assert shown(scene.overflow.visible()) == [0, 1]
    assert scene.ask(10).messages[:-1] == scene.overflow.visible()[:-1]


def test_going_back_never_drops_a_turn():
    scene = Scene(400)
    scene.turns(100, 100, 60)
    scene.turns(60, 200)  # the last answer is longer than its reserved room
    out = scene.overflow.out
    scene.overflow.settle(scene.settings)
    assert scene.overflow.out == out


# stop


def test_stop_refuses_what_does_not_fit_and_names_the_next_step():
    scene = Scene(400, overflow="stop")
    scene.turns(100, 100, 60)
    with pytest.raises(TooLong) as caught:
        scene.ask(80)
    assert (caught.value.tokens, caught.value.room) == (340, 300)
    assert all(
        way in with_advice(caught.value) for way in ("/forget", "/clear", "/set overflow slide")
    )
    assert scene.overflow.out == frozenset()

    scene.chat.forget(scene.id(1))
    assert shown(scene.fit().messages) == [0, 2, 3]
    scene.chat.forget(scene.id(1), False)
    scene.settings = Settings(overflow="slide")
    assert shown(scene.fit().messages) == [1, 2, 3]


# truncate


def test_truncate_keeps_the_end_of_a_turn_that_leaves():
    scene = Scene(400, overflow="truncate")
    scene.turns(100, 100, 60)
    window = scene.ask(60)
    # 300 - 220 words of what stays - 48 for what a template may add: 32 words
    assert said(window.messages[:3]) == [
        ("user", "…"),
        ("assistant", "…" + Scene.text(0, 68, 32)),
        ("user", Scene.text(1, 0, 50)),
    ]
    assert (window.newly_out, window.tokens) == ((scene.id(0),), 253)


def test_truncate_cuts_the_question_if_its_answer_fits():
    scene = Scene(400, overflow="truncate")
    scene.ask(120)
    scene.answer(10)
    scene.turns(100)
    window = scene.ask(100)
    assert said(window.messages[:2]) == [
        ("user", "…" + Scene.text(0, 97, 23)),
        ("assistant", Scene.text(0, 120, 10)),
    ]


def test_truncate_drops_the_token_ids_of_a_cut_message():
    scene = Scene(400, overflow="truncate")
    scene.ask(50)
    scene.answer(50, tokens=[1, 2, 3], fingerprint="f0")
    scene.turns(100, 60)
    assert scene.ask(60).messages[1].tokens == ()


def test_truncate_leaves_no_scrap_of_a_few_words():
    scene = Scene(400, overflow="truncate")
    scene.turns(100, 100, 60)
    assert shown(scene.ask(77).messages) == [1, 2, 3]


def test_truncate_restores_whole_turns_if_there_is_room():
    scene = Scene(400, overflow="truncate")
    scene.turns(80, 80, 80)
    end = scene.chat.head
    assert scene.numbers(scene.ask(200).out) == [0, 1]
    scene.chat.go(end)
    window = scene.ask(80)
    assert (scene.numbers(window.out), window.newly_out) == ([0], ())
    assert ("user", Scene.text(1, 0, 40)) in said(window.messages)


SIZES = st.lists(st.tuples(st.integers(1, 120), st.integers(0, 120)), min_size=1, max_size=12)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(200, 400))
def test_truncate_keeps_the_window_full_with_the_newest_words(sizes, size):
    scene = Scene(size, overflow="truncate")
    for question, answer in sizes:
        window = scene.ask(question)
        whole = [w for t in scene.chat.turns() for m in (t.user, t.answer) if m
                 for w in m.content.split()]  # fmt: skip
        words = " ".join(m.content for m in window.messages).replace("…", "").split()
        assert words == whole[len(whole) - len(words) :]
        if window.messages[1:] and window.messages[1].content.startswith("…"):
            assert window.tokens > room_in(size, None) - 64
        scene.answer(answer)


# summarize


def test_turns_that_leave_are_summarized_in_a_note_before_the_rest():
    scene = Scene(400, overflow="summarize")
    scene.chat.set_system("Be brief.")
    scene.turns(100, 100, 60)
    first, second = scene.overflow.visible()[1:3]
    window = scene.ask(80)

    ((asked, covers),) = scene.condensed
    assert covers == [0]
    assert asked == [
        PromptMessage("system", "Be brief."),
        first,
        second,
        PromptMessage("user", CONDENSE),
    ]
    assert said(window.messages[:4]) == [
        ("system", "Be brief."),
        ("user", "What have we talked about so far?"),
        ("assistant", "Note 1."),
        ("user", Scene.text(1, 0, 50)),
    ]
    assert (window.newly_out, window.out) == ((scene.id(0),), frozenset())
    assert scene.overflow.visible() == window.messages
    assert len(scene.overflow.unseen()) == 1


def test_the_next_note_includes_the_previous_one():
    scene = Scene(400, overflow="summarize")
    while len(scene.condensed) < 3:
        scene.turns(60)
    (_, one), (asked, two), (_, three) = scene.condensed
    assert one == list(range(len(one)))
    assert two == list(range(len(two)))
    assert len(one) < len(two) < len(three)
    assert said(asked[:2]) == [
        ("user", "What have we talked about so far?"),
        ("assistant", "Note 1."),
    ]
    assert shown(asked[2:]) == two[len(one) :]
    assert scene.chat.summary().text == "Note 3."


def test_without_a_note_the_window_slides_and_the_next_note_covers_those_turns():
    scene = Scene(400, overflow="summarize")
    scene.turns(100, 100, 60)
    window = scene.ask(80, condense=stopped)
    assert (scene.numbers(window.out), shown(window.messages)) == ([0], [1, 2, 3])
    assert scene.chat.summary() is None
    scene.answer(10)
    scene.turns(120)
    ((asked, covers),) = scene.condensed
    assert covers == [0, 1]
    assert shown(asked) == [0, 1]


def test_pinning_a_summarized_turn_restores_its_text():
    scene = Scene(400, overflow="summarize")
    scene.turns(100, 100, 60, 120)
    assert shown(scene.overflow.visible()) == [1, 2, 3]
    scene.chat.pin(scene.id(0))
    assert shown(scene.overflow.visible()) == [0, 1, 2, 3]
    while len(scene.condensed) < 2:
        scene.turns(20)
    assert scene.numbers(scene.chat.summary().covers) == [0, 1, 2]
    assert shown(scene.overflow.visible()) == [0, 3, 4]


def test_going_back_before_a_note_restores_the_text():
    scene = Scene(400, overflow="summarize")
    scene.turns(40, 40, 150, 160)
    assert shown(scene.overflow.visible()) == [2, 3]
    scene.chat.go(scene.chat.turns()[0].answer.id)
    assert shown(scene.ask(10).messages) == [0, 1]


def test_if_nothing_can_be_summarized_the_window_slides():
    scene = Scene(64, overflow="summarize")  # the question for a note alone has 39 words
    scene.chat.set_system("word " * 20)
    scene.turns(20)
    assert shown(scene.ask(20).messages) == [1]
    assert scene.condensed == []


def test_a_note_that_is_too_long_waits():
    scene = Scene(400, overflow="summarize")

    def chatty(asked, covers):
        scene.chat.summarize("word " * 100, covers)
        return True

    scene.turns(100, 100)
    window = scene.ask(250, condense=chatty)
    assert (shown(window.messages), window.tokens) == ([2], 250)


def test_room_can_be_made_before_the_question():
    scene = Scene(400, overflow="summarize")
    scene.turns(100, 100)
    scene.fit(spare=50)
    assert scene.condensed == []
    scene.turns(60)
    scene.fit(spare=50)
    assert [covers for _, covers in scene.condensed] == [[0]]
    assert shown(scene.overflow.visible()) == [1, 2]


# continued answers


def continued(words, overflow="slide", **answer):
    """A scene with a truncated answer of so many words, and the window for its continuation."""
    scene = Scene(400, overflow=overflow)
    scene.turns(100)
    scene.ask(150)
    scene.answer(words, **answer)
    cut = scene.chat.turns()[-1].answer
    scene.chat.go(cut.parent)
    return scene, scene.fit(begun=cut)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_continued_answer_may_fill_more_of_the_window(policy):
    _, window = continued(80, ended="length", overflow=policy)
    assert [m.role for m in window.messages] == ["user", "assistant", "user"]
    assert window.tokens == 330  # with the partial answer; more than 300


def test_a_continued_answer_drops_the_oldest_turns():
    scene, window = continued(120, ended="full")
    assert (shown(window.messages), window.newly_out) == ([1], (scene.id(0),))


def test_after_truncated_thinking_the_question_stays_and_the_thinking_counts():
    _, window = continued(0, thinking="hm " * 120, sampled=[1] * 120, ended="full")
    assert said(window.messages) == [("user", Scene.text(1, 0, 150))]
    assert window.tokens == 270


# shares of the window


def test_the_shares_of_the_window_add_up_to_it():
    scene = Scene(400)
    scene.chat.set_system("Be brief and kind.")
    assert scene.overflow.shares(scene.settings) == [
        ("system", 4),
        ("pinned", 0),
        ("turns", 0),
        ("free", 296),
        ("kept for the answer", 100),
    ]
    scene.turns(60, 20)
    scene.chat.pin(scene.id(0))
    assert [share for _, share in scene.overflow.shares(scene.settings)] == [4, 60, 20, 216, 100]


def test_in_a_smaller_context_the_shares_are_of_the_next_window():
    """A chat was resumed with another -c; its next question has not been asked yet."""
    scene = Scene(size=400)
    scene.turns(60, 60)
    scene.ask(30)
    scene.answer(30, stats={"ctx_size": 400})
    scene.engine.size = 200
    shares = dict(scene.overflow.shares(scene.settings))
    told = window_notices.unseen(scene.overflow, scene.settings)
    assert window_notices.unseen(scene.overflow) == ""
    scene.ask(1)
    assert scene.overflow.out
    assert told == window_notices.unseen(scene.overflow)
    assert shares["turns"] + shares["free"] == 150
    assert 0 < shares["turns"] < dict(scene.overflow.shares(scene.settings))["turns"]


def test_a_note_counts_with_the_system_text_even_if_there_is_none():
    scene = Scene(400)
    scene.turns(60, 20)
    scene.chat.summarize("Note.", [scene.id(0)])
    assert [share for _, share in scene.overflow.shares(scene.settings)] == [8, 0, 20, 272, 100]


def test_an_answer_uses_the_reserved_space():
    scene = Scene(400)
    scene.ask(280)
    scene.answer(70)
    assert [share for _, share in scene.overflow.shares(scene.settings)] == [0, 0, 350, 0, 50]


def test_no_share_of_a_full_window_is_negative():
    scene = Scene(400)
    scene.turns(100, 100, 60)
    scene.overflow = Overflow(Measured(200), scene.chat)
    assert [share for _, share in scene.overflow.shares(scene.settings)] == [0, 0, 200, 0, 0]


# any commands

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.integers(1, 150), st.integers(0, 100)),
        st.tuples(st.just("go on"), st.integers(1, 60), st.integers(0, 60)),
        st.tuples(st.sampled_from(["pin", "forget", "undo"]), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("overflow"), st.sampled_from(POLICIES), st.just(0)),
        st.tuples(st.sampled_from(["make room", "resume"]), st.just(0), st.just(0)),
    ),
    min_size=4,
    max_size=25,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(STEPS, st.sampled_from([100, 200, 400]), st.sampled_from([None, 10, 90]), st.booleans())
def test_no_window_exceeds_its_room_or_lacks_required_parts(steps, size, max_tokens, brief):
    scene = Scene(size, max_tokens=max_tokens)
    if brief:
        scene.chat.set_system("Be brief.")
    for name, one, two in steps:
        before, turns = scene.chat.head, scene.chat.turns()
        try:
            if name == "turn":
                check(scene, scene.ask(one), room_in(scene.engine.size, max_tokens))
                scene.answer(two)
            elif name == "go on" and turns and turns[-1].answer:
                cut = turns[-1].answer
                scene.chat.go(cut.parent)
                window = scene.fit(begun=cut)
                room = max(room_in(scene.engine.size, max_tokens), size - size // 8)
                check(scene, window, room, len(cut.content.split()))
                scene.answer(one)
            elif name in ("pin", "forget") and turns:
                getattr(scene.chat, name)(turns[one % len(turns)].user.id, two)
            elif name == "undo" and turns:
                scene.chat.go(turns[one % len(turns)].user.parent)
            elif name == "overflow":
                scene.settings = Settings(overflow=one, max_tokens=max_tokens)
            elif name == "make room" and scene.settings.overflow == "summarize":
                scene.fit(spare=size // 8)
            elif name == "resume":
                scene.overflow = Overflow(scene.engine, scene.chat)
        except TooLong:
            scene.chat.go(before)
        scene.overflow.settle(scene.settings)
        shares = [share for _, share in scene.overflow.shares(scene.settings)]
        assert min(shares) >= 0
        assert sum(shares) == size


def check(scene, window, room, begun=0):
    messages, turns = window.messages, scene.chat.turns()
    assert scene.engine.count(messages) + begun == window.tokens <= room
    assert messages[-1] == PromptMessage("user", turns[-1].user.content)
    if scene.chat.system:
        assert messages[0] == PromptMessage("system", scene.chat.system)
    now = turns[-1].user.id
    seen = set(scene.numbers(scene.chat.pinned - scene.chat.forgotten | {now}))
    unseen = set(scene.numbers(scene.chat.forgotten - {now}))
    assert seen <= set(shown(messages))
    assert not unseen & set(shown(messages))
    assert len(scene.overflow.unseen()) == len(turns) - len(
        [t for t in turns if t.user.content in [m.content for m in messages]]
    )
