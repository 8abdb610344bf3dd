"""The body of a request for an answer, in the fields of one kind of server."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lcp.engine_interface import Constraint, PromptMessage, Request
from lcp.errors import NotSupported
from lcp.remote.discovery import ServerFacts
from lcp.remote.server_kinds import ServerKind
from lcp.settings import EFFORTS

PROBS = 10  # alternatives for each token
REUSE = 32  # the shortest run of tokens that llama-server moves in its cache


def messages(kind: ServerKind, prompt: Sequence[PromptMessage]) -> list[dict[str, str]]:
    """The messages in the form that servers take."""
    return [_message(kind, m) for m in prompt if m.role != "system" or m.content]


def _message(kind: ServerKind, message: PromptMessage) -> dict[str, str]:
    shown = {"role": message.role, "content": message.content}
    return shown | ({kind.thinking: message.thinking} if message.thinking and kind.thinking else {})


def text_of(prompt: Sequence[PromptMessage]) -> str:
    """The text to continue without a chat template; it leaves out the system text."""
    return "".join(m.content for m in prompt if m.role != "system")


def prompt_fields(
    kind: ServerKind, model: str, prompt: Sequence[PromptMessage], variables: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of every request with these messages, also one that only counts their tokens."""
    body: dict[str, Any] = {"model": model, "messages": messages(kind, prompt)}
    if kind.template and variables:
        body["chat_template_kwargs"] = dict(variables)
    return body


def answer_body(
    facts: ServerFacts, request: Request, variables: Mapping[str, Any], seed: int, raw: bool
) -> dict[str, Any]:
    """The body of a request for an answer. NotSupported if this kind of server cannot give it."""
    kind, model, begun = facts.kind, facts.model, request.begun
    if begun:
        _check_continuing(kind, request, begun, raw)
    if raw:
        if not kind.completes:
            raise NotSupported("This server cannot continue a text without a chat template.")
        before = text_of(request.messages) + (begun.content if begun else "")
        body: dict[str, Any] = {"model": model, "prompt": before}
    else:
        body = prompt_fields(kind, model, request.messages, variables)
        if begun:
            body["messages"] += [_message(kind, begun)]
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        body |= _thinking(kind, request, variables)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    body |= _sampling(kind, request, seed)
    if kind.stops and (stops := _stops(request.stop)) and not _may_think(facts, request, raw):
        body["stop"] = stops
    if request.max_tokens:
        body["max_tokens"] = request.max_tokens
    if request.constraint:
        body |= constraint_fields(kind, request.constraint)
    if kind.tells_progress:
        body["return_progress"] = True
    if kind.moves and request.move:
        body["n_cache_reuse"] = REUSE
    if request.probs and kind.probs:
        body |= {"logprobs": PROBS} if raw else {"logprobs": True, "top_logprobs": PROBS}
    return body


def _check_continuing(kind: ServerKind, request: Request, begun: PromptMessage, raw: bool) -> None:
    """NotSupported unless this kind can continue such an answer."""
    can, what, form = kind.continues or raw, "an answer", request.constraint
    if form and begun.content:
        can = can and kind.continues_schema and form.kind == "schema" and not raw
        what = f"an answer with a {_FORMS[form.kind]}"
    elif not begun.content:
        can, what = can and kind.continues_thinking, "an answer that has no text yet"
    if not can:
        raise NotSupported(f"This server cannot continue {what}.", again=True)


def _stops(stops: Sequence[str]) -> list[str]:
    """Those that can end an answer: before one that contains another, the other has come."""
    return [s for s in stops if s and not any(other and other in s for other in {*stops} - {s})]


def _may_think(facts: ServerFacts, request: Request, raw: bool) -> bool:
    """Whether thinking may come, in which a server would look for stop strings and lcp does not."""
    begun = request.begun and request.begun.content
    return facts.thinks and request.thinking_tokens != 0 and not (raw or begun)


def _sampling(kind: ServerKind, request: Request, seed: int) -> dict[str, Any]:
    """The settings that the person chose; the server decides about the others."""
    values = vars(request.sampling) | {"seed": seed}
    sent = {kind.samplers[n]: values[n] for n in request.chosen if n in kind.samplers}
    return sent | {"seed": seed}


def _thinking(kind: ServerKind, request: Request, variables: Mapping[str, Any]) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    effort = next((variables[name] for name in EFFORTS if variables.get(name)), None)
    if kind.effort and effort:
        sent["reasoning_effort"] = effort
    if request.thinking_tokens == 0 and kind.no_effort:
        sent["reasoning_effort"] = kind.no_effort
    if request.thinking_tokens is not None and kind.budget:
        sent[kind.budget] = request.thinking_tokens
    return sent


def constraint_fields(kind: ServerKind, constraint: Constraint) -> dict[str, Any]:
    """The fields that constrain an answer. NotSupported if this kind of server has none."""
    field = {"grammar": kind.grammar, "regex": kind.regex}.get(constraint.kind, "")
    if constraint.kind == "schema" and kind.schema:
        named = {"name": "answer", "strict": True, "schema": json.loads(constraint.text)}
        return {"response_format": {"type": "json_schema", "json_schema": named}}
    if not field:
        raise NotSupported(
            f"{kind.name} does not support a {_FORMS[constraint.kind]}.",
            change={"json_schema": "FILE"},
        )
    nested = field == "structured_outputs"
    return {field: {constraint.kind: constraint.text} if nested else constraint.text}


_FORMS = {"schema": "JSON schema", "regex": "regular expression", "grammar": "GBNF grammar"}
