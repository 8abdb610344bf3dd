"""The folders of lcp on this computer.

They are all in LCP_HOME if it is set, otherwise in the usual folders of the platform. A folder is
created when lcp first writes into it, not when its path is asked for.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs


def at(name: str) -> Path | None:
    """The path of an existing file or folder. None if there is none, or if `name` cannot be a path:
    callers may pass a whole question."""
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None  # Path("") is this folder
    except (OSError, RuntimeError, ValueError):  # too long, "~nobody", with a NUL
        return None


def config() -> Path:
    """The folder of config.toml, which a person edits."""
    return _home("config", platformdirs.user_config_path)


def data() -> Path:
    """The folder of what must not be lost: saved chats and the input history."""
    return _home("data", platformdirs.user_data_path)


def cache() -> Path:
    """The folder of what can be computed again, such as checks of llama.cpp."""
    return _home("cache", platformdirs.user_cache_path)


def sessions() -> Path:
    """The folder of saved chats, one .jsonl event log each."""
    return data() / "sessions"


def models() -> Path:
    """The folder for GGUF files that a person puts there by hand."""
    return data() / "models"


def distribution(name: str) -> Path | None:
    """The metadata folder of an installed Python package, NAME-VERSION.dist-info; None without
    it. importlib.metadata would find it, too, but takes 20 ms to import."""
    pattern = re.sub(r"[-_.]+", "_", name.lower()) + "-*.dist-info"
    return next((found for folder in sys.path for found in Path(folder).glob(pattern)), None)


def contents(file: Path) -> str:
    """The text of a small file, such as those in /proc and /sys; "" if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _home(kind: str, platform_path: Callable[..., Path]) -> Path:
    home = os.environ.get("LCP_HOME")
    return Path(home).expanduser() / kind if home else platform_path("lcp", appauthor=False)
