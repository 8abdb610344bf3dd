"""Advice after an error: rooms name options, chat/ spells them as commands or flags."""

from lcp.chat.error_advice import with_advice
from lcp.errors import AnswerDoesNotMatch, ContextFull, DoesNotRun, TemplateError


def test_options_that_would_help_become_flags():
    error = TemplateError("The template is broken.", change={"chat_template": "FILE"})
    assert with_advice(error) == "The template is broken. Try --chat-template FILE."


def test_an_error_without_options_is_shown_unchanged():
    assert with_advice(TemplateError("The template is broken.")) == "The template is broken."


def test_a_full_context_error_names_a_sufficient_size():
    error = ContextFull(needed=700, size=512)
    assert (error.needed, error.size) == (700, 512)
    assert "--ctx-size 768" in with_advice(error)


def test_an_answer_that_does_not_match_its_constraint_suggests_retry():
    assert "/retry" in with_advice(AnswerDoesNotMatch("It does not match."))


def test_a_native_error_suggests_the_doctor():
    assert with_advice(DoesNotRun("llama.cpp does not run here.")).endswith(": lcp doctor")
