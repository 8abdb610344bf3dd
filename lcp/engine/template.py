"""Template: messages -> the prompt text, by the model's own chat template.

The template is a Jinja program out of a downloaded file, so it runs in a Sandbox; whatever it does
there ends in text or in one sentence. It knows no tokens.
"""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from traceback import walk_tb
from types import MappingProxyType
from typing import Any

from lcp.engine.sandbox import Exceeded, Sandbox
from lcp.errors import TemplateError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PROGRAM = ("<template>", "<unknown>")  # where Jinja says that an error was
SECONDS = 2.0
SOURCE_LIMIT = 1 << 16  # characters; the longest in use are near 20,000


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
    ) -> None:
        """`now` is what strftime_now answers: the moment the conversation began, or the next
        day's resume would change the prompt's first lines. Without a source ChatML is used.
        `own`: it is not the model's but a file of the person's, who can mend it."""
        self.is_fallback = source is None
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
        self._compiled = self._guarded([], lambda: self._env.from_string(self._source))
        if own and not self._guarded([], self._prints_messages):
            raise TemplateError(f"{self._name} never prints a message's content. {self._way}.")

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
        return any(name in self._source for name in names)

    def _render(
        self, messages: list[dict[str, Any]], ask: bool, variables: Mapping[str, Any]
    ) -> str:
        if messages and messages[0]["role"] == "system" and not self._takes_system:
            messages = _system_into_user(messages)
        try:
            return self._once(messages, variables, ask)
        except Refused:
            return self._once(_alternating(messages), variables, ask)

    def _once(
        self, messages: list[dict[str, Any]], variables: Mapping[str, Any], ask: bool = True
    ) -> str:
        names = {**variables, "messages": messages, "add_generation_prompt": ask}
        try:
            # templates ask "if tools" or "tools is not none" ...
            return self._env.render(self._compiled, {"tools": None, "documents": None} | names)
        except TypeError:
            # ... or loop over them without asking
            return self._env.render(self._compiled, {"tools": [], "documents": []} | names)

    def _prints_messages(self) -> bool:
        try:
            return "xyzzy" in self._once([{"role": "user", "content": "xyzzy"}], {}).lower()
        except Refused:
            return True  # but not alone

    @functools.cached_property
    def _takes_system(self) -> bool:
        probe = [{"role": "system", "content": "sYsTeM"}, {"role": "user", "content": "uSeR"}]
        try:
            return "sYsTeM" in self._once(probe, {})
        except Refused:
            return False

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
