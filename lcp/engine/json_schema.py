"""Rewrites a JSON schema for llguidance, and finds the part of a schema that is wrong.

llguidance enforces most of JSON Schema, but not all. `prepare` rewrites what llguidance would get
wrong and reports the keywords that it would silently ignore. Regular expressions in a schema are
ECMA 262; llguidance's are Rust's.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote

from lcp.errors import SettingsError

Schema = dict[str, Any]

_NAMES = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_VALUES = {"const", "enum", "default", "examples"}  # they contain plain values, not schemas
_BRANCHES = ("allOf", "anyOf", "oneOf")
_COUNTS = {
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
}  # fmt: skip
_IGNORED = {"contentEncoding", "contentMediaType", "contentSchema"}  # by llguidance, silently
# llguidance allows 29 February in every year and second 60 in every minute.
_DATE = (
    r"(\d{3}[1-9]|\d\d[1-9]\d|\d[1-9]\d\d|[1-9]\d{3})"
    r"-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)"
    r"|02-(0[1-9]|1\d|2[0-8]))"
    r"|(\d\d(0[48]|[2468][048]|[13579][26])|([2468][048]|0[48]|[13579][26])00)-02-29"
)
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
_TIME = rf"{_CLOCK}:[0-5]\d(\.\d+)?(Z|[+-]{_CLOCK})"
_FORMATS = {
    "date": f"^({_DATE})$",
    "time": f"^{_TIME}$",
    "date-time": f"^({_DATE})T{_TIME}$",
}


def read(text: str, name: str) -> Schema:
    """Parse a schema. Raises SettingsError if the text is not one."""
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not JSON: {error}. Correct it.") from error
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise SettingsError(
            f"{name} is not a JSON schema (it is {json.dumps(schema)[:40]}). "
            "Write a JSON object, in braces."
        )
    return schema


def prepare(schema: Schema, close: bool = True) -> tuple[Schema, set[str]]:
    """The schema for llguidance, and the keywords that it does not enforce.

    With `close`, an object with `properties` gets no others, unless the schema says something
    about others.
    """
    found = dict(parts(schema))
    ignored = {word for part in found.values() for word in _IGNORED & part.keys()}
    if any(isinstance(part.get("$id"), str) for pointer, part in found.items() if pointer):
        ignored.add("$id")  # references in such a part may be resolved against the whole schema
    combined = {id(found[pointer]) for pointer in _combined(found)}

    def change(old: Schema, new: Schema) -> Schema:
        return _prepare(_closed(new) if close and id(old) not in combined else new, ignored)

    return _each(schema, change), ignored


def _closed(part: Schema) -> Schema:
    names, required = part.get("properties"), part.get("required", [])
    least = part.get("minProperties", 0)
    if not isinstance(names, dict) or not isinstance(required, list) or not isinstance(least, int):
        return part
    if part.keys() & {"additionalProperties", "unevaluatedProperties"} or least > len(names):
        return part
    return part | {"additionalProperties": False} if all(r in names for r in required) else part


def _combined(found: dict[str, Schema]) -> set[str]:
    """Pointers of the parts that share their object with other parts, which may name further
    properties of it."""
    pieces = {}
    for pointer, part in found.items():
        branches = ((key, i) for key in _BRANCHES for i in range(_length(part.get(key))))
        inside = [f"{pointer}/{key}/{i}" for key, i in branches]
        pieces[pointer] = [at for at in [*inside, _target(part)] if at in found]
    combined: set[str] = set()
    fresh = {
        pointer
        for pointer, part in found.items()
        if ("properties" in part) + ("$ref" in part) + _length(part.get("allOf"))
        + sum(key in part for key in ("anyOf", "oneOf", "if", "dependentSchemas")) > 1
    }  # fmt: skip
    while fresh:
        combined |= fresh
        fresh = {at for pointer in fresh for at in pieces[pointer]} - combined
    return combined


def _prepare(part: Schema, ignored: set[str]) -> Schema:
    made: Schema = dict(part)
    for key in _COUNTS & part.keys():
        if isinstance(value := part[key], float) and value.is_integer():
            made[key] = int(value)
    if isinstance(pattern := part.get("pattern"), str):
        made["pattern"] = translate_pattern(pattern)
    if isinstance(patterns := part.get("patternProperties"), dict):
        made["patternProperties"] = {translate_pattern(p): sub for p, sub in patterns.items()}
    if exact := _FORMATS.get(str(part.get("format"))):
        others = part.get("allOf")
        made["allOf"] = [*(others if isinstance(others, list) else []), {"pattern": exact}]
    return _count_properties(made, ignored)


def _count_properties(part: Schema, ignored: set[str]) -> Schema:
    """The part without minProperties and maxProperties where llguidance refuses them: if it has
    optional names. llguidance counts a name that comes twice as two."""
    low, high = part.get("minProperties"), part.get("maxProperties")
    if not isinstance(low or high, int):
        return part
    names, required = part.get("properties"), part.get("required")
    needed = {n for n in required if isinstance(n, str)} if isinstance(required, list) else set()
    if isinstance(low, int) and low > len(needed):
        ignored.add("minProperties")
    contradictory = isinstance(low, int) and isinstance(high, int) and low > high
    if isinstance(names, dict) and not names.keys() <= needed and not contradictory:
        if isinstance(high, int):
            ignored.add("maxProperties")
        return {k: v for k, v in part.items() if k not in ("minProperties", "maxProperties")}
    return part


def _each(schema: Any, change: Callable[[Schema, Schema], Schema]) -> Any:
    """The schema with `change(old, new)` applied to each part, inner ones first. This includes
    parts below unknown keywords, because references may point there."""
    if isinstance(schema, list):
        return [_each(part, change) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {}
    for key, part in schema.items():
        if key in _NAMES and isinstance(part, dict):
            made[key] = {name: _each(sub, change) for name, sub in part.items()}
        else:
            made[key] = part if key in _VALUES else _each(part, change)
    return change(schema, made)


def parts(part: Schema, pointer: str = "") -> Iterator[tuple[str, Schema]]:
    """The schema and its parts, each with its JSON pointer."""
    yield pointer, part
    for at, sub in _inside(part, pointer):
        yield from parts(sub, at)


def _inside(value: Any, pointer: str, names: bool = False) -> Iterator[tuple[str, Schema]]:
    """The nearest parts in a schema or in a list; with `names`, in a map from names to parts."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, sub in pairs:
        at = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
        inner = not names and key in _NAMES
        if isinstance(sub, dict) and not inner and (names or key not in _VALUES):
            yield at, sub
        elif isinstance(sub, list | dict) and (names or key not in _VALUES):
            yield from _inside(sub, at, inner)


def fault(schema: Schema, why: str, error: Callable[[Schema], str]) -> tuple[str, str]:
    """The JSON pointer of the smallest part that causes the error `why`, and the error there.
    `error` compiles a schema and returns its error, or ""."""
    found = dict(parts(schema))
    whole = {"definitions": {"x": _each(schema, _moved)}}
    place, seen = "", {""}
    while True:
        inside = [at for at, _ in _inside(found[place], place)]
        for at in [_target(found[place]), *inside]:
            if at not in found or at in seen:
                continue
            reason = error(whole | {"$ref": f"#/definitions/x{quote(at)}"})
            if reason and (reason == why or "unsatisfiable" in why):
                place, why = at, reason
                seen.add(at)
                break
        else:
            return place, why


def _target(part: Schema) -> str | None:
    """The pointer in a part's $ref, if it points into the same schema."""
    target = part.get("$ref")
    return unquote(target[1:]) if isinstance(target, str) and target.startswith("#") else None


def _moved(old: Schema, new: Schema) -> Schema:
    target = _target(new)
    return new if target is None else new | {"$ref": f"#/definitions/x{quote(target)}"}


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) else 0


def ends(schema: Schema) -> bool:
    """Whether the schema has a finite value: False if each value must contain another one.
    Only required parts count."""
    found = dict(parts(schema))
    ending: set[str] = set()
    while fresh := {at for at in found.keys() - ending if _ends(at, found[at], found, ending)}:
        ending |= fresh
    return "" in ending


def _ends(pointer: str, part: Schema, found: dict[str, Schema], ending: set[str]) -> bool:
    def ok(*keys: object) -> bool:
        at = "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)
        return pointer + at in ending or pointer + at not in found

    def listed(key: str) -> list[bool]:
        return [ok(key, i) for i in range(_length(part.get(key)))]

    target = _target(part)
    if target in found and target not in ending:
        return False
    if not all(listed("allOf")) or not any(listed("anyOf") or [True]):
        return False
    if not any(listed("oneOf") or [True]):
        return False
    if part.get("type") == "object" and isinstance(required := part.get("required"), list):
        return all(ok("properties", name) for name in required)
    least = part.get("minItems")
    if part.get("type") == "array" and isinstance(least, int):
        first = listed("prefixItems")
        return all(first[:least]) and (least <= len(first) or ok("items"))
    return True


# regular expressions

# The members of \d, \w and \s: narrow, on which ECMA, Rust and Python agree, and wide, of any of
# them. A class that matches is narrow and one that excludes is wide, so that every validator
# accepts the answer.
_NARROW = {
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": r"\t\n\x0B\f\r \xA0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000",
}
_WIDE = {
    "d": r"\p{Nd}",
    "w": r"\p{Alphabetic}\p{M}\p{N}\p{Pc}\p{Join_Control}",
    "s": r"\s\x1C-\x1F\uFEFF",
}
_DOT = r"[^\n\r\u2028\u2029]"
_ATOMS = re.compile(r"\\c[A-Za-z]|\\.|.", re.DOTALL)


def translate_pattern(pattern: str) -> str:
    """An ECMA 262 pattern in llguidance's syntax. An invalid pattern stays invalid."""
    atoms = iter(_ATOMS.findall(pattern))
    return "".join(
        _pattern_class(atoms) if atom == "[" else _DOT if atom == "." else _pattern_atom(atom)
        for atom in atoms
    )


def _pattern_class(atoms: Iterator[str]) -> str:
    """Translate a class in brackets; its "[" is already consumed."""
    members: list[str] = []
    negated = False
    for atom in atoms:
        if atom == "]" and members:
            break
        if atom == "^" and not members and not negated:
            negated = True
        else:
            members.append(atom)
    else:
        return "["  # never closed
    made, i = "^" if negated else "", 0
    while i < len(members):
        made += _pattern_atom(members[i], negated, inside=True)
        two = members[i : i + 3]
        if len(two) == 3 and two[1] == "-" and not any(m[1:2] in "dDwWsS" for m in two if m[1:]):
            made += "-" + _pattern_atom(two[2], inside=True)
            i += 2
        i += 1
    # Remove NUL: for a class with NUL, llguidance (derivre 0.3.13) allows every JSON escape, \" and
    # \\ too, even if the class excludes the quote or the backslash.
    return f"[[{made}]--\\x00]"


def _pattern_atom(atom: str, negated: bool = False, inside: bool = False) -> str:
    letter = atom[1:]
    if atom == "\\":  # at the end: invalid, but llguidance would append to it
        return "["
    if not letter:  # Rust's classes have operators: [[a]&&b--c~~d]
        return f"\\{atom}" if inside and atom in "[]&~-^" else atom
    if letter in "dws":
        return f"[{(_WIDE if negated else _NARROW)[letter]}]"
    if letter in "DWS":
        return f"[^{(_NARROW if negated else _WIDE)[letter.lower()]}]"
    if letter[0] == "c" and letter[1:]:
        return f"\\x{ord(letter[1]) % 32:02X}"
    if inside and letter == "b":
        return r"\x08"
    if letter == "0":
        return r"\x00"
    return letter if letter in "<>" else atom  # \< is a word boundary in Rust
