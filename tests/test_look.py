"""`lcp look`, on tiny models and on the real one: what it finds, and what it refuses."""

import json

import pytest

TEXT = "The quick brown fox"


@pytest.fixture
def look(lcp_main, capsys):
    """A function: the words of a command to its JSON, or to its error if it is refused."""

    def run(*words, code=0):
        got = lcp_main("look", *map(str, words), *(["--json"] if code == 0 else []))
        out, err = capsys.readouterr()
        assert got == code, err
        return json.loads(out) if code == 0 else err

    return run


def test_layers(look, tiny):
    found = look("layers", tiny(), TEXT)
    assert [row["layer"] for row in found["layers"]] == [0, 1]
    last = found["layers"][-1]
    assert last["rank"] == 1
    assert last["says"][0]["p"] == pytest.approx(found["answer"]["p"], rel=1e-5)
    assert found["error"] < 1e-4
