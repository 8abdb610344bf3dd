"""Makes huggingface_hub use lcp's own connections, so that proxies, certificates, time-outs and
error messages are the same for API requests and downloads.
"""

import httpx2
from huggingface_hub.utils import _http as hub_http

from lcp.downloads import http

MAX_ANSWER = 64 << 20  # bytes; a page of a file list is far smaller


class HubTransport(httpx2.BaseTransport):
    """Sends a request of huggingface_hub; raises DownloadError if no answer comes."""

    def __init__(self, stall: float) -> None:
        self._stall = stall

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        sent = dict(request.headers) | {"accept-encoding": "identity", "connection": "close"}
        connection, raw = http.ask(
            request.method, url, sent, self._stall, body=request.read() or None
        )
        answer = http.Response(url, connection, raw, self._stall)
        try:
            data = b"" if request.method == "HEAD" else answer.read(MAX_ANSWER)
        finally:
            answer.close()
        return httpx2.Response(raw.status, headers=raw.headers.items(), content=data)


def install(stall: float) -> None:
    """Give huggingface_hub these connections, for the rest of the process."""
    hub_http.set_client_factory(
        lambda: httpx2.Client(
            transport=HubTransport(stall),
            trust_env=False,
            event_hooks={"request": [hub_http.hf_request_event_hook]},
            follow_redirects=True,
            timeout=stall,
        )
    )
