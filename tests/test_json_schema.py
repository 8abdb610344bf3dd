"""Answers in JSON: whatever a model would generate, an independent validator accepts its answer
for the schema; and keywords that are not enforced are reported.
"""

import json
import re
import warnings
from datetime import datetime
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lcp.engine.engine import LlamaEngine
from lcp.engine.json_schema import translate_pattern
from lcp.engine.llguidance_matcher import LlguidanceMatcher, examine
from lcp.engine_interface import Constraint, PromptMessage, Request
from lcp.errors import AnswerDoesNotMatch, SettingsError
from lcp.settings import Sampling, Settings

QUESTION = [PromptMessage("user", "Hi.")]
CASES = json.loads((Path(__file__).parent / "schemas.json").read_text("utf-8"))
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["tea", "milk"]}, "maxItems": 3},
    },
    "required": ["name", "age", "likes"],
}


def form(schema):
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return Constraint("schema", text, "person.json")


def allows(schema, value):
    validator = jsonschema.Draft202012Validator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Python's re, of "[+--]"
        return validator(schema, format_checker=validator.FORMAT_CHECKER).is_valid(value)


@pytest.fixture(scope="module")
def engine(tiny):
    with LlamaEngine(tiny(), Settings(ctx_size=4096, threads=1), now=datetime.now()) as one:
        one.load(form({})).result()
        yield one


def answer(engine, schema, seed=1, max_tokens=3000, messages=QUESTION, temp=2.0, **request):
    asked = Request(
        messages, Sampling(temp, seed=seed), max_tokens, constraint=form(schema), **request
    )
    reply = engine.reply(asked)
    list(reply)
    return reply


def takes(engine, schema, text):
    """Whether a model could generate this answer."""
    matcher = LlguidanceMatcher(form(schema), engine.model, engine._loaded.answering.tokenizer)
    for token in engine.model.tokenize(text, special=False):
        if not matcher.allows(token):
            return False
        matcher.accept(token)
    return matcher.allows(engine.model.eos)


# the cases from the field


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_case_of_the_test_suite(engine, name):
    schema = CASES[name]["s"]
    if "refuse" in CASES[name]:
        with pytest.raises(SettingsError):
            examine(form(schema))
        return
    examine(form(schema))
    for text in CASES[name].get("good", ()):
        assert takes(engine, schema, text), text
    for text in CASES[name].get("bad", ()):
        assert not takes(engine, schema, text), text
    reply = answer(engine, schema)
    assert reply.ended == "length" or allows(schema, json.loads(reply.text))


# any schema

NAMES = ["a", "b c", 'd"e', "f\\", "é", "名前", "", "g/h~"]
VALUES = ["a", "b\\", '"q"', 1, None, 2.5, True, False, "é\n", {"x": [1, "\\"]}, [], 1e20, -3]
PATTERNS = [
    "^yes|no$", "^a{2,3}$", "[0-9]", '^[^"]{1,9}$', "^[^a]{2}$", r"^\d{2}-\w{1,4}$", r"^\\x$",
    "a.c",    "^(?:ab|cd){1,3}$", "^é?.$", r"\s", r"^\S{3}$", r"^\W$", r"^\D{2}$", "^$", "^a$|b",
    r'^[^\\"]{2}$', r"^[\[&~-]{2}$", r"^[^\w\s]{2}$", "^[+--]$",
]  # fmt: skip
FORMATS = ["date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "duration"]

KEYWORDS = [
    "type", "properties", "required", "items", "prefixItems", "anyOf", "allOf", "oneOf", "not",
    "$ref", "$defs", "enum", "pattern", "patternProperties", "minItems", "minLength", "format",
    "maxProperties", "minProperties", "multipleOf", "minimum", "additionalProperties", "$id", "a",
]  # fmt: skip

values = st.sampled_from(VALUES)
plain = st.one_of(
    st.lists(values, min_size=1, max_size=3).map(lambda some: {"enum": some}),
    values.map(lambda value: {"const": value}),
    st.sampled_from(["integer", "number", "boolean", "null", "string"]).map(lambda t: {"type": t}),
    st.tuples(st.integers(0, 4), st.integers(0, 3)).map(
        lambda n: {"type": "string", "minLength": n[0], "maxLength": sum(n)}
    ),
    st.sampled_from(PATTERNS).map(lambda p: {"type": "string", "pattern": p}),
    st.sampled_from(FORMATS).map(lambda f: {"type": "string", "format": f}),
    st.tuples(
        st.sampled_from(["integer", "number"]),
        st.sampled_from(["minimum", "exclusiveMinimum"]),
        st.sampled_from(["maximum", "exclusiveMaximum"]),
        st.integers(-500, 500).map(lambda n: n / 4),
        st.integers(4, 999),
    ).map(lambda n: {"type": n[0], n[1]: n[3], n[2]: n[3] + n[4]}),
    st.tuples(st.sampled_from(["integer", "number"]), st.sampled_from([2, 3, 7, 0.5, 10])).map(
        lambda n: {"type": n[0], "multipleOf": n[1]}
    ),
    st.sampled_from([{}, {"type": ["string", "null"], "maxLength": 3, "maxItems": 2}]),
)


@st.composite
def arrays(draw, parts):
    made = {"type": "array", "items": draw(parts)}
    if draw(st.booleans()):
        made["prefixItems"] = draw(st.lists(parts, min_size=1, max_size=2))
    low = draw(st.integers(0, 2))
    return made | {"minItems": low, "maxItems": low + draw(st.integers(0, 2))}


@st.composite
def objects(draw, parts):
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3))
    made = {
        "type": "object",
        "properties": {name: draw(parts) for name in names},
        "required": draw(st.lists(st.sampled_from(names), unique=True)),
    }
    more = draw(st.sampled_from(["", "not", "additionalProperties", "patternProperties"]))
    if more == "additionalProperties":
        made[more] = draw(parts)
    elif more == "patternProperties":
        made[more] = {'^[^a"]$': draw(parts)}
    return made | ({} if more else {"additionalProperties": False})


@st.composite
def references(draw, parts):
    inner = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a~1b"}}, "required": ["a"]}
    return inner | {"$defs": {"a/b": draw(plain), "a": draw(parts)}}


def wider(parts):
    both = st.lists(parts, min_size=1, max_size=2)
    return st.one_of(
        arrays(parts),
        objects(parts),
        both.map(lambda schemas: {"anyOf": schemas}),
        both.map(lambda schemas: {"allOf": schemas}),
        both.map(lambda schemas: {"oneOf": schemas}),
    )


@pytest.mark.slow
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    schema=st.one_of(st.recursive(plain, wider, max_leaves=6), references(plain)),
    seed=st.integers(0, 100),
)
def test_an_answer_matches_its_schema(engine, schema, seed):
    try:
        told = examine(form(schema))
    except SettingsError:  # its parts exclude each other
        assume(False)
    reply = answer(engine, schema, seed, max_tokens=1200)
    if reply.ended == "length":
        return  # a random model seldom closes a string
    assert (reply.ended, reply.notice) == ("end", None)
    assert told or allows(schema, json.loads(reply.text)), reply.text


@pytest.mark.slow
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    members=st.text(st.sampled_from('a-z"\\^é&~[]0 \n'), min_size=1, max_size=5),
    negated=st.booleans(),
    character=st.sampled_from('a-z"\\^é&~[]0 \n\t/\x01'),
)
def test_character_classes_match_as_in_other_validators(engine, members, negated, character):
    pattern = f"^[{'^' * negated}{re.escape(members)}]$"
    schema = {"type": "string", "pattern": pattern}
    said = json.dumps(character, ensure_ascii=False)
    assert takes(engine, schema, said) == bool(re.search(pattern, character))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"^\w$", "aZ0_", 'é-"'),
        (r"^\W$", '- "\\', "aé٣_"),
        (r"^\d$", "09", "٣a"),
        (r"^\D$", 'a"\\', "0٣"),
        (r"^\S$", 'aé"', " \ufeff\u2028"),
        (r"^\s$", " \t\u2028", "a"),
        (r"^.$", 'a"\\é', "\n\u2028"),
        (r"^[^\w\s]$", '-"\\', "é٣a "),
        (r"^[--/]$", "-./", "a"),
        (r"^[\b]$", "\b", "b"),
        (r"^\<$", "<", ""),
        (r"^\cA$", "\x01", "A"),
    ],
)
def test_escapes_in_a_pattern(engine, pattern, yes, no):
    schema = {"type": "string", "pattern": pattern}
    for character in yes + no:
        said = json.dumps(character, ensure_ascii=False)
        assert takes(engine, schema, said) == (character in yes), character


@pytest.mark.parametrize("pattern", ["[", "[^", "(", "a{3,1}", "\\", "*"])
def test_an_invalid_pattern_stays_invalid(pattern):
    translate_pattern(pattern)
    with pytest.raises(SettingsError):
        examine(form({"type": "string", "pattern": pattern}))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("date", "2024-02-29 2000-02-29 1999-12-31", "2021-02-29 1900-02-29 0000-01-01 2021-04-31"),
        ("time", "23:59:59Z 00:00:00.5+01:00", "24:00:00Z 22:59:60Z 12:00:00"),
        ("date-time", "2024-02-29T23:59:59Z", "2023-02-29T00:00:00Z 2023-02-28T22:59:60Z"),
    ],
)
def test_dates_must_exist(engine, kind, good, bad):
    schema = {"type": "string", "format": kind}
    assert all(takes(engine, schema, f'"{text}"') for text in good.split())
    assert not any(takes(engine, schema, f'"{text}"') for text in bad.split())


def test_white_space_is_that_of_json_dumps(engine):
    assert takes(engine, {"type": "object"}, '{"a": 1, "b": [1, 2]}')
    for text in ('{"a":1}', '{ "a" : 1 }', '{"a":  1}', '{"a":\n1}', '{"a": 1,  "b": 2}'):
        assert not takes(engine, {"type": "object"}, text)


OPEN = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "text", "allowed"),
    [
        (OPEN, '{"b": 1}', False),
        (OPEN | {"additionalProperties": True}, '{"b": 1}', True),
        (OPEN | {"required": ["b"]}, '{"b": 1}', True),
        (OPEN | {"patternProperties": {"^b": {}}}, '{"b": 1}', True),
        ({"allOf": [OPEN, {"properties": {"b": {}}}]}, '{"a": 1, "b": 1}', True),
        ({"allOf": [{"$ref": "#/$defs/o"}], "$defs": {"o": OPEN}}, '{"b": 1}', False),
        (
            {"allOf": [{"$ref": "#/$defs/o"}], "properties": {"b": {}}, "$defs": {"o": OPEN}},
            '{"a": 1, "b": 1}',
            True,
        ),
        ({"anyOf": [OPEN, {"type": "null"}]}, '{"b": 1}', False),
        (OPEN | {"minProperties": 2}, '{"a": 1, "b": 1}', True),
    ],
)
def test_other_properties_only_if_the_schema_mentions_them(engine, schema, text, allowed):
    assert takes(engine, schema, text) == allowed


def test_properties_have_the_order_of_the_schema(engine):
    names = ["z", "名前", "a"]
    schema = {
        "type": "object",
        "properties": {name: {"enum": [1, 2]} for name in names},
        "required": ["a", "z", "名前"],
        "additionalProperties": False,
    }
    text = answer(engine, schema).text
    assert list(json.loads(text)) == names
    assert "名前" in text


@pytest.mark.parametrize("where", ["$defs", "definitions"])
def test_a_file_of_definitions_and_a_reference(engine, where):
    schema = {where: {"Person": PERSON}, "$ref": f"#/{where}/Person"}
    assert allows(schema, json.loads(answer(engine, schema).text))


@pytest.mark.parametrize(
    "value", ['say "hi"', "back\\slash", "é€😀", "line\nend", 3.5, None, True, ["a", {"b": 1}]]
)
def test_a_constant_is_generated_unchanged(engine, value):
    assert json.loads(answer(engine, {"const": value}).text) == value


# how answers end


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_an_answer_ends_when_it_is_complete(engine, seed):
    reply = answer(engine, PERSON, seed)
    assert reply.ended == "end"
    assert allows(PERSON, json.loads(reply.text))
    assert engine.model.text(reply.tokens) == reply.text
    assert reply.text == answer(engine, PERSON, seed).text


def test_a_truncated_answer_continues_in_its_schema(engine):
    cut = answer(engine, PERSON, max_tokens=15)
    assert cut.ended == "length"
    begun = PromptMessage("assistant", cut.text, "", tuple(cut.tokens), engine.identity)
    whole = answer(engine, PERSON, begun=begun)
    assert whole.ended == "end"
    assert whole.text.startswith(cut.text)
    assert allows(PERSON, json.loads(whole.text))
    with pytest.raises(AnswerDoesNotMatch):
        answer(engine, {"type": "integer"}, begun=begun)


def test_a_complete_answer_does_not_continue(engine):
    begun = PromptMessage("assistant", '{"a": 1}')
    schema = {"properties": {"a": {"const": 1}}, "required": ["a"], "additionalProperties": False}
    reply = answer(engine, schema | {"type": "object"}, begun=begun)
    assert (reply.ended, reply.text, reply.stats.reply_tokens) == ("end", '{"a": 1}', 0)


def test_stop_strings_apply_to_json(engine):
    reply = answer(engine, {"const": "abc"}, stop=["b"])
    assert (reply.ended, reply.text) == ("stop", '"a')


@pytest.mark.slow
def test_a_token_of_several_characters(tiny):
    words = ['{"', '":', '", "', '"}', "yes", 'no"', "name", "<tool>"]
    schema = {"type": "object", "properties": {"name": {"enum": ["yes", "no"]}}}
    schema |= {"required": ["name"], "additionalProperties": False}
    with LlamaEngine(
        tiny(words=words, controls=["<end>"]), Settings(ctx_size=512), now=datetime.now()
    ) as one:
        one.load().result()
        said = {answer(one, schema, seed).text for seed in range(12)}
    assert {json.loads(text)["name"] for text in said} <= {"yes", "no"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["swa", "recurrent", "hybrid"])
def test_schemas_work_on_other_models(tiny, kind):
    with LlamaEngine(tiny(kind), Settings(ctx_size=1024), now=datetime.now()) as one:
        one.load().result()
        assert allows(PERSON, json.loads(answer(one, PERSON).text))


# what is wrong with a schema, and where


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ("{", "line 1"),
        ("[1]", "object"),
        ("false", "object"),
        ('{"minimum": NaN}', ""),
        ({"type": "horoscope"}, "horoscope"),
        ({"properties": {"a/b": {"type": "integer", "minimum": 2, "maximum": 1}},
          "required": ["a/b"], "type": "object"}, "/properties/a~1b"),
        ({"anyOf": [{"$ref": "#/$defs/E"}], "$defs": {"E": {"type": "string", "pattern": "("}}},
         "/$defs/E"),
        ({"prefixItems": [{"enum": 3}]}, "/prefixItems/0"),
        ({"properties": {"pattern": {"type": "string", "minLength": -1}}}, "/properties/pattern"),
        ({"$ref": "https://example.org/a.json"}, "https://example.org/a.json"),
        ({"$ref": "#/nowhere"}, "/nowhere"),
        ({"$ref": "#"}, ""),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, ""),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"},
          "minItems": 1}}}, ""),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, ""),
        ({"enum": []}, ""),
        ({"type": "string", "minLength": 3, "pattern": "^a$"}, ""),
        ({"type": "object", "properties": {"a": {}}, "minProperties": 3, "maxProperties": 1}, ""),
        ({"type": "string", "pattern": r"\bx"}, "pattern"),
        ({"required": [[]], "minProperties": 1}, ""),
    ],
)  # fmt: skip
def test_an_unsatisfiable_schema_is_refused_with_its_place(schema, where):
    with pytest.raises(SettingsError) as raised:
        examine(form(schema))
    sentence = str(raised.value)
    assert sentence.startswith("person.json ") and where in sentence
    assert "\n" not in sentence and "grammar" not in sentence


def test_a_recursive_schema_that_can_end(engine):
    tree = {
        "type": "object",
        "properties": {"v": {"enum": [1]}, "kids": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["v", "kids"],
    }
    assert examine(form(tree)) == []
    assert takes(engine, tree, '{"v": 1, "kids": [{"v": 1, "kids": []}]}')
    assert not takes(engine, tree, '{"v": 1, "kids": [{"v": 1}]}')


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "string", "format": "horoscope"}, "format horoscope"),
        ({"type": "string", "contentEncoding": "base64"}, "contentEncoding"),
        ({"type": "array", "uniqueItems": True, "contains": {}}, "contains, uniqueItems"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "object", "properties": {"a": {}}, "maxProperties": 1}, "maxProperties"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({"properties": {"not": {"if": {}, "then": {}}}}, "if, then"),
        ({"$defs": {"a": {"$id": "x", "type": "string"}}, "$ref": "#/$defs/a"}, "$id"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"uniqueItems": True}}}, "uniqueItems"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"format": "x"}}}, "format x"),
        ({"items": {"uniqueItems": True}, "not": {"uniqueItems": True}}, "not, uniqueItems"),
        ({"items": {"format": "x"}, "additionalProperties": {"format": "x"}}, "format x of"),
        ({"type": "string", "format": "email"}, ""),
        ({"type": "object", "required": ["a", "b"], "minProperties": 2}, ""),
        ({"const": {"uniqueItems": 1, "pattern": "("}}, ""),
        ({"type": "string", "maxLength": 2.0, "title": "A"}, ""),
        ("true", ""),
    ],
)
def test_unenforced_keywords_are_reported(schema, told):
    said = examine(form(schema))
    assert bool(said) == bool(told)
    assert told in "".join(said)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(PATTERNS + NAMES),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(KEYWORDS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_schema_or_an_error(value):
    try:
        examine(form(json.dumps(value)))
    except SettingsError as error:
        assert "\n" not in str(error)


# the real model

FORMS = {
    "person": PERSON,
    "list": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 2,
             "maxItems": 4},
    "choice": {"enum": ["red", "green", "blue"]},
    "pattern": {"type": "string", "pattern": r"^[A-Z][a-z]{2,8}-\d{2}$"},
    "union": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 9}, {"type": "null"}]},
    "nested": {
        "type": "object",
        "properties": {
            "when": {"type": "string", "format": "date"},
            "place": {"$ref": "#/$defs/place"},
            "price": {"type": "number", "multipleOf": 0.5, "minimum": 0, "maximum": 50},
        },
        "required": ["when", "place"],
        "additionalProperties": False,
        "$defs": {"place": {"type": "object", "required": ["name"],
                            "properties": {"name": {"type": "string", "maxLength": 15}}}},
    },
}  # fmt: skip


@pytest.mark.slow
def test_the_real_model_answers_in_json(smollm2):
    question = [PromptMessage("user", "Invent a person who drinks tea in a place.")]
    with LlamaEngine(smollm2, Settings(ctx_size=1024, threads=1), now=datetime.now()) as one:
        one.load(form({})).result()
        for schema in FORMS.values():
            for seed in range(4):
                reply = answer(one, schema, seed, 400, question, 1.0)
                assert (reply.ended, reply.notice) == ("end", None)
                assert allows(schema, json.loads(reply.text)), reply.text
                assert one.model.text(reply.tokens) == reply.text
