"""Messages to the tokens of a prompt.

An answer keeps the ids that were sampled if the template prints its text unchanged: tokenizing the
text again may give other ids, and all tokens after the first difference would be read again. What a
person or a file says is text: "<|im_end|>" in it does not become the control token.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from lcp.common_prefix import common_prefix
from lcp.engine.model import Model
from lcp.engine_interface import PromptMessage
from lcp.errors import TemplateError

if TYPE_CHECKING:
    from lcp.engine.template import Template

Messages = Sequence[PromptMessage]
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """The tokens of a prompt; `boundary` of them are messages, the rest asks for an answer."""

    tokens: list[int]
    boundary: int | None
    tail: str  # the last characters, which may open the model's thinking
    raw: bool = False  # text to continue, without a chat template


@dataclass(frozen=True)
class _Stretch:
    """A part [start, end) of the rendered prompt with tokens of its own."""

    start: int
    end: int
    tokens: Sequence[int]


class PromptWriter:
    """Writes prompts with one template for one model."""

    def __init__(
        self,
        template: "Template",
        model: Model,
        variables: Callable[[], Mapping[str, Any]] = dict,
        raw: Callable[[], bool] = lambda: False,
    ) -> None:
        """`variables` gives the variables of the template; `raw`: whether to use no template."""
        self.template = template
        self._variables = variables
        self._raw = raw
        self._model = model
        # Earlier messages come again with every turn.
        self._ids = Remembered(model.tokenize_middle)

    def write(self, messages: Messages) -> Prompt:
        """The prompt for an answer to `messages`. Raises TemplateError if it has no tokens."""
        if self._raw():
            return self._continued(messages)
        variables = self._variables()
        text, tokens = self._write(messages, variables, ask=True)
        if not tokens:
            raise TemplateError(
                "The model would see none of this message: its chat template or its tokenizer is "
                "broken. Choose another model or another template.",
                change={"chat_template": "FILE"},
            )
        boundary = None
        if self._model.memory.recurrent or self._model.memory.window:
            _, without_tail = self._write(messages, variables, ask=False)
            boundary = common_prefix(tokens, without_tail)
        return Prompt(tokens, boundary, text[-64:])

    def count(self, messages: Messages) -> int:
        """Tokens of the messages, without the end that asks for an answer."""
        if self._raw():
            return len(self._continued(messages).tokens)
        return len(self._write(messages, self._variables(), ask=False)[1])

    def _continued(self, messages: Messages) -> Prompt:
        """Questions and answers as one text to continue, without the system text. Special tokens in
        it are read as such."""
        text, stretches = "", []
        for message in messages:
            if message.role != "system":
                begin, text = len(text), text + message.content
                if sampled := self._sampled(message):
                    stretches.append(_Stretch(begin, len(text), sampled))
        tokens = self._splice(text, stretches)
        if not tokens:
            raise TemplateError("There is no text to continue. Write some.")
        return Prompt(tokens, len(tokens), "", raw=True)

    def _write(
        self, messages: Messages, variables: Mapping[str, Any], ask: bool
    ) -> tuple[str, list[int]]:
        shown = [_for_template(m) for m in messages]
        text = self.template.render(shown, variables, ask=ask)
        # Contents with tokens of their own: sampled ones, or because they spell a control token.
        own = [i for i, m in enumerate(messages) if self._sampled(m) or self._as_text(m)]
        if not own:
            return text, self._whole(text)
        # A character that is nowhere else marks where each of them begins in the prompt.
        marks = dict(zip(own, _unused_characters(text), strict=False))
        marked = [_marked(m, marks[i]) if i in marks else m for i, m in enumerate(shown)]
        rendered = self.template.render(marked, variables, ask=ask)
        between = re.split(f"([{''.join(marks.values())}])", rendered)
        pieces, found = between[::2], between[1::2]
        if "".join(pieces) != text:  # the template depends on the contents
            return text, self._whole(text)
        places = dict(zip(found, accumulate(map(len, pieces)), strict=False))
        stretches: list[_Stretch] = []
        for i, mark in marks.items():
            if found.count(mark) == 1:  # printed, and once
                stretch = self._stretch(messages[i], text, places[mark])
                if stretch and stretch.start >= (stretches[-1].end if stretches else 0):
                    stretches.append(stretch)
        return text, self._splice(text, stretches)

    def _stretch(self, message: PromptMessage, text: str, at: int) -> _Stretch | None:
        """The place of a content in the text; its first visible character is at `at`."""
        content = message.content
        lead, core, _ = _parts(content)
        begin = at - len(lead)
        sampled, as_text = self._sampled(message), self._as_text(message)
        if sampled and begin >= 0 and text.startswith(content, begin):
            return _Stretch(begin, begin + len(content), sampled)
        if as_text and text.startswith(core, at):
            return _Stretch(at, at + len(core), as_text)
        return None

    def _sampled(self, message: PromptMessage) -> Tokens:
        """The ids that this model sampled for the content, or ()."""
        own = message.identity == self._model.fingerprint
        return message.tokens if own and message.content.strip() else ()

    def _as_text(self, message: PromptMessage) -> Tokens | None:
        """The ids of a content that would else become control tokens; None if none would."""
        _, core, _ = _parts(message.content)
        as_text = self._ids(core, False)
        return as_text if as_text != self._ids(core, True) else None

    def _splice(self, text: str, stretches: list[_Stretch]) -> list[int]:
        """The tokens of the text, with those of the stretches."""
        ends = [*(s.start for s in stretches), len(text)]
        tokens = self._whole(text[: ends[0]])
        for stretch, next_start in zip(stretches, ends[1:], strict=True):
            tokens += [*stretch.tokens, *self._ids(text[stretch.end : next_start], True)]
        return tokens

    def _whole(self, text: str) -> list[int]:
        """Tokens of the beginning of a prompt, with BOS if the model wants one."""
        model = self._model
        tokens = model.tokenize(text)
        if model.adds_bos and model.bos >= 0 and tokens[:1] != [model.bos]:
            return [model.bos, *tokens]
        return tokens


class Remembered:
    """A function of (text, flag) that remembers its results for the last `limit` characters, or for
    up to twice as many."""

    def __init__(self, function: Callable[[str, bool], Tokens], limit: int = 1 << 20) -> None:
        self._function = function
        self._limit = limit
        self._new: dict[tuple[str, bool], Tokens] = {}
        self._old: dict[tuple[str, bool], Tokens] = {}
        self._size = 0  # characters in the new ones

    def __call__(self, text: str, flag: bool) -> Tokens:
        key = text, flag
        if (known := self._new.get(key)) is not None:
            return known
        found = self._new[key] = self._old.get(key) or self._function(text, flag)
        self._size += len(text)
        if self._size > self._limit:
            self._new, self._old, self._size = {}, self._new, 0
        return found


def _for_template(message: PromptMessage) -> dict[str, Any]:
    shown = {"role": message.role, "content": message.content}
    return shown | {"reasoning_content": message.thinking} if message.thinking else shown


def _unused_characters(text: str) -> Iterator[str]:
    """Private-use characters that are not in the text."""
    used = set(text)
    return (c for c in map(chr, range(0xF0000, 0x10FFFE)) if c not in used)


def _marked(message: dict[str, Any], mark: str) -> dict[str, Any]:
    """The message with a mark after its leading white space, which many templates trim."""
    lead, core, trail = _parts(message["content"])
    return message | {"content": lead + mark + core + trail}


def _parts(content: str) -> tuple[str, str, str]:
    """Leading white space, the text, trailing white space."""
    core = content.strip()
    at = content.index(core)
    return content[:at], core, content[at + len(core) :]
