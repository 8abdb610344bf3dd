"""Servers on the command line: names, addresses, keys, config.toml, `lcp info`, `lcp doctor`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import ScriptedEngine, does, new_chat
from scripted_server import WHOLE, ScriptedServer, answer, delta, json_page, serving

from lcp.cli.chat_services import services
from lcp.commands import command_table
from lcp.health_checks import server as check
from lcp.remote import server_kinds
from lcp.servers.config import servers
from lcp.session.export import plain_name
from lcp.session.store import Store

KEY, OTHER = "sk-for-this-server", "sk-of-openai"


@pytest.fixture
def server():
    with ScriptedServer(serving()) as scripted:
        yield scripted


@pytest.fixture
def config(home, server, monkeypatch):
    """A function that writes a config.toml, which has the server as `box` at first."""
    file = home / "config" / "config.toml"
    file.parent.mkdir(parents=True)

    def write(text):
        file.write_text(text.replace("URL", server.address))

    write('[server.box]\nurl = "URL"\nkey_env = "BOX_KEY"\nheaders = {X-Team = "blue"}\n')
    monkeypatch.setenv("BOX_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    return write


def keys(server):
    """The keys that the server received."""
    return {asked.headers.get("authorization", "") for asked in server.asked}


@pytest.mark.parametrize("with_v1", ["", "/v1", "/v1/"])
def test_an_answer_from_an_address(server, lcp_main, capfd, with_v1):
    assert lcp_main("chat", "--server", server.address + with_v1, "Hi") == 0
    assert capfd.readouterr().out == "Hello there.\n"
    assert server.bodies()[-1]["messages"][-1] == {"role": "user", "content": "Hi"}


def test_the_environment_names_a_server_and_a_key(server, lcp_main, monkeypatch, home):
    monkeypatch.setenv("LCP_SERVER", server.address)
    monkeypatch.setenv("LCP_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    assert lcp_main("chat", "Hi") == 0
    assert keys(server) == {f"Bearer {KEY}"}
    files = [file for file in home.rglob("*") if file.is_file()]
    assert files and not [file for file in files if KEY.encode() in file.read_bytes()]


def test_openai_api_key_is_not_sent_by_default(server, lcp_main, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OTHER)
    assert lcp_main("chat", "--server", server.address, "Hi") == 0
    assert keys(server) == {""}


def test_a_server_of_config_has_a_name_a_key_and_headers(config, server, lcp_main):
    assert lcp_main("chat", "box", "Hi") == 0
    assert lcp_main("chat", "--server", "box", "Hi") == 0
    assert keys(server) == {f"Bearer {KEY}"}
    assert {asked.headers["x-team"] for asked in server.asked} == {"blue"}
    assert [body["messages"][-1]["content"] for body in server.bodies()] == ["Hi", "Hi"]


def test_the_default_server_of_config(config, server, lcp_main):
    config('[server]\ndefault = "box"\n[server.box]\nurl = "URL"\nmodel = "m"\n')
    assert lcp_main("chat", "Hi there") == 0
    assert server.bodies()[-1]["model"] == "m"


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_without_a_server_the_default_one_is_not_asked(config, server, lcp_main, monkeypatch, how):
    config('[server]\ndefault = "box"\n[server.box]\nurl = "URL"\n')
    flag = ("--server", "none") if how == "flag" else ()
    if how == "environment":
        monkeypatch.setenv("LCP_SERVER", "none")
    assert lcp_main("chat", *flag, "-m", "no-such-model", "Hi") == 1
    assert not server.asked
    assert lcp_main("chat", "-m", "m", "Hi") == (0 if how == "flag" else 1)  # a model of the server


ABILITIES = {
    "when the window slides, the kept turns are moved, not read again": "moves",
    "the model reads your message while you type": "reads_ahead",
    "progress while the model reads a prompt": "tells_progress",
    "`--json-schema`": "schema",
    "`--grammar`": "grammar",
    "`--regex`": "regex",
    "`/continue`": "continues",
    "`/continue` inside the thinking": "continues_thinking",
    "`/continue` with `--json-schema` (with `--grammar`: no)": "continues_schema",
    "`/probs` (with `--token-probs on`)": "probs",
    "`/fork` (with `--token-probs on`)": "continues",
    "lcp sends `--stop` texts to the server, if the answer cannot have thinking": "stops",
    "`--raw`": "completes",
}


@pytest.mark.parametrize("label", ABILITIES)
def test_the_docs_say_of_each_kind_what_the_code_does(label):
    text = (Path(__file__).parents[1] / "docs" / "servers.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    told = [cell.strip() for cell in row.strip(" |").split("|")[1:]]
    kinds = [getattr(server_kinds, n) for n in ("LLAMA", "VLLM", "SGLANG", "OLLAMA", "LM_STUDIO")]
    can = [bool(getattr(kind, ABILITIES[label])) for kind in kinds]
    assert [cell.startswith("yes") for cell in told[:4]] == can[:4] and can[3] == can[4]
    python = bool(getattr(server_kinds.LLAMA_CPP_PYTHON, ABILITIES[label]))
    assert told[4].startswith(("yes", "llama-cpp-python")) == python


def test_a_missing_key_and_invalid_tables(config, lcp_main, monkeypatch, capfd):
    monkeypatch.delenv("BOX_KEY")
    assert lcp_main("chat", "box", "Hi") == 2
    assert "BOX_KEY" in capfd.readouterr().err
    for table in ('ulr = "URL"', 'url = "URL"\nheaders = 3', "", "url = 3"):
        config(f"[server.box]\n{table}\n")
        assert lcp_main("chat", "box", "Hi") == 2
        assert "server.box" in capfd.readouterr().err


def test_several_models_are_listed(server, lcp_main, capfd):
    server.pages["/v1/models"] = json_page({"data": [{"id": "big"}, {"id": "small"}]})
    assert lcp_main("chat", "--server", server.address, "Hi") == 2
    error = capfd.readouterr().err
    assert "big, small" in error and "--model" in error
    assert lcp_main("chat", "--server", server.address, "-m", "small", "Hi") == 0
    assert server.bodies()[-1]["model"] == "small"


def test_an_unknown_server_name(config, lcp_main, capfd):
    assert lcp_main("chat", "--server", "bax", "Hi") == 2
    assert "box" in capfd.readouterr().err


def test_a_server_that_is_down(lcp_main, capfd, home):
    assert lcp_main("chat", "--server", "http://127.0.0.1:1", "Hi") == 1
    assert "127.0.0.1:1" in capfd.readouterr().err
    assert not list(Store(home / "data" / "sessions").chats())


def test_a_saved_chat_finds_its_server_again(config, server, lcp_main, home):
    assert lcp_main("chat", "box", "Hi") == 0
    (file,) = (home / "data" / "sessions").glob("*.jsonl")
    assert lcp_main("chat", "--resume", file.stem, "And you?") == 0
    said = [message["content"] for message in server.bodies()[-1]["messages"]]
    assert said == ["Hi", "Hello there.", "And you?"]
    assert f"{server.address}#m" in file.read_text() and KEY not in file.read_text()
    assert keys(server) == {f"Bearer {KEY}"}


def test_answers_of_a_server_are_not_replayed(config, server, lcp_main, home, capfd):
    assert lcp_main("chat", "box", "Hi") == 0
    (file,) = (home / "data" / "sessions").glob("*.jsonl")
    assert lcp_main("sessions", "replay", file.stem) != 0
    assert "server" in capfd.readouterr().out


def test_an_own_chat_template_is_refused(config, lcp_main, tmp_path, capfd):
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    flags = ("--chat-template", str(tmp_path / "own.jinja"))
    assert lcp_main("chat", "box", *flags, "Hi") == 2
    assert "--chat-template" in capfd.readouterr().err


def test_the_model_command_lists_servers_and_switches_to_one(config, server, smollm2):
    engine = ScriptedEngine()
    chat = new_chat(engine, model="smollm2-135m", services=services())
    assert "server" in does(chat, "/model") and "box" in does(chat, "/model")
    chat = command_table.run(chat, "/model box")
    try:
        assert engine.closed and chat.model == f"{server.address}#m"
        assert chat.ask("Hi").text == "Hello there."
        assert "m on 127.0.0.1" in chat.screen._err.file.getvalue()
    finally:
        chat.engine.close()


def test_names_for_people():
    assert plain_name("http://box:8080#org/m.gguf") == "m on box:8080"
    assert plain_name("https://box/v1") == "box"


def test_info_of_a_server(config, server, lcp_main, capfd):
    server.pages |= serving("vllm", max_model_len=2048)
    assert lcp_main("info", "--server", "box", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert told["server"]["kind"] == "vLLM" and told["context"] == 2048
    abilities = told["abilities"]
    assert (abilities["regex"], abilities["grammar"], abilities["continues"]) == (True, False, True)
    assert told["model"]["name"] == "m" and KEY not in json.dumps(told)
    assert lcp_main("info", "--server", server.address) == 0
    page = capfd.readouterr().out
    assert "2,048" in page and "vLLM" in page


def test_the_doctor_checks_each_server(config, home):
    (table,) = servers(home / "config" / "config.toml").values()
    found = check("box", table)
    assert not found.wrong and "m" in found.value
    config('[server.box]\nurl = "http://127.0.0.1:1"\n')
    (table,) = servers(home / "config" / "config.toml").values()
    assert "127.0.0.1:1" in check("box", table).wrong


def test_several_models_are_not_a_finding(config, server, home):
    server.pages["/v1/models"] = json_page({"data": [{"id": "big"}, {"id": "small"}]})
    (table,) = servers(home / "config" / "config.toml").values()
    found = check("box", table)
    assert not found.wrong and "big, small" in found.value
    assert check("box", replace(table, address=table.address.with_model("other"))).wrong


@pytest.mark.parametrize("header", ['X-A = "a\\nb"', '"X A" = "b"', 'X-A = "\u00e4"'])
def test_an_invalid_header(config, lcp_main, capfd, header):
    config(f'[server.box]\nurl = "URL"\nheaders = {{{header}}}\n')
    assert lcp_main("chat", "box", "Hi") == 2
    assert "server.box" in capfd.readouterr().err


EVIL = "\x1b]0;x\x07\x1b[2J\u202e"


@pytest.mark.parametrize("words", [("info",), ("chat", "Hi"), ("doctor",)])
@pytest.mark.parametrize("models", [["m"], ["big", "small"], []])
def test_escape_sequences_of_a_server_reach_no_terminal(
    config, server, lcp_main, capfd, words, models
):
    props = {"build_info": EVIL, "chat_template": EVIL, "total_slots": 1}
    props["default_generation_settings"] = {"n_ctx": 512, "params": {"top_k": 5}}
    cards = [{"id": model + EVIL, "owned_by": "llamacpp"} for model in models]
    server.pages |= {
        "/v1/models": json_page({"data": cards}) if cards else json_page({"error": EVIL}, 418),
        "/props": json_page(props),
        "/v1/chat/completions": json_page({"error": {"message": EVIL}}, 400),
    }
    where = () if words == ("doctor",) else ("--server", server.address)
    lcp_main(*words[:1], *where, *words[1:])
    told = capfd.readouterr()
    assert not {"\x1b", "\x07", "\u202e"} & set(told.out + told.err)
    assert told.out + told.err


def test_a_broken_answer_does_not_end_the_other_lines(server, lcp_main, capfd):
    pages = iter([answer(delta("Hello")), WHOLE])
    server.pages["/v1/chat/completions"] = lambda connection: next(pages)(connection)
    asked = ("--server", server.address, "--lines", "--json")
    assert lcp_main("chat", *asked, typed="one\ntwo\n") == 1
    told = [json.loads(line)["ended"] for line in capfd.readouterr().out.splitlines()]
    assert told == ["interrupted", "end"]
