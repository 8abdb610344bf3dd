"""What can be done to a model that is here: remove it, or verify its bytes.

In the Hub's cache a file is a link of a snapshot to a blob, which other snapshots may use, too.
What other programs brought is theirs to remove.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lcp.downloads import records
from lcp.downloads.filenames import candidates, projectors
from lcp.downloads.library import OWN, WHEEL, Installed
from lcp.downloads.places import LM_STUDIO, OLLAMA, Found, files_below
from lcp.errors import ModelError

_BLOCK = 1 << 20


def check_removable(model: Installed) -> Found:
    """Where the model lies; ModelError says whose tool removes what is not ours."""
    found = model.found
    if found is None:
        raise ModelError(f"{model.path} is a file of yours. Remove it by hand.")
    tools = {
        WHEEL: f"{model.name} came with a Python package. Remove it: pip uninstall {found.repo}",
        LM_STUDIO: f"{model.name} belongs to LM Studio. Remove it there, under My Models.",
        OLLAMA: f"{model.name} belongs to Ollama. Remove it: ollama rm {model.name}",
    }
    if found.place in tools:
        raise ModelError(tools[found.place])
    return found


def remove(model: Installed) -> int:
    """Remove a model; gives the bytes that the disk has more. In the Hub's cache its projector
    goes with the last model of a snapshot, and a blob that another snapshot uses stays."""
    found = check_removable(model)
    try:
        if found.place == OWN:
            for part in found.parts:
                part.unlink()
            freed = found.size
        else:
            freed = sum(_unlink(part, found.repo_folder) for part in found.parts)
            freed += sum(_unlink(part, found.repo_folder) for part in _useless(found))
            _tidy(found)
    except OSError as error:
        raise ModelError(
            f"{error.filename} cannot be removed: {error.strerror}. Remove it by hand."
        ) from error
    records.forget_use(model.name)
    return freed


def verify(model: Installed, on_bytes: Callable[[int], None] = lambda n: None) -> list[str]:
    """The sha256 of each part, read anew and found right. `on_bytes` is told how many were read.

    ModelError for a part that is damaged, or when nobody has said what it should be.
    """
    found = model.found
    parts = found.parts if found else (model.path,)
    wanted = [_expected(part, found, n) for n, part in enumerate(parts)]
    sums = []
    for part, right in zip(parts, wanted, strict=True):
        if right is None:
            raise ModelError(
                f"Nobody has said what {part} should be: it was not pulled by lcp. "
                "Compare its sha256sum with the one that its makers give."
            )
        is_ = _sha256(part, on_bytes)
        if is_ != right:
            raise ModelError(
                f"{part} is damaged: its sha256 is {is_} and should be {right}. "
                f"Get it anew: lcp rm {model.name}, then lcp pull {model.name}"
            )
        sums.append(is_)
    return sums


def _expected(part: Path, found: Found | None, number: int) -> str | None:
    """A blob is named by its sha256; of what was moved since, the line of its pull may know it."""
    name = part.readlink().name if part.is_symlink() else part.name
    if sha := re.fullmatch(r"(?:sha256-)?([0-9a-f]{64})", name):
        return sha[1]
    if found and (pull := records.last_pull(found.repo, found.paths_inside[number])):
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
        raise ModelError(f"{path} cannot be read: {error.strerror}. Pull it anew.") from error
    return digest.hexdigest()


def _unlink(part: Path, repo: Path) -> int:
    """Take a file out of its snapshot, and its blob out of the cache when nobody needs it."""
    size = part.stat().st_size
    link = part.is_symlink()
    blob = Path(os.path.normpath(part.parent / part.readlink())) if link else part
    part.unlink()
    if not link:  # where there are no links, the file itself stands in the snapshot
        return size
    if any(_target(other) == blob for other in (repo / "snapshots").rglob("*")):
        return 0
    shared = blob.is_symlink()  # into a store of all repositories; `hf cache prune` empties that
    blob.unlink()
    return 0 if shared else size


def _target(path: Path) -> Path | None:
    return Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else None


def _useless(found: Found) -> list[Path]:
    """The projectors of a snapshot in which no model is left."""
    snapshot = found.repo_folder / "snapshots" / (found.commit or "")
    left = list(files_below(snapshot))
    return [] if candidates(left) else [snapshot / file.path for file in projectors(left)]


def _tidy(found: Found) -> None:
    """Empty folders go; the repository's when no file of it is left, also not a half one."""
    folder = found.path.parent
    with suppress(OSError):  # not empty
        while folder != found.repo_folder:
            folder.rmdir()
            folder = folder.parent
    blobs = found.repo_folder / "blobs"
    if not (found.repo_folder / "snapshots").exists() and not (
        blobs.exists() and any(blobs.iterdir())
    ):
        shutil.rmtree(found.repo_folder)
