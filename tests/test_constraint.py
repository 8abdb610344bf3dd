"""The check of a constraint before a model is loaded, in a process with limits, so that no
input uses up memory or time, or crashes lcp."""

import json
import subprocess
import sys

import pytest

from lcp.engine.constraint_check import check
from lcp.engine_interface import Constraint
from lcp.errors import SettingsError

CHAIN = [f"r{i} ::= r{i + 1}" for i in range(200_000)]
FORMS = {
    "reversed count": ("grammar", 'root ::= "a"{5,0}', "{5,0}"),
    "reversed count after a token": ("grammar", 'root ::= <think> ("a" | "b"){ 3 , 2 }', "line 1"),
    "nested groups": ("grammar", f"root ::= {'(' * 20_000}'a'{')' * 20_000}", ""),
    "nested quoted groups": ("grammar", f'root ::= {"(" * 20_000}"a"{")" * 20_000}', "complex"),
    "a chain of rules": ("grammar", "\n".join(["root ::= r0", *CHAIN, 'r200000 ::= "a"']), ""),
    "counts of counts": ("grammar", f"root ::= {'(' * 6}[ab]{'){1000}' * 6}", ""),
    "comments alone": ("grammar", '# root ::= "a"\n', "root ::="),
    "empty": ("grammar", "", "root ::="),
    "blank": ("grammar", " \n", "root ::="),
    "in a text": ("grammar", '"root ::= a"', "line 1"),
    "left recursion": ("grammar", 'root ::= root "a"', "left recursion"),
    "an undefined rule": ("grammar", "root ::= other", "'other'"),
    "no root": ("grammar", 'other ::= "a"', "'root'"),
    "a wrong sign": ("grammar", 'root = "a"', "line 1"),
    "a wrong escape": ("grammar", 'root ::= "a"\n\nb ::= "\\q"', "line 3"),
    "an open text": ("grammar", 'root ::= "a', "end of input"),
    "minItems": ("schema", '{"type": "array", "minItems": 5, "maxItems": 2}', "minItems (5)"),
    "a wide pattern": ("schema", '{"type": "string", "pattern": "^a{3,1}$"}', "repetition"),
    "a deep schema": ("schema", '{"items": ' * 5_000 + "{}" + "}" * 5_000, ""),
    "a less deep schema": ("schema", '{"items": ' * 200 + "{}" + "}" * 200, ""),
    "a huge enum": ("schema", json.dumps({"enum": list(range(400_000))}), ""),
    "an endless schema": ("schema", '{"$ref": "#"}', "never ends"),
    "a multiple": ("schema", '{"type": "integer", "multipleOf": 999999937}', ""),
    "an open group": ("regex", "(", "unclosed group"),
    "an open group after more": ("regex", "ab(c", "unclosed group"),
    "a backslash": ("regex", "a\\", ""),
    "reversed count in it": ("regex", "a{3,1}", "repetition"),
    "looking ahead": ("regex", "(?=a)a", "look-ahead"),
    "a word's edge": ("regex", r"\bx", "middle"),
    "nothing at all": ("regex", "[a&&b]", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_a_constraint_that_no_answer_matches_is_an_error(name):
    kind, text, why = FORMS[name]
    with pytest.raises(SettingsError) as raised:
        check(Constraint(kind, text, "it"))
    sentence = str(raised.value)
    assert sentence.startswith("it ") and why in sentence
    assert "\n" not in sentence


@pytest.mark.slow
def test_a_constraint_that_answers_can_match():
    assert check(Constraint("grammar", 'root ::= "a" <think> [<{3,2}] # {5,0} <x>', "it")) == []
    assert check(Constraint("schema", '{"type": "string", "pattern": "^é$"}', "it")) == []
    assert check(Constraint("regex", "é+", "it")) == []
    assert len(check(Constraint("schema", '{"uniqueItems": true}', "it"))) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no resource module")
@pytest.mark.parametrize("name", ["nested quoted groups", "counts of counts", "a huge enum"])
def test_the_check_takes_little_time(name):
    """Beside its start: llama.cpp alone may be large on disk and in memory."""
    kind, text, _ = FORMS[name]
    wish = json.dumps({"kind": kind, "text": text, "name": "it"})
    program = (
        "import resource, subprocess, sys; "
        "subprocess.run([sys.executable, '-m', 'lcp.engine.child_main', 'constraint'], "
        "stdin=sys.stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=wish, capture_output=True, text=True, check=True
    )
    seconds, kilobytes = done.stdout.split()
    assert float(seconds) < 5
    assert int(kilobytes) < 450 << 10
