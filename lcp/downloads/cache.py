"""The Hub cache: where a downloaded file lies, in the very layout of huggingface_hub.

What lcp puts there is found by huggingface_hub and by llama.cpp, and the other way round:

    hub/models--owner--name/blobs/<etag>               the bytes, named by their hash
    hub/models--owner--name/blobs/<etag>.lcp-part      as many as have come so far
    hub/models--owner--name/snapshots/<commit>/<path>  -> ../../blobs/<etag>
    hub/models--owner--name/refs/<revision>            the commit that this name stood for
    hub/.locks/models--owner--name/<etag>.lock         held by the process that downloads it

Opens no URL.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from lcp.downloads.http import is_set
from lcp.errors import DownloadError

_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file is a cache directory tag created by huggingface_hub.\n"
)  # https://bford.info/cachedir/: backups leave such a folder out


@dataclass(frozen=True)
class RemoteBlob:
    """One file of a repository at one commit, and the folder of that repository in the cache.

    url       where to ask for it: .../resolve/<commit>/<path>
    etag      its hash and its name in the cache: the sha256 of its bytes (64 hex) or, of a small
              file that is not in LFS, git's sha1 (40 hex)
    size      in bytes
    commit    40 hex; `revision` is the name it was found by, as "main"
    path      in the repository, with "/" between folders
    folder    .../hub/models--owner--name
    """

    url: str
    etag: str
    size: int
    commit: str
    path: str
    folder: Path
    revision: str = "main"

    def __post_init__(self) -> None:
        """Names come from a server: none of them may lead out of the folder."""
        hashes = re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", self.etag) and re.fullmatch(
            r"[0-9a-f]{40}", self.commit
        )
        if not hashes or not _stays_inside(self.path) or not _stays_inside(self.revision):
            raise DownloadError(
                f"The server names {self.path!r} in a way that cannot be kept here. "
                "Download it by other means."
            )

    @property
    def blob(self) -> Path:
        return self.folder / "blobs" / self.etag

    @property
    def part(self) -> Path:
        return self.folder / "blobs" / f"{self.etag}.lcp-part"

    @property
    def pointer(self) -> Path:
        """Where people and programs find the file under its own name."""
        return self.folder / "snapshots" / self.commit / self.path

    @property
    def lock(self) -> Path:
        return self.folder.parent / ".locks" / self.folder.name / f"{self.etag}.lock"

    def is_at(self, path: Path) -> bool:
        """Whether a file as long as this one is there; its bytes were verified when it came."""
        try:
            return path.is_file() and path.stat().st_size == self.size
        except OSError:
            return False


@contextlib.contextmanager
def hold(file: RemoteBlob, on_wait: Callable[[], None]) -> Iterator[None]:
    """Be the only process that downloads this file; `on_wait` is called before waiting for one."""
    from filelock import FileLock, Timeout

    for folder in (file.blob.parent, file.pointer.parent, file.lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    tag = file.folder.parent / "CACHEDIR.TAG"
    if not tag.exists():
        tag.write_text(_TAG)
    lock = FileLock(file.lock, mode=0o664)  # other users of a shared cache wait for it, too
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def place(file: RemoteBlob, new: bool) -> Path:
    """Give the blob its name in the snapshot; where it is then found.

    Without symbolic links (Windows, some disks) a new blob is moved there, an old one copied.
    """
    pointer, fresh = file.pointer, file.pointer.with_name(f"{file.pointer.name}.lcp-new")
    fresh.unlink(missing_ok=True)
    if not _linked(fresh, os.path.relpath(file.blob, pointer.parent)):
        if new:
            file.blob.replace(fresh)
        else:
            shutil.copyfile(file.blob, fresh)
    fresh.replace(pointer)
    return pointer


def _linked(path: Path, target: str) -> bool:
    """Make a symbolic link, where the person allows it and the system can."""
    if is_set("HF_HUB_DISABLE_SYMLINKS"):
        return False
    try:
        path.symlink_to(target)
    except OSError:  # Windows without the right to, or a disk that has no links
        return False
    return True


def remember(file: RemoteBlob) -> None:
    """Write down which commit the revision stood for."""
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
