"""The folders in which this and other programs keep GGUF files: the Hub's cache, LM Studio's,
Ollama's.

Files are found where they lie and never copied. Looking is quick, as every chat begins with it:
folders are listed, nothing is hashed, and of the files only the first bytes and Ollama's small
manifests are read.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lcp import kinds
from lcp.downloads.filenames import Candidate, File, everything, quant_of

HUB, LM_STUDIO, OLLAMA = "Hub cache", "LM Studio", "Ollama"
_LM_STUDIO_MODELS = ("~/.lmstudio/models", "~/.cache/lm-studio/models")


@dataclass(frozen=True)
class Found:
    """One model, or a draft, projector or adapter of one, in one of the places."""

    place: str
    repo: str  # owner/name; of Ollama, the name without its tag
    path: Path  # the first part's, by which llama.cpp opens it
    quant: str | None
    size: int  # bytes of all parts
    parts: tuple[Path, ...]
    inside: str = ""  # the path in the repository
    commit: str | None = None
    name: str = ""  # where the place has a name of its own for it
    old: bool = False  # the place has a newer file of this path
    kind: str = ""  # what it is, if no model: see lcp.kinds

    @property
    def paths_inside(self) -> list[str]:
        """Of all parts, the paths in the repository."""
        folder = self.inside.rpartition("/")[0]
        return [f"{folder}/{part.name}".lstrip("/") for part in self.parts]

    def is_at(self, revision: str) -> bool:
        """Whether it is of this branch, tag or commit, as far as the cache knows them."""
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
        """Of the Hub's cache: models--owner--name, which has blobs, refs and snapshots."""
        return self.path.parents[self.inside.count("/") + 2]


def hub_cache() -> Path:
    """The folder that huggingface_hub and llama.cpp download into; the same rules as theirs."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(os.path.expandvars(cache)).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(home)).expanduser() / "hub"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expandvars(cache)).expanduser() / "huggingface" / "hub"


def folders() -> dict[str, list[Path]]:
    """All folders that are looked into, by the name of the place."""
    ollama = Path(os.environ.get("OLLAMA_MODELS") or "~/.ollama/models").expanduser()
    lm_studio = [Path(folder).expanduser() for folder in _LM_STUDIO_MODELS]
    return {HUB: [hub_cache()], LM_STUDIO: lm_studio, OLLAMA: [ollama]}


def everywhere() -> Iterator[Found]:
    """What is in all of the places, whole files only."""
    yield from in_hub_cache()
    yield from in_lm_studio()
    yield from in_ollama()


def in_folder(place: str, folder: Path) -> Iterator[Found]:
    """What lies in one folder, not below it, each under its file's name."""
    for one in everything(f for f in files_below(folder) if "/" not in f.path):
        if not one.missing:
            yield replace(_found(place, "", folder, one), name=one.title)


def in_hub_cache() -> Iterator[Found]:
    """Of each repository the newest snapshot first; a file that an older one has in another
    version is listed, too, as it takes room."""
    for folder in _folders(hub_cache()):
        kind, *names = folder.name.split("--")
        if kind != "models" or not names:
            continue
        repo = "/".join(names)
        newer: dict[str, set[str]] = {}  # path -> the blobs that newer snapshots have for it
        for snapshot in _newest_first(folder):
            for one in everything(files_below(snapshot)):
                blobs, blob = newer.setdefault(one.path, set()), _blob(snapshot / one.path)
                if not one.missing and blob not in blobs:
                    found = _found(HUB, repo, snapshot, one, commit=snapshot.name)
                    if blobs:
                        name = f"{repo}/{one.path}@{snapshot.name[:12]}"
                        found = replace(found, name=name, old=True)
                    yield found
                    blobs.add(blob)


def in_lm_studio() -> Iterator[Found]:
    """Its models folder has owner/name/file.gguf."""
    for models in folders()[LM_STUDIO]:
        for owner in _folders(models):
            for folder in _folders(owner):
                for one in everything(files_below(folder)):
                    if not one.missing:
                        yield _found(LM_STUDIO, f"{owner.name}/{folder.name}", folder, one)


def in_ollama() -> Iterator[Found]:
    """A manifest per name and tag lists blobs; the one that is a model is a GGUF file."""
    (root,) = folders()[OLLAMA]
    manifests = root / "manifests"
    for file in files_below(manifests):
        host, *names, tag = file.path.split("/")
        if len(names) < 2:
            continue
        name = "/".join(names[1:] if names[0] == "library" else names)
        if host != "registry.ollama.ai":
            name = f"{host}/{name}"
        if found := _of_manifest(root, manifests / file.path, name, tag):
            yield found


def _of_manifest(root: Path, manifest: Path, name: str, tag: str) -> Found | None:
    try:
        listed = json.loads(manifest.read_bytes())
        layers = {layer["mediaType"].rpartition(".")[2]: layer for layer in listed["layers"]}
        if "adapter" in layers:  # a model and something on top of it: the file alone is not it
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
        return None  # half written, of a newer form, or its blob is gone
    kind = kinds.of(blob) or ""
    return Found(OLLAMA, name, blob, quant, size, (blob,), name=f"{name}:{tag}", kind=kind)


def _found(place: str, repo: str, folder: Path, one: Candidate, commit: str | None = None) -> Found:
    parts = tuple(folder / part.path for part in one.parts)
    kind = one.kind
    return Found(place, repo, parts[0], one.quant, one.size, parts, one.path, commit, kind=kind)


def _blob(path: Path) -> str:
    """What a link of a snapshot stands for; a file is its own."""
    try:
        return os.readlink(path)  # noqa: PTH115  # a Path would cost as much as the call
    except OSError:
        return str(path)


def _newest_first(folder: Path) -> list[Path]:
    """The snapshots of a repository: the one that main is at, then by their date."""
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


def files_below(root: Path, inside: str = "") -> Iterator[File]:
    """All files below a folder with the sizes they have; dangling links are passed over."""
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
                kind = kinds.of(Path(entry.path)) if gguf else None
                yield File(path, entry.stat().st_size, kind=kind)
        except OSError:
            continue
