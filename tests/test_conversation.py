"""The tree of messages, and how events rebuild it."""

import json
from datetime import datetime, timedelta, timezone
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcp.errors import SessionError
from lcp.session.conversation import Conversation

BERLIN = timezone(timedelta(hours=1))
START = datetime(2026, 11, 22, 9, 31, 0, 250_000, tzinfo=BERLIN)


def begin(**facts):
    ids = (f"id{n}" for n in count())
    return Conversation.begin(lambda: START, "smollm2", new_id=lambda: next(ids), **facts)


def reply(conversation, text="Hello.", **facts):
    usual = {"ended": "end", "model": "smollm2", "sampling": {"temp": 0.8}, "seed": 7, "stats": {}}
    return conversation.answer(text, **{**usual, **facts})


def said(conversation):
    return [(t.user.content, t.answer and t.answer.content) for t in conversation.turns()]


def test_a_question_and_its_answer_make_a_turn():
    chat = begin()
    chat.ask("Hi.")
    reply(chat, "Hello.", tokens=[5, 6], fingerprint="f0", thinking="A greeting.", ended="length")

    (turn,) = chat.turns()
    assert (turn.user.role, turn.user.content, turn.user.parent) == ("user", "Hi.", None)
    assert (turn.answer.role, turn.answer.content) == ("assistant", "Hello.")
    assert (turn.answer.tokens, turn.answer.fingerprint) == ((5, 6), "f0")
    assert (turn.answer.thinking, turn.answer.ended) == ("A greeting.", "length")
    assert chat.head == turn.answer.id
    assert turn.answer.parent == turn.user.id


def test_the_events_are_the_documented_lines():
    chat = begin(file="smol.gguf")
    events = [chat.opening, chat.set_system("Be brief."), chat.set(temp=0.2), chat.ask("Hi.")]
    events += [
        reply(chat, stats={"reused": 3}, out=["id3"], made_with={"grammar": True}),
        chat.go("id3"),
    ]
    events += [chat.pin("id3"), chat.forget("id3", False), chat.summarize("A greeting.", ["id3"])]

    at = "2026-11-22T08:31:00.250+00:00"
    assert events == [
        {"v": 1, "id": "id0", "parent": None, "at": at, "type": "begin"}
        | {"created": "2026-11-22T09:31:00.250+01:00", "model": "smollm2", "file": "smol.gguf"},
        {"v": 1, "id": "id1", "parent": None, "at": at, "type": "system", "text": "Be brief."},
        {"v": 1, "id": "id2", "parent": None, "at": at, "type": "set", "temp": 0.2},
        {"v": 1, "id": "id3", "parent": None, "at": at, "type": "user", "text": "Hi."},
        {"v": 1, "id": "id4", "parent": "id3", "at": at, "type": "answer", "text": "Hello."}
        | {"out": ["id3"], "made_with": {"grammar": True}, "ended": "end", "model": "smollm2"}
        | {"sampling": {"temp": 0.8}, "seed": 7, "stats": {"reused": 3}},
        {"v": 1, "id": "id5", "parent": None, "at": at, "type": "head", "to": "id3"},
        {"v": 1, "id": "id6", "parent": None, "at": at, "type": "pin"}
        | {"message": "id3", "on": True},
        {"v": 1, "id": "id7", "parent": None, "at": at, "type": "forget"}
        | {"message": "id3", "on": False},
        {"v": 1, "id": "id8", "parent": None, "at": at, "type": "summary"}
        | {"text": "A greeting.", "covers": ["id3"]},
    ]


def test_the_date_of_a_conversation_does_not_change():
    chat = begin()
    tomorrow = Conversation.from_events([chat.opening], now=lambda: START + timedelta(days=1))
    assert tomorrow.created == START
    assert f"{tomorrow.created:%d %b %Y %H:%M}" == "22 Nov 2026 09:31"


def test_a_retry_adds_a_sibling_answer():
    chat = begin()
    chat.ask("Hi.")
    old = reply(chat, "Hello.")
    chat.go(old["parent"])
    assert said(chat) == [("Hi.", None)]
    new = reply(chat, "Good day.")

    assert said(chat) == [("Hi.", "Good day.")]
    assert [m.content for m in chat.children(new["parent"])] == ["Hello.", "Good day."]
    chat.go(old["id"])
    assert said(chat) == [("Hi.", "Hello.")]


def test_after_clear_the_next_question_is_a_new_root():
    chat = begin()
    chat.ask("Hi.")
    reply(chat)
    chat.clear()
    assert chat.turns() == []
    chat.ask("Again.")
    assert said(chat) == [("Again.", None)]
    assert [m.content for m in chat.children(None)] == ["Hi.", "Again."]


def test_a_question_without_an_answer_is_kept():
    chat = begin()
    events = [chat.opening, chat.ask("Hi."), reply(chat), chat.ask("And now?")]
    resumed = Conversation.from_events(events)
    last = resumed.turns()[-1]
    assert (last.user.content, last.answer) == ("And now?", None)


def test_a_question_can_follow_an_unanswered_one():
    chat = begin()
    chat.ask("Hi.")
    chat.ask("Are you there?")
    reply(chat, "Yes.")
    assert said(chat) == [("Hi.", None), ("Are you there?", "Yes.")]


def test_the_last_system_text_and_setting_values_count():
    chat = begin()
    chat.set_system("Be brief.")
    chat.set(temp=0.2, seed=1)
    chat.set_system("Be kind.")
    chat.set(temp=0.9)
    assert chat.system == "Be kind."
    assert chat.settings == {"temp": 0.9, "seed": 1}


def test_a_setting_with_several_values_survives_resuming():
    chat = begin()
    event = chat.set(stop=("END", "###"))
    again = Conversation.from_events(json.loads(json.dumps([chat.opening, event])))
    assert again.settings == chat.settings


def test_sampled_ids_are_kept_with_the_answer():
    chat = begin()
    chat.ask("Hi.")
    event = reply(chat, "Hello.", thinking="A greeting.", tokens=[5], sampled=[1, 2, 5])
    assert chat.nodes[event["id"]].sampled == (1, 2, 5)
    assert "sampled" not in reply_again(chat, tokens=[5])


def reply_again(chat, **facts):
    chat.go(chat.nodes[chat.head].parent)
    return reply(chat, **facts)


@pytest.mark.parametrize("change", ["pin", "forget"])
def test_a_mark_on_a_turn_stays_until_it_is_removed(change):
    chat = begin()
    marked = {"pin": chat.pinned, "forget": chat.forgotten}[change]
    question = chat.ask("Hi.")["id"]
    other = chat.ask("Again.")["id"]
    getattr(chat, change)(question)
    getattr(chat, change)(question)
    getattr(chat, change)(other)
    assert marked == {question, other}
    getattr(chat, change)(question, False)
    getattr(chat, change)(question, False)
    assert marked == {other}
    assert [t.user.id for t in chat.turns()] == [question, other], "the log keeps what was said"


def test_a_note_counts_only_on_branches_with_all_turns_it_covers():
    chat = begin()
    questions = []
    for text in ("One?", "Two?", "Three?"):
        questions.append(chat.ask(text)["id"])
        reply(chat)
    before, end = chat.nodes[questions[1]].parent, chat.head
    chat.summarize("On one.", questions[:1])
    chat.summarize("On one and two.", questions[:2])
    assert chat.summary().text == "On one and two."
    assert chat.summary().covers == set(questions[:2])

    chat.go(before)
    assert chat.summary().text == "On one."
    chat.ask("Something else?")
    assert chat.summary().text == "On one."
    chat.clear()
    assert chat.summary() is None
    chat.go(end)
    assert chat.summary().text == "On one and two."


def test_the_newer_of_two_notes_counts():
    chat = begin()
    question = chat.ask("One?")["id"]
    chat.summarize("First note.", [question])
    chat.summarize("Second note.", [question])
    assert chat.summary().text == "Second note."


def test_each_leaf_is_a_branch():
    chat = begin()
    assert chat.branches() == []
    root = chat.ask("Hi.")["id"]
    first = reply(chat, "Hello.")["id"]
    assert chat.branches() == [first]
    chat.go(root)
    second = reply(chat, "Good day.")["id"]
    assert chat.branches() == [first, second]
    chat.go(first)
    third = chat.ask("And now?")["id"]
    chat.clear()
    fourth = chat.ask("Again.")["id"]
    assert chat.branches() == [second, third, fourth]


def test_children_are_listed_oldest_first():
    chat = begin()
    root = chat.ask("Hi.")["id"]
    answers = [reply(chat, "Hello.")["id"], reply_again(chat)["id"]]
    assert [m.id for m in chat.children(root)] == answers
    assert chat.children(answers[0]) == []
    following = chat.ask("And now?")["id"]
    assert [m.id for m in chat.children(answers[1])] == [following]


def test_an_answer_without_a_question_is_an_error():
    chat = begin()
    with pytest.raises(ValueError, match="needs a user message"):
        reply(chat)
    chat.ask("Hi.")
    reply(chat)
    with pytest.raises(ValueError, match="needs a user message"):
        reply(chat)


def test_going_to_an_unknown_message_changes_nothing():
    chat = begin()
    chat.ask("Hi.")
    with pytest.raises(SessionError, match="no-such"):
        chat.go("no-such")
    assert said(chat) == [("Hi.", None)]


def test_an_id_is_never_used_twice():
    ids = iter(["a", "b", "b", "c"])
    chat = Conversation.begin(lambda: START, "smollm2", new_id=lambda: next(ids))
    chat.ask("Hi.")
    reply(chat)
    assert list(chat.nodes) == ["b", "c"]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("\n  Why is   the sky blue?\nTell me.", "Why is the sky blue?"),
        ("x" * 60, "x" * 60),
        ("word " * 20, "word " * 11 + "word…"),
        (" \n ", ""),
    ],
)
def test_the_title_is_the_beginning_of_the_first_question(text, title):
    chat = begin()
    assert chat.title() == ""
    chat.ask(text)
    reply(chat)
    chat.clear()
    chat.ask("Another.")
    assert chat.title() == title
    assert len(chat.title()) <= 60


STRANGE = [
    {"type": "begin", "model": "another", "created": "2001-01-01T00:00:00+00:00"},
    {"type": "pin", "id": "p1", "parent": "id1", "target": "id1"},
    {"type": "pin", "message": "lost", "on": True},
    {"type": "pin", "message": "id1", "on": "yes"},
    {"type": "forget", "message": ["id1"], "on": True},
    {"type": "forget", "message": "id1"},
    {"type": "summary", "text": "A note on nothing.", "covers": []},
    {"type": "summary", "text": "A note on what was lost.", "covers": ["lost", ["id1"], {}]},
    {"type": "summary", "text": "A note.", "covers": "id1"},
    {"type": "summary", "covers": ["id1"]},
    {"type": "user", "id": "x1", "parent": "lost", "text": "Nobody said this."},
    {"type": "answer", "id": "x2", "parent": "lost", "text": "To nobody."},
    {"type": "answer", "id": "x3", "parent": "id2", "text": "An answer to an answer."},
    {"type": "answer", "id": "x4", "text": "An answer to nothing."},
    {"type": "user", "id": "id1", "parent": "id2", "text": "A loop."},
    {"type": "user", "id": "x5", "parent": ["id1"], "text": "A list for a parent."},
    {"type": "user", "id": ["x6"], "parent": None, "text": "A list for an id."},
    {"type": "user", "id": "x7", "parent": None, "text": 5},
    {"type": "head", "to": "lost"},
    {"type": "head"},
    {"type": "system"},
    {"type": 7},
    {},
]


@pytest.mark.parametrize("event", STRANGE, ids=str)
def test_unknown_events_are_ignored(event):
    chat = begin()
    events = [chat.opening, chat.ask("Hi."), reply(chat)]
    strange = Conversation.from_events([*events, event])
    assert strange.events == 4
    strange.events -= 1
    assert strange == Conversation.from_events(events)


def test_a_question_without_a_parent_field_is_a_root():
    chat = Conversation.from_events([{"type": "user", "id": "u", "text": "Hi."}])
    assert said(chat) == [("Hi.", None)]


def test_fields_of_the_wrong_type_are_ignored():
    odd = {"type": "answer", "id": "a", "parent": "u", "text": "Yes.", "tokens": [1, "2"]}
    question = {"type": "user", "id": "u", "parent": None, "text": "Hi."}
    chat = Conversation.from_events([question, {**odd, "stats": None}])
    assert chat.nodes["a"].content == "Yes."
    assert (chat.nodes["a"].tokens, chat.nodes["a"].stats) == ((), {})


def test_without_a_begin_line_the_first_event_begins_the_conversation():
    question = {"type": "user", "id": "u", "parent": None, "text": "Hi."}
    for at in ("2026-11-22T08:31:00.250+00:00", "2026-11-22T08:31:00.250"):
        chat = Conversation.from_events([{**question, "at": at}])
        assert chat.created == START
        assert chat.created.tzinfo is not None


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.text()),
        st.tuples(st.just("answer"), st.text()),
        st.tuples(st.just("system"), st.text()),
        st.tuples(st.just("set"), st.sampled_from(["temp", "seed", "top_k"])),
        st.tuples(st.just("go"), st.integers(0, 20)),
        st.tuples(st.sampled_from(["pin", "forget"]), st.integers(0, 20)),
        st.tuples(st.just("summarize"), st.text()),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=30,
)


def perform(chat, operations):
    """Random actions of a person, and their events."""
    events = [chat.opening]
    for name, value in operations:
        if name == "ask":
            events.append(chat.ask(value))
        elif name == "answer" and chat.turns() and chat.turns()[-1].answer is None:
            events.append(reply(chat, value, tokens=[len(value)], stats={"read": len(value)}))
        elif name == "system":
            events.append(chat.set_system(value))
        elif name == "set":
            events.append(chat.set(**{value: len(events)}))
        elif name == "go" and chat.nodes:
            events.append(chat.go(list(chat.nodes)[value % len(chat.nodes)]))
        elif name in ("pin", "forget") and chat.turns():
            turn = chat.turns()[value % len(chat.turns())]
            events.append(getattr(chat, name)(turn.user.id, value % 3 > 0))
        elif name == "summarize" and chat.turns():
            covers = [turn.user.id for turn in chat.turns()[: len(value)]]
            events.append(chat.summarize(value, covers))
        elif name == "clear":
            events.append(chat.clear())
    return events


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_events_rebuild_the_same_conversation(operations):
    chat = begin()
    events = perform(chat, operations)
    again = Conversation.from_events(json.loads(json.dumps(events)))
    assert again == chat
    assert again.turns() == chat.turns()
    assert again.summary() == chat.summary()
    assert again.branches() == chat.branches()


@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_the_branches_contain_all_messages(operations):
    chat = begin()
    perform(chat, operations)
    seen = set()
    for leaf in chat.branches():
        assert chat.children(leaf) == []
        chat.go(leaf)
        seen |= {m.id for turn in chat.turns() for m in (turn.user, turn.answer) if m}
    assert seen == set(chat.nodes)


@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_a_note_never_covers_turns_outside_the_path(operations):
    chat = begin()
    perform(chat, operations)
    note = chat.summary()
    if note:
        assert note.covers
        assert note.covers <= {turn.user.id for turn in chat.turns()}


@settings(max_examples=40, deadline=None)
@given(OPERATIONS, st.randoms(use_true_random=False))
def test_with_any_events_lost_the_path_still_leads_to_a_root(operations, random):
    events = perform(begin(), operations)
    kept = [event for event in events if random.random() < 0.7]
    chat = Conversation.from_events(kept)
    for turn in chat.turns():
        assert turn.user.role == "user"
        assert turn.answer is None or turn.answer.parent == turn.user.id


@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_no_message_is_ever_lost(operations):
    chat = begin()
    events = perform(chat, operations)
    said_in_events = [e["text"] for e in events if e["type"] in ("user", "answer")]
    assert [message.content for message in chat.nodes.values()] == said_in_events
