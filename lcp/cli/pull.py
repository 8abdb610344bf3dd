"""`lcp pull`: a name -> a file of the Hub -> the Hub's cache; the catalogue when nothing is named.

Before the first byte it says what will come: how much, where it goes, whether it fits. The path
of the file goes to stdout, everything else to stderr.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcp import words
from lcp.cli import completion
from lcp.cli.infopage import VERDICTS
from lcp.errors import DownloadError, NotHere, UsageError

if TYPE_CHECKING:
    from lcp.downloads.cache import RemoteBlob
    from lcp.downloads.catalog import Entry
    from lcp.downloads.choose import Choice
    from lcp.downloads.filenames import Candidate, File
    from lcp.downloads.hub import Repository
    from lcp.downloads.library import Installed

Fits = Callable[[int], str]


def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Catalogue name or owner/repo[:QUANT].",
            autocompletion=completion.catalogue,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be downloaded, and stop.")
    ] = False,
    with_projector: Annotated[
        bool, typer.Option("--with-projector", help="Download the vision projector, too.")
    ] = False,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", metavar="WORDS", help="List the repositories of the Hub that match."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what --search finds as one JSON object a line.")
    ] = False,
) -> None:
    """Download a model and print its path. Without a name: list the catalogue.

    NAME may also be owner/repo/file.gguf or an address of huggingface.co, and end in @revision.
    """
    if search is not None:
        from lcp.cli import searching

        searching.show(f"{search} {name or ''}", as_json)
    elif as_json:
        raise UsageError("--json prints what --search finds. Add --search WORDS.")
    elif name is None:
        _list_catalogue()
    elif path := bring(name, dry_run, with_projector):
        sys.stdout.write(f"{path}\n")


def ready(name: str, remember: bool) -> "Installed":
    """The model of a chat. Where it is not here, a person is offered the pull of it; a script
    gets the sentence with the command. `remember` that it was used, for `lcp list`."""
    from lcp.downloads import library, records
    from lcp.downloads.catalog import catalog

    try:
        found = library.find(name)
    except NotHere:
        entry = catalog().get(library.called(name, catalog()) or "")
        size = f" ({_size(entry)})" if entry else ""
        question = f"{name} is not here. Get it{size}?"
        person = sys.stdin.isatty() and sys.stderr.isatty()
        if not person or not _agreed(question):
            raise
        path = bring(name) or Path()
        here = library.installed().values()
        given = library.Installed(path.stem, path)  # a revision or a file that has no name here
        found = next((one for one in here if one.path == path), given)
    if remember and found.found:
        records.note_use(found.name)
    return found


def _agreed(question: str) -> bool:
    """Ask a person; in a chat, between two prompts, with the echo on again."""
    from lcp.terminal.signals import echoing

    with echoing():
        return typer.confirm(question, default=True, err=True)


def bring(name: str, dry_run: bool = False, projector: bool = False) -> Path | None:
    """Have the model of this name here; its path, or None after a dry run."""
    from lcp.downloads.places import HUB

    # 1) What is here already. In the Hub's cache it may be older than what the Hub has.
    here = _here(name)
    if here and (here.found is None or here.found.place != HUB):
        _say(f"{here.name} is here already: {here.found.place if here.found else 'a file'}.")
        return here.path
    # 2) What the Hub has, and which file of it.
    fit = fits()
    try:
        repository, one, why = on_hub(name, fit, here)
    except DownloadError as error:
        if here is None:
            raise
        _say(f"{error} What is here is taken.")
        return here.path
    # 3) What that means for this machine, and then the bytes.
    files = [*one.parts, *([_projector(repository, one)] if projector else [])]
    label = f"{repository.name}{f':{one.quant}' if one.quant else f'/{one.path}'}"
    _announce(label, why, repository, files, fit)
    return None if dry_run else _get(repository, files)


def on_hub(
    name: str, fit: Fits, here: "Installed | None" = None
) -> "tuple[Repository, Candidate, str]":
    """The repository and the model in it that a name means, and why that one, where several could
    be meant; UsageError, after a list, where a person has to choose."""
    from lcp.downloads import hub, library, names
    from lcp.downloads.catalog import catalog
    from lcp.downloads.choose import choose

    entries = catalog()
    entry = entries.get(library.called(name, entries) or "")
    where = names.Name(entry.repo, entry.quant) if entry and entry.repo else names.parse(name)
    if here and here.found and not where.quant:  # the quant that is here, not another one
        where = replace(where, path=here.found.inside)
    repository = hub.look_up(where, [e.repo for e in entries.values() if e.repo])
    repository = _with_what_is_here(repository)
    free = shutil.disk_usage(_existing(_folder(repository))).free
    choice = choose(repository.files, fit, quant=where.quant, path=where.path, disk=free)
    if len(choice.candidates) > 1:
        _ambiguous(repository, choice, fit)
    return repository, choice.candidates[0], choice.why


def fits() -> Fits:
    """A function: the bytes of a model's weights -> "fits", "pages" or "no", as lcp.modelfile.fit
    has it. A rough measure, for before the file's header can be read."""
    from lcp.cli import reach
    from lcp.modelfile.fit import RUNTIME, Place
    from lcp.modelfile.machine import machine

    cards = reach.cards()
    here = machine(gpus=cards)
    room = None if here.free is None else here.free + sum(c.free for c in cards if not c.shared)
    # Beside the weights: the context and the buffers, which grow with the model.
    return lambda size: Place("", room, RUNTIME + (1 << 29) + size // 16, size).verdict


def _here(name: str) -> "Installed | None":
    """The model of this name that is here; ModelNotFound for a name that nobody can bring."""
    from lcp.downloads import library

    try:
        return library.find(name)
    except (NotHere, UsageError):  # or several of that repository are; what it has decides
        return None


def _projector(repository: "Repository", one: "Candidate") -> "File":
    from lcp.downloads.filenames import projectors

    found = projectors(repository.files, one.path)
    if not found:
        raise UsageError(f"{repository.name} has no projector. Leave out --with-projector.")
    return found[0]


def _ambiguous(repository: "Repository", choice: "Choice", fit: Fits) -> None:
    from lcp.terminal.screen import Screen

    rows: list[tuple[str, ...]] = [
        (f"{repository.name}/{c.path}", words.size(c.size), VERDICTS[fit(c.size)])
        for c in choice.candidates
    ]
    Screen().table(rows)
    raise UsageError(f"{repository.name} has several models. Name one: lcp pull {rows[0][0]}")


def _announce(
    label: str, why: str, repository: "Repository", files: "Sequence[File]", fit: Fits
) -> None:
    """What will come, before its first byte; DownloadError when the disk has no room for it."""
    from lcp.downloads import records

    size = sum(file.size for file in files)
    licence = f"licence {repository.licence}" if repository.licence else "no licence named"
    gated = ", gated: you are let in" if repository.gated else ""
    if why:
        _say(why)
    _say(f"{label}: {words.size(size)}, {VERDICTS[fit(size)]}, {licence}{gated}.")
    for file in files:
        last = records.last_pull(repository.name, file.path)
        if last and last.sha256 != file.etag:
            _say(
                f"{file.path} has changed upstream since you pulled it on {last.date[:10]}: "
                f"sha256 {last.sha256[:12]} is now {file.etag[:12]}."
            )
    missing = sum(file.size - file.here for file in files)
    folder = _folder(repository).parent
    free = shutil.disk_usage(_existing(folder)).free
    if missing:
        had = f" ({words.size(size - missing)} are here)" if missing < size else ""
        _say(f"To get: {words.size(missing)}{had}. {folder} has {words.size(free)} free.")
    if missing > free:
        raise DownloadError(
            f"The disk of {folder} has no room for it. Free {words.size(missing - free)}, "
            "or set HF_HOME to a folder on a larger disk."
        )


def _get(repository: "Repository", files: "Sequence[File]") -> Path:
    """Every file in the cache and verified; the first one's path."""
    from lcp.downloads import network, records
    from lcp.downloads.fetch import fetch
    from lcp.terminal.progress_bar import ProgressBar

    paths = []
    for number, file in enumerate(files, 1):
        title = Path(file.path).name + (f" ({number}/{len(files)})" if len(files) > 1 else "")
        with ProgressBar(title) as bar:
            blob = _blob(repository, file)
            paths.append(fetch(blob, token=network.token(), on_progress=bar, on_notice=bar.notice))
        done = "is here already" if file.here == file.size else "verified"
        _say(f"{title}: {done}, sha256 {file.etag[:12]}...")
        records.remember(repository.name, file.path, blob.commit, file.etag, file.size)
    return paths[0]


def _with_what_is_here(repository: "Repository") -> "Repository":
    """Its GGUF files, each with the bytes of it that an earlier pull has left."""

    def here(blob: "RemoteBlob") -> int:
        if blob.is_at(blob.pointer) or blob.is_at(blob.blob):
            return blob.size
        return min(blob.part.stat().st_size, blob.size) if blob.part.exists() else 0

    files = [file for file in repository.files if ".gguf" in file.path.lower()]
    counted = tuple(replace(file, here=here(_blob(repository, file))) for file in files)
    return replace(repository, files=counted)


def _blob(repository: "Repository", file: "File") -> "RemoteBlob":
    from lcp.downloads.cache import RemoteBlob

    url, folder = repository.url(file.path), _folder(repository)
    return RemoteBlob(
        url, file.etag, file.size, repository.commit, file.path, folder, repository.revision
    )


def _folder(repository: "Repository") -> Path:
    from lcp.downloads.places import hub_cache

    return hub_cache() / f"models--{repository.name.replace('/', '--')}"


def _existing(folder: Path) -> Path:
    """The folder or the nearest one above it that is there: the file system it will be on."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _list_catalogue() -> None:
    """Every name, its size, whether that fits, what it is good for."""
    from lcp.downloads.catalog import catalog
    from lcp.downloads.library import installed
    from lcp.terminal.printout import Printout

    fit, here = fits(), installed()
    rows = []
    for entry in catalog().values():
        said = "here" if entry.name in here else VERDICTS[fit(entry.size)] if entry.size else ""
        found = here[entry.name].found if entry.name in here else None
        size = words.size(found.size) if found else _size(entry)
        rows.append((entry.name, f"{size:>9}", said, entry.good_for, entry.licence))
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns
        Printout().listing(rows if room > 90 else [row[:-1] for row in rows])
    else:
        wide = max(len(row[0]) for row in rows)
        for name, size, said, good_for, licence in rows:
            sys.stdout.write(f"{name:{wide}}  {size}  {said:9}  {good_for:42}  {licence}\n")
    _say(
        "Get one: lcp pull NAME. Find others: lcp pull --search WORDS. "
        "Get any model of the Hugging Face Hub: lcp pull owner/repo[:QUANT]."
    )


def _size(entry: "Entry") -> str:
    return f"{'~' if entry.about else ''}{words.size(entry.size)}" if entry.size else ""


def _say(sentence: str) -> None:
    from lcp.terminal.clean import clean

    sys.stderr.write(f"{clean(sentence)}\n")
    sys.stderr.flush()
