"""What the model sees of a conversation that is larger than the window."""

import json
import re
from datetime import datetime, timezone
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcp.errors import TooLong
from lcp.overflow import CONDENSE, Overflow
from lcp.session.conversation import Conversation
from lcp.session.message import Message
from lcp.settings import Settings

NOW = datetime(2026, 11, 22, 9, 31, tzinfo=timezone.utc)
POLICIES = ["slide", "summarize", "truncate", "stop"]


class Words:
    """An engine of which a word is a token, as far as Overflow knows engines."""

    def __init__(self, size):
        self.size = size

    def room(self, max_tokens):
        return self.size - min(max_tokens or self.size // 4, self.size // 2)

    def count(self, messages):
        assert messages, "templates cannot render an empty list"
        return sum(len(m["content"].split()) for m in messages)

    def clip(self, text, n):
        return "".join(re.findall(r"\s*\S+", text)[-n:]) if n > 0 else ""


class A:
    """A conversation, the engine it is for, and what keeps the one in the window of the other.

    Turn n is "n n n ..." on both sides, so that a window shows what it kept.
    """

    def __init__(self, size=400, **choices):
        ids = (f"id{n}" for n in count())
        self.chat = Conversation.begin(lambda: NOW, "scripted", new_id=lambda: next(ids))
        self.engine = Words(size)
        self.settings = Settings(**choices)
        self.overflow = Overflow(self.engine, self.chat)
        self.condensed = []

    def ask(self, words=10):
        """A question, and the window it is asked in."""
        text = f" {len(self.chat.turns()) % 10}" * words
        self.chat.ask(text.strip())
        return self.fit()

    def fit(self, condense=None, **more):
        return self.overflow.fit(self.settings, condense or self.note, **more)

    def answer(self, words=10, text=None, **facts):
        text = text or f" {(len(self.chat.turns()) - 1) % 10}" * words
        usual = {"ended": "end", "model": "scripted", "sampling": {}, "seed": 1}
        stats = {"dropped_turns": self.overflow.dropped()}
        self.chat.answer(text.strip(), **{**usual, "stats": stats, **facts})

    def turns(self, *sizes):
        """Turns of so many words, half of them the answer's; the window of the last one."""
        for words in sizes:
            window = self.ask(words - words // 2)
            self.answer(words // 2)
        return window

    def note(self, asked, covers):
        """Stands for the model that condenses."""
        self.condensed.append((asked, covers))
        self.chat.summarize(f"Note {len(self.condensed)}", covers)
        return True

    def questions(self, turns):
        """Which questions these are, by their numbers."""
        order = [turn.user.id for turn in self.chat.turns()]
        return sorted(order.index(id) for id in turns)


def contents(messages):
    return [m["content"] for m in messages]


def kept(messages):
    """The digits that the messages are made of."""
    return sorted({word for text in contents(messages) for word in text.split()})


# slide


@pytest.mark.parametrize("policy", POLICIES)
def test_what_fits_is_shown_whole(policy):
    here = A(overflow=policy)
    here.chat.set_system("Be brief.")
    window = here.turns(20, 20, 20)
    assert [m["role"] for m in window.messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert (window.out, window.newly_out, window.tokens) == (frozenset(), (), 52)
    assert here.overflow.visible()[:-1] == window.messages
    assert (here.overflow.dropped(), here.condensed) == (0, [])


def test_the_oldest_turns_leave_until_an_eighth_of_the_window_is_free():
    here = A(400)  # room for 300, an eighth is 50
    here.turns(100, 100, 60)
    window = here.ask(80)
    assert (window.out, window.tokens) == (frozenset(window.newly_out), 240)
    assert here.questions(window.newly_out) == [0]
    assert kept(window.messages) == ["1", "2", "3"]
    assert here.overflow.visible() == window.messages
    assert (here.overflow.out(), here.overflow.dropped()) == (window.out, 1)


def test_a_slide_happens_every_few_turns():
    here = A(400)
    slides = [bool(here.turns(20).newly_out) for _ in range(40)]
    assert 5 <= sum(slides) <= 12
    assert (True, True) not in set(zip(slides, slides[1:], strict=False))


def test_a_longer_answer_is_left_more_room():
    here = A(400, max_tokens=150)
    assert here.turns(100, 100).tokens == 150
    assert here.questions(here.ask(60).out) == [0]


def test_what_is_pinned_stays_and_what_is_forgotten_leaves():
    here = A(400)
    here.turns(100, 60, 60)
    first, second, _ = [turn.user.id for turn in here.chat.turns()]
    here.chat.pin(first)
    here.chat.forget(second)
    assert kept(here.overflow.visible()) == ["0", "2"]
    assert here.overflow.dropped() == 1
    window = here.ask(150)
    assert kept(window.messages) == ["0", "3"]
    assert here.overflow.dropped() == 2

    here.chat.forget(second, False)
    assert kept(here.overflow.visible()) == ["0", "1", "3"]


def test_the_question_at_hand_is_seen_even_if_it_was_forgotten():
    here = A()
    here.turns(20, 20)
    last = here.chat.turns()[-1].user
    here.chat.forget(last.id)
    assert kept(here.overflow.visible()) == ["0"], "an answered turn is not at hand"
    here.chat.go(last.id)
    assert kept(here.fit().messages) == ["0", "1"]


def test_all_may_be_forgotten():
    here = A()
    here.turns(20)
    here.chat.forget(here.chat.turns()[0].user.id)
    assert here.overflow.visible() == []
    assert here.overflow.dropped() == 1
    assert dict(here.overflow.shares(here.settings))["turns"] == 0


def test_a_resumed_chat_has_the_window_it_had():
    here = A(400)
    here.turns(*[40] * 12)
    here.chat.forget(here.chat.turns()[-2].user.id)
    assert here.overflow.out()
    events = json.loads(json.dumps(vars(Later(here))["events"]))
    again = Overflow(Words(400), Conversation.from_events(events))
    # one more is hidden than at the last answer: what was forgotten since
    assert again.out() < here.overflow.out()


class Later:
    """The events of a conversation, as a log has them."""

    def __init__(self, here):
        self.events = [here.chat.opening]
