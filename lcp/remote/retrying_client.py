"""Retrying client: sends a request for an answer, and sends it again if nothing arrived."""

import time
from typing import Any

from lcp.engine_interface import Reply, Waiting
from lcp.engine_notices import ConnectionLost
from lcp.errors import Miscounted, ServerError
from lcp.remote.http_client import Broken, Cut, HttpClient, IsStopped
from lcp.remote.reply import Listener
from lcp.remote.server_errors import is_loading
from lcp.worker import Emit

TRIES = 3  # requests for one answer, if nothing arrives
PATIENCE_S = 20.0  # the longest Retry-After that lcp waits for
LOADING_S = 900.0  # the longest time that a server may take to load its model


class RetryingClient:
    """Requests for answers to one server."""

    def __init__(self, http: HttpClient, stopped: IsStopped) -> None:
        self._http, self._stopped = http, stopped
        self._host = http.address.host

    def sleep(self, seconds: float) -> None:
        """Wait. Cut if the caller stops the request."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stopped():
                raise Cut
            time.sleep(0.05)

    def ask(self, page: str, asked: Any, listener: Listener, reply: Reply, emit: Emit) -> str:
        """Send the request until an answer arrives; why it ended. ServerError if none does."""
        emit(Waiting(f"waiting for {self._host}; Ctrl-C stops"))
        try:
            return self._ask(self._http.address.api + page, asked, listener, reply, emit)
        except Cut:
            return "interrupted"

    def _ask(self, url: str, asked: Any, listener: Listener, reply: Reply, emit: Emit) -> str:
        tries, until = 0, time.monotonic() + LOADING_S
        while True:
            try:
                with self._http.open(url, asked, stopped=self._stopped) as answer:
                    listener.listen(answer)
                if listener.ended:
                    return listener.reason()
                if not (listener.has_begun or listener.told_size):
                    raise ServerError(
                        f"{self._host} ended the answer before its first word. Perhaps the chat "
                        "is too long: lcp must know the size of its context.",
                        change={"ctx_size": "N"},
                    )
                raise Broken("it ended the answer without saying why")
            except Broken as error:
                if listener.ended:
                    return listener.reason()
                if listener.has_begun:
                    reply.notice = ConnectionLost(str(error))
                    return "interrupted"
                failure = ServerError(
                    f"{self._host} closed the connection before it answered ({error}). Try again.",
                    retry_after=0.5,
                )
            except Miscounted:
                raise
            except ServerError as error:
                if listener.ended:
                    return listener.reason()
                failure = error
            loading = is_loading(failure)
            tries += not loading
            wait = failure.retry_after
            if wait is None or wait > PATIENCE_S or tries >= TRIES or time.monotonic() > until:
                raise failure
            why = "is loading its model" if loading else "did not answer; lcp asks again"
            emit(Waiting(f"{self._host} {why}; Ctrl-C stops"))
            self.sleep(wait)
