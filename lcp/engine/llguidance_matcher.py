"""Matcher for JSON schemas and regular expressions, enforced by llguidance token by token."""

import functools
import json
import re
from typing import Any

from lcp.engine import json_schema
from lcp.engine.context import Context
from lcp.engine.llama_library import library
from lcp.engine.model import Model
from lcp.engine.sampler import Sampler, TokenCandidates
from lcp.engine_interface import Constraint
from lcp.errors import SettingsError
from lcp.formatting import short
from lcp.submodule_import import import_submodule

# JSON has the white space of json.dumps, so that keys and what is between them need no sampling.
# `lenient`: a keyword that llguidance does not know becomes a warning.
_OPTIONS = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
# A state of the lexer takes 1 to 2 kB; llguidance's own limit is 250,000 of them.
_LIMITS = {"max_lexer_states": 50_000, "verbose_errors": False}


@functools.cache
def bindings() -> Any:
    """llguidance's compiled module. To import the whole package takes ten times as long."""
    return import_submodule("llguidance._lib")


class Vocabulary:
    """The tokens of a model, in the form from which llguidance builds its own tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids = ()

    def __init__(self, model: Model) -> None:
        """Tokens that are not text of an answer (control tokens, ends, tags) have no bytes."""
        self._tokenize = model.tokenize_middle
        self.tokens, self.ends = [], []
        tag = library().LLAMA_TOKEN_ATTR_USER_DEFINED
        for token in range(model.n_vocab):
            piece = model.piece(token)
            if model.is_end(token):
                self.ends.append(token)
                piece = b""
            elif piece[:1] == b"<" and piece[-1:] == b">" and model.attributes(token) & tag:
                piece = b""
            self.tokens.append(piece)
        if not self.ends:  # llguidance needs one
            self.ends.append(len(self.tokens))
            self.tokens.append(b"")
        self.eos_token_id = self.ends[0]

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens of a text in an answer."""
        raw = text if isinstance(text, bytes) else text.encode()
        tokens = list(self._tokenize(raw.decode("utf-8", "replace")))
        if b"".join(self.tokens[token] for token in tokens) == raw:
            return tokens
        # Some of these tokens are tags, not text: use the longest tokens that are text.
        tokens, sizes = [], range(self._longest, 0, -1)
        while piece := next((raw[:n] for n in sizes if raw[:n] in self._ids), b""):
            tokens.append(self._ids[piece])
            raw = raw[len(piece) :]
        return tokens

    @functools.cached_property
    def _ids(self) -> dict[bytes, int]:
        return {piece: token for token, piece in enumerate(self.tokens) if piece}

    @functools.cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids))


class _Bytes(Vocabulary):
    """A vocabulary without a model: the 256 bytes."""

    def __init__(self) -> None:
        self.tokens = [*(bytes([i]) for i in range(256)), b""]
        self.ends = [256]
        self.eos_token_id = 256

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def tokenizer(vocabulary: Vocabulary) -> Any:
    """llguidance's tokenizer; matchers share it, because building it takes 0.2 s for 49,000
    tokens."""
    n = len(vocabulary.tokens)
    return bindings().LLTokenizer(vocabulary, n_vocab=n, eos_token=vocabulary.ends)


class LlguidanceMatcher:
    """The state of a schema or a regular expression after the tokens of an answer so far."""

    def __init__(self, constraint: Constraint, model: Model, tokenizer: Any) -> None:
        self._matcher = _matcher(_grammar(constraint), tokenizer)
        self._model = model
        self._candidates = TokenCandidates(model.n_vocab)

    @property
    def complete(self) -> bool:
        """Whether the answer is complete: no token may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def why(self) -> str:
        """Why llguidance stopped; "" if it did not, or only because a token was not allowed."""
        return short(self._matcher.get_error(), 200)

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        if self._model.is_end(token):
            return self._matcher.is_accepting()
        return self._matcher.validate_tokens([token]) == 1

    def accept(self, token: int) -> None:
        """Advance by an allowed token."""
        self._matcher.consume_token(token)

    def forced(self) -> list[int]:
        """The tokens of the text that must come next, without the last ones if they may become one
        token with the text after them."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def sample(self, sampler: Sampler, context: Context, row: int) -> int:
        """Sample one of the allowed tokens from a row of logits; -1 if there is none."""
        allowed = self._matcher.compute_logit_bias()  # a byte for each token: 0 if not allowed
        if self._matcher.is_error() or not self._candidates.fill_only(context, allowed, row):
            return -1
        return sampler.select(self._candidates)

    def close(self) -> None:
        """llguidance frees its own memory."""


def examine(constraint: Constraint) -> list[str]:
    """Notices about a constraint. Raises SettingsError if no text can match it.

    This may take any time and memory, or crash the process, so it runs in the child process.
    """
    name = constraint.name
    unenforced = _examine_schema(constraint) if constraint.kind == "schema" else set()
    if constraint.kind == "regex" and re.search(r"(?<!\\)(\\\\)*\\\Z", constraint.text):
        raise SettingsError(_sentence(name, "it ends in a backslash"))  # llguidance accepts it
    matcher = _matcher(_grammar(constraint), tokenizer(_Bytes()))
    if matcher.is_error() or not any(matcher.compute_logit_bias()) or matcher.is_error():
        raise SettingsError(_sentence(name, matcher.get_error()))
    words = ", ".join(sorted(unenforced))
    return [f"lcp does not enforce {words} of {name}. Check the answer."] if unenforced else []


def _examine_schema(constraint: Constraint) -> set[str]:
    """The keywords that are not enforced."""
    name = constraint.name
    try:
        source = json_schema.read(constraint.text, name)
        schema, ignored = json_schema.prepare(source)
        why, unenforced = _compile(schema)
        if why:
            where, why = json_schema.fault(schema, why, _error)
            raise SettingsError(_sentence(name, why, where))
        if not json_schema.ends(schema):
            raise SettingsError(_sentence(name, "Unsatisfiable schema: it never ends"))
        if '"oneOf"' in constraint.text:
            # Closed objects may exclude each other although those of the original schema do not.
            unenforced |= _compile(json_schema.prepare(source, close=False)[0])[1] & {"oneOf"}
    except RecursionError:
        raise SettingsError(f"{name} is nested too deeply. Use a flatter schema.") from None
    return unenforced | ignored


def _grammar(constraint: Constraint) -> str:
    """The constraint as llguidance's own grammar."""
    if constraint.kind == "regex":
        return str(bindings().LLMatcher.grammar_from_regex(constraint.text))
    schema, _ = json_schema.prepare(json_schema.read(constraint.text, constraint.name))
    return _grammar_of(schema)


def _grammar_of(schema: json_schema.Schema) -> str:
    made = bindings().LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_OPTIONS)
    return str(made)


def _matcher(grammar: str, tokenizer: Any) -> Any:
    limits = bindings().LLParserLimits(**_LIMITS)
    return bindings().LLMatcher(tokenizer, grammar, log_level=0, limits=limits)


def _error(schema: json_schema.Schema) -> str:
    return _compile(schema)[0]


def _compile(schema: json_schema.Schema) -> tuple[str, set[str]]:
    """The error of a schema ("" if it has none), and the keywords that are not enforced."""
    try:
        grammar = _grammar_of(schema)
    except ValueError as error:  # numbers and nesting that its JSON parser refuses
        return str(error), set()
    failed, messages = bindings().LLMatcher.validate_grammar_with_warnings(grammar)
    if failed:
        return str(messages[0]).partition("\n  while processing")[0], set()
    unenforced: set[str] = set()
    for message in messages:
        line = re.sub(r" \(\d+ times\)$", "", message.split("\n")[0])
        what, _, which = line.partition(": ")
        if what == "Unimplemented keys":
            unenforced |= set(json.loads(which))
        elif what == "Unknown format":
            unenforced.add(f"format {which}")
        else:
            # "oneOf not fully supported, falling back to anyOf. ..."
            unenforced.add(what.split()[0])
    return "", unenforced


# A message of llguidance -> what a person reads.
_REASONS = (
    (r"(?s).*regex parse error:.*\nerror: ([^\n]+).*", r"\1"),
    (r"(?s).*lookarounds not supported yet.*", r"it has ^, $ or \\b in the middle of a pattern"),
    (r"Resource '(.*?)' is not present.*", r"it refers to \1, and lcp loads no other files"),
    (r"Regex is empty: .*", "its patterns, lengths and formats exclude each other"),
    (r"patternProperty regexes (.*) and (.*) are not disjoint",
     r"one name can match two patternProperties, \1 and \2"),
)  # fmt: skip


def _sentence(name: str, why: str, where: str = "") -> str:
    kind, colon, rest = why.partition("Unsatisfiable schema: ")
    reason = (rest if colon else kind).strip()
    for pattern, words in _REASONS:
        reason = re.sub(pattern, words, reason)
    reason = short(reason.rstrip("."), 200)
    at = f"at {where}, " if where else ""
    what = "allows no answer" if colon else "cannot be enforced"
    return f"{name} {what}: {at}{reason or 'it is too complex'}. Correct it."
