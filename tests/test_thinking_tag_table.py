"""The thinking and the answer of each family are separated for any split of the bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_output_parser import cut

from lcp.answers.output_parser import PLAIN, OutputParser
from lcp.answers.thinking_tag_table import FAMILIES, NONE, tags, thinks

HM, YES = "Hm, 1 < 2.", "Yes: use <b>é</b>.\n\nNo </x> more."


def known(family):
    """The tags of a model of this family."""
    return tags("\n".join(family.signs) + family.opener)


def told(pieces, of, tail=""):
    parser = OutputParser((), tail, of)
    chunks = [c for piece in pieces for c in parser.feed(piece)] + parser.flush()
    return tuple(
        "".join(c.text for c in chunks if c.kind == kind) for kind in ("thinking", "answer")
    )


def written(family):
    """The output of a model of the family, according to its source."""
    between = family.then or "\n\n".join(h for h in family.headings if h != family.closer)
    behind = "".join(f"\n{end}" for end in family.ends)
    return (
        f"{family.opener}{HM}{family.closer}{between}\n\n{YES}{behind}\n"
        if behind
        else (f"{family.opener}{HM}{family.closer}{between}\n\n{YES}")
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
@given(places=st.lists(st.integers(0, 999), max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_split_of_the_bytes_separates_thinking_and_answer(family, places):
    data, of = written(family).encode(), known(family)
    assert told(cut(data, places), of) == (HM, YES)
    assert told([data[i : i + 1] for i in range(len(data))], of) == (HM, YES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_a_prompt_can_open_the_thinking(family):
    data = written(family).removeprefix(family.opener).encode()
    assert told([data], known(family), f"assistant\n{family.opener}\n") == (HM, YES)


@pytest.mark.parametrize(
    "text",
    [
        "<answer>42</answer>",
        "<response>42</response>\n",
        "<reasoning>Because.</reasoning>",
        "[BEGIN FINAL RESPONSE]",
        "<|think|>",
        "<think is no tag",
        "The tag </answer>",
        "42</answer>\n",
    ],
)
def test_a_model_of_an_unknown_family_loses_no_text(text):
    assert told([text.encode()], PLAIN) == ("", text)
    assert told([bytes([b]) for b in text.encode()], PLAIN) == ("", text)


@pytest.mark.parametrize("sign", ["<answer>", "</reasoning>"])
def test_a_special_token_of_the_vocabulary_is_a_sign(sign):
    assert tags("", lambda text: text == sign).openers != PLAIN.openers
    assert tags("", lambda text: False) == PLAIN


def test_a_closing_tag_with_text_after_it_is_text():
    of = tags("<answer>")
    text = "<think>Hm</think><answer>Write <answer>42</answer> so.</answer>\n"
    assert told([text.encode()], of) == ("Hm", "Write <answer>42</answer> so.")
    assert told([b"<answer>1</answer> \n</answer>", b" "], of) == ("", "1")
    assert told([b"Not tagged </answer>"], of) == ("", "Not tagged </answer>")
    assert told([b"<answer>Half </ans"], of) == ("", "Half </ans")


def test_tags_for_tool_results_are_not_a_sign_of_answer_tags():
    assert "<response>" not in tags("tool: <response>{{ m.content }}</response>").openers
    assert "<response>" in tags("think_mode=True <response>{{ m.content }}</response>").openers


def test_without_tags_all_text_is_the_answer():
    text = " \n<think>Hm.</think>"
    assert told([text.encode()], NONE) == ("", text)


@pytest.mark.parametrize(
    ("template", "yes"),
    [
        ("{{ '<think>' }}", True),
        ("{% if enable_thinking %}", True),
        ("</think>", True),
        ("<|inner_prefix|>", True),
        ("<|user|>{{ m.content }}<|end|>", False),  # Phi 3
        ("<|im_start|>{{ m.content }}<|im_end|>", False),
        ("", False),
    ],
)
def test_thinking_templates_are_recognized(template, yes):
    assert thinks(template) is yes
