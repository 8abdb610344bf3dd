"""Samples an answer that matches its constraint, token by token. Thinking is not constrained.

The constraint applies from the answer's first character on; the OutputParser knows where that is.
llama.cpp's lazy grammars are no alternative: they begin at a pattern in the text, which a model
that does not think never writes, and they search the whole thinking again at every token.
"""

from collections.abc import Iterable
from typing import Protocol

from lcp.answers.output_parser import OutputParser
from lcp.engine.context import Context
from lcp.engine.llama_library import library
from lcp.engine.model import Model
from lcp.engine.sampler import Sampler, TokenCandidates
from lcp.errors import AnswerDoesNotMatch


class Matcher(Protocol):
    """An automaton for one constraint: it tells which tokens may come next in an answer."""

    @property
    def complete(self) -> bool:
        """Whether the answer is complete: no token may follow."""

    @property
    def why(self) -> str:
        """Why no token is allowed; "" if the vocabulary just lacks the tokens."""

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""

    def accept(self, token: int) -> None:
        """Advance by an allowed token."""

    def forced(self) -> list[int]:
        """The tokens that must come next, as the model's tokenizer spells the text; [] if different
        texts may follow."""

    def sample(self, sampler: Sampler, context: Context, row: int) -> int:
        """Sample one of the allowed tokens from a row of logits; -1 if there is none."""

    def close(self) -> None:
        """Free the automaton."""


class ConstrainedSampler:
    """Samples the tokens of one answer with a constraint."""

    def __init__(
        self, matcher: Matcher, model: Model, parser: OutputParser, shown: frozenset[int]
    ) -> None:
        """`parser` parses this answer; `shown` are the control tokens that spell tags."""
        self._matcher = matcher
        self._model = model
        self._parser = parser
        self._shown = shown
        self._openers = _openers(model, parser.tags.openers)
        self._all = TokenCandidates(model.n_vocab)
        self.forced: list[int] = []  # the tokens that are known to come next
        self.began = False  # the answer has begun: the constraint applies

    @property
    def complete(self) -> bool:
        """Whether the answer is complete: no token may follow."""
        return self.began and self._matcher.complete

    @property
    def why(self) -> str:
        """Why no token is allowed; see Matcher."""
        return self._matcher.why

    def sample(self, sampler: Sampler, context: Context, row: int = -1) -> int | None:
        """The next token: a forced one, or one sampled from a row of logits; None if no token of
        the model is allowed. A forced token uses no random number."""
        if self.forced:
            token = self.forced.pop(0)
            if self.began:
                self._matcher.accept(token)
        elif (token := self._sample(sampler, context, row)) < 0:
            return None
        sampler.accept(token)
        return token

    def follow(self, tokens: Iterable[int]) -> Iterable[int]:
        """Advance by the tokens of an answer to continue, and yield them. The caller must parse
        each token before it takes the next one. Raises AnswerDoesNotMatch."""
        for token in tokens:
            if not self._is_free(token):
                self._begin()
                if not self._matcher.allows(token):
                    raise AnswerDoesNotMatch("The answer so far does not match the constraint.")
                self._matcher.accept(token)
            yield token

    def _sample(self, sampler: Sampler, context: Context, row: int) -> int:
        # 1) Sample without the constraint. Checking one token takes microseconds, checking the
        #    whole vocabulary takes milliseconds. llama.cpp (common/sampling.cpp) does the same.
        self._all.fill(context, row)
        token = sampler.select(self._all)
        if token < 0:
            return token
        # 2) Accept it if it belongs to the thinking or to a tag around it.
        if not self.began and (tag := self._rest_of_tag(token)):
            token, *self.forced = tag
            return token
        if self._is_free(token):
            return token
        # 3) If the constraint does not allow it, sample again from the allowed tokens.
        self._begin()
        if not self._matcher.allows(token):
            token = self._matcher.sample(sampler, context, row)
        if token >= 0 and not self._model.is_end(token):
            self._matcher.accept(token)
            # 4) Some tokens must follow now, such as the next key of an object.
            self.forced = self._matcher.forced()
        return token

    def _begin(self) -> None:
        if not self.began:
            self.began = True
            self._parser.begin_answer()

    def _is_free(self, token: int) -> bool:
        """Whether a token that is not parsed yet is outside the answer."""
        parser = self._parser
        if self.began:
            return False
        if parser.closer or parser.half_tag or token in self._openers:
            return True
        # blank lines between thinking and answer
        blank = not self._model.piece(token).strip() and not self._model.is_end(token)
        return parser.after_thinking and blank and not self._matcher.allows(token)

    def _rest_of_tag(self, token: int) -> list[int]:
        """The tokens that complete a tag, if the sampled token would leave it open; else []."""
        parser, model = self._parser, self._model
        if parser.closer:
            return model.tokenize(parser.closer) if model.is_end(token) else []
        begun = parser.half_tag
        piece = model.piece(token, special=token in self._shown).decode("utf-8", "replace")
        text = begun + piece
        tags = parser.tags.openers
        if not begun or (piece and any(t.startswith(text) or text.startswith(t) for t in tags)):
            return []
        whole = next(tag for tag in tags if tag.startswith(begun))
        return model.tokenize(whole[len(begun) :])


def _openers(model: Model, tags: Iterable[str]) -> frozenset[int]:
    """The tokens that can only begin a tag: they are a whole tag, or not ordinary text. So a model
    that spells "<think>" with ordinary tokens cannot think if there is a constraint."""
    c = library()
    structure = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_USER_DEFINED
    found = (model.tokenize(tag) for tag in tags)
    return frozenset(
        t[0] for t in found if t and (len(t) == 1 or model.attributes(t[0]) & structure)
    )
