"""PromptWriter: messages -> the tokens the model reads.

What the model said stays as it said it: where the template prints a message's text unchanged,
the ids that were sampled are spliced in, because text tokenised again is not always what was
sampled, and everything behind the first difference would be read again.
What a person or a file says is text: "<|im_end|>" in it does not become the control token.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lcp.engine.model import Model
from lcp.engine.plan import common_prefix
from lcp.engine.template import Template

# Private-use characters mark where message i's text begins and ends in the rendered prompt.
_MARKS = 0xF0000
_MAX_MARKS = 0x7FFE

Message = dict[str, Any]
Messages = Sequence[Message]


@dataclass(frozen=True)
class Prompt:
    """Tokens to feed; `boundary` of them are the messages, the rest asks for the answer."""

    tokens: list[int]
    boundary: int | None
    tail: str  # the last characters, which may open the model's thinking


@dataclass(frozen=True)
class _Stretch:
    """A part [start, end) of the rendered prompt with a tokenisation of its own."""

    start: int
    end: int
    tokens: Sequence[int]


class PromptWriter:
    """Writes prompts of one template for one model."""

    def __init__(self, template: Template, model: Model) -> None:
        self._template = template
        self._model = model
        # a conversation's earlier stretches come again with every turn
        self._ids = functools.lru_cache(maxsize=4096)(self._tokenize_middle)

    def write(self, messages: Messages, think: bool = True) -> Prompt:
        """The prompt for an answer to `messages`.

        A message is {"role", "content"}, and may carry "thinking" (text), "tokens" (ids as
        sampled) and "fingerprint" (of the model that sampled them).
        """
        text, tokens = self._write(messages, ask=True, think=think)
        boundary = None
        if self._model.memory.recurrent or self._model.memory.window:
            _, without_tail = self._write(messages, ask=False, think=think)
            boundary = common_prefix(tokens, without_tail)
        return Prompt(tokens, boundary, text[-64:])

    def _write(self, messages: Messages, ask: bool, think: bool) -> tuple[str, list[int]]:
        shown = [_for_template(m) for m in messages]
        text = self._template.render(shown, ask=ask, think=think)
        stretches = self._stretches(messages, shown, text, ask, think)
        return text, self._splice(text, stretches) or self._whole(text)

    def _stretches(
        self, messages: Messages, shown: list[Message], text: str, ask: bool, think: bool
    ) -> list[_Stretch]:
        """Where contents stand in the text, for those that must not be tokenised with it."""
        own = {
            i: tokens
            for i, m in enumerate(messages[:_MAX_MARKS])
            if (tokens := self._own_tokens(m)) is not None
        }
        if not own:
            return []
        marked = [_marked(m, i) if i in own else m for i, m in enumerate(shown)]
        rendered = self._template.render(marked, ask=ask, think=think)
        if _unmarked(rendered) != text:
            return []  # the template looks into the contents; marks change what it does
        stretches, position = [], 0
        for i, tokens in own.items():
            opening, closing = _marks(i)
            start, end = rendered.find(opening, position), rendered.find(closing, position)
            if not position <= start < end or rendered.count(opening) != 1:
                continue  # not printed, twice, or elsewhere
            before = len(_unmarked(rendered[:start]))
            lead, core, trail = _parts(messages[i]["content"])
            begin, finish = before - len(lead), before + len(core) + len(trail)
            position = end
            if text[begin:finish] == lead + core + trail:
                stretches.append(_Stretch(begin, finish, tokens))
        return stretches

    def _own_tokens(self, message: Message) -> Sequence[int] | None:
        """Ids a message brings along, or needs so that its text stays text; else None."""
        content = message["content"]
        if not content.strip():
            return None
        if message.get("tokens") and message.get("fingerprint") == self._model.fingerprint:
            return list(message["tokens"])
        as_text = self._ids(content, False)
        return as_text if as_text != self._ids(content, True) else None

    def _splice(self, text: str, stretches: list[_Stretch]) -> list[int] | None:
        """The text tokenised around the stretches; None where pieces do not add up to it."""
        if not stretches:
            return None
        tokens = self._whole(text[: stretches[0].start])
        for stretch, next_start in zip(
            stretches, [s.start for s in stretches[1:]] + [len(text)], strict=True
        ):
            between = self._ids(text[stretch.end : next_start], True)
            if between is None:
                return None
            tokens += [*stretch.tokens, *between]
        return tokens

    def _whole(self, text: str) -> list[int]:
        """Tokens of a text from its very beginning, with BOS where the model wants one."""
        model = self._model
        tokens = model.tokenize(text)
        if model.adds_bos and model.bos >= 0 and tokens[:1] != [model.bos]:
            return [model.bos, *tokens]
        return tokens

    def _tokenize_middle(self, text: str, special: bool) -> tuple[int, ...] | None:
        """Tokens of a text in the middle of a prompt, None when they do not spell it."""
        tokens = self._model.tokenize(text, special)
        spelled = b"".join(self._model.piece(t, special=True) for t in tokens)
        raw = text.encode("utf-8", "replace")
        # sentencepiece vocabularies put a space in front of whatever they tokenise
        if spelled == b" " + raw and self._model.piece(tokens[0]) == b" ":
            return tuple(tokens[1:])
        return tuple(tokens) if spelled == raw else None


def _for_template(message: Message) -> Message:
    shown = {"role": message["role"], "content": message["content"]}
    if message.get("thinking"):
        shown["reasoning_content"] = message["thinking"]
    return shown


def _marks(i: int) -> tuple[str, str]:
    return chr(_MARKS + 2 * i), chr(_MARKS + 2 * i + 1)


def _marked(message: Message, i: int) -> Message:
    """Marks inside the white space at the ends: nearly half of all templates trim contents."""
    opening, closing = _marks(i)
    lead, core, trail = _parts(message["content"])
    return message | {"content": lead + opening + core + closing + trail}


def _parts(content: str) -> tuple[str, str, str]:
    core = content.strip()
    at = content.index(core)
    return content[:at], core, content[at + len(core) :]


def _unmarked(text: str) -> str:
    return "".join(c for c in text if not _MARKS <= ord(c) < _MARKS + 0x10000)
