"""Template: messages -> the prompt text, by the model's own chat template.

The template is a Jinja program out of a downloaded file, so it runs in a Sandbox; whatever it does
there ends in text or in one sentence. Or it is one that llama.cpp has under a name. It knows no
tokens.
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

from lcp.engine import template_builtin
from lcp.engine.template_sandbox import Exceeded, Sandbox
from lcp.errors import TemplateError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What ends a message in ChatML, and begins the next one.
CHATML_MARKS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
_PROGRAM = ("<template>", "<unknown>")  # where Jinja says that an error was
SECONDS = 2.0
SOURCE_LIMIT = 1 << 16  # characters; the longest in use are near 20,000
# What ends a message, as far as it can be told from the text: "<|im_end|>", "[/INST]", "</s>".
_END_MARK = re.compile(r"\s*(<[^<>\s]{1,40}>|\[[^\[\]\s]{1,40}\])")
_SYSTEM, _USER, _ANSWER = "sYsTeM", "uSeR", "aNsWeR"  # texts that no template has


class Refused(Exception):
    """The template called raise_exception: it does not take such messages."""


class Template:
    """A compiled chat template; `render` is a pure function of the messages."""

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
        """`now` is what strftime_now answers: the moment the conversation began, or the next
        day's resume would change the prompt's first lines. Without a source ChatML is used.
        `own`: it is not the model's but a file of the person's, who can mend it. `is_name`: the
        source is the name of a template of llama.cpp's."""
        self.is_fallback = source is None
        self.parts: frozenset[str] = frozenset()  # roles whose content it wants as a list of parts
        self._is_name = is_name
        self._source = CHATML if source is None else source
        self._name = "The file of --chat-template" if own else f"The chat template of {name}"
        self._way = "Mend it" if own else "Give another one with --chat-template FILE"
        self._env = Sandbox(seconds)
        self._one_at_a_time = threading.Lock()  # the Sandbox counts for one
        self._env.globals |= {
            "bos_token": bos,
            "eos_token": eos,
            "raise_exception": _refuse,
            # its fields can be given any width
            "strftime_now": lambda pattern: now.strftime(pattern[:100]),
        }
        if len(source or "") > SOURCE_LIMIT:
            raise TemplateError(f"{self._name} is too long. {self._way}.")
        if not is_name:
            self._compiled = self._guarded([], lambda: self._env.from_string(self._source))

    def with_parts(self, roles: Collection[str]) -> "Template":
        """The same template, which is given the content of these roles as a list of parts."""
        other = copy.copy(self)
        for name in ("_takes_system", "_own_system", "_can_be_silent"):  # known of this one only
            vars(other).pop(name, None)
        other.parts = frozenset(roles)
        return other

    def useless(self) -> TemplateError:
        """The error for a template that prints no question."""
        return TemplateError(f"{self._name} never prints a message's content. {self._way}.")

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        variables: Mapping[str, Any] = MappingProxyType({}),
        *,
        ask: bool = True,
    ) -> str:
        """The prompt text; with `ask` it ends where the model's answer begins. `variables` are
        what else the template is told.

        Messages are {"role", "content"} with an optional "reasoning_content". A template that
        takes no system message, or wants roles to alternate, gets them folded so that it does.
        """
        copies = [dict(m) for m in messages]
        return self._guarded(copies, lambda: self._render(copies, ask, variables))

    def uses(self, *names: str) -> bool:
        """Whether the template looks at one of these variables."""
        return any(name in self.source for name in names)

    @property
    def source(self) -> str:
        """The program, "" of one that llama.cpp has."""
        return "" if self._is_name else self._source

    @property
    def takes_system(self) -> bool:
        """Whether it prints a system text; where not, that goes in front of the first question."""
        return bool(self._asked(lambda: self._takes_system, False))

    def own_system(self, silent: bool = False) -> str:
        """The system text that the template itself has, for a conversation without one; with
        `silent` for a conversation whose system text is empty."""
        own: str = self._asked(lambda: self._own_system, "")
        return "" if silent and self._asked(lambda: self._can_be_silent, False) else own

    @functools.cached_property
    def end_marks(self) -> tuple[str, ...]:
        """What ends the model's answer as a text, for a vocabulary that has no token for it."""
        if self.is_fallback:
            return CHATML_MARKS
        talk = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
        behind = self._asked(lambda: self._render(talk, False, {}), "").rpartition(_ANSWER)[2]
        found = _END_MARK.match(behind)
        return (found[1],) if found else ()

    def _asked(self, work: Callable[[], Any], otherwise: Any) -> Any:
        """What is found out by rendering; of a template that fails at it, `otherwise`."""
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
        before, found, behind = self._with_system(_SYSTEM).partition(_SYSTEM)
        without = self._with_system(None)
        size = len(without) - len(before) - len(behind)
        if found and size > 0 and without.startswith(before) and without.endswith(behind):
            return without[len(before) : len(before) + size].strip()
        return ""

    @functools.cached_property
    def _can_be_silent(self) -> bool:
        """Whether an empty system text takes away the template's own."""
        empty = self._own_system and self._with_system("")
        return bool(empty) and self._own_system not in empty

    def _with_system(self, text: str | None) -> str:
        """A question behind this system text; "" where the template refuses that."""
        system = [] if text is None else [{"role": "system", "content": text}]
        try:
            return self._once([*system, {"role": "user", "content": _USER}], {})
        except Refused:
            return ""

    def _guarded(self, messages: list[dict[str, Any]], work: Callable[[], Any]) -> Any:
        """Whatever goes wrong inside somebody else's program, as one sentence."""
        try:
            with self._one_at_a_time:
                self._env.start(messages)
                return work()
        except Refused as error:
            raise TemplateError(
                f"{self._name} refuses these messages: {error}. {self._way}."
            ) from error
        except Exceeded as error:
            raise TemplateError(f"{self._name} takes too much {error}. {self._way}.") from error
        # a template can raise anything: MemoryError, RecursionError, its own TypeError
        except Exception as error:
            reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
            raise TemplateError(
                f"{self._name} does not work: {_line(error)}{reason}. {self._way}."
            ) from error


def _line(error: Exception) -> str:
    """ "line 3: ", where the program went wrong; "" where nobody knows."""
    numbers = [n for f, n in walk_tb(error.__traceback__) if f.f_code.co_filename in _PROGRAM]
    return f"line {numbers[-1]}: " if numbers else ""


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """The message as templates of models that see want it."""
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
    """Neighbours of one role as one message: an unanswered question and the next one."""
    folded: list[dict[str, Any]] = []
    for message in messages:
        if folded and folded[-1]["role"] == message["role"]:
            joined = f"{folded[-1]['content']}\n\n{message['content']}"
            folded[-1] = folded[-1] | {"content": joined}
        else:
            folded.append(message)
    return folded
