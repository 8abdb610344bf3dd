"""The places where programs keep GGUF files: the Hub cache, LM Studio's folders, Ollama's folder.

Files are used in place, never copied. Every chat starts with this search, so it is fast: it lists
folders, and reads only the first bytes of each GGUF file and Ollama's small manifests.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lcp import gguf_kinds
from lcp.downloads.repo_files import RepoFile, RepoModel, gguf_files, quant_of

HUB, LM_STUDIO, OLLAMA = "Hub cache", "LM Studio", "Ollama"
_LM_STUDIO_MODELS = ("~/.lmstudio/models", "~/.cache/lm-studio/models")


@dataclass(frozen=True)
class StoredModel:
    """A model, or a draft model, projector or adapter, in one of the places."""

    place: str
    repo: str  # owner/name; for Ollama, the name without its tag
    path: Path  # of the first part, which llama.cpp opens
    quant: str | None
    size: int  # bytes of all parts
    parts: tuple[Path, ...]
    inside: str = ""  # path in the repository
    commit: str | None = None
    name: str = ""  # if the place has its own name for it
    old: bool = False  # whether a newer snapshot has another version
    kind: str = ""  # see lcp.gguf_kinds; "" for a model

    @property
    def paths_inside(self) -> list[str]:
        """The paths of all parts in the repository."""
        folder = self.inside.rpartition("/")[0]
        return [f"{folder}/{part.name}".lstrip("/") for part in self.parts]

    def is_at(self, revision: str) -> bool:
        """Whether it belongs to this branch, tag or commit, as far as the cache knows."""
        if not self.commit:
            return False
        if len(revision) >= 7 and self.commit.startswith(revision):
            return True
        try:
            refs = self.repo_folder / "refs"
            return (refs / revision).read_text("utf-8").strip() == self.commit
        except (OSError, ValueError):
            return False

    @property
    def repo_folder(self) -> Path:
        """In the Hub cache: models--owner--name, which has blobs, refs and snapshots."""
        return self.path.parents[self.inside.count("/") + 2]


def hub_cache_folder() -> Path:
    """The folder of the Hub cache, by the same rules as huggingface_hub and llama.cpp."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expandvars(cache)).expanduser() / "huggingface" / "hub"


def folders() -> dict[str, list[Path]]:
    """The folders of each place."""
    ollama = Path(os.environ.get("OLLAMA_MODELS") or "~/.ollama/models").expanduser()
    lm_studio = [Path(folder).expanduser() for folder in _LM_STUDIO_MODELS]
    return {HUB: [hub_cache_folder()], LM_STUDIO: lm_studio, OLLAMA: [ollama]}


def stored_models() -> Iterator[StoredModel]:
    """All complete GGUF files in these places."""
    yield from in_hub_cache_folder()
    yield from in_lm_studio()
    yield from in_ollama()


def in_folder(place: str, folder: Path) -> Iterator[StoredModel]:
    """The GGUF files directly in a folder, named by their files."""
    for one in gguf_files(f for f in files_below(folder) if "/" not in f.path):
        if not one.missing:
            yield replace(_stored(place, "", folder, one), name=one.title)


def in_hub_cache_folder() -> Iterator[StoredModel]:
    """Newest snapshots first; an older version of a file is included, since it takes space."""
    for folder in _folders(hub_cache_folder()):
        kind, *names = folder.name.split("--")
        if kind != "models" or not names:
            continue
        repo = "/".join(names)
        newer: dict[str, set[str]] = {}  # path -> its blobs in newer snapshots
        for snapshot in _newest_first(folder):
            for one in gguf_files(files_below(snapshot)):
                blobs, blob = newer.setdefault(one.path, set()), _blob(snapshot / one.path)
                if not one.missing and blob not in blobs:
                    stored = _stored(HUB, repo, snapshot, one, commit=snapshot.name)
                    if blobs:
                        name = f"{repo}/{one.path}@{snapshot.name[:12]}"
                        stored = replace(stored, name=name, old=True)
                    yield stored
                    blobs.add(blob)


def in_lm_studio() -> Iterator[StoredModel]:
    """The files owner/name/file.gguf in LM Studio's folders."""
    for models in folders()[LM_STUDIO]:
        for owner in _folders(models):
            for folder in _folders(owner):
                for one in gguf_files(files_below(folder)):
                    if not one.missing:
                        yield _stored(LM_STUDIO, f"{owner.name}/{folder.name}", folder, one)


def in_ollama() -> Iterator[StoredModel]:
    """A manifest for each name and tag lists blobs; the one of type model is a GGUF file."""
    (root,) = folders()[OLLAMA]
    manifests = root / "manifests"
    for file in files_below(manifests):
        host, *names, tag = file.path.split("/")
        if len(names) < 2:
            continue
        name = "/".join(names[1:] if names[0] == "library" else names)
        if host != "registry.ollama.ai":
            name = f"{host}/{name}"
        if stored := _of_manifest(root, manifests / file.path, name, tag):
            yield stored


def _of_manifest(root: Path, manifest: Path, name: str, tag: str) -> StoredModel | None:
    try:
        listed = json.loads(manifest.read_bytes())
        layers = {layer["mediaType"].rpartition(".")[2]: layer for layer in listed["layers"]}
        if "adapter" in layers:  # the model file alone is not the whole model
            return None
        blob = root / "blobs" / layers["model"]["digest"].replace(":", "-")
        digest = listed["config"]["digest"].replace(":", "-")
        config = json.loads((root / "blobs" / digest).read_bytes())
        if config.get("model_format", "gguf") != "gguf":
            return None
        quant = quant_of(f"{tag}.gguf") or quant_of(f"{config.get('file_type')}.gguf")
        size = blob.stat().st_size
        if size != layers["model"]["size"]:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # partly written, of a newer format, or without its blob
    kind = gguf_kinds.of(blob) or ""
    return StoredModel(OLLAMA, name, blob, quant, size, (blob,), name=f"{name}:{tag}", kind=kind)


def _stored(
    place: str, repo: str, folder: Path, one: RepoModel, commit: str | None = None
) -> StoredModel:
    parts = tuple(folder / part.path for part in one.parts)
    return StoredModel(
        place, repo, parts[0], one.quant, one.size, parts, one.path, commit, kind=one.kind
    )


def _blob(path: Path) -> str:
    """The target of a link in a snapshot; a file is its own target."""
    try:
        return os.readlink(path)  # noqa: PTH115  # called for every file; Path.readlink is slower
    except OSError:
        return str(path)


def _newest_first(folder: Path) -> list[Path]:
    """The snapshots of a repository: that of main first, then newest first."""
    try:
        main = (folder / "refs" / "main").read_text("utf-8").strip()
    except (OSError, ValueError):
        main = ""

    def age(snapshot: Path) -> tuple[bool, float]:
        return snapshot.name != main, -snapshot.stat().st_mtime

    return sorted(_folders(folder / "snapshots"), key=age)


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return []


def files_below(root: Path, inside: str = "") -> Iterator[RepoFile]:
    """All files below a folder, with their sizes; broken links are skipped."""
    try:
        with os.scandir(root / inside) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        path = f"{inside}{entry.name}"
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(root, f"{path}/")
            elif entry.is_file():
                gguf = path.lower().endswith(".gguf")
                kind = gguf_kinds.of(Path(entry.path)) if gguf else None
                yield RepoFile(path, entry.stat().st_size, kind=kind)
        except OSError:
            continue
