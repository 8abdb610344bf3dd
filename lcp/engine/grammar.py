"""Grammar: what an answer may look like: llama.cpp's GBNF, as it was written or made of a JSON
schema.

It says what is wrong with one before a model is loaded. It knows no sampling and no answers.
"""

import functools
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lcp.engine import ranges
from lcp.engine.native import library, log
from lcp.engine.scratch import scratch
from lcp.errors import SettingsError

# Keywords of JSON Schema that the converter passes over.
_NOT_HELD = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "not", "if",
    "uniqueItems", "contains", "patternProperties", "propertyNames", "minProperties",
    "maxProperties", "dependentRequired", "dependentSchemas", "unevaluatedProperties",
    "unevaluatedItems",
}  # fmt: skip
_BEFORE_TYPE = {"$ref", "oneOf", "anyOf", "const", "enum"}  # with these the type says no more
_ALONE = ("$ref", "oneOf", "anyOf")  # beside these nothing is looked at
_SHAPES = {
    "$ref", "oneOf", "anyOf", "allOf", "properties", "required", "additionalProperties", "items",
    "prefixItems", "minItems", "maxItems", "pattern", "minLength", "maxLength",
}  # fmt: skip
_NAMES = {"properties", "$defs", "definitions"}  # below them stand names, not keywords
_LITERALS = {"const", "enum", "default", "examples"}  # below them stand plain values
# A character of a JSON string; the converter's own may be a raw control character. Ranges, as
# llama.cpp takes bytes that spell no character for one that is not among those after a ^.
_DOT = r"[\x20-\x21\x23-\x5B\x5D-\x7E\u0080-\uD7FF\uE000-\U0010FFFF]"
_CHAR = _DOT + (r' | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])')


def from_schema(text: str, name: str) -> tuple[str, list[str]]:
    """The grammar of a JSON schema, and the keywords in it that a grammar does not hold.

    Objects have their properties in the schema's order, and no others unless
    `additionalProperties` says so. Raises SettingsError for what is no schema.
    """
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is no JSON: {error}. Mend it.") from error
    if schema is not True and not isinstance(schema, dict):
        raise SettingsError(
            f"{name} cannot be made into a grammar: a schema is an object, in braces. Mend it."
        )
    try:
        converter = _converter()
        converter.visit(converter.resolve_refs(schema, name), "")
        return converter.format_grammar(), sorted(_passed_over(schema))
    except Exception as error:  # asserts and whatever a foreign shape runs into
        known = isinstance(error, AssertionError | ValueError)
        why = f"{error}" if known else "its parts are not what they are in a schema"
        raise SettingsError(
            f"{name} cannot be made into a grammar: {why[:200]}. Use a plainer schema."
        ) from error


def check(text: str, name: str) -> None:
    """Raise SettingsError for what llama.cpp cannot parse, before there is a model."""
    if grammar := parse(text, name):
        library().llama_sampler_free(grammar)


def parse(text: str, name: str, vocab: Any = None) -> Any:
    """The grammar as a sampler of llama.cpp, or SettingsError.

    None for rules that name tokens, as <think>, where there is no vocabulary to find them in.
    """
    if not text.strip():
        raise SettingsError(f"{name} is empty. A grammar begins with root ::=.")
    log.lines.clear()
    # What was checked before parses again, but for the names of tokens.
    quiet = _stderr() if vocab is None or "<" in text else nullcontext([""])
    with quiet as said:
        grammar = library().llama_sampler_init_grammar(vocab, text.encode(), b"root")
    if grammar:
        return grammar
    whole = said[0].partition("error parsing grammar: ")[2].removesuffix(f"\n\n{text}\n")
    if not vocab and "no vocab to parse token" in whole:
        return None
    what, at, rest = whole.partition(" at ")
    if at and text.endswith(rest):
        line = text[: len(text) - len(rest)].count("\n") + 1
        found = rest.partition("\n")[0]
        why = f"{what} at {found[:40]!r} in line {line}"
    else:
        why = whole or log.find("symbol", "recursion") or "no reason given"
    raise SettingsError(f"{name} is no grammar: {why.strip()}. Mend it.")


@contextmanager
def _stderr() -> Iterator[list[str]]:
    """What is written to file descriptor 2 meanwhile: the parser prints there, past the log."""
    said: list[str] = []
    sys.stderr.flush()
    with scratch() as (file, _):
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode("utf-8", "replace"))


def _passed_over(schema: Any) -> set[str]:
    """The keywords of a schema that its grammar does not hold."""
    if isinstance(schema, list):
        return {word for part in schema for word in _passed_over(part)}
    if not isinstance(schema, dict):
        return set()
    schema = _of_each_type(schema)
    found = (_NOT_HELD & schema.keys()) - ranges.held(schema) | _beside(schema)
    for key, part in schema.items():
        if key in _NAMES and isinstance(part, dict):
            found |= _passed_over(list(part.values()))
        elif key not in _LITERALS:
            found |= _passed_over(part)
    return found


def _beside(schema: dict[str, Any]) -> set[str]:
    """The keywords beside one with which the converter looks at no other."""
    keys, kind = schema.keys(), schema.get("type")
    found = next((keys & _SHAPES - {alone} for alone in _ALONE if alone in keys), None)
    if found is not None or keys & _BEFORE_TYPE:
        return found or set()
    found = set()
    if kind in (None, "object"):
        if keys & {"properties", "additionalProperties"}:
            found |= keys & {"allOf"}
        if "allOf" not in keys and not set(schema.get("required", ())) <= {
            *schema.get("properties", ())
        }:
            found.add("required")
    if kind in (None, "string") and "pattern" in keys:
        found |= keys & {"minLength", "maxLength"}
    if kind in (None, "array") and not keys & {"items", "prefixItems"}:
        found |= keys & {"minItems", "maxItems"}
    return found


def _of_each_type(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of several types, with all else that it says for each: the converter would keep
    nothing but the types."""
    types = schema.get("type")
    if not isinstance(types, list):
        return schema
    rest = {key: value for key, value in schema.items() if key != "type"}
    return rest if rest.keys() & _BEFORE_TYPE else {"anyOf": [rest | {"type": t} for t in types]}


@functools.cache
def _module() -> Any:
    """A copy of llama-cpp-python's converter, without its package, which costs 0.13 s; mended
    where what it makes is no JSON or cannot be parsed."""
    package = importlib.util.find_spec("llama_cpp")
    assert package and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "llama_grammar.py"
    spec = importlib.util.spec_from_file_location("lcp_llama_grammar", file)
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PRIMITIVE_RULES["char"] = module.BuiltinRule(_CHAR, [])
    module.DOT = _DOT
    module.ESCAPED_IN_REGEXPS_BUT_NOT_IN_LITERALS = set("^$.[]()|{}*+?/-")
    module._build_repetition = _repetition
    return module


def _converter() -> Any:
    base: Any = _module().SchemaConverter

    class Converter(base):  # type: ignore[misc]
        """The converter with quotes in constants, and {} for any value."""

        def visit(self, schema: Any, name: str) -> Any:
            if schema is True or schema == {}:
                value = self._add_primitive("value", _module().PRIMITIVE_RULES["value"])
                return self._add_rule(name or "root", value)
            if schema.get("items") == {}:
                schema = schema | {"items": True}
            schema = _of_each_type(schema)
            if not schema.keys() & _BEFORE_TYPE and (rule := ranges.of_schema(schema)):
                reserved = name in _module().RESERVED_NAMES
                rule_name = f"{name}-" if reserved else name or "root"
                return self._add_rule(rule_name, f"({rule}) space")
            return super().visit(schema, name)

        def _format_literal(self, literal: str) -> str:
            return super()._format_literal(literal.replace("\\", "\\\\"))

        def _generate_constant_rule(self, value: Any) -> str:
            return self._format_literal(json.dumps(value, ensure_ascii=False)) + " space"

    return Converter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)


def _repetition(
    item: str,
    low: int,
    high: int | None,
    separator_rule: str | None = None,
    item_rule_is_literal: bool = False,
) -> str:
    """`item` low to high times, as a counted rule: the converter's own nests as deep as `high`
    (common/json-schema-to-grammar.cpp: build_repetition)."""
    if high == 0:
        return ""
    if separator_rule:
        rest = _repetition(
            f"({separator_rule} {item})", max(0, low - 1), None if high is None else high - 1
        )
        return f"{item} {rest}" if low else f"({item} {rest})?"
    return f"{item}{{{low},{'' if high is None else high}}}"
