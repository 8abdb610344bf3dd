"""Bytes of tokens in, Chunks of thinking and answer out."""

from itertools import groupby, pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lcp.answers.output_parser import PLAIN, OutputParser
from lcp.engine_interface import Chunk

TAGS = PLAIN.openers

moderately = settings(max_examples=200, deadline=None)


def decode(*pieces, stop=(), prompt_tail=""):
    """All chunks of the pieces, neighbours of one kind merged: [(kind, text), ...]."""
    parser = OutputParser(stop, prompt_tail)
    chunks = [chunk for piece in pieces for chunk in parser.feed(piece)] + parser.flush()
    assert all(isinstance(chunk, Chunk) and chunk.text for chunk in chunks)
    return [
        (kind, "".join(chunk.text for chunk in group))
        for kind, group in groupby(chunks, lambda chunk: chunk.kind)
    ]


def answer(text):
    return [("answer", text)]


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# Texts of everything that could be split: tags and parts of them, stop strings and parts of
# them, characters of several bytes, bytes that are no UTF-8.
stops = st.lists(st.sampled_from(["abcd", "bc", "b", "\n\n", "<end>", "<th", "é"]), max_size=3)
tags = st.sampled_from([tag for pair in TAGS.items() for tag in pair if tag])
parts = st.one_of(
    tags,
    tags.map(lambda tag: tag[:3]),
    tags.map(lambda tag: tag[3:]),
    stops.map("".join),
    st.sampled_from(["a", "ab", "abc", " ", "\n", "<", "é", "日本", "🙂", "word "]),
).map(str.encode)
bytes_ = st.lists(st.one_of(parts, st.binary(max_size=3)), max_size=8).map(b"".join)
tails = st.sampled_from(["", "assistant\n", "assistant\n<think>\n", "[THINK]"])


@pytest.mark.slow
@given(bytes_, stops, tails, st.lists(st.integers(0, 999)))
@example(b"abcd", ["abcd", "bc"], "", [3])
@example("<think>é</think>\n\n🙂<think>".encode(), [], "", [9, 20])
@moderately
def test_any_split_of_the_bytes_gives_the_same_text(data, stop, tail, places):
    whole = decode(data, stop=stop, prompt_tail=tail)
    assert decode(*cut(data, places), stop=stop, prompt_tail=tail) == whole
    one_by_one = [data[i : i + 1] for i in range(len(data))]
    assert decode(*one_by_one, stop=stop, prompt_tail=tail) == whole


@given(st.text(max_size=40))
@moderately
def test_plain_text_is_unchanged(text):
    text = "." + text  # no tag at the beginning
    assert decode(text.encode("utf-8", "replace")) == answer(
        text.encode("utf-8", "replace").decode()
    )


@pytest.mark.slow
@given(bytes_, stops, tails)
@moderately
def test_no_stop_string_is_in_the_answer(data, stop, tail):
    said = dict(decode(data, stop=stop, prompt_tail=tail)).get("answer", "")
    assert not any(word in said for word in stop)


# characters


def test_an_incomplete_character_is_held_back():
    parser = OutputParser()
    first, second = "é".encode()
    assert parser.feed(bytes([first])) == []
    assert not parser.whole
    assert parser.feed(bytes([second])) == [Chunk("answer", "é")]
    assert parser.whole


def test_an_incomplete_character_at_the_end_is_dropped():
    assert decode(b"ok \xf0\x9f") == answer("ok ")


def test_bytes_that_are_not_utf8_become_replacement_characters():
    assert decode(b"a\xffb\xc3(") == answer("a\ufffdb\ufffd(")


def test_a_parser_is_whole_at_the_start_and_after_a_character():
    parser = OutputParser()
    assert parser.whole
    parser.feed(b"text")
    assert parser.whole


# stop strings


def test_text_ends_before_a_stop_string_that_spans_pieces():
    parser = OutputParser(["\nUser:"])
    assert parser.feed(b"Hi.\nUs") == [Chunk("answer", "Hi.")]
    assert not parser.stopped
    assert parser.feed(b"er: more") == []
    assert parser.stopped
    assert parser.feed(b"and more") == parser.flush() == []


def test_a_false_start_of_a_stop_string_is_text():
    assert decode(b"1 <e", b"nd", b"less", stop=["<end>"]) == answer("1 <endless")
    assert decode(b"1 <en", stop=["<end>"]) == answer("1 <en")


def test_the_stop_string_that_ends_first_ends_the_answer():
    assert decode(b"abcd", stop=["abcd", "bc"]) == answer("a")
    assert decode(b"abc", stop=["bc", "abc"]) == []


def test_a_stop_string_at_the_beginning_leaves_no_answer():
    assert decode(b"\n\nHi", stop=["\n\n"]) == []


def test_an_empty_stop_string_stops_nothing():
    assert decode(b"Hi", stop=[""]) == answer("Hi")


def test_a_stop_string_in_the_thinking_does_not_end_it():
    said = decode(b"<think>1\n\n2</think>3\n\n4", stop=["\n\n"])
    assert said == [("thinking", "1\n\n2"), ("answer", "3")]


# thinking


@pytest.mark.parametrize("opener", [opener for opener, closer in TAGS.items() if closer])
def test_all_thinking_tags_are_separated_from_the_answer(opener):
    text = f"{opener}Hm.{TAGS[opener]}\n\nYes."
    assert decode(text.encode()) == [("thinking", "Hm."), ("answer", "Yes.")]


@pytest.mark.parametrize("heading", [opener for opener, closer in TAGS.items() if not closer])
def test_a_heading_of_the_answer_is_dropped(heading):
    assert decode(f"{heading}Yes.".encode()) == answer("Yes.")
    assert decode(f"{heading}\n\nYes.".encode()) == answer("Yes.")


def test_a_heading_after_the_thinking_is_dropped():
    text = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes."
    )
    assert decode(text.encode()) == [("thinking", "Hm."), ("answer", "Yes.")]


def test_a_tag_in_the_middle_of_an_answer_is_text():
    text = "Use <think> and </think>."
    assert decode(text.encode()) == answer(text)
    assert decode(b"<think>a</think>b <think>c</think>") == [
        ("thinking", "a"),
        ("answer", "b <think>c</think>"),
    ]


def test_white_space_before_the_thinking_is_not_an_answer():
    assert decode(b"\n <think>a</think>b") == [("thinking", "a"), ("answer", "b")]


@pytest.mark.parametrize("opener", [opener for opener, closer in TAGS.items() if closer])
def test_a_prompt_that_ends_with_an_opening_tag_begins_the_thinking(opener):
    said = decode(f"Hm.{TAGS[opener]}Yes.".encode(), prompt_tail=f"<assistant>{opener}\n")
    assert said == [("thinking", "Hm."), ("answer", "Yes.")]


def test_a_prompt_that_ends_with_a_closing_tag_does_not_begin_the_thinking():
    assert decode(b"Yes.", prompt_tail="<think>\n\n</think>\n\n") == answer("Yes.")


def test_thinking_without_end_is_thinking():
    assert decode(b"<think>Hm. </thi") == [("thinking", "Hm. </thi")]


def test_thinking_is_streamed():
    parser = OutputParser()
    assert parser.feed(b"<think>one two </") == [Chunk("thinking", "one two ")]


def test_white_space_is_an_answer_except_after_thinking():
    assert decode(b" \n") == answer(" \n")
    assert decode(b"<think>Hm.</think> \n") == [("thinking", "Hm.")]
