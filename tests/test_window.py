"""Which turns fit into the window."""

from itertools import count

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lcp.chat.error_advice import ways_to_fit, with_advice
from lcp.engine_interface import PromptMessage
from lcp.errors import TooLong
from lcp.session.message import Message, Turn
from lcp.session.window import Window, fit, messages


def turn(n, words=1, answered=True):
    user = Message(f"u{n}", "user", "question " * words)
    return Turn(user, Message(f"a{n}", "assistant", "answer " * words) if answered else None)


def words(messages):
    return sum(len(message.content.split()) for message in messages)


def ids(*numbers):
    return frozenset(f"u{n}" for n in numbers)


def test_a_chat_that_fits_is_whole():
    turns = [turn(1), turn(2, answered=False)]
    assert fit("Be brief.", turns, words, room=5) == Window(
        messages=[
            PromptMessage("system", "Be brief."),
            PromptMessage("user", "question "),
            PromptMessage("assistant", "answer "),
            PromptMessage("user", "question "),
        ],
        out=frozenset(),
        newly_out=(),
        tokens=5,
    )


def test_sampled_ids_are_in_the_messages():
    answer = Message("a", "assistant", "Hi.", thinking="Hm.", tokens=(4, 5), fingerprint="f0")
    window = fit(None, [Turn(Message("u", "user", "Hello"), answer)], words, room=9)
    assert window.messages == [
        PromptMessage("user", "Hello"),
        PromptMessage("assistant", "Hi.", "Hm.", (4, 5), "f0"),
    ]


def test_an_empty_answer_is_not_a_message():
    stopped = Turn(Message("u", "user", "Hello"), Message("a", "assistant", "", thinking="Hm."))
    assert messages(None, [stopped]) == [PromptMessage("user", "Hello")]


def test_the_oldest_turns_are_dropped_first():
    window = fit("System", [turn(n) for n in range(5)], words, room=5)
    assert (window.out, window.newly_out) == (ids(0, 1, 2), ("u0", "u1", "u2"))
    assert window.tokens == words(window.messages) == 5


def test_a_note_is_the_first_turn_after_the_system_text():
    window = fit("System", [turn(1)], words, room=20, note="They said hello.")
    assert window.messages == [
        PromptMessage("system", "System"),
        PromptMessage("user", "What have we talked about so far?"),
        PromptMessage("assistant", "They said hello."),
        PromptMessage("user", "question "),
        PromptMessage("assistant", "answer "),
    ]
    assert window.tokens == 13


def test_a_note_takes_room_and_never_leaves():
    turns = [turn(n) for n in range(9)]
    window = fit(None, turns, words, room=15, note="Note.")
    assert window.out == ids(0, 1, 2, 3, 4, 5)
    assert window.messages[1] == PromptMessage("assistant", "Note.")


def test_a_slide_frees_the_slack_too_so_that_the_next_turns_need_none():
    turns = [turn(n) for n in range(20)]
    first = fit(None, turns[:10], words, room=18, slack=6)
    assert (first.out, first.tokens) == (ids(0, 1, 2, 3), 12)

    slides = 0
    out = first.out
    for n in range(11, 21):
        window = fit(None, turns[:n], words, room=18, out=out, slack=6)
        slides += bool(window.newly_out)
        out = window.out
    assert slides == 2


def test_slack_drops_nothing_while_everything_fits():
    assert fit(None, [turn(n) for n in range(9)], words, room=18, slack=6).out == frozenset()


def test_dropped_turns_stay_out_until_all_fit_with_slack():
    turns = [turn(n) for n in range(6)]
    tight = fit(None, turns, words, room=17, out=ids(0, 1), slack=6)
    assert (tight.out, tight.newly_out, tight.tokens) == (ids(0, 1), (), 8)
    wide = fit(None, turns, words, room=18, out=ids(0, 1), slack=6)
    assert (wide.out, wide.newly_out, wide.tokens) == (frozenset(), (), 12)


def test_dropped_turns_of_another_branch_do_not_matter():
    window = fit(None, [turn(1), turn(2)], words, room=4, out=ids(7, 8), slack=4)
    assert (window.out, window.tokens) == (frozenset(), 4)


def test_the_last_turn_is_kept_even_if_it_was_out():
    """The person went back to a turn that had left the window."""
    window = fit(None, [turn(1), turn(2)], words, room=2, out=ids(1, 2))
    assert (window.out, window.newly_out, window.tokens) == (ids(1), (), 2)


def test_a_pinned_turn_keeps_its_place():
    turns = [turn(n, n + 1) for n in range(4)]
    window = fit(None, turns, words, room=14, pinned=["u1"])
    assert window.out == ids(0, 2)
    assert [len(m.content.split()) for m in window.messages] == [2, 2, 4, 4]


def test_a_dropped_turn_that_is_pinned_comes_back():
    turns = [turn(n) for n in range(6)]
    window = fit(None, turns, words, room=8, out=ids(0, 1), pinned=["u0"])
    assert (window.out, window.newly_out, window.tokens) == (ids(1, 2), ("u2",), 8)


def test_without_turns_the_system_text_is_the_window():
    assert fit("Be brief.", [], words, room=2) == Window(
        [PromptMessage("system", "Be brief.")], frozenset(), (), 2
    )


def test_an_empty_window_is_not_counted():
    def never(messages):
        raise AssertionError("templates cannot render an empty list")

    assert fit(None, [], never, room=0) == Window([], frozenset(), (), 0)


@pytest.mark.parametrize(
    ("turns", "pinned", "tokens", "ways"),
    [
        ([turn(1), turn(2, 50, answered=False)], [], 52, ["--ctx-size"]),
        ([turn(1, 19), turn(2, 9, answered=False)], ["u1"], 49, ["/pin N", "--ctx-size"]),
        ([turn(1, 20), turn(2, 1, answered=False)], ["u1"], 43, ["/pin N", "/system"]),
    ],
)
def test_a_message_larger_than_the_window_is_refused_with_numbers(turns, pinned, tokens, ways):
    with pytest.raises(TooLong) as caught:
        fit("Be brief.", turns, words, room=40, pinned=pinned)
    error = caught.value
    assert (error.tokens, error.room) == (tokens, 40)
    assert "room for 40" in error.why
    assert all(way in ways_to_fit(error) for way in ways)
    assert error.why[1:] in str(error)
    assert ways_to_fit(error)[1:] in with_advice(error)


def test_a_system_text_that_leaves_no_room_is_reported_with_its_size():
    with pytest.raises(TooLong, match=r"system text \(30 tokens, room for 20\)"):
        fit("word " * 30, [turn(1, answered=False)], words, room=20)


def test_the_last_turn_stays_even_without_slack():
    window = fit(None, [turn(1), turn(2, 9)], words, room=19, slack=5)
    assert (window.out, window.tokens) == (ids(1), 18)


def test_a_thousand_turns_are_counted_a_dozen_times():
    calls = count()

    def counted(messages):
        next(calls)
        return words(messages)

    turns = [turn(n) for n in range(1000)]
    assert len(fit(None, turns, counted, room=100).out) == 950
    assert next(calls) <= 12


TURNS = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=25).map(
    lambda sizes: [turn(n, size, answered) for n, (size, answered) in enumerate(sizes)]
)
ROOM = st.integers(1, 400)
SLACK = st.integers(0, 60)
SOME = st.frozensets(st.integers(0, 24).map("u{}".format), max_size=8)


def fits_or_skips(system, turns, room, **more):
    try:
        return fit(system, turns, words, room, **more)
    except TooLong:
        assume(False)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(TURNS, ROOM, SLACK, SOME, SOME, st.sampled_from([None, "Be brief."]), st.text(max_size=9))
def test_a_window_never_exceeds_its_room_nor_drops_required_parts(
    turns, room, slack, out, pinned, system, note
):
    window = fits_or_skips(system, turns, room, slack=slack, out=out, pinned=pinned, note=note)
    assert words(window.messages) == window.tokens <= room
    must_stay = {turns[-1].user.id} | pinned
    assert not window.out & must_stay
    assert window.messages == messages(
        system, [t for t in turns if t.user.id not in window.out], note
    )
    assert set(window.newly_out) == window.out - out


@settings(max_examples=40, deadline=None)
@given(TURNS, ROOM, SLACK, SOME, SOME)
def test_the_oldest_turn_of_the_window_is_dropped_first(turns, room, slack, out, pinned):
    window = fits_or_skips(None, turns, room, slack=slack, out=out, pinned=pinned)
    could_go = [t.user.id for t in turns[:-1] if t.user.id not in out | pinned]
    assert list(window.newly_out) == could_go[: len(window.newly_out)]


@settings(max_examples=40, deadline=None)
@given(TURNS, ROOM)
def test_no_turn_is_dropped_that_would_fit(turns, room):
    window = fits_or_skips(None, turns, room)
    if window.out:
        one_more = fit(None, turns[len(window.out) - 1 :], words, room=10**6)
        assert one_more.tokens > room


@settings(max_examples=40, deadline=None)
@given(TURNS, ROOM, SLACK, SOME, SOME)
def test_only_required_parts_can_be_too_long(turns, room, slack, out, pinned):
    last = turns[-1].user.id
    alone = [t for t in turns if t.user.id in pinned | {last}]
    if words(messages(None, alone)) <= room:
        fit(None, turns, words, room, slack=slack, out=out, pinned=pinned)
    else:
        with pytest.raises(TooLong):
            fit(None, turns, words, room, slack=slack, out=out, pinned=pinned)


@settings(max_examples=40, deadline=None)
@given(TURNS, ROOM, ROOM, SLACK)
def test_a_smaller_room_never_drops_less(turns, one, other, slack):
    small, large = sorted((one, other))
    tight = fits_or_skips(None, turns, small, slack=slack)
    assert fit(None, turns, words, large, slack=slack).out <= tight.out


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(TURNS, ROOM, SLACK, SOME)
def test_as_a_chat_grows_its_window_only_moves_forward(turns, room, slack, pinned):
    out = frozenset()
    for n in range(1, len(turns) + 1):
        window = fits_or_skips(None, turns[:n], room, out=out, slack=slack, pinned=pinned)
        assert window.out == out | set(window.newly_out)
        may_go = {t.user.id for t in turns[: n - 1]} - pinned
        if window.newly_out and window.out < may_go:
            assert window.tokens <= room - slack
        out = window.out


@settings(max_examples=40, deadline=None)
@given(TURNS, ROOM, SLACK, SOME)
def test_fitting_a_window_again_changes_nothing(turns, room, slack, pinned):
    once = fits_or_skips(None, turns, room, slack=slack, pinned=pinned)
    again = fit(None, turns, words, room, slack=slack, pinned=pinned, out=once.out)
    assert (again.messages, again.out, again.newly_out) == (once.messages, once.out, ())


@settings(max_examples=40, deadline=None)
@given(TURNS, ROOM, st.lists(st.integers(1, 100), min_size=25, max_size=25))
def test_even_a_count_that_is_not_monotone_never_exceeds_the_room(turns, room, noise):
    def odd(messages):
        return words(messages) + noise[len(messages) % 25]

    try:
        window = fit(None, turns, odd, room)
    except TooLong:
        return
    assert odd(window.messages) == window.tokens <= room
