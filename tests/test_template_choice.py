"""Which chat template is used: the question always reaches the model."""

from datetime import datetime

import pytest
from tiny import write

from lcp.chat.answer_notices import about_model
from lcp.engine.engine import LlamaEngine
from lcp.engine.sampler import Sampler
from lcp.engine.template_choice import choose
from lcp.engine_interface import PromptMessage, Request
from lcp.errors import TemplateError
from lcp.settings import Sampling, Settings

NOW = datetime(2026, 11, 29, 9, 0)
EACH_PART = (
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}</s>{% endfor %}"
)
FIRST_PART = "{% for m in messages %}<|{{ m.role }}|>{{ m.content[0]['text'] }}\n{% endfor %}"
USER_PARTS = (
    "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content[0].text }}]"
    "{% else %}({{ m.content | trim }}){% endif %}{% endfor %}"
)
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}
ANSWER, AGAIN = {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Bye"}
TALK = [SYSTEM, USER, ANSWER, AGAIN]


def chosen(source, **more):
    return choose(source, now=NOW, bos="<s>", eos="</s>", name="tiny.gguf", **more)


@pytest.mark.parametrize("source", [EACH_PART, FIRST_PART, USER_PARTS])
def test_a_template_that_expects_a_list_of_parts_gets_one(source):
    choice = chosen(source)
    text = choice.template.render(TALK)
    assert [text.count(m["content"]) for m in TALK] == [1, 1, 1, 1]
    assert not (choice.notice or choice.template.is_fallback)


def test_only_the_roles_that_need_it_get_parts():
    template = chosen(USER_PARTS).template
    assert template.parts == {"user"}
    assert template.render(TALK) == "(Be brief.)[Hello](Hi.)[Bye]"


def test_a_template_that_raises_for_a_text_gets_parts():
    source = "{% for m in messages %}{{ m.content[0].text + '.' }}{% endfor %}"
    assert chosen(source).template.render([USER, ANSWER, AGAIN]) == "Hello.Hi..Bye."


def test_a_list_printed_in_pythons_notation_does_not_count():
    source = (
        "{% if messages[0].content is string %}.{% else %}{{ messages[-1].content }}{% endif %}"
    )
    assert chosen(source).template.is_fallback


@pytest.mark.parametrize("source", ["no-such-name", "{{ messages | length }}"])
def test_a_template_that_loses_the_question_is_not_used(source):
    choice = chosen(source)
    assert choice.template.is_fallback and not choice.notice.is_base
    assert "Hello" in choice.template.render([USER])
    assert "ChatML" in choice.notice.sentence
    assert "--chat-template" in about_model(choice.notice)
    with pytest.raises(TemplateError, match="chat template you gave"):
        chosen(source, own=True)


def test_a_template_that_fails_says_why_at_the_first_question():
    choice = chosen("{{ messages[0].content }}{{ no_such_function() }}")
    assert not choice.template.is_fallback
    with pytest.raises(TemplateError, match="no_such_function"):
        choice.template.render([USER])


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (
            "{{ messages[-1].content }}",
            "the system text, your earlier questions, the model's earlier answers",
        ),
        (
            "{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}",
            "the model's earlier answers",
        ),
    ],
)
def test_parts_that_a_template_leaves_out_are_reported(source, what):
    choice = chosen(source)
    assert f"leaves out {what}." in choice.notice.sentence
    assert not choice.template.is_fallback


# names of llama.cpp's templates


@pytest.mark.parametrize("own", [False, True])
def test_the_name_of_a_llama_cpp_template_selects_it(own):
    choice = chosen("llama3\n", own=own)
    assert choice.template.render([USER]) == (
        "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert ("llama3" in choice.notice) is not own
    assert choice.template.end_marks == ("<|eot_id|>",)


def test_a_llama_cpp_template_takes_long_texts_and_zero_bytes():
    long = "é" * 5000 + "\0end"
    text = chosen("chatml").template.render([{"role": "user", "content": long}])
    assert "é" * 5000 + "end" in text


# base models


@pytest.mark.parametrize("source", [None, "", "  \n"])
def test_a_model_without_a_template_is_a_base_model(source):
    choice = chosen(source)
    assert choice.template.is_fallback
    assert choice.notice.is_base
    assert "base model" in choice.notice.sentence and "--raw" in about_model(choice.notice)


# whole engines


HELLO = PromptMessage("user", "Hello")


def engine(path, **options):
    return LlamaEngine(path, Settings(ctx_size=512, threads=1), now=NOW, **options)


def test_all_templates_print_the_question(tmp_path):
    for i, source in enumerate([EACH_PART, FIRST_PART, USER_PARTS, "", "chatml", "odd-name"]):
        path = write(tmp_path / f"{i}.gguf", template=source)
        with engine(path) as one:
            one.load().result()
            assert one.count([HELLO]) != one.count([PromptMessage("user", "Hello, you")]), source


def answer_with(monkeypatch, one, text):
    """The model samples the tokens of this text. (A constraint would switch the end marks off.)"""
    tokens = iter(one.model.tokenize(text, special=False))
    monkeypatch.setattr(Sampler, "sample", lambda sampler, context, row=-1: next(tokens))


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|im_start|>"])
def test_end_marks_of_chatml_spelled_as_text_end_an_answer(tmp_path, monkeypatch, mark):
    """The vocabulary of a base model has no token for them."""
    path = write(tmp_path / "base.gguf", template=None)
    with engine(path) as one:
        one.load().result()
        answer_with(monkeypatch, one, f"Fine.{mark}and more")
        reply = one.reply(Request([HELLO], Sampling(seed=1), max_tokens=60))
        said = "".join(chunk.text for chunk in reply if hasattr(chunk, "kind"))
        assert (said, reply.text, reply.ended) == ("Fine.", "Fine.", "end")
        assert one.model.text(reply.tokens) == "Fine."
        answer_with(monkeypatch, one, f"Fine.{mark}and more")
        raw = one.reply(Request([HELLO], Sampling(seed=1), 60, stop=[mark]))
        list(raw)
        assert raw.ended in ("end", "stop")


def test_end_marks_of_a_template_spelled_as_text_end_an_answer(tmp_path, monkeypatch):
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    with engine(write(tmp_path / "a.gguf", template=source)) as one:
        one.load().result()
        answer_with(monkeypatch, one, "Fine.<|end|>and more")
        reply = one.reply(Request([HELLO], Sampling(seed=1), max_tokens=60))
        list(reply)
        assert (reply.text, reply.ended) == ("Fine.", "end")


@pytest.mark.parametrize(
    ("named", "which"),
    [(("tool_use", "default"), "default"), (("tool_use", "odd"), "odd"), (("rag",), "rag")],
)
def test_the_conversation_template_of_several_is_used(tmp_path, named, which):
    facts = {
        f"tokenizer.chat_template.{n}": f"{n}:"
        + "{% for m in messages %}{{ m.content }}{% endfor %}"
        for n in named
    }
    with engine(write(tmp_path / "a.gguf", template=None, facts=facts)) as one:
        one.load().result()
        spelled = "".join(text for _, text in one.prompt([HELLO])).removeprefix("<s>")
        assert spelled == f"{which}:Hello"
        assert not one.notices()


# the template's own system text

OWN = (
    "{% if messages[0].role != 'system' %}[system]I am Tiny.\n{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
)
ALWAYS = (
    "[system]{% if messages[0].role == 'system' and messages[0].content %}"
    "{{ messages[0].content }}{% else %}I am Tiny.{% endif %}\n"
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
)
NONE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"


@pytest.mark.parametrize(
    ("source", "own", "silent"),
    [(OWN, "I am Tiny.", ""), (ALWAYS, "I am Tiny.", "I am Tiny."), (NONE, "", "")],
)
def test_the_system_text_of_a_template_is_known(source, own, silent):
    template = chosen(source).template
    assert (template.own_system(), template.own_system(silent=True)) == (own, silent)
    assert template.takes_system


def test_an_empty_system_text_removes_the_templates_own():
    empty = SYSTEM | {"content": ""}
    assert "I am Tiny." in chosen(OWN).template.render([USER])
    assert "I am Tiny." not in chosen(OWN).template.render([empty, USER])
    assert chosen(NONE).template.render([empty, USER]) == chosen(NONE).template.render([USER])
    refusing = "{{ raise_exception('no') if messages[0].role == 'system' }}" + NONE
    assert chosen(refusing).template.render([empty, USER]) == "[user]Hello\n"
    assert not chosen(refusing).template.takes_system
