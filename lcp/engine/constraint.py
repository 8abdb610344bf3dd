"""Constraint: an answer held to a grammar, token by token; the thinking before it is free.

The grammar begins with the answer's first character. llama.cpp's lazy grammars would begin at a
pattern in the text, which a model that does not think never says, and search all of the thinking
again at every token; the Decoder knows the place anyway.
"""

from collections.abc import Iterable

from lcp.engine.context import Context
from lcp.engine.decoder import Decoder
from lcp.engine.grammar import parse
from lcp.engine.model import Model
from lcp.engine.native import library
from lcp.engine.sampler import Candidates, Sampler
from lcp.errors import SettingsError


class Constraint:
    """A grammar and how far an answer has come in it."""

    def __init__(self, grammar: str, model: Model, decoder: Decoder, shown: frozenset[int]) -> None:
        """`decoder` is of this answer; `shown` are the control tokens that spell tags. Raises
        SettingsError for a grammar that llama.cpp cannot parse."""
        self._grammar = parse(grammar, "The grammar", model.vocab)
        self._model = model
        self._decoder = decoder
        self._shown = shown
        self._openers = _openers(model, decoder.tags.openers)
        self._all = Candidates(model.n_vocab)
        self._one = Candidates(1)
        self._silent: set[int] = set()  # control tokens that llama.cpp takes for their spelling
        self._forced: list[int] = []
        self.began = False  # the answer has begun, and the grammar with it

    def sample(self, sampler: Sampler, context: Context) -> int | None:
        """Draw the next token; None where nothing that the model can say fits."""
        token = self._forced.pop(0) if self._forced else self._draw(sampler, context)
        if token is not None:
            sampler.accept(token)
        return token

    def follow(self, tokens: Iterable[int]) -> Iterable[int]:
        """Take in an answer that was cut, to go on with it; each token is to be decoded before
        the next one is asked for."""
        for token in tokens:
            if not self._is_free(token):
                self._begin()
                if not self._fits(token):
                    raise SettingsError(
                        "What was said so far does not follow the grammar. /retry answers anew."
                    )
                self._take(token)
            yield token

    def close(self) -> None:
        """Free the grammar."""
        library().llama_sampler_free(self._grammar)

    def _draw(self, sampler: Sampler, context: Context) -> int | None:
        # 1) Draw as without a grammar. To look at one token costs microseconds, to look at a
        #    whole vocabulary tens of milliseconds (llama.cpp, common/sampling.cpp).
        self._all.fill(context)
        token = sampler.draw(self._all)
        if token < 0:
            return None
        # 2) What belongs to the thinking, or to a tag around it, passes.
        if not self.began and (tag := self._rest_of_tag(token)):
            token, *self._forced = tag
            return token
        if self._is_free(token):
            return token
        # 3) Where the grammar refuses it, draw from what it does not refuse.
        self._begin()
        if not self._fits(token):
            token = self._draw_fitting(sampler, context)
        if token >= 0 and not self._model.is_end(token):
            self._take(token)
        return token if token >= 0 else None

    def _draw_fitting(self, sampler: Sampler, context: Context) -> int:
        while True:
            self._all.fill(context)
            self._all.apply(self._grammar)
            for token in self._silent:
                self._all.forbid(token)
            token = sampler.draw(self._all)
            if token < 0 or not self._is_silent(token):
                return token
            self._silent.add(token)

    def _fits(self, token: int) -> bool:
        """Whether the grammar allows this token next."""
        if self._is_silent(token):
            return False
        self._one.put(token)
        self._one.apply(self._grammar)
        return self._one.possible()

    def _take(self, token: int) -> None:
        # A token that does not fit would end the process here: an exception of C++.
        library().llama_sampler_accept(self._grammar, token)

    def _is_silent(self, token: int) -> bool:
        """Whether the token leaves no text, but ends no answer either."""
        return not self._model.piece(token) and not self._model.is_end(token)

    def _begin(self) -> None:
        if not self.began:
            self.began = True
            self._decoder.begin_answer()

    def _is_free(self, token: int) -> bool:
        """Whether a token, not yet decoded, is no part of the answer."""
        decoder = self._decoder
        if self.began:
            return False
        if decoder.closer or decoder.half_tag or token in self._openers:
            return True
        # the blank lines between thinking and answer
        blank = not self._model.piece(token).strip() and not self._model.is_end(token)
        return decoder.after_thinking and blank and not self._fits(token)

    def _rest_of_tag(self, token: int) -> list[int]:
        """The tokens that complete a tag, where the one that was drawn would leave it open for
        ever; [] where all is well."""
        decoder, model = self._decoder, self._model
        if decoder.closer:
            return model.tokenize(decoder.closer) if model.is_end(token) else []
        begun = decoder.half_tag
        piece = model.piece(token, special=token in self._shown).decode("utf-8", "replace")
        text = begun + piece
        tags = decoder.tags.openers
        if not begun or (piece and any(t.startswith(text) or text.startswith(t) for t in tags)):
            return []
        whole = next(tag for tag in tags if tag.startswith(begun))
        return model.tokenize(whole[len(begun) :])


def _openers(model: Model, tags: Iterable[str]) -> frozenset[int]:
    """The tokens that can only begin a tag: such as are a whole tag, or no normal text. A model
    that would spell "<think>" in letters does not think under a grammar."""
    c = library()
    structure = c.LLAMA_TOKEN_ATTR_CONTROL | c.LLAMA_TOKEN_ATTR_USER_DEFINED
    found = (model.tokenize(tag) for tag in tags)
    return frozenset(
        t[0]
        for t in found
        if t and (len(t) == 1 or c.llama_vocab_get_attr(model.vocab, t[0]) & structure)
    )
