"""A real browser without a window: Chromium, controlled over a pipe."""

import json
import os
import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run "
    "--disable-dev-shm-usage --remote-debugging-pipe"
)


class Browser:
    """One tab. `events` are the events that it reports."""

    def __init__(self, profile: Path) -> None:
        self.events: list[dict] = []
        self._last = 0
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        self._unread = b""
        command = f'exec "$0" {_FLAGS} --user-data-dir="$1" about:blank'
        self._process = subprocess.Popen(
            ["bash", "-c", f"{command} 3<&{to_read} 4>&{to_write}", CHROMIUM, str(profile)],
            pass_fds=(to_read, to_write),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._session = ""
        tabs = self.does("Target.getTargets")["targetInfos"]
        tab = next(t["targetId"] for t in tabs if t["type"] == "page")
        self._session = self.does("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.does(f"{domain}.enable")

    def does(self, method: str, **parameters):
        """Send a command of the DevTools protocol. Returns its result."""
        self._last += 1
        asked = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._to, json.dumps(asked).encode() + b"\0")
        while True:
            told = self._told()
            if told.get("id") == self._last:
                assert "error" not in told, told
                return told["result"]
            self.events.append(told)

    def shows(self, file: Path, width: int = 1000, scheme: str = "light") -> None:
        """Open a page in a window of this width."""
        self.events = []
        self.does(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=800, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        media = {"name": "prefers-color-scheme", "value": scheme}
        self.does("Emulation.setEmulatedMedia", features=[media])
        self.does("Page.navigate", url=file.as_uri())
        while not self.heard("Page.loadEventFired"):
            self.events.append(self._told())

    def says(self, expression: str):
        """The value of a JavaScript expression. The page itself may not run JavaScript."""
        result = self.does("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def heard(self, method: str) -> list[dict]:
        return [e["params"] for e in self.events if e.get("method") == method]

    def close(self) -> None:
        os.close(self._to)
        self._process.wait(10)
        os.close(self._from)

    def _told(self) -> dict:
        while b"\0" not in self._unread:
            data = os.read(self._from, 1 << 16)
            assert data, "the browser has left"
            self._unread += data
        told, _, self._unread = self._unread.partition(b"\0")
        return json.loads(told)
