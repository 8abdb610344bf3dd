"""Server-sent events: the bytes of a stream to events, and an event to the text it carries.

Servers name the fields differently; see server_kinds.py. A line may end with LF, CRLF or CR.
Comments, empty `choices` and `content: null` carry no text.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lcp.engine_interface import Alternative, TokenProb
from lcp.remote.http_client import LARGEST, Broken
from lcp.remote.json_values import record

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
END = "[DONE]"


def lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream. Broken if a line does not end."""
    rest = b""
    for piece in pieces:
        rest += piece
        if len(rest) > LARGEST:
            raise Broken("the server sends a line without end")
        if b"\n" not in piece and b"\r" not in piece:
            continue
        cr = rest.endswith(b"\r")  # perhaps the first half of CRLF
        whole = rest[:-1] if cr else rest
        *done, rest = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest += b"\r" if cr else b""
        yield from (line.decode("utf-8", "replace") for line in done)
    if rest.strip():
        yield rest.strip().decode("utf-8", "replace")


def events(pieces: Iterable[bytes]) -> Iterator[Any]:
    """The JSON values of a stream, until [DONE]. Broken if it is something else."""
    data: list[str] = []
    for line in _and_end(lines(pieces)):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith("{"):  # an error that is not written as an event
            data.append(line)
        elif not line.strip() and data:
            text, data = "\n".join(data), []
            if text.strip() == END:
                return
            yield _value(text)


def _and_end(lines: Iterable[str]) -> Iterator[str]:
    """The lines and an empty line, which may be missing after the last event."""
    yield from lines
    yield ""


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Broken("the server sends something that is not JSON") from None


@dataclass(frozen=True)
class ServerEvent:
    """The content of one event."""

    thinking: str = ""
    text: str = ""
    ended: str = ""  # finish_reason
    stopped: bool = False  # the server says that a stop string ended it
    probs: tuple[TokenProb, ...] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)  # of reading the prompt


def read(value: Any) -> ServerEvent:
    """The content of an event; fields of an unexpected type are empty."""
    event = record(value)
    choices = event.get("choices")
    choice = record(choices[0]) if isinstance(choices, list) and choices else {}
    delta = record(choice.get("delta")) or record(choice.get("message"))
    return ServerEvent(
        next((t for name in THOUGHTS if (t := _text(delta.get(name)))), ""),
        _text(delta.get("content")) or _text(choice.get("text")),
        _text(choice.get("finish_reason")),
        any(_text(choice.get(name)) for name in ("stop_reason", "matched_stop")),
        tuple(_probs(choice.get("logprobs"))),
        record(event.get("usage")),
        record(event.get("timings")),
        record(event.get("prompt_progress")),
    )


def _text(value: Any) -> str:
    if isinstance(value, list):  # parts
        return "".join(_text(record(part).get("text")) for part in value)
    return value if isinstance(value, str) else ""


def _probs(value: Any) -> Iterator[TokenProb]:
    """The probabilities of tokens, if the event has any."""
    content = record(value).get("content")
    for entry in content if isinstance(content, list) else ():
        fields = record(entry)
        others = fields.get("top_logprobs")
        yield TokenProb(
            _id(fields), _text(fields.get("token")), _p(fields),
            tuple(
                Alternative(_id(o), _text(o.get("token")), _p(o), ends=not o.get("token"))
                for o in map(record, others if isinstance(others, list) else ())
            ),
        )  # fmt: skip


def _id(fields: Mapping[str, Any]) -> int:
    """The id of a token; if the server does not send ids, a number made from its text."""
    given = fields.get("id")
    return given if isinstance(given, int) else -1 - abs(hash(_text(fields.get("token"))))


def _p(fields: Mapping[str, Any]) -> float:
    from math import exp

    value = fields.get("logprob")
    return exp(min(0.0, value)) if isinstance(value, int | float) else 0.0


def spelling(rows: list[TokenProb], content: str) -> list[TokenProb]:
    """The tokens that spell this answer, without its thinking and its end; [] if none do."""
    rows = [row for row in rows if row.text]
    text = "".join(row.text for row in rows)
    at = text.rfind(content.strip())
    if at < 0 or not content.strip():
        return []
    for i, row in enumerate(rows):
        if at <= 0:
            return rows[i:]
        at -= len(row.text)
    return []


def beginning(known: Mapping[str, list[TokenProb]], content: str) -> list[TokenProb]:
    """The tokens that spell `content`, the beginning of one of the answers that are `known`: its
    last token may be an alternative of that answer. [] if there are none."""
    for answer, rows in known.items():
        at, kept = 0, list[TokenProb]()
        for row in spelling(rows, answer):
            for other in (Alternative(row.token, row.text, row.p), *row.others):
                if other.text and content[at:] == other.text:
                    return [*kept, TokenProb(other.token, other.text, other.p, row.others)]
            if not content.startswith(row.text, at):
                break
            at, kept = at + len(row.text), [*kept, row]
    return []
