"""Messages to the text of a prompt, with a chat template.

A chat template is a Jinja program from a downloaded file. It runs in a Sandbox, and whatever it
does there, the result is a text or a TemplateError. Or it is the name of one of llama.cpp's.
"""

import copy
import functools
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from traceback import walk_tb
from types import MappingProxyType
from typing import Any

from lcp.answers.thinking_tag_table import thinks
from lcp.engine import template_builtin
from lcp.engine.template_sandbox import Exceeded, Sandbox
from lcp.errors import TemplateError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The texts that end a message in ChatML or begin the next one.
CHATML_MARKS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
_PROGRAM = ("<template>", "<unknown>")  # Jinja's file names for a template
SECONDS = 2.0
SOURCE_LIMIT = 1 << 16  # characters; the longest in use are near 20,000
# A text that looks like the end of a message: "<|im_end|>", "[/INST]", "</s>".
_END_MARK = re.compile(r"\s*(<[^<>\s]{1,40}>|\[[^\[\]\s]{1,40}\])")
_SYSTEM, _USER, _ANSWER = "sYsTeM", "uSeR", "aNsWeR"  # texts that no template has


class Refused(Exception):
    """The template called raise_exception: it does not support these messages."""


class Template:
    """A compiled chat template."""

    def __init__(
        self,
        source: str | None,
        *,
        now: datetime,
        bos: str = "",
        eos: str = "",
        name: str = "the model",
        own: bool = False,
        seconds: float = SECONDS,
        is_name: bool = False,
    ) -> None:
        """Compile `source`, or ChatML if it is None.

        The template's strftime_now returns `now`, the beginning of the conversation: with the
        current date, a resumed chat would have another prompt. `own`: the person gave this
        template. `is_name`: `source` is the name of one of llama.cpp's templates.
        """
        self.is_fallback = source is None
        self.parts: frozenset[str] = frozenset()  # roles whose content is given as a list
        self._is_name = is_name
        self._source = CHATML if source is None else source
        self._name = "The chat template you gave" if own else f"The chat template of {name}"
        self._change = {} if own else {"chat_template": "FILE"}
        self._env = Sandbox(seconds)
        self._one_at_a_time = threading.Lock()  # the Sandbox has one clock
        self._env.globals |= {
            "bos_token": bos,
            "eos_token": eos,
            "raise_exception": _refuse,
            # a field of strftime may be a million characters wide
            "strftime_now": lambda pattern: now.strftime(pattern[:100]),
        }
        if len(source or "") > SOURCE_LIMIT:
            raise self._error(f"has {len(source or ''):,} characters; {SOURCE_LIMIT:,} are allowed")
        if not is_name:
            self._compiled = self._guarded([], lambda: self._env.from_string(self._source))

    def with_parts(self, roles: Collection[str]) -> "Template":
        """The same template, which gets the content of these roles as a list of parts."""
        other = copy.copy(self)
        for name in ("_takes_system", "_own_system", "_can_be_silent"):  # cached properties
            vars(other).pop(name, None)
        other.parts = frozenset(roles)
        return other

    def useless(self) -> TemplateError:
        """The error for a template that does not print the question."""
        return self._error("never prints the content of a message")

    def _error(self, what: str) -> TemplateError:
        return TemplateError(f"{self._name} {what}.", change=self._change)

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        variables: Mapping[str, Any] = MappingProxyType({}),
        *,
        ask: bool = True,
    ) -> str:
        """The text of the prompt. With `ask` it ends where the model's answer begins.

        Messages are {"role", "content"}, with "reasoning_content" if there is any; `variables`
        are further variables of the template. If the template does not print system messages,
        the system text goes in front of the first question; if it refuses two messages of one
        role in a row, they are joined.
        """
        copies = [dict(m) for m in messages]
        return self._guarded(copies, lambda: self._render(copies, ask, variables))

    def uses(self, *names: str) -> bool:
        """Whether one of these variables occurs in the template."""
        return any(name in self.source for name in names)

    @property
    def source(self) -> str:
        """The Jinja source; "" for one of llama.cpp's templates."""
        return "" if self._is_name else self._source

    @property
    def thinks(self) -> bool:
        """Whether the template supports thinking."""
        return thinks(self.source)

    @property
    def takes_system(self) -> bool:
        """Whether the template prints system messages."""
        return bool(self._asked(lambda: self._takes_system, False))

    def own_system(self, silent: bool = False) -> str:
        """The system text that the template adds to a conversation without one; with `silent`, to
        a conversation whose system text is empty."""
        own: str = self._asked(lambda: self._own_system, "")
        return "" if silent and self._asked(lambda: self._can_be_silent, False) else own

    @functools.cached_property
    def end_marks(self) -> tuple[str, ...]:
        """The texts that end an answer, for a vocabulary without a token for that."""
        if self.is_fallback:
            return CHATML_MARKS
        talk = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
        after = self._asked(lambda: self._render(talk, False, {}), "").rpartition(_ANSWER)[2]
        found = _END_MARK.match(after)
        return (found[1],) if found else ()

    def _asked(self, work: Callable[[], Any], otherwise: Any) -> Any:
        """The result of `work`, which renders the template; `otherwise` if that fails."""
        try:
            return self._guarded([], work)
        except TemplateError:
            return otherwise

    def _render(
        self, messages: list[dict[str, Any]], ask: bool, variables: Mapping[str, Any]
    ) -> str:
        if messages and messages[0]["role"] == "system":
            if not messages[0]["content"].strip() and not self._can_be_silent:
                messages = messages[1:] or messages
            elif not self._takes_system:
                messages = _system_into_user(messages)
        try:
            return self._once(messages, variables, ask)
        except Refused:
            return self._once(_alternating(messages), variables, ask)

    def _once(
        self, messages: list[dict[str, Any]], variables: Mapping[str, Any], ask: bool = True
    ) -> str:
        if self._is_name:
            return template_builtin.apply(self._source, messages, ask)
        if self.parts:
            messages = [_in_parts(m) if m["role"] in self.parts else m for m in messages]
        names = {**variables, "messages": messages, "add_generation_prompt": ask}
        try:
            # templates ask "if tools" or "tools is not none" ...
            return self._env.render(self._compiled, {"tools": None, "documents": None} | names)
        except TypeError:
            # ... or loop over them without asking
            return self._env.render(self._compiled, {"tools": [], "documents": []} | names)

    @functools.cached_property
    def _takes_system(self) -> bool:
        return _SYSTEM.lower() in self._with_system(_SYSTEM).lower()

    @functools.cached_property
    def _own_system(self) -> str:
        before, found, after = self._with_system(_SYSTEM).partition(_SYSTEM)
        without = self._with_system(None)
        size = len(without) - len(before) - len(after)
        if found and size > 0 and without.startswith(before) and without.endswith(after):
            return without[len(before) : len(before) + size].strip()
        return ""

    @functools.cached_property
    def _can_be_silent(self) -> bool:
        """Whether an empty system text replaces the template's own."""
        empty = self._own_system and self._with_system("")
        return bool(empty) and self._own_system not in empty

    def _with_system(self, text: str | None) -> str:
        """A question after this system text; "" if the template refuses that."""
        system = [] if text is None else [{"role": "system", "content": text}]
        try:
            return self._once([*system, {"role": "user", "content": _USER}], {})
        except Refused:
            return ""

    def _guarded(self, messages: list[dict[str, Any]], work: Callable[[], Any]) -> Any:
        """The result of `work`, which runs the template; every failure is a TemplateError."""
        try:
            with self._one_at_a_time:
                self._env.start(messages)
                return work()
        except Refused as error:
            raise self._error(f"refuses these messages: {error}") from error
        except Exceeded as error:
            raise self._error(f"takes too much {error}") from error
        # a template can raise anything: MemoryError, RecursionError, its own TypeError
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
            raise self._error(f"does not work: {_line(error)}{reason}") from error


def _line(error: Exception) -> str:
    """The line of the template that failed, as "line 3: "; "" if that is unknown."""
    numbers = [n for f, n in walk_tb(error.__traceback__) if f.f_code.co_filename in _PROGRAM]
    return f"line {numbers[-1]}: " if numbers else ""


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its content as a list, as templates of vision models expect it."""
    return message | {"content": [{"type": "text", "text": message["content"]}]}


def _refuse(message: object) -> None:
    raise Refused(" ".join(str(message).split()).rstrip(".")[:200])


def _system_into_user(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system, *rest = messages
    for i, message in enumerate(rest):
        if message["role"] == "user":
            joined = f"{system['content']}\n\n{message['content']}"
            return [*rest[:i], message | {"content": joined}, *rest[i + 1 :]]
    return [system | {"role": "user"}, *rest]


def _alternating(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join messages of one role in a row: an unanswered question and the next one."""
    folded: list[dict[str, Any]] = []
    for message in messages:
        if folded and folded[-1]["role"] == message["role"]:
            joined = f"{folded[-1]['content']}\n\n{message['content']}"
            folded[-1] = folded[-1] | {"content": joined}
        else:
            folded.append(message)
    return folded
