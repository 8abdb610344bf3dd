"""Random schemas, and a model that says anything: its answer is JSON that the schema allows."""

import json
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcp.engine.engine import Engine
from lcp.engine.grammar import from_schema
from lcp.engine.reply import Request
from lcp.settings import Sampling, Settings

QUESTION = [{"role": "user", "content": "Hi."}]
NAMES = ["a", "b c", 'd"e', "f\\", "é"]

constants = st.sampled_from(["a", "b\\", '"q"', 1, None, 2.5, True, "é\n", {"x": [1, "\\"]}])
plain = st.one_of(
    st.lists(constants, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    constants.map(lambda value: {"const": value}),
    st.sampled_from(["integer", "number", "boolean", "null"]).map(lambda t: {"type": t}),
    st.integers(1, 6).map(lambda n: {"type": "string", "maxLength": n}),
    st.integers(1, 6).map(lambda n: {"type": ["string", "null"], "maxLength": n}),
    st.tuples(st.integers(-130, 130), st.integers(0, 130)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": sum(pair)}
    ),
)


@st.composite
def arrays(draw, parts):
    low, more = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    return {"type": "array", "items": draw(parts), "minItems": low, "maxItems": low + more}


@st.composite
def objects(draw, parts):
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=3))
    required = draw(st.lists(st.sampled_from(names), unique=True))
    return {
        "type": "object",
        "properties": {name: draw(parts) for name in names},
        "required": required,
    }


def wider(parts):
    both = st.lists(parts, min_size=1, max_size=2)
    return st.one_of(
        arrays(parts),
        objects(parts),
        both.map(lambda schemas: {"anyOf": schemas}),
        both.map(lambda schemas: {"type": "array", "prefixItems": schemas}),
    )


def allows(schema, value):
    """What JSON Schema says of these keywords."""
    match schema:
        case {"enum": values}:
            return any(value == v and type(value) is type(v) for v in values)
        case {"const": constant}:
            return value == constant and type(value) is type(constant)
        case {"anyOf": schemas}:
            return any(allows(s, value) for s in schemas)
        case {"type": "integer", "minimum": low, "maximum": high}:
            return type(value) is int and low <= value <= high
        case {"type": [_, "null"]} if value is None:
            return True
        case {"type": "string" | ["string", "null"], "maxLength": n}:
            # a byte that spells no character, of which some slip through, is several U+FFFD
            return isinstance(value, str) and len(value.replace("\ufffd", "")) <= n
        case {"type": "array"} if not isinstance(value, list):
            return False
        case {"type": "object"} if not isinstance(value, dict):
            return False
        case {"prefixItems": schemas}:
            return len(value) == len(schemas) and all(map(allows, schemas, value))
        case {"items": part, "minItems": low, "maxItems": high}:
            return low <= len(value) <= high and all(allows(part, v) for v in value)
        case {"properties": parts, "required": required}:
            known = set(required) <= set(value) <= set(parts)
            return known and all(allows(parts[name], v) for name, v in value.items())
        case {"type": "number"}:
            return type(value) in (int, float)
    return type(value) is {"integer": int, "boolean": bool, "null": type(None)}[schema["type"]]


@pytest.fixture(scope="module")
def engine(tiny):
    with Engine(tiny(), Settings(ctx_size=2048, threads=1), now=datetime.now()) as one:
        one.load().result()
        yield one


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(schema=st.recursive(plain, wider, max_leaves=5), seed=st.integers(0, 100))
def test_an_answer_is_what_its_schema_allows(engine, schema, seed):
    grammar, not_held = from_schema(json.dumps(schema), "it")
    reply = engine.reply(Request(QUESTION, Sampling(2, seed=seed), 1500, grammar=grammar))
    list(reply)
    assert (reply.ended, not_held) == ("end", [])
    assert allows(schema, json.loads(reply.text)), reply.text
