"""Matcher for GBNF: grammars in llama.cpp's notation, enforced by its grammar sampler."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lcp.engine.context import Context
from lcp.engine.llama_library import library, log
from lcp.engine.model import Model
from lcp.engine.sampler import Sampler, TokenCandidates
from lcp.engine.temporary_file import scratch
from lcp.engine_interface import Constraint
from lcp.errors import SettingsError

# Strings, character classes and comments, which may contain anything; token names; counts.
_LEXEMES = re.compile(
    r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\#[^\n]*'
    r"|(?P<token>!?<[^>]*>)|\{\s*(?P<low>\d+)\s*,\s*(?P<high>\d+)\s*\}",
    re.DOTALL,
)


class GbnfMatcher:
    """The state of a grammar after the tokens of an answer so far."""

    complete = False  # a complete answer allows only an end token, which is then sampled
    why = ""

    def __init__(self, constraint: Constraint, model: Model) -> None:
        """Raises SettingsError for a grammar that names tokens the model does not have. Call
        `examine` first: it refuses grammars that llama.cpp cannot parse."""
        for found in _LEXEMES.finditer(constraint.text):
            name = (found["token"] or "").removeprefix("!")
            if name and not name.startswith("<[") and len(model.tokenize(name)) != 1:
                raise SettingsError(
                    f"{constraint.name} names the token {name}, which this model does not have. "
                    f'For text, use quotes: "{name}"'
                )
        self._grammar = _parse(constraint.text, model.vocab)
        if not self._grammar:
            raise SettingsError(f"{constraint.name} cannot be used with this model. Correct it.")
        self._model = model
        self._all = TokenCandidates(model.n_vocab)
        self._one = TokenCandidates(1)
        self._silent: set[int] = set()  # control tokens that llama.cpp matches by their names

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        if self._is_silent(token):
            return False
        self._one.put(token)
        self._one.apply(self._grammar)
        return self._one.possible()

    def accept(self, token: int) -> None:
        """Advance by an allowed token. Any other ends the process with a C++ exception."""
        library().llama_sampler_accept(self._grammar, token)

    def forced(self) -> list[int]:
        """[]: llama.cpp's grammars do not tell which tokens must come next."""
        return []

    def sample(self, sampler: Sampler, context: Context, row: int) -> int:
        """Sample one of the allowed tokens from a row of logits; -1 if there is none."""
        while True:
            self._all.fill(context, row)
            self._all.apply(self._grammar)
            for token in self._silent:
                self._all.forbid(token)
            token = sampler.select(self._all)
            if token < 0 or not self._is_silent(token):
                return token
            self._silent.add(token)

    def close(self) -> None:
        """Free the grammar."""
        library().llama_sampler_free(self._grammar)

    def _is_silent(self, token: int) -> bool:
        """Whether the token has no text and does not end the answer."""
        return not self._model.piece(token) and not self._model.is_end(token)


def examine(constraint: Constraint) -> list[str]:
    """Check a grammar. Returns no notices. Raises SettingsError if it is not a grammar.

    This may take any time and memory, or crash the process, so it runs in the child process. There
    is no model there, so names of tokens are parsed as strings.
    """
    text, name = constraint.text, constraint.name
    if not re.sub(r"#.*", "", text).strip():
        raise SettingsError(f'{name} has no rules. A grammar begins with: root ::= "yes" | "no"')
    for found in _LEXEMES.finditer(text):
        if found["low"] and int(found["low"]) > int(found["high"]):
            line = text[: found.start()].count("\n") + 1
            raise SettingsError(
                f"{name} cannot be used: {found[0]} in line {line} asks for at least "
                f"{found['low']} and at most {found['high']}. Correct the count."
            )
    plain = _LEXEMES.sub(_without_token, text)
    log.lines.clear()
    with _stderr() as output:
        grammar = _parse(plain)
    if grammar:
        library().llama_sampler_free(grammar)
        return []
    whole = output[0].partition("error parsing grammar: ")[2].removesuffix(f"\n\n{plain}\n")
    what, at, rest = whole.partition(" at ")
    if at and plain.endswith(rest):
        offset = len(plain) - len(rest)
        line = plain[:offset].count("\n") + 1
        why = f"{what} at {text[offset:].partition(chr(10))[0][:40]!r} in line {line}"
    else:
        why = whole or log.find("symbol", "recursion") or "no reason given"
    raise SettingsError(f"{name} is not a GBNF grammar: {why.strip()}. Correct it.")


def _without_token(found: re.Match[str]) -> str:
    """A string of the same length in place of the name of a token."""
    return f'"{"x" * (len(found[0]) - 2)}"' if found["token"] else found[0]


def _parse(text: str, vocab: Any = None) -> Any:
    return library().llama_sampler_init_grammar(vocab, text.encode("utf-8", "replace"), b"root")


@contextmanager
def _stderr() -> Iterator[list[str]]:
    """What is written to file descriptor 2 in the meantime. The parser prints its errors there and
    not to the log."""
    output: list[str] = []
    sys.stderr.flush()
    with scratch() as (file, _):
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield output
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            output.append(file.read().decode("utf-8", "replace"))
