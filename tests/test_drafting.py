"""Drafts: the tokens that follow if a text repeats itself, and how many are worth evaluating.

The clock and the memory are scripted; there is no model.
"""

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcp.engine.drafting import MOST, SIZES, DraftControl, draft
from lcp.engine.proposals import Proposals

# Tokens of which some have equal bytes at the places where another one is cut in half.
TOKENS = st.sampled_from([0, 1, 256, 257, 65536, 65537, 1 << 24, (1 << 24) + 256])


def drafted(*tokens):
    return draft(array("i", tokens))


# the draft


def test_the_draft_follows_the_last_match():
    assert drafted(1, 2, 3, 4, 5, 9, 1, 2, 3) == [4, 5, 9, 1, 2, 3]
    assert drafted(1, 2, 3, 4, 9, 1, 2, 3, 5, 9, 1, 2, 3) == [5, 9, 1, 2, 3]


def test_a_longer_match_counts_before_a_later_one():
    early, late = [7, 8, 9, 1, 2, 3, 4], [6, 6, 6, 1, 2, 3, 5]
    assert drafted(*early, *late, 7, 8, 9, 1, 2, 3)[0] == 4


@pytest.mark.parametrize("tokens", [[], [1], [1, 2, 3], [1, 2, 9, 1, 2], [1, 2, 3, 4, 5, 6]])
def test_without_repetition_nothing_is_drafted(tokens):
    assert drafted(*tokens) == []


def test_a_text_that_repeats_one_token():
    assert drafted(*[5] * 9) == [5]


@pytest.mark.slow
@given(st.lists(TOKENS, max_size=80))
def test_a_draft_follows_an_earlier_match_of_the_end(tokens):
    found = drafted(*tokens)
    places = [i for i in range(3, len(tokens)) if tokens[i - 3 : i] == tokens[-3:]]
    assert bool(found) == bool(places)
    assert not found or found in [tokens[i : i + MOST] for i in places]


# how many tokens are worth evaluating


def control(rate=1.0, seen=0, **costs):
    """A control with a hit rate after so many tokens, and costs of batches: s1=1, s8=2.5."""
    one = DraftControl()
    for size, seconds in costs.items():
        one.record_time(int(size[1:]), seconds)
    for _ in range(seen):
        one.record_hit(random.Random(seen).random() < rate)
    return one


GPU = {"s1": 1.0, "s2": 1.0, "s4": 1.02, "s8": 1.05, "s16": 1.1}
F16 = {"s1": 1.0, "s2": 1.3, "s4": 1.5, "s8": 2.2, "s16": 3.3}
Q4_1 = {"s1": 1.0, "s2": 1.7, "s4": 2.8, "s8": 4.8, "s16": 8.5}
LINEAR = {"s1": 1.0, "s2": 2.0, "s4": 4.0, "s8": 8.0, "s16": 16.0}
# Two threads of a busy machine: more than one token is expensive, many are hardly more so.
JUMP = {"s1": 1.0, "s2": 2.2, "s4": 2.5, "s8": 3.0, "s16": 4.0}


@pytest.mark.parametrize("costs", [GPU, F16, Q4_1, LINEAR])
def test_nothing_is_drafted_before_the_first_hit_and_timed_step(costs):
    assert control(**costs).size(15) == 0
    assert control(seen=30).size(15) == 0


def test_costlier_batches_lead_to_shorter_drafts():
    sizes = [control(seen=30, **costs).size(15) for costs in (GPU, F16, Q4_1, LINEAR)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 15
    assert sizes[-1] == 0


def test_a_draft_is_never_longer_than_there_are_tokens():
    one = control(seen=30, **GPU)
    assert [one.size(n) for n in (0, 1, 2, 3, 15)] == [0, 1, 1, 3, 15]


def test_wrong_drafts_lead_to_shorter_drafts_and_then_none():
    one, sizes = control(seen=30, **F16), []
    for _ in range(12):
        sizes.append(one.size(15))
        one.record_hit(False)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 1
    assert sizes[-1] == 0


def test_a_new_answer_begins_without_drafts():
    one = control(seen=30, **GPU)
    one.begin()
    assert one.size(15) == 0


def test_one_slow_time_does_not_rule_out_a_size_for_ever():
    one = control(seen=30, s1=1.0, s16=10.0)
    assert one.size(15) < 15
    for _ in range(8000):
        one.record_time(1, 1.0)
    assert one.size(15) == 15


# both together, with a memory that only counts


class Memory:
    """A context without a model: it keeps tokens, and which one each row of logits is of."""

    takes_back_freely = True

    def __init__(self, tokens, costs=F16, size=10_000):
        self.tokens = list(tokens)
        self.costs = costs
        self.size = size
        self.rows = [len(tokens)]
        self.evaluated = 0
        self.now = 0.0

    def append(self, token, ahead=(), each=False):
        ahead = list(ahead[: self.size - len(self.tokens) - 1])
        begin = len(self.tokens) + 1
        self.tokens += [token, *ahead]
        self.rows = list(range(begin, len(self.tokens) + 1)) if each else [len(self.tokens)]
        self.evaluated += 1 + len(ahead)
        size = next((n for n in SIZES if n >= 1 + len(ahead)), 16)
        self.now += self.costs[f"s{size}"]
        return ahead

    def take_back(self, n):
        del self.tokens[len(self.tokens) - n :]


def never(token):
    return False


def write(prompt, answer, costs=F16, certain=(), drafts=True):
    """Generate an answer token by token, as the inference loop does. `certain` are the places of
    forced tokens."""
    memory = Memory(prompt, costs)
    one = Proposals(memory, DraftControl() if drafts else None, never, lambda: memory.now)
    for i, token in enumerate(answer):
        if i not in certain:
            # the logits that the token is sampled from are of all tokens before it, and no others
            assert memory.tokens[: memory.rows[one.row]] == [*prompt, *answer[:i]]
        if i + 1 == len(answer):
            break
        end = next((n for n in range(i + 1, len(answer)) if n not in certain), len(answer))
        one.add(token, answer[i + 1 : end], len(answer) - i - 2)
        assert memory.tokens[: len(prompt) + i + 1] == [*prompt, *answer[: i + 1]]
        assert len(memory.tokens) <= len(prompt) + len(answer) - 1  # no more than the answer has
    one.take_back()
    assert memory.tokens == [*prompt, *answer[:-1]]
    return one, memory


texts = st.lists(
    st.sampled_from([[1, 2, 3, 4, 5], [6, 7, 8], [9], [1, 2, 3, 7], list(range(20, 50))]),
    min_size=1,
    max_size=20,
).map(lambda parts: [token for part in parts for token in part])


@pytest.mark.slow
@given(texts, texts, st.sampled_from([GPU, F16, Q4_1, LINEAR]), st.sets(st.integers(0, 99)))
def test_each_token_is_sampled_after_all_tokens_before_it(prompt, answer, costs, certain):
    one, _ = write(prompt, answer, costs, certain)
    assert 0 <= one.kept <= one.drafted
    plain, read_plainly = write(prompt, answer, costs, drafts=False)
    assert plain.drafted == 0
    assert read_plainly.evaluated == len(answer) - 1


@pytest.mark.slow
@given(texts, texts, st.sets(st.integers(0, 99)))
def test_forced_tokens_are_evaluated_once_and_in_fewer_batches(prompt, answer, certain):
    _, memory = write(prompt, answer, {f"s{n}": 1.0 for n in SIZES}, certain, drafts=False)
    assert memory.evaluated == len(answer) - 1
    chosen = sum(i not in certain for i in range(1, len(answer)))
    assert memory.now <= 1 + chosen


COPIED = random.Random(1).choices(range(1000), k=300)


def test_a_copy_is_evaluated_in_few_batches():
    one, memory = write([*COPIED, 5000], COPIED)
    assert one.kept / one.drafted > 0.9
    assert memory.now < len(COPIED) / 2


def test_no_draft_goes_beyond_the_end_of_the_answer_that_repeats():
    copied, end, more = COPIED[:295], 6000, range(7000, 7020)
    memory = Memory([*copied, end, *more, 5000], GPU)
    one = Proposals(memory, DraftControl(), lambda token: token == end, lambda: memory.now)
    for token in copied:
        one.add(token, [], 10_000)
    assert one.kept == one.drafted > 0


def test_a_copy_is_drafted_where_only_long_drafts_pay():
    _, memory = write([*COPIED, 5000], COPIED, JUMP)
    assert memory.now < len(COPIED) / 2


def test_a_copy_with_small_changes_is_evaluated_in_few_batches():
    changed = [5001 if i % 25 == 24 else token for i, token in enumerate(COPIED)]
    _, memory = write([*COPIED, 5000], changed)
    assert memory.now < len(COPIED) / 1.5


@pytest.mark.slow
@pytest.mark.parametrize("costs", [GPU, F16, Q4_1, JUMP, LINEAR])
@pytest.mark.parametrize("seed", range(3))
def test_a_text_without_copies_is_evaluated_token_by_token(costs, seed):
    """Any three tokens occurred before, and were followed by something else."""
    chance = random.Random(seed)
    answer = [chance.choice([1, 2, 3]) for _ in range(400)]
    wrong = [t for i in range(400) for t in (*answer[max(0, i - 3) : i], 4 + i % 3)]
    _, memory = write([*wrong, 9], [7 + t for t in answer], costs)
    assert memory.now < 1.02 * 400


@pytest.mark.parametrize("costs", [GPU, F16, Q4_1, JUMP, LINEAR])
def test_drafts_that_are_always_wrong_are_not_evaluated(costs):
    """Each step finds a match, but another token follows."""
    prompt = [t for i in range(200) for t in (3 * i, 3 * i + 1, 3 * i + 2, 9999)]
    answer = list(range(600))
    one, memory = write(prompt, answer, costs)
    assert one.drafted == 0
    assert memory.evaluated == len(answer) - 1


@pytest.mark.slow
@pytest.mark.parametrize("costs", [GPU, F16, Q4_1, JUMP, LINEAR])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_drafts_that_are_sometimes_right_cost_almost_nothing(costs, share):
    """With any hit rate, drafts take at most a little more time than no drafts."""
    chance = random.Random(share)
    prompt, answer = list(range(3000)), [0, 1, 2]
    while len(answer) < 1500:
        last = answer[-1]
        right = chance.random() < share
        answer += [last + 1] if right else [3000 + len(answer), *range(last + 5, last + 8)]
        if answer[-1] > 2900:
            answer += [0, 1, 2]
    _, memory = write(prompt, answer, costs)
    assert memory.now <= 1.05 * len(answer)
