"""Guide: holds an answer to its constraint, token by token; the thinking before it is free.

The constraint begins with the answer's first character. llama.cpp's lazy grammars would begin at a
pattern in the text, which a model that does not think never says, and search all of the thinking
again at every token; the Decoder knows the place anyway.
"""

from collections.abc import Iterable
from typing import Protocol

from lcp.engine.context import Context
from lcp.engine.decoder import Decoder
from lcp.engine.model import Model
from lcp.engine.native import library
from lcp.engine.sampler import Sampler, TokenCandidates
from lcp.errors import SettingsError


class Matcher(Protocol):
    """How far an answer has come in its constraint."""

    @property
    def complete(self) -> bool: ...  # whether nothing can follow
    @property
    def why(self) -> str: ...  # why nothing fits any more, beside what the model can say
    def fits(self, token: int) -> bool: ...
    def take(self, token: int) -> None: ...  # one that fits
    def draw(self, sampler: Sampler, context: Context) -> int: ...  # -1 where no token fits
    def close(self) -> None: ...


class ConstrainedSampler:
    """One answer, guided by its form."""

    def __init__(
        self, form: Matcher, model: Model, decoder: Decoder, shown: frozenset[int]
    ) -> None:
        """`decoder` is of this answer; `shown` are the control tokens that spell tags."""
        self._form = form
        self._model = model
        self._decoder = decoder
        self._shown = shown
        self._openers = _openers(model, decoder.tags.openers)
        self._all = TokenCandidates(model.n_vocab)
        self._forced: list[int] = []
        self.began = False  # the answer has begun, and its form with it

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, and nothing can follow."""
        return self.began and self._form.complete

    @property
    def why(self) -> str:
        """Why no token fits."""
        return self._form.why

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
                if not self._form.fits(token):
                    raise SettingsError(
                        "The answer so far does not fit the form that is asked for now. "
                        "/retry answers again."
                    )
                self._form.take(token)
            yield token

    def _draw(self, sampler: Sampler, context: Context) -> int | None:
        # 1) Draw as if any token would do. To look at one token costs microseconds, to look at a
        #    whole vocabulary milliseconds (llama.cpp, common/sampling.cpp).
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
        # 3) Where it does not fit, draw from those that do.
        self._begin()
        if not self._form.fits(token):
            token = self._form.draw(sampler, context)
        if token >= 0 and not self._model.is_end(token):
            self._form.take(token)
        return token if token >= 0 else None

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
        return decoder.after_thinking and blank and not self._form.fits(token)

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
        t[0] for t in found if t and (len(t) == 1 or model.attributes(t[0]) & structure)
    )
