"""Personas and thinking in a chat; settings and the system text are in
test_commands."""

import json
from dataclasses import replace

import pytest
from fakes import Said, ScriptedEngine, does, new_chat

from lcp import commands
from lcp.chat.services_interface import Services
from lcp.commands import settings
from lcp.errors import LcpError, SettingsError
from lcp.session.conversation import Conversation
from lcp.session.store import Store, load
from lcp.settings import Layers, from_file, persona, personas

CONFIG = """\
temp = 0.3
persona.default = "cook"

[persona.cook]
system = "You are a cook."
temp = 0.9
top_k = 5

[persona.judge]
system = "You are a judge."
top_p = 0.5
model = "other"

[persona.plain]
seed = 3
"""
TABLES = {
    "cook": {"system": "You are a cook.", "temp": 0.9, "top_k": 5},
    "judge": {"system": "You are a judge.", "top_p": 0.5, "model": "other"},
    "plain": {"seed": 3},
}


@pytest.fixture
def chat(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    engine = ScriptedEngine(*[Said("Yes.", thinking="Hm.")] * 5)
    layers = Layers(config={"temp": 0.3}, flags={"min_p": 0.2})
    services = Services(personas=TABLES, store=Store(tmp_path))
    chat = new_chat(engine, layers, store=services.store, services=services)
    with chat.log:
        yield chat


def refuses(chat, line):
    before = (chat.settings, chat.layers, chat.conversation.events)
    with pytest.raises(LcpError) as error:
        commands.run(chat, line)
    assert (chat.settings, chat.layers, chat.conversation.events) == before
    return str(error.value)


def asked(chat):
    """System text and sampling settings of the next answer."""
    chat.ask("Hi.")
    request = chat.engine.asked[-1]
    system = [m.content for m in request.messages if m.role == "system"]
    return (system or [""])[0], request.sampling


# the file


def test_the_tables_and_the_default_are_in_one_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    assert from_file(path) == {"temp": 0.3, "persona": "cook"}
    assert personas(path) == TABLES
    assert personas(tmp_path / "absent.toml") == {}
    path.write_text('persona = "cook"')
    assert (from_file(path), personas(path)) == ({"persona": "cook"}, {})


@pytest.mark.parametrize(
    ("tables", "hint"),
    [
        (TABLES, "Did you mean judge?"),
        ({"cook": {}, "plain": {}}, "The personas are: cook, plain."),
        ({}, "config.toml has no [persona.NAME]."),
    ],
)
def test_an_unknown_persona_gets_a_hint(tables, hint):
    with pytest.raises(SettingsError) as error:
        persona(tables, "juge")
    assert str(error.value) == f"There is no persona called juge. {hint}"


# /persona


def test_a_persona_sets_its_system_text_and_sampling(chat):
    assert does(chat, "/persona cook") == "Persona: cook\n"
    system, sampling = asked(chat)
    assert system == "You are a cook."
    assert (sampling.temp, sampling.top_k, sampling.min_p) == (0.9, 5, 0.2)
    assert chat.settings.sources["temp"] == "persona"


def test_the_next_persona_replaces_all_of_the_last(chat):
    does(chat, "/persona cook")
    assert ": /model other" in does(chat, "/persona judge")
    system, sampling = asked(chat)
    assert system == "You are a judge."
    assert (sampling.temp, sampling.top_k, sampling.top_p) == (0.3, 40, 0.5)
    does(chat, "/persona none")
    system, sampling = asked(chat)
    assert (system, sampling.top_p, chat.settings.persona) == ("", 0.95, None)


def test_a_persona_without_a_system_text_removes_only_that_of_the_last_persona(chat):
    does(chat, "/persona cook")
    does(chat, "/persona plain")
    assert asked(chat)[0] == ""
    does(chat, "/system Be brief.")
    does(chat, "/persona none")
    assert asked(chat)[0] == "Be brief."


def test_a_later_choice_counts(chat):
    does(chat, "/set temp 0.1")
    does(chat, "/persona cook")
    assert asked(chat)[1].temp == 0.9
    does(chat, "/set temp 0.2")
    assert asked(chat)[1].temp == 0.2
    does(chat, "/persona plain")
    assert asked(chat)[1].temp == 0.3


def test_values_that_a_persona_cannot_change_now_are_reported(chat, monkeypatch):
    monkeypatch.setitem(TABLES, "large", {"temp": 0.5, "ctx_size": 512, "threads": 1})
    said = does(chat, "/persona large")
    later = "ctx_size, threads: takes effect when you resume this chat.\n"
    assert said == f"Persona: large\n{later}"
    assert chat.settings.sampling.temp == 0.5
    chat.ask("Hi.")
    resumed = Conversation.from_events(load(chat.log.path)[0])
    assert (resumed.settings["ctx_size"], resumed.settings["threads"]) == (512, 1)


def test_a_flag_precedes_a_persona(chat):
    chat.layers = replace(chat.layers, flags={**chat.layers.flags, "top_k": 11})
    does(chat, "/persona cook")
    assert asked(chat)[1].top_k == 11


def test_a_resumed_chat_keeps_the_values_of_its_persona(chat):
    does(chat, "/persona cook")
    does(chat, "/set temp 0.2")
    chat.ask("Hi.")
    again = Conversation.from_events(load(chat.log.path)[0])
    assert (again.system, again.settings) == (
        "You are a cook.",
        {"persona": "cook", "temp": 0.2, "top_k": 5},
    )
    chat.layers = Layers(config={"temp": 0.3}, conversation=dict(again.settings))
    chat.settings = chat.layers.resolve()
    assert "*  cook" in does(chat, "/persona")
    does(chat, "/persona none")
    system, sampling = asked(chat)
    assert (system, sampling.temp, sampling.top_k) == ("", 0.3, 40)


def test_personas_are_listed_and_the_one_that_counts_is_marked(chat):
    does(chat, "/persona judge")
    assert does(chat, "/persona").splitlines() == [
        "   cook   system = You are a cook., temp = 0.9, top_k = 5",
        "*  judge  system = You are a judge., top_p = 0.5, model = other",
        "   plain  seed = 3",
    ]


def test_a_long_text_of_a_persona_is_shortened_with_an_ellipsis(chat):
    chat.services = Services(
        personas={"judge": {"system": "You judge " + "all " * 20, "temp": 0.5}}
    )
    assert "system = You judge all all all all all all all a…, temp = 0.5" in does(chat, "/persona")


def test_an_invalid_persona_changes_nothing(chat):
    assert "Did you mean cook?" in refuses(chat, "/persona cok")
    TABLES_BAD = {"bad": {"tmep": 1}, "hot": {"temp": "hot"}}
    chat.services = Services(personas=TABLES_BAD)
    assert "Did you mean temp?" in refuses(chat, "/persona bad")
    assert "temp must be" in refuses(chat, "/persona hot")
    chat.services = Services()
    assert "[persona.NAME]" in refuses(chat, "/persona")


# /think


@pytest.mark.parametrize(
    ("word", "think", "whole"),
    [("on", "on", False), ("off", "off", False), ("show", "on", True), ("hide", "hide", False)],
)
def test_thinking_can_be_set(chat, word, think, whole):
    assert does(chat, f"/think {word}").startswith(f"Thinking: {think}")
    assert (chat.settings.think, chat.screen.show_thinking) == (think, whole)
    chat.ask("Hi.")
    assert chat.engine.asked[-1].thinking_tokens == (0 if think == "off" else None)
    assert chat.engine.variables["enable_thinking"] == (think != "off")
    assert does(chat, "/think") == f"Thinking: {think}{' (shown whole)' if whole else ''}\n"


def test_an_unknown_thinking_mode_is_refused(chat):
    words = "on, off, show, hide, low, medium, high or a number of tokens"
    assert refuses(chat, "/think deep") == f"/think must be {words} (got deep)."


def test_a_number_limits_the_tokens_of_thinking(chat):
    assert does(chat, "/think 1500") == "Thinking: on · at most 1,500 tokens\n"
    chat.ask("Hi.")
    assert chat.engine.asked[-1].thinking_tokens == 1500
    assert does(chat, "/think off") == "Thinking: off\n"
    assert does(chat, "/think on") == "Thinking: on · at most 1,500 tokens\n"
    does(chat, "/set reasoning_budget auto")
    assert does(chat, "/think") == "Thinking: on\n"


def test_the_reasoning_effort_is_a_template_variable(chat):
    assert does(chat, "/think low") == "Thinking: on · effort low\n"
    assert chat.engine.variables["reasoning_effort"] == "low"
    does(chat, "/set reasoning_effort auto")
    assert "reasoning_effort" not in chat.engine.variables


def test_an_unsupported_reasoning_effort_is_reported(chat):
    chat.engine.template.uses = lambda *_: False
    assert "high (not supported" in does(chat, "/think high")


@pytest.mark.parametrize("word", ["high", "300"])
def test_setting_an_effort_turns_thinking_on(chat, word):
    does(chat, "/think off")
    does(chat, f"/think {word}")
    assert chat.settings.think == "on"


def test_the_candidates_of_set_are_names_and_then_words():
    assert dict(settings.candidates(None, "te"))["temp"].startswith("Sampling temperature")
    assert list(settings.candidates(None, "stop ")) == ["stop none", "stop reset"]
    assert next(iter(settings.candidates(None, "max_tokens a"))) == "max_tokens auto"
    assert list(settings.candidates(None, "tmep ")) == []
    assert "think hide" in settings.candidates(None, "think ")


# the command line


@pytest.fixture
def lcp(home, tiny, lcp_main, capsys):
    """Run `lcp chat` with a tiny model in this process. Returns the events of the last chat."""
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text(CONFIG.replace('model = "other"', ""))

    def run(*words):
        code = lcp_main("chat", *words, "-n", "1", "Hi.")
        said = capsys.readouterr().err
        if code:
            return said
        newest = Store(home / "data" / "sessions").newest()[0]
        return [json.loads(line) for line in newest.read_text("utf-8").splitlines()]

    run.model = str(tiny())
    return run


def of(events, type):
    return [e for e in events if e["type"] == type]


@pytest.mark.slow
def test_the_default_persona_applies_to_a_new_chat(lcp):
    events = lcp(lcp.model)
    assert [e["text"] for e in of(events, "system")] == ["You are a cook."]
    assert of(events, "answer")[0]["sampling"]["temp"] == 0.9
    (chosen,) = of(events, "set")
    assert (chosen["persona"], chosen["temp"], chosen["top_k"]) == ("cook", 0.9, 5)


@pytest.mark.slow
def test_a_persona_can_come_from_a_flag_or_the_environment(lcp, monkeypatch):
    events = lcp(lcp.model, "--persona", "judge", "--temp", "0.1")
    answer = of(events, "answer")[0]["sampling"]
    assert (of(events, "system")[0]["text"], answer["top_p"]) == ("You are a judge.", 0.5)
    assert answer["temp"] == 0.1
    monkeypatch.setenv("LCP_PERSONA", "plain")
    assert of(lcp(lcp.model), "answer")[0]["seed"] == 3
    assert "Did you mean cook?" in lcp(lcp.model, "--persona", "coock")


@pytest.mark.slow
def test_persona_none_turns_the_default_persona_off(lcp):
    events = lcp(lcp.model, "--persona", "none")
    assert of(events, "system") == of(events, "set") == []
    assert of(events, "answer")[0]["sampling"]["temp"] == 0.3


@pytest.mark.slow
def test_a_resumed_chat_keeps_its_persona_unless_another_is_named(lcp, home):
    lcp(lcp.model, "--persona", "judge")
    (home / "config" / "config.toml").write_text(CONFIG.replace("0.5", "0.6").replace("other", ""))
    events = lcp("--resume", "20")
    assert of(events, "answer")[-1]["sampling"]["top_p"] == 0.5
    assert [e["text"] for e in of(events, "system")] == ["You are a judge."]
    events = lcp("--resume", "20", "--persona", "cook")
    assert [e["text"] for e in of(events, "system")] == ["You are a judge.", "You are a cook."]
    assert of(events, "answer")[-1]["sampling"]["temp"] == 0.9
    assert of(lcp("--resume", "20"), "answer")[-1]["sampling"]["temp"] == 0.9


@pytest.mark.slow
def test_values_set_after_a_persona_survive_naming_it_again(lcp, home, monkeypatch):
    lcp(lcp.model, "--persona", "cook")
    (log,) = (home / "data" / "sessions").glob("*.jsonl")
    with log.open("a") as file:
        file.write('{"v":1,"id":"x","parent":null,"type":"set","temp":0.2}\n')
    monkeypatch.setenv("LCP_PERSONA", "cook")
    sampling = of(lcp("--resume", "20"), "answer")[-1]["sampling"]
    assert (sampling["temp"], sampling["top_k"]) == (0.2, 5)


@pytest.mark.slow
def test_a_persona_can_set_the_model(lcp, home):
    config = f'[persona.small]\nmodel = "{lcp.model}"\n'
    (home / "config" / "config.toml").write_text(config)
    assert lcp("--persona", "small")[0]["model"] == lcp.model


@pytest.mark.slow
def test_a_resumed_chat_with_another_model_keeps_it(lcp, tiny):
    lcp(lcp.model)
    other = str(tiny("swa"))
    events = lcp("--resume", "20", "-m", other)
    assert [e["model"] for e in of(events, "answer")] == [lcp.model, other]
    assert of(lcp("--resume", "20"), "answer")[-1]["model"] == other
    assert "There is no model called nothing" in lcp("--resume", "20", "-m", "nothing")
    assert of(lcp("--resume", "20"), "answer")[-1]["model"] == other


@pytest.mark.parametrize("blank", ["\t", "\N{NO-BREAK SPACE}", "  ", " = "])
def test_any_white_space_separates_a_name_and_its_value(chat, blank):
    commands.run(chat, f"/set{blank.replace('=', ' ')}temp{blank}0.5")
    assert chat.settings.sampling.temp == 0.5
