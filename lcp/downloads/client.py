"""Client: huggingface_hub asks over lcp's own connections, so that proxies, certificates and
time-outs, and the sentences about them, are the same for a question and for a download.
"""

import httpx2
from huggingface_hub.utils import _http as theirs

from lcp.downloads import http

MOST = 64 << 20  # bytes of one answer: a page of a tree is far below


class OwnConnections(httpx2.BaseTransport):
    """Sends a request of huggingface_hub; raises DownloadError where no answer comes."""

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
            data = b"" if request.method == "HEAD" else answer.read(MOST)
        finally:
            answer.close()
        return httpx2.Response(raw.status, headers=raw.headers.items(), content=data)


def install(stall: float) -> None:
    """From now on, huggingface_hub asks like this."""
    theirs.set_client_factory(
        lambda: httpx2.Client(
            transport=OwnConnections(stall),
            trust_env=False,
            event_hooks={"request": [theirs.hf_request_event_hook]},
            follow_redirects=True,
            timeout=stall,
        )
    )
