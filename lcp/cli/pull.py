"""`lcp pull`: download a model from the Hub into the Hub cache.

Before the first byte, it shows the size, the free disk space and whether the model fits in memory.
The path of the file goes to stdout, everything else to stderr.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp import formatting
from lcp.cli import free_memory, options, pull_search, shell_completion
from lcp.cli.info_page import VERDICTS
from lcp.cli.options import argument, option, switch
from lcp.errors import DownloadError, NetworkError, NotHere, UsageError

if TYPE_CHECKING:
    from lcp.downloads.hub import Repository
    from lcp.downloads.library import Installed
    from lcp.downloads.repo_files import ModelChoice, RepoFile, RepoModel


@dataclass(frozen=True)
class PullArguments:
    """What was typed after `lcp pull`."""

    name: str | None = argument(
        "NAME", "Catalogue name or owner/repo[:QUANT].",
        autocompletion=shell_completion.catalogue,
    )  # fmt: skip
    dry_run: bool = switch("--dry-run", "Show what would be downloaded, and stop.")
    with_projector: bool = switch("--with-projector", "Also download the vision projector.")
    search: str | None = option("--search", "WORDS", "Search the Hub for repositories.")
    as_json: bool = switch("--json", "Print search results as one JSON object per line.")


def run(asked: PullArguments, _: dict[str, Any]) -> None:
    """Download a model and print its path. Without a name: list the catalogue.

    NAME may also be owner/repo/file.gguf or an address of huggingface.co, and end in @revision.
    """
    if asked.search is not None:
        pull_search.show_search(f"{asked.search} {asked.name or ''}", asked.as_json)
    elif asked.as_json:
        raise UsageError("--json needs --search WORDS.")
    elif asked.name is None:
        pull_search.show_catalogue()
    elif path := pull_model(asked.name, asked.dry_run, asked.with_projector):
        sys.stdout.write(f"{path}\n")


pull = options.command(PullArguments, run, ())


def find_or_pull(name: str, remember: bool) -> "Installed":
    """The model for a chat. If it is not here, a person is asked whether to download it, and a
    script gets an error. `remember`: record its use, for `lcp list`."""
    from lcp.downloads import library, pulls_and_uses
    from lcp.downloads.catalog import catalog

    try:
        found = library.find(name)
    except NotHere as error:
        entry = catalog().get(error.name)
        size = f" ({pull_search.size_of(entry)})" if entry else ""
        person = sys.stdin.isatty() and sys.stderr.isatty()
        if not person or not _confirmed(f"{name} is not here. Download it{size}?"):
            raise
        path = pull_model(name) or Path()
        unnamed = library.Installed(path.stem, path)  # a revision or file without a name here
        found = next((one for one in library.installed().values() if one.path == path), unnamed)
    if remember and found.stored:
        pulls_and_uses.note_use(found.name)
    return found


def _confirmed(question: str) -> bool:
    """Ask a person; in a chat, the terminal does not echo, so switch that on."""
    from lcp.terminal.questions import confirm
    from lcp.terminal.signals import echoing

    with echoing():
        return confirm(question, default=True)


def pull_model(name: str, dry_run: bool = False, projector: bool = False) -> Path | None:
    """Download a model unless it is here; its path, or None after a dry run."""
    from lcp.downloads.model_folders import HUB

    # 1) What is here. In the Hub cache it may be older than what the Hub has.
    here = _find_here(name)
    if here and (here.stored is None or here.stored.place != HUB):
        _say(f"{here.name} is already here ({here.stored.place if here.stored else 'a file'}).")
        return here.path
    # 2) What the Hub has, and which file is meant.
    room = free_memory.room()
    try:
        repository, model, why = find_on_hub(name, room, here)
    except NetworkError as error:
        if here is None:
            raise
        _say(f"{error} Using the copy that is here.")
        return here.path
    # 3) What that takes, then the download.
    files = [*model.parts, *([_projector(repository, model)] if projector else [])]
    label = f"{repository.name}{f':{model.quant}' if model.quant else f'/{model.path}'}"
    if why:
        _say(why)
    _announce(label, repository, files, room)
    return None if dry_run else _download(repository, files)


def find_on_hub(
    name: str, room: int | None, here: "Installed | None" = None
) -> "tuple[Repository, RepoModel, str]":
    """The repository and the model in it that a name means, and why this model if the name does
    not say; UsageError, after a list, if a person must choose. `room`: free memory in bytes."""
    from lcp.downloads import hub, hub_cache, library, model_names
    from lcp.downloads.catalog import catalog
    from lcp.downloads.repo_files import choose

    entries = catalog()
    entry = entries.get(library.match_name(name, entries) or "")
    where = (
        model_names.Name(entry.repo, entry.quant)
        if entry and entry.repo
        else model_names.parse(name)
    )
    if here and here.stored and not where.quant:  # the quant that is here, not another one
        where = replace(where, path=here.stored.inside)
    repository = hub.look_up(where, [e.repo for e in entries.values() if e.repo])
    repository = hub_cache.with_downloaded(repository)
    choice = choose(
        repository.files,
        lambda size: free_memory.verdict(size, room),
        quant=where.quant,
        path=where.path,
        disk=_free_disk(hub_cache.repository_folder(repository)),
    )
    if len(choice.models) > 1:
        _list_choices(repository, choice, room)
    return repository, choice.models[0], choice.why


def _find_here(name: str) -> "Installed | None":
    """The model of this name, if it is here; ModelNotFound if it cannot be downloaded either."""
    from lcp.downloads import library

    try:
        return library.find(name)
    except (NotHere, UsageError):  # or several of its files are here; the repository decides
        return None


def _projector(repository: "Repository", model: "RepoModel") -> "RepoFile":
    from lcp.downloads.repo_files import projectors

    found = projectors(repository.files, model.path)
    if not found:
        raise UsageError(f"{repository.name} has no projector. Leave out --with-projector.")
    return found[0]


def _list_choices(repository: "Repository", choice: "ModelChoice", room: int | None) -> None:
    """Print the models that a name may mean, and raise UsageError."""
    from lcp.terminal.screen import Screen

    rows: list[tuple[str, ...]] = [
        (
            f"{repository.name}/{m.path}",
            formatting.size(m.size),
            VERDICTS[free_memory.verdict(m.size, room)],
        )
        for m in choice.models
    ]
    Screen().table(rows)
    raise UsageError(f"{repository.name} has several models. Name one: lcp pull {rows[0][0]}")


def _announce(
    label: str, repository: "Repository", files: "Sequence[RepoFile]", room: int | None
) -> None:
    """Print what will be downloaded; DownloadError if the disk is too small."""
    from lcp.downloads import hub_cache, pulls_and_uses

    size = sum(file.size for file in files)
    licence = f"licence {repository.licence}" if repository.licence else "no licence given"
    gated = ", gated (you have access)" if repository.gated else ""
    fits = VERDICTS[free_memory.verdict(size, room)]
    _say(f"{label}: {formatting.size(size)}, {fits}, {licence}{gated}.")
    for file in files:
        last = pulls_and_uses.last_pull(repository.name, file.path)
        if last and last.sha256 != file.etag:
            _say(
                f"{file.path} has changed since you downloaded it on {last.date[:10]}: "
                f"sha256 {last.sha256[:12]} is now {file.etag[:12]}."
            )
    missing = sum(file.size - file.here for file in files)
    folder = hub_cache.repository_folder(repository).parent
    free = _free_disk(folder)
    if missing:
        had = f" ({formatting.size(size - missing)} already here)" if missing < size else ""
        _say(
            f"To download: {formatting.size(missing)}{had}. "
            f"{folder} has {formatting.size(free)} free."
        )
    if missing > free:
        raise DownloadError(
            f"{label} does not fit on the disk of {folder}. "
            f"Free {formatting.size(missing - free)}, or set HF_HOME to a folder on a larger disk."
        )


def _download(repository: "Repository", files: "Sequence[RepoFile]") -> Path:
    """Download and verify every file; the path of the first one."""
    from lcp.downloads import hub, hub_cache, pulls_and_uses
    from lcp.downloads.download import download
    from lcp.terminal.progress_bar import ProgressBar

    paths = []
    for number, file in enumerate(files, 1):
        title = Path(file.path).name + (f" ({number}/{len(files)})" if len(files) > 1 else "")
        entry = hub_cache.cache_entry(repository, file)
        with ProgressBar(title) as bar:
            paths.append(download(entry, token=hub.token(), on_progress=bar, on_notice=bar.notice))
        done = "already here" if file.here == file.size else "verified"
        _say(f"{title}: {done}, sha256 {file.etag[:12]}...")
        pulls_and_uses.remember(repository.name, file.path, entry.commit, file.etag, file.size)
    return paths[0]


def _free_disk(folder: Path) -> int:
    """Free bytes on the disk of a folder, which may not exist yet."""
    return shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free


def _say(sentence: str) -> None:
    from lcp.terminal.clean import clean

    sys.stderr.write(f"{clean(sentence)}\n")
    sys.stderr.flush()
