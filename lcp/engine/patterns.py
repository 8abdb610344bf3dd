"""Patterns: the regular expressions of JSON Schema (ECMA 262) in the syntax of llguidance (Rust's).

Where readings differ (is "é" a \\w?), the result matches only what all of them match, so that every
validator accepts the answer. It knows no schema and no tokens.
"""

import re
from collections.abc import Iterator

# \d, \w and \s as the members of a class: what ECMA, Rust and Python all count, and what any does.
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


def translate(pattern: str) -> str:
    """The same pattern for llguidance; an invalid one stays invalid."""
    atoms = iter(_ATOMS.findall(pattern))
    return "".join(
        _class(atoms) if atom == "[" else _DOT if atom == "." else _atom(atom) for atom in atoms
    )


def _class(atoms: Iterator[str]) -> str:
    """A class in brackets, after its "["."""
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
        made += _atom(members[i], negated, inside=True)
        two = members[i : i + 3]
        if len(two) == 3 and two[1] == "-" and not any(m[1:2] in "dDwWsS" for m in two if m[1:]):
            made += "-" + _atom(two[2], inside=True)
            i += 2
        i += 1
    # llguidance (derivre 0.3.13) writes a class that contains NUL with every JSON escape, \" and
    # \\ among them, even where the class excludes the quote or the backslash.
    return f"[[{made}]--\\x00]"


def _atom(atom: str, negated: bool = False, inside: bool = False) -> str:
    letter = atom[1:]
    if atom == "\\":  # at the end: invalid, and llguidance puts more behind it
        return "["
    if not letter:  # in a class, Rust knows [[a]&&b--c~~d]
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
    return letter if letter in "<>" else atom  # \< is the edge of a word in Rust
