"""Which turns fit."""

from itertools import count

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lcp.errors import TooLong
from lcp.session.message import Message, Turn
from lcp.session.window import Window, fit


def turn(n, words=1, answered=True):
    user = Message(f"u{n}", "user", "question " * words)
    return Turn(user, Message(f"a{n}", "assistant", "answer " * words) if answered else None)


def words(messages):
    return sum(len(message["content"].split()) for message in messages)


def test_what_fits_is_whole():
    turns = [turn(1), turn(2, answered=False)]
    assert fit("Be brief.", turns, words, room=5) == Window(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "question "},
            {"role": "assistant", "content": "answer "},
            {"role": "user", "content": "question "},
        ],
        dropped=0,
        newly_dropped=0,
        start="u1",
        tokens=5,
    )


def test_what_was_sampled_goes_along():
    answer = Message("a", "assistant", "Hi.", thinking="Hm.", tokens=(4, 5), fingerprint="f0")
    window = fit("", [Turn(Message("u", "user", "Hello"), answer)], words, room=9)
    assert window.messages == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."}
        | {"thinking": "Hm.", "tokens": [4, 5], "fingerprint": "f0"},
    ]


def test_the_oldest_turns_go_first():
    window = fit("System", [turn(n) for n in range(5)], words, room=5)
    assert (window.dropped, window.newly_dropped, window.start) == (3, 3, "u3")
    assert window.tokens == words(window.messages) == 5


def test_a_slide_frees_the_slack_too_so_that_the_next_turn_needs_none():
    turns = [turn(n) for n in range(20)]
    first = fit("", turns[:10], words, room=18, slack=6)
    assert (first.dropped, first.tokens) == (4, 12)

    slides = 0
    start = first.start
    for n in range(11, 21):
        window = fit("", turns[:n], words, room=18, start=start, slack=6)
        slides += window.newly_dropped > 0
        start = window.start
    assert slides == 2


def test_slack_drops_nothing_while_everything_fits():
    assert fit("", [turn(n) for n in range(9)], words, room=18, slack=6).dropped == 0


def test_a_dropped_turn_does_not_come_back_when_there_is_room_again():
    turns = [turn(n) for n in range(6)]
    window = fit("", turns, words, room=99, start="u4")
    assert (window.dropped, window.newly_dropped, window.start) == (4, 0, "u4")


def test_a_start_that_is_on_another_branch_is_forgotten():
    window = fit("", [turn(1), turn(2)], words, room=99, start="u7")
    assert (window.dropped, window.start) == (0, "u1")


def test_without_turns_the_system_text_is_the_window():
    assert fit("Be brief.", [], words, room=2) == Window(
        [{"role": "system", "content": "Be brief."}], 0, 0, None, 2
    )


def test_nothing_is_counted_where_there_is_nothing():
    def never(messages):
        raise AssertionError("templates cannot render an empty list")

    assert fit("", [], never, room=0) == Window([], 0, 0, None, 0)


def test_a_message_larger_than_the_window_is_refused_with_numbers():
    with pytest.raises(TooLong) as caught:
        fit("Be brief.", [turn(1), turn(2, 50, answered=False)], words, room=40)
    assert str(caught.value) == (
        "This message, with the system text, takes 52 tokens and the window has room for 40; "
        "shorten it, or start with a larger --ctx-size."
    )


def test_a_system_text_larger_than_the_window_is_refused_with_numbers():
    with pytest.raises(TooLong, match=r"The system text takes 30 tokens .* room for 20;"):
        fit("word " * 30, [], words, room=20)


def test_the_last_turn_stays_where_the_slack_cannot_be_had():
    window = fit("", [turn(1), turn(2, 9)], words, room=19, slack=5)
    assert (window.start, window.tokens) == ("u2", 18)


def test_a_thousand_turns_are_counted_a_dozen_times():
    calls = count()

    def counted(messages):
        next(calls)
        return words(messages)

    assert fit("", [turn(n) for n in range(1000)], counted, room=100).dropped == 950
    assert next(calls) <= 12


TURNS = st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=25).map(
    lambda sizes: [turn(n, size, answered) for n, (size, answered) in enumerate(sizes)]
)
ROOM = st.integers(1, 400)
SLACK = st.integers(0, 60)


def fits_or_skips(system, turns, room, **more):
    try:
        return fit(system, turns, words, room, **more)
    except TooLong:
        assume(False)


@settings(max_examples=80, deadline=None)
@given(TURNS, ROOM, SLACK, st.sampled_from(["", "Be brief."]))
def test_a_window_never_exceeds_its_room_nor_drops_the_ends(turns, room, slack, system):
    window = fits_or_skips(system, turns, room, slack=slack)
    assert words(window.messages) == window.tokens <= room
    whole = fit(system, turns, words, room=10**6).messages
    kept = len(window.messages) - bool(system)
    assert window.messages == whole[: bool(system)] + whole[-kept:]
    assert window.start == turns[window.dropped].user.id


@settings(max_examples=60, deadline=None)
@given(TURNS, ROOM)
def test_no_turn_is_dropped_that_would_fit(turns, room):
    window = fits_or_skips("", turns, room)
    if window.dropped:
        one_more = fit("", turns[window.dropped - 1 :], words, room=10**6)
        assert one_more.tokens > room


@settings(max_examples=60, deadline=None)
@given(TURNS, ROOM, SLACK)
def test_only_a_last_turn_too_large_is_refused(turns, room, slack):
    alone = fit("", turns[-1:], words, room=10**6).tokens
    if alone <= room:
        fit("", turns, words, room, slack=slack)
    else:
        with pytest.raises(TooLong):
            fit("", turns, words, room, slack=slack)


@settings(max_examples=60, deadline=None)
@given(TURNS, ROOM, ROOM, SLACK)
def test_a_smaller_room_never_drops_less(turns, one, other, slack):
    small, large = sorted((one, other))
    tight = fits_or_skips("", turns, small, slack=slack)
    assert fit("", turns, words, large, slack=slack).dropped <= tight.dropped


@settings(max_examples=60, deadline=None)
@given(TURNS, ROOM, SLACK)
def test_as_a_chat_grows_its_window_only_moves_on(turns, room, slack):
    start, dropped = None, 0
    for n in range(1, len(turns) + 1):
        window = fits_or_skips("", turns[:n], room, start=start, slack=slack)
        assert window.dropped == dropped + window.newly_dropped >= dropped
        if window.newly_dropped and window.dropped < n - 1:
            assert window.tokens <= room - slack
        start, dropped = window.start, window.dropped


@settings(max_examples=60, deadline=None)
@given(TURNS, ROOM, st.lists(st.integers(1, 100), min_size=25, max_size=25))
def test_even_a_count_that_is_not_monotone_never_exceeds_the_room(turns, room, noise):
    def odd(messages):
        return words(messages) + noise[len(messages) % 25]

    try:
        window = fit("", turns, odd, room)
    except TooLong:
        return
    assert odd(window.messages) == window.tokens <= room
