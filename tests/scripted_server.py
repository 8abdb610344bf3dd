"""A local server whose answers a test writes byte for byte."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asked:
    """A request that the server received."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


class Connection:
    """The server's end of one request."""

    def __init__(self, peer: socket.socket, asked: Asked, over: threading.Event) -> None:
        self.peer, self.asked, self.over = peer, asked, over

    def send(self, data: str | bytes) -> None:
        self.peer.sendall(data.encode() if isinstance(data, str) else data)

    def head(self, status: int = 200, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} So", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]))

    def events(self, *values: Any, end: str = "\n\n") -> None:
        """Events of a stream: values as JSON, texts unchanged."""
        for value in values:
            self.send(f"data: {value if isinstance(value, str) else json.dumps(value)}{end}")

    def reset(self) -> None:
        """Reset the connection, as a crash does."""
        time.sleep(0.1)  # a reset discards what the other end has not read
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def hang(self) -> None:
        """Send nothing more until the test ends."""
        self.over.wait(60)


Page = Callable[[Connection], None]


@dataclass
class ScriptedServer:
    """Pages by path; `asked` are the requests it received. `with` starts and stops it."""

    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> "ScriptedServer":
        self._over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        socket.create_connection(self._socket.getsockname()).close()  # wakes the thread
        self._thread.join()  # or it might accept for the next server, on the same descriptor
        self._socket.close()

    def bodies(self) -> list[Any]:
        """The bodies of the requests for answers."""
        return [asked.body for asked in self.asked if asked.path.endswith("/completions")]

    def _serve(self) -> None:
        with suppress(OSError):
            while not self._over.is_set():
                peer = self._socket.accept()[0]
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with suppress(OSError, ValueError), peer:
            with peer.makefile("rb") as stream:
                method, path, _ = stream.readline().decode().split()
                headers = {}
                while line := stream.readline().decode("latin-1").strip():
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                data = stream.read(int(headers.get("content-length", 0)))
            asked = Asked(method, path, headers, json.loads(data) if data else None)
            self.asked.append(asked)
            page = self.pages.get(path, json_page({"error": "no such page"}, 404))
            page(Connection(peer, asked, self._over))


def json_page(value: Any, status: int = 200, **headers: str) -> Page:
    """A page with a JSON value or with bytes."""

    def page(connection: Connection) -> None:
        connection.head(status, **{"Content_Type": "application/json", **headers})
        connection.send(value if isinstance(value, bytes) else json.dumps(value))

    return page


def delta(text: str | None = None, ended: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of an answer."""
    said = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": said | more, "finish_reason": ended}]}


def usage(prompt: int, answer: int, **more: Any) -> dict[str, Any]:
    """The last event, with the usage."""
    told = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    return {"choices": [], "usage": told | more}


def answer(*values: Any, end: str = "\n\n", kind: str = "text/event-stream") -> Page:
    """A page that streams these events."""

    def page(connection: Connection) -> None:
        connection.head(Content_Type=kind)
        connection.events(*values, end=end)

    return page


HELLO = (delta("", role="assistant"), delta("Hello"), delta(" there."), delta(ended="stop"))
WHOLE = answer(*HELLO, usage(9, 3), "[DONE]")


def serving(
    owner: str = "someone", model: str = "m", chat: Page = WHOLE, **more: Any
) -> dict[str, Page]:
    """The pages of a server with one model; `more` are further facts of it."""
    card = {"id": model, "object": "model", "owned_by": owner, **more}
    return {
        "/v1/models": json_page({"object": "list", "data": [card]}),
        "/v1/chat/completions": chat,
    }
