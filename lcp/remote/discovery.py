"""Finds out which kind of server this is, which model it runs, and what it tells about the model:
from its answers, never from its address."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from lcp.answers.thinking_tag_table import thinks
from lcp.errors import ChooseModel, LcpError, ServerError
from lcp.formatting import short
from lcp.remote import server_kinds
from lcp.remote.http_client import HttpClient, IsStopped, JsonAnswer, never
from lcp.remote.json_values import count, record, rows
from lcp.remote.server_errors import is_loading
from lcp.remote.server_kinds import ServerKind
from lcp.servers.address import ServerAddress

SHOWN = 20  # models that an error lists
OWNERS = {
    "llamacpp": server_kinds.LLAMA,
    "vllm": server_kinds.VLLM,
    "sglang": server_kinds.SGLANG,
    "library": server_kinds.OLLAMA,
}
# A page that only this kind of server has, and a field of its answer.
PAGES: tuple[tuple[str, Any, str, ServerKind], ...] = (
    ("/api/version", None, "version", server_kinds.OLLAMA),
    ("/api/v0/models", None, "data", server_kinds.LM_STUDIO),
    ("/extras/tokenize/count", {"input": "a"}, "count", server_kinds.LLAMA_CPP_PYTHON),
)


@dataclass(frozen=True)
class ServerFacts:
    """What a server tells. Sizes are in tokens; 0 if it does not tell."""

    kind: ServerKind
    model: str  # its name in requests
    size: int = 0  # of the context, for one conversation
    trained: int = 0
    slots: int = 1
    build: str = ""
    source: str | None = None  # of the chat template
    takes_system: bool = True
    # the system text of the template: for a chat without one, for a chat whose own is empty
    own: tuple[str, str] = ("", "")
    defaults: Mapping[str, Any] = field(default_factory=dict)  # its values for lcp's settings

    @property
    def thinks(self) -> bool:
        """Whether the model may think before it answers."""
        return self.source is None or thinks(self.source)

    def own_system(self, silent: bool = False) -> str:
        """The system text that the chat template adds."""
        return self.own[silent]

    def uses(self, *variables: str) -> bool:
        """Whether the chat template uses one of these variables, as far as the server tells."""
        if self.source is None:
            return self.kind.effort
        return any(name in self.source for name in variables)


def look_up(
    address: ServerAddress, key: str, headers: Mapping[str, str] | None = None
) -> ServerFacts:
    """The facts about the server at this address. ServerError also while it loads its model."""

    def wait() -> None:
        raise ServerError(f"{address.host} is still loading its model. Try again in a moment.")

    return discover(HttpClient(address, key, headers), never, wait)


def discover(http: HttpClient, stopped: IsStopped, wait: Callable[[], None]) -> ServerFacts:
    """Ask a server for its facts. `wait` is called while it loads its model."""
    while True:
        try:
            listed = http.ask(f"{http.address.api}/models", stopped=stopped)
            break
        except ServerError as error:
            if is_loading(error):
                wait()
            elif error.status == 404 and http.address.model:
                listed = JsonAnswer({}, {})
                break
            else:
                raise
    models = [m for m in rows(listed.get("data")) if m.get("id")]
    model = _chosen(http, models)
    kind = _kind(http, listed, model, stopped)
    facts = ServerFacts(kind, str(model.get("id") or http.address.model))
    with suppress(LcpError):  # these facts are optional
        return _ask_more(http, facts, model, stopped)
    return facts


def _chosen(http: HttpClient, models: list[dict[str, Any]]) -> dict[str, Any]:
    """The model of the list that the person named, or the only one."""
    named = http.address.model
    for model in models:
        if named and named in (model["id"], str(model["id"]).rpartition("/")[2]):
            return model
    if named and not models:
        return {}
    ids = [str(model["id"]) for model in models]
    if len(ids) == 1 and (not named or models[0].get("owned_by") == "llamacpp"):
        return models[0]  # llama-server answers with its own model, whatever the request names
    if not ids:
        raise ServerError(f"{http.address.host} has no model. Load one there.")
    more = f", and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    names = ", ".join(short(http.hide(id), 80) for id in ids[:SHOWN]) + more
    what = f"has no model {short(named, 80)}. It has" if named else "has several models"
    raise ChooseModel(f"{http.address.host} {what}: {names}.", change={"model": "NAME"})


def _kind(
    http: HttpClient, listed: JsonAnswer, model: Mapping[str, Any], stopped: IsStopped
) -> ServerKind:
    if listed.headers.get("server") == "llama.cpp":
        return server_kinds.LLAMA
    if kind := OWNERS.get(str(model.get("owned_by", "")).lower()):
        return kind
    for page, body, name, kind in PAGES:
        with suppress(LcpError):
            if http.ask(http.address.base + page, body, stopped=stopped).get(name) is not None:
                return kind
    return server_kinds.OTHER


def _ask_more(
    http: HttpClient, facts: ServerFacts, model: Mapping[str, Any], stopped: IsStopped
) -> ServerFacts:
    def ask(page: str, body: Any = None) -> JsonAnswer:
        return http.ask(http.address.base + page, body, stopped=stopped)

    match facts.kind.name:
        case "llama-server":
            return _llama(facts, model, ask)
        case "vLLM" | "SGLang":
            return replace(facts, size=count(model.get("max_model_len")))
        case "Ollama":
            for loaded in rows(ask("/api/ps").get("models")):
                if facts.model in (loaded.get("name"), loaded.get("model")):
                    return replace(facts, size=count(loaded.get("context_length")))
        case "LM Studio":
            for known in rows(ask("/api/v0/models").get("data")):
                if known.get("id") == facts.model:
                    return replace(
                        facts,
                        size=count(known.get("loaded_context_length")),
                        trained=count(known.get("max_context_length")),
                    )
    return facts


def _llama(
    facts: ServerFacts, model: Mapping[str, Any], ask: Callable[..., JsonAnswer]
) -> ServerFacts:
    meta = record(model.get("meta"))
    props = ask("/props")
    given = record(props.get("default_generation_settings"))
    values = record(given.get("params"))
    slots = count(props.get("total_slots")) or 1
    caps = record(props.get("chat_template_caps"))
    defaults = {
        name: values[sent]
        for name, sent in server_kinds.LLAMA.samplers.items()
        if name != "seed" and isinstance(values.get(sent), int | float)
    }
    return replace(
        facts,
        size=count(given.get("n_ctx")) or count(meta.get("n_ctx")),
        trained=count(meta.get("n_ctx_train")),
        slots=slots,
        build=str(props.get("build_info") or ""),
        source=str(props.get("chat_template") or ""),
        takes_system=bool(caps.get("supports_system_role", True)),
        defaults={n: round(v, 6) if isinstance(v, float) else v for n, v in defaults.items()},
    )
