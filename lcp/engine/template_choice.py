"""Chooses the chat template of a model: its own, one of llama.cpp's, or ChatML.

The template is tried once, before the first question: with a template that does not print the
question, the model would give the same answer to every question.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lcp.engine import template_builtin
from lcp.engine.model import Model
from lcp.engine.template import Template
from lcp.engine.template_sandbox import Exceeded
from lcp.engine_notices import TemplateFault
from lcp.errors import TemplateError

_TALK = [
    {"role": role, "content": f"Qyx{i}zzy"}
    for i, role in enumerate(("system", "user", "assistant", "user"))
]
_QUESTION = 3  # index of the question to answer
_EARLIER = {0: "the system text", 1: "your earlier questions", 2: "the model's earlier answers"}


@dataclass(frozen=True)
class TemplateChoice:
    """The template of a model, and a notice for the person."""

    template: Template
    notice: str | TemplateFault = ""


def choose(source: str | None, *, name: str, own: bool = False, **more: Any) -> TemplateChoice:
    """The template to use: `source`, which may be the name of one of llama.cpp's; ChatML if there
    is no source or if it does not print the question.

    Raises TemplateError if it does not compile, or if it is the person's `own` and does not print
    the question.
    """

    def made(source: str | None, is_name: bool = False) -> Template:
        return Template(source, name=name, own=own, is_name=is_name, **more)

    word = (source or "").strip()
    if not word and not own:
        return TemplateChoice(made(None), TemplateFault(
            f"{name} has no chat template: it is a base model, which continues text. lcp asks it "
            "in ChatML.", is_base=True,
        ))  # fmt: skip
    by_name = word in template_builtin.names()
    template = made(word, is_name=True) if by_name else made(source)
    lost = _lost(template)
    if lost is None or lost:
        parts = template.with_parts({_TALK[i]["role"] for i in lost or range(len(_TALK))})
        still = _lost(parts)
        if still is not None and (still < lost if lost else _QUESTION not in still):
            template, lost = parts, still
    if lost is None and own:
        template.render(_TALK[_QUESTION:])  # raises
    if lost and _QUESTION in lost:
        if own:
            raise template.useless()
        why = "never prints your question: lcp uses ChatML."
        fault = TemplateFault(f"The chat template of {name} {why}")
        return TemplateChoice(made(None), fault)
    notice = ""
    if by_name and not own:
        notice = f"The chat template of {name} is only a name: lcp uses llama.cpp's {word}."
    if gone := [what for i, what in _EARLIER.items() if i in (lost or ())]:
        left = f"The chat template of {name} leaves out {', '.join(gone)}."
        return TemplateChoice(template, TemplateFault(f"{notice} {left}".strip()))
    return TemplateChoice(template, notice)


def of_model(model: Model, name: str, now: datetime, source: str | None = None) -> TemplateChoice:
    """The template to use with a model: its own, or the `source` that a person gave."""
    return choose(
        model.chat_template if source is None else source,
        name=name,
        own=source is not None,
        now=now,
        bos=model.text([model.bos]) if model.bos >= 0 else "",
        eos=model.text([model.eos]) if model.eos >= 0 else "",
    )


def _lost(template: Template) -> frozenset[int] | None:
    """Indices of the messages that the template does not print; None if it fails."""
    for begin in (0, 1, _QUESTION):  # some refuse a system text, or earlier turns
        try:
            text = template.render(_TALK[begin:]).lower()
        except TemplateError as error:
            if isinstance(error.__cause__, Exceeded):
                raise
            continue
        # a list printed in Python's notation does not count
        words = [m["content"].lower() for m in _TALK]
        shown = {i for i, w in enumerate(words) if w in text and f"'text': '{w}" not in text}
        return frozenset(range(begin, len(_TALK))) - shown
    return None
