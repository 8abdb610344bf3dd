"""What only llama-server can do: count, tokenize and render prompts, and read into its cache.

Each method sends one request or a few. They raise ServerError.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from lcp.engine_interface import PromptMessage
from lcp.errors import ServerError
from lcp.remote.discovery import ServerFacts
from lcp.remote.http_client import HttpClient, IsStopped, never
from lcp.remote.json_values import is_whole, rows
from lcp.remote.request_body import prompt_fields

MARK = "lcp-marks-this-place"
COUNT_S = 2.0  # a person may wait for a count


class LlamaServer:
    """The endpoints that only llama-server has."""

    def __init__(
        self, http: HttpClient, facts: ServerFacts, variables: Callable[[], dict[str, Any]]
    ) -> None:
        self._http, self._facts, self._variables = http, facts, variables
        self._slot: int | None = None

    def _ask(
        self, page: str, body: Any, stopped: IsStopped = never, limit_s: float = COUNT_S
    ) -> Any:
        url = self._http.address.base + page
        return self._http.ask(url, body, stopped=stopped, limit_s=limit_s)

    def count(self, messages: Sequence[PromptMessage]) -> int:
        """Tokens of the prompt that asks for an answer to these messages."""
        url = f"{self._http.address.api}/chat/completions/input_tokens"
        return self._http.ask(url, self._body(messages), limit_s=COUNT_S).number("input_tokens")

    def _body(self, messages: Sequence[PromptMessage]) -> dict[str, Any]:
        facts = self._facts
        return prompt_fields(facts.kind, facts.model, messages, self._variables())

    def prompt(self, messages: Sequence[PromptMessage], stopped: IsStopped = never) -> str:
        """The text of the prompt that asks for an answer."""
        text = self._ask("/apply-template", self._body(messages), stopped).get("prompt")
        if not isinstance(text, str):
            raise ServerError(f"{self._http.address.host} does not show its prompts.")
        return text

    def tokenize(
        self, text: str, *, whole: bool = False, stopped: IsStopped = never
    ) -> list[tuple[int, str]]:
        """The tokens of a text: ids and texts. `whole`: it is a whole prompt, with control
        tokens."""
        body = {"content": text, "add_special": whole, "parse_special": whole, "with_pieces": True}
        found = self._ask("/tokenize", body, stopped, limit_s=10.0).get("tokens")
        return [(t["id"], _spelled(t.get("piece"))) for t in rows(found) if is_whole(t.get("id"))]

    def own_system(self, silent: bool) -> str:
        """The system text that the chat template adds; with `silent`, to an empty system text."""
        user = PromptMessage("user", "a")
        asked = self.prompt([PromptMessage("system", MARK), user])
        before, found, after = asked.partition(MARK)
        body = self._body([user])
        if silent:
            body["messages"].insert(0, {"role": "system", "content": ""})
        plain = self._ask("/apply-template", body).get("prompt")
        if not (found and isinstance(plain, str)):
            return ""
        inside = len(plain) >= len(before) + len(after)
        if inside and plain.startswith(before) and plain.endswith(after):
            return plain[len(before) : len(plain) - len(after)].strip()
        return ""

    def slot(self) -> int | None:
        """The slot of this chat if the server has several: one that nobody used when the chat
        began, so that other chats do not evict it from the cache. None lets the server choose."""
        if self._slot is None and self._facts.slots > 1:
            with suppress(ServerError):
                url = f"{self._http.address.base}/slots"
                slots = self._http.ask(url, limit_s=COUNT_S).value
                known = [s for s in rows(slots) if is_whole(s.get("id"))]
                free = [s for s in known if not s.get("is_processing")]
                # id_task is the number of its last request, if it had one
                free.sort(key=lambda s: (_ran(s.get("id_task")), -s["id"]))
                self._slot = free[0]["id"] if free else None
        return self._slot

    def read(self, tokens: Sequence[int], stopped: IsStopped) -> None:
        """Read these tokens into the cache. The server samples one more token and drops it."""
        body = {"prompt": list(tokens), "n_predict": 1, "cache_prompt": True, "stream": False}
        if self._facts.slots > 1:
            if (slot := self.slot()) is None:
                raise ServerError(f"{self._http.address.host} does not show its slots.")
            body["id_slot"] = slot
        self._ask("/completion", body, stopped, limit_s=600.0)


def _ran(task: Any) -> bool:
    """Whether this is the number of a request, so that the slot had one."""
    return is_whole(task) and task >= 0


def _spelled(piece: Any) -> str:
    """The text of a token. Parts of a character come as bytes."""
    if isinstance(piece, list):
        found = bytes(b for b in piece if isinstance(b, int) and 0 <= b < 256)
        return found.decode("utf-8", "replace")
    return piece if isinstance(piece, str) else ""
