"""The Hub cache: where downloaded files are kept, in the layout of huggingface_hub.

huggingface_hub and llama.cpp find what lcp puts there, and lcp finds what they put there:

    hub/models--owner--name/blobs/<etag>               the bytes, named by their hash
    hub/models--owner--name/blobs/<etag>.lcp-part      the bytes downloaded so far
    hub/models--owner--name/snapshots/<commit>/<path>  -> ../../blobs/<etag>
    hub/models--owner--name/refs/<revision>            the commit of this branch or tag
    hub/.locks/models--owner--name/<etag>.lock         held by the process that downloads it
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from lcp.downloads.http import is_set
from lcp.downloads.hub import Repository
from lcp.downloads.model_folders import hub_cache_folder
from lcp.downloads.repo_files import RepoFile
from lcp.errors import DownloadError

_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file is a cache directory tag created by huggingface_hub.\n"
)  # https://bford.info/cachedir/: backups skip such a folder


@dataclass(frozen=True)
class CacheEntry:
    """A file of a repository at one commit, and its place in the cache, downloaded or not.

    url       its address: .../resolve/<commit>/<path>
    etag      its hash and its name in the cache: sha256 (64 hex digits), or git's sha1 (40) for a
              small file that is not in LFS
    size      in bytes
    commit    40 hex digits
    path      in the repository, with "/" between folders
    folder    .../hub/models--owner--name
    revision  the branch, tag or commit that was asked for
    """

    url: str
    etag: str
    size: int
    commit: str
    path: str
    folder: Path
    revision: str = "main"

    def __post_init__(self) -> None:
        """Names come from a server: refuse any that lead out of the folder."""
        hashes = re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", self.etag) and re.fullmatch(
            r"[0-9a-f]{40}", self.commit
        )
        if not hashes or not _stays_inside(self.path) or not _stays_inside(self.revision):
            raise DownloadError(
                f"The server sent an unsafe file name or hash for {self.path!r}. "
                "Do not use this repository."
            )

    @property
    def blob(self) -> Path:
        return self.folder / "blobs" / self.etag

    @property
    def part(self) -> Path:
        return self.folder / "blobs" / f"{self.etag}.lcp-part"

    @property
    def pointer(self) -> Path:
        """The path of the file under its own name."""
        return self.folder / "snapshots" / self.commit / self.path

    @property
    def lock(self) -> Path:
        return self.folder.parent / ".locks" / self.folder.name / f"{self.etag}.lock"

    def is_at(self, path: Path) -> bool:
        """Whether a file of this size is there; its hash was verified by the download."""
        try:
            return path.is_file() and path.stat().st_size == self.size
        except OSError:
            return False


def repository_folder(repository: Repository) -> Path:
    """The folder of a repository in the cache."""
    return hub_cache_folder() / f"models--{repository.name.replace('/', '--')}"


def cache_entry(repository: Repository, file: RepoFile) -> CacheEntry:
    """The place of a repository's file in the cache."""
    return CacheEntry(
        repository.url(file.path), file.etag, file.size, repository.commit, file.path,
        repository_folder(repository), repository.revision,
    )  # fmt: skip


def with_downloaded(repository: Repository) -> Repository:
    """The repository with its GGUF files only, each with the bytes of it that are here."""

    def here(entry: CacheEntry) -> int:
        if entry.is_at(entry.pointer) or entry.is_at(entry.blob):
            return entry.size
        return min(entry.part.stat().st_size, entry.size) if entry.part.exists() else 0

    files = [file for file in repository.files if ".gguf" in file.path.lower()]
    counted = tuple(replace(file, here=here(cache_entry(repository, file))) for file in files)
    return replace(repository, files=counted)


@contextlib.contextmanager
def hold(file: CacheEntry, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of this file; `on_wait` is called before waiting for another process."""
    from filelock import FileLock, Timeout

    for folder in (file.blob.parent, file.pointer.parent, file.lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    tag = file.folder.parent / "CACHEDIR.TAG"
    if not tag.exists():
        tag.write_text(_TAG)
    lock = FileLock(file.lock, mode=0o664)  # also for other users of a shared cache
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def link(file: CacheEntry, new: bool) -> Path:
    """Link the blob into the snapshot under its name; its path there.

    Without symbolic links (Windows, some disks), a new blob is moved there, an old one copied.
    """
    pointer, fresh = file.pointer, file.pointer.with_name(f"{file.pointer.name}.lcp-new")
    fresh.unlink(missing_ok=True)
    if not _symlink(fresh, os.path.relpath(file.blob, pointer.parent)):
        if new:
            file.blob.replace(fresh)
        else:
            shutil.copyfile(file.blob, fresh)
    fresh.replace(pointer)
    return pointer


def _symlink(path: Path, target: str) -> bool:
    """Make a symbolic link; False if that is switched off or not possible."""
    if is_set("HF_HUB_DISABLE_SYMLINKS"):
        return False
    try:
        path.symlink_to(target)
    except OSError:  # Windows without the permission, or a disk without links
        return False
    return True


def write_ref(file: CacheEntry) -> None:
    """Record the commit of the revision."""
    ref = file.folder / "refs" / file.revision
    if file.revision == file.commit or (ref.is_file() and ref.read_text() == file.commit):
        return
    ref.parent.mkdir(parents=True, exist_ok=True)
    fresh = ref.with_name(f"{ref.name}.lcp-{os.getpid()}")
    fresh.write_text(file.commit)
    fresh.replace(ref)


def _stays_inside(path: str) -> bool:
    names = path.split("/")
    clean = not any(name in ("", ".", "..") for name in names) and path.isprintable()
    return clean and "\\" not in path and not PureWindowsPath(path).drive
