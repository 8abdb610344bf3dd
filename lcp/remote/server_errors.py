"""The errors of servers: how each kind of server reports what went wrong."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lcp.errors import Miscounted, ServerError
from lcp.formatting import short
from lcp.remote.json_values import count

# Errors of servers about a prompt that is too long, and the two numbers in it. From: llama-server's
# server-context.cpp, vLLM's and SGLang's serving code, llama_cpp/server/errors.py, LM Studio's bug
# tracker, LiteLLM's exception_mapping_utils.py.
_TOO_LONG = re.compile(
    r"exceeds? the (?:available|model's)? ?(?:maximum )?context|context length is|context_length"
    r"|maximum context length|longer than the model's context|context the overflows"
    r"|context (?:size|window|length) (?:exceeded|is)|maximum input length is",
    re.IGNORECASE,
)
_SIZE = re.compile(
    r"(?:context length|context size|context window|input length)(?: is| of)?(?: only)? \(?(\d+)",
    re.IGNORECASE,
)
_TOKENS = re.compile(
    r"\((\d+) tokens\)|passed (\d+) input|requested (\d+) tokens(?! \(\d+ in the)"
    r"|input \((\d+)|first (\d+) tokens|resulted in (\d+)|\((\d+) in the messages",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Complaint:
    """The error of a server. `too_long`: the prompt has `tokens` for a context of `size`; 0 for a
    number that the server does not tell."""

    text: str
    too_long: bool = False
    tokens: int = 0
    size: int = 0


def error_in(value: Any, hide: Callable[[str], str]) -> Complaint:
    """The error in an answer or in an event of a stream; without text if there is none. `hide`
    removes the key from a text.

    {"error": {"message"}}, {"error": "…"}, {"object": "error", "message"}, {"detail": "…"}
    """
    if not isinstance(value, dict):
        return Complaint("")
    error: Any = value.get("error") or value.get("detail")
    if value.get("object") == "error" or (error is None and "choices" not in value):
        error = error or (value.get("message") and value)
    if isinstance(error, list):  # FastAPI's validation errors
        error = {"message": "; ".join(str(e.get("msg", e)) for e in error if isinstance(e, dict))}
    if not error:
        return Complaint("")
    fields: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    text = short(hide(" ".join(str(fields.get("message") or fields).split())), 300)
    kind = f"{fields.get('type', '')} {fields.get('code', '')}"
    too_long = "exceed_context" in kind or "context_length" in kind or bool(_TOO_LONG.search(text))
    if not too_long:
        return Complaint(text)
    tokens, size = fields.get("n_prompt_tokens"), fields.get("n_ctx")
    return Complaint(text, True, _number(tokens, _TOKENS, text), _number(size, _SIZE, text))


def _number(given: Any, pattern: re.Pattern[str], text: str) -> int:
    if count(given):
        return count(given)
    found = pattern.search(text)
    return int(next(filter(None, found.groups()), 0)) if found else 0


def too_long(host: str, complaint: Complaint, status: int | None = None) -> ServerError:
    """The error for a prompt that is larger than the server's context."""
    if not (complaint.size or complaint.tokens):
        return ServerError(
            f"The chat is too long for {host}, which does not say by how much: {complaint.text} "
            "lcp must know the size of its context.",
            status=status,
            change={"ctx_size": "N"},
        )
    tokens = (
        f"{complaint.tokens:,} tokens"
        if complaint.tokens
        else "the server does not report its size"
    )
    room = f", room for {complaint.size:,}" if complaint.size else ""
    return Miscounted(
        f"The chat is too long for the context of {host} ({tokens}{room}).",
        complaint.tokens,
        complaint.size,
    )


def is_loading(error: ServerError) -> bool:
    """Whether the server is loading its model. A 503 status alone does not tell."""
    text = str(error).partition(": ")[2]  # the server's own text, without its name
    return error.status == 503 and "oading" in text
