"""Settings: which layer counts, where a value came from, invalid values."""

from dataclasses import fields
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcp.errors import SettingsError
from lcp.formatting import short
from lcp.settings import (
    EFFORTS,
    OPTIONS,
    Layers,
    Sampling,
    Settings,
    check,
    from_environment,
    from_file,
)

# The layers, weakest first, and the name that /set shows for each.
SOURCES = {f.name: f.metadata["source"] for f in fields(Layers)}


def test_without_layers_everything_is_a_default():
    chosen = Layers().resolve()
    assert chosen == Settings()
    assert chosen.sampling == Sampling(temp=0.8, top_k=40, top_p=0.95, min_p=0.05)
    assert set(chosen.sources) == set(OPTIONS)
    assert set(chosen.sources.values()) == {"default"}


def test_the_order_of_the_layers():
    assert tuple(SOURCES.values()) == (
        "server", "model file", "models.toml", "config.toml", "conversation", "persona",
        "environment", "flag", "/set",
    )  # fmt: skip


@pytest.mark.parametrize(("weak", "strong"), list(combinations(SOURCES, 2)))
def test_a_stronger_layer_precedes_a_weaker_one(weak, strong):
    chosen = Layers(**{strong: {"temp": 0.5}, weak: {"temp": 0.25, "top_k": 3}}).resolve()
    assert (chosen.sampling.temp, chosen.sources["temp"]) == (0.5, SOURCES[strong])
    assert (chosen.sampling.top_k, chosen.sources["top_k"]) == (3, SOURCES[weak])
    assert chosen.sources["top_p"] == "default"


@pytest.mark.slow
@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*SOURCES]), st.integers(0, 10)))
def test_the_strongest_layer_with_a_value_wins(temps):
    strongest = max(temps, key=[*SOURCES].index, default=None)
    chosen = Layers(**{layer: {"temp": temp} for layer, temp in temps.items()}).resolve()
    assert chosen.sources["temp"] == SOURCES.get(strongest, "default")
    assert chosen.sampling.temp == temps.get(strongest, 0.8)


def test_operations_return_new_layers():
    layers = Layers(conversation={"temp": 0.1, "top_k": 3}, persona={"temp": 0.2})
    chosen = layers.choosing(temp=0.5).choosing(seed=7)
    assert (chosen.resolve().sampling.temp, chosen.resolve().sampling.seed) == (0.5, 7)
    assert chosen.without({"temp"}).resolve().sampling.temp == 0.2
    assert chosen.without({"top_k"}).resolve().sources["top_k"] == "default"
    other = chosen.switching_to({"top_p": 0.5, "of a newer lcp": 1})
    assert (other.resolve().sampling.temp, other.resolve().sampling.top_p) == (0.8, 0.5)
    assert layers == Layers(conversation={"temp": 0.1, "top_k": 3}, persona={"temp": 0.2})


# values


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("temp", "0", 0.0),
        ("temp", "0.5", 0.5),
        ("temp", 1, 1.0),
        ("temp", " 1 ", 1.0),
        ("top_k", "40", 40),
        ("top_k", 40.0, 40),
        ("seed", "0", 0),
        ("seed", "random", None),
        ("max_tokens", "auto", None),
        ("max_tokens", None, None),
        ("ctx_size", "auto", None),
        ("ctx_size", "64", 64),
        ("n_gpu_layers", "auto", None),
        ("n_gpu_layers", "all", -1),
        ("n_gpu_layers", -1, -1),
        ("n_gpu_layers", "0", 0),
        ("threads", "4", 4),
        ("kv_type", "q8_0", "q8_0"),
        ("flash_attn", "off", "off"),
        ("think", "hide", "hide"),
        ("stop", "END", ("END",)),
        ("stop", ["A", "B"], ("A", "B")),
        ("stop", ("A",), ("A",)),
        ("stop", 5, ("5",)),
        ("system", "Be brief.", "Be brief."),
        ("system", 5, "5"),
        ("model", None, None),
        ("chat_template_kwargs", '{"a": [1]}', '{"a": [1]}'),
        ("chat_template_kwargs", {"ä": 1}, '{"ä": 1}'),
    ],
)
def test_a_value_as_text_or_typed(name, raw, value):
    checked = check(name, raw, "flag")
    assert checked == value
    assert type(checked) is type(value)


@pytest.mark.parametrize(
    ("name", "raw", "wanted"),
    [
        *(("temp", raw, "a number from 0 to 10") for raw in ("hot", "-1", "11", "nan", "inf", "")),
        *(("temp", raw, "a number from 0 to 10") for raw in (True, [1], None)),
        ("ctx_size", "3", "a whole number from 64 to 2,147,483,647 or auto"),
        ("top_k", "2.5", "a whole number from 0 to 1,000,000"),
        ("top_k", 2.5, "a whole number from 0 to 1,000,000"),
        ("n_gpu_layers", "some", "a whole number from 0 to 100,000, auto or all"),
        ("kv_type", "f32", "f16, q8_0 or q4_0"),
        *(("system", raw, "text") for raw in (True, ["a"], {"a": 1})),
        *(("stop", raw, "text") for raw in (True, ["a", ["b"]], [True], {"a": 1})),
        ("kv_type", ["f16"], "f16, q8_0 or q4_0"),
        *(
            ("chat_template_kwargs", raw, 'a JSON object such as {"reasoning_effort": "low"}')
            for raw in ("low", "[1]", "{", None, 5, '{"a": ' * 10_000)
        ),
    ],
)
def test_an_error_has_the_name_the_value_its_source_and_what_it_must_be(name, raw, wanted):
    with pytest.raises(SettingsError) as error:
        check(name, raw, "flag")
    shown = "true" if raw is True else short(str(raw), 60)  # as config.toml spells it
    for part in (name, shown, "flag", wanted):
        assert part in str(error.value)


@pytest.mark.parametrize(("name", "meant"), [("temperature", "temp"), ("maxtokens", "max_tokens")])
def test_an_unknown_name_suggests_a_similar_one(name, meant):
    with pytest.raises(SettingsError, match=f"{name}.*Did you mean {meant}"):
        check(name, 1, "flag")


def test_a_name_without_a_similar_one_lists_all():
    with pytest.raises(SettingsError, match=r"The settings are: temp, top_k, .*think, .*"):
        check("xyzzy", 1, "config.toml")


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.sampled_from(list(OPTIONS)),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
)
def test_any_value_is_accepted_or_an_error(name, raw):
    try:
        value = check(name, raw, "config.toml")
    except SettingsError as error:
        assert str(error).startswith(f"{name} must be ")
        assert str(error).endswith(".")
    else:
        assert check(name, value, "conversation") == value  # as it is read from a log


# environment and file


def test_empty_variables_count_as_absent():
    environ = {"LCP_TEMP": "0.1", "LCP_MODEL": "m", "LCP_TOP_K": "", "LCP_HOME": "/x", "TEMP": "/t"}
    assert from_environment(environ) == {"temp": "0.1", "model": "m"}


def test_an_invalid_variable_is_named():
    with pytest.raises(SettingsError, match=r"temp must be .*hot.*environment"):
        Layers(environment=from_environment({"LCP_TEMP": "hot"})).resolve()


def test_a_missing_file_counts_as_empty(tmp_path):
    assert from_file(tmp_path / "none" / "config.toml") == {}


def test_a_file_gives_its_top_level_values(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('temp = 0.3\nstop = ["A", "B"]\nmodel = "m"\n[persona.cook]\ntemp = 1\n')
    layer = from_file(path)
    assert layer == {"temp": 0.3, "stop": ["A", "B"], "model": "m"}
    chosen = Layers(config=layer).resolve()
    assert (chosen.sampling.temp, chosen.stop, chosen.model) == (0.3, ("A", "B"), "m")


@pytest.mark.parametrize("content", [b"temp = ", b"\xff\xfe", b"temp 0.3", b"temp = 1\ntemp = 2"])
def test_a_broken_file_is_an_error(tmp_path, content):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        from_file(path)
    assert str(error.value).startswith(f"Cannot read {path}: ")
    assert str(error.value).endswith(" Correct or remove it.")
    assert error.value.exit_code == 2


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path):
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(SettingsError, match="Cannot read"):
        from_file(tmp_path / "config.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[personas.x]\ntemp = 1", "Did you mean persona"),
        ("[temp]\nx = 1", "temp must be a number"),
        ("[model]\nx = 1", "model must be text"),
    ],
)
def test_a_table_that_is_none_of_lcps_is_an_error(tmp_path, text, said):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        Layers(config=from_file(path)).resolve()


def test_a_default_server_that_is_no_name_is_not_ignored(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('server.default = 3\n[server.x]\nurl = "http://box"')
    assert from_file(path) == {"server": 3}


def test_a_misspelled_setting_in_the_file_is_an_error(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("tmep = 0.3\n")
    with pytest.raises(SettingsError, match=r"tmep \(config.toml\)\. Did you mean temp\?"):
        Layers(config=from_file(path)).resolve()


# variables of a chat template


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({}, {"enable_thinking": True}),
        ({"think": "hide"}, {"enable_thinking": True}),
        (
            {"think": "off", "reasoning_budget": 50},
            {"enable_thinking": False, "thinking": False, "thinking_budget": 0},
        ),
        ({"reasoning_budget": 50}, {"enable_thinking": True, "thinking_budget": 50}),
        (
            {"reasoning_effort": "low"},
            {"enable_thinking": True} | dict.fromkeys(EFFORTS, "low"),
        ),
        (
            {"chat_template_kwargs": '{"enable_thinking": "yes", "x": null}'},
            {"enable_thinking": "yes", "x": None},
        ),
    ],
)
def test_variables_for_the_template(chosen, told):
    assert Layers(flags=chosen).resolve().template_variables == told


def test_the_configuration_holds_template_variables_as_a_table(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text("temp = 1\n[chat_template_kwargs]\ndeep = true\n")
    chosen = Layers(config=from_file(file)).resolve()
    assert chosen.template_variables == {"enable_thinking": True, "deep": True}
