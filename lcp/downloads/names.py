"""Names of models on the Hugging Face Hub: owner/repo, with a quant, a file or a revision.

Pure: it knows the forms and asks nobody.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from lcp.downloads.filenames import normal, quant_of
from lcp.downloads.network import split_address
from lcp.errors import UsageError

_OWNER_REPO = r"\w[\w.-]*/[\w.-]+"  # ./x.gguf and ../x.gguf are paths
_REMOTE = re.compile(
    rf"{_OWNER_REPO}/?(@[\w.-]+)?(:[\w.-]+)?(@[\w.-]+)?$"
    rf"|{_OWNER_REPO}(@[\w.-]+)?(/[^/\n]+)*/[^/\n]+\.gguf(@[\w.-]+)?$",
    re.IGNORECASE,
)
# What the pages and manuals of others put in front of a name: it is copied with it.
_COMMAND = re.compile(
    r"(ollama (run|pull|show|rm)|lcp (chat|pull|info|rm)|hf download|lms get"
    r"|llama(-cli|-server|-run)? (run |serve )?(-hfr?|--hf-repo))\s+"
)
_HUB = re.compile(r"hf:(//)?|(https?://)?(www\.)?(hf\.co|huggingface\.co)/+", re.IGNORECASE)
_OLLAMA = re.compile(
    r"(https?://)?(www\.)?(registry\.ollama\.ai|ollama\.com|ollama\.ai)/(library/)?|library/", re.I
)


@dataclass(frozen=True)
class Name:
    """What a name says; the Hub decides whether there is such a thing."""

    repo: str  # owner/name
    quant: str | None = None
    path: str | None = None  # of a file in the repository
    revision: str | None = None  # a branch, a tag or a commit

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        what = f"/{self.path}" if self.path else f":{self.quant}" if self.quant else ""
        return f"{self.repo}{what}{at}"


def is_remote(name: str) -> bool:
    """Whether a name has the form of a repository or an address on the Hub."""
    rest, address = _path_of(plain(name))
    return address or (bool(_REMOTE.match(rest)) and not is_ollama(name))


def is_ollama(name: str) -> bool:
    """Whether a name has a form that only Ollama's own models have."""
    return bool(_OLLAMA.match(plain(name)))


def plain(name: str) -> str:
    """The name alone, without the command it was copied with."""
    return _COMMAND.sub("", name.strip(), count=1).strip()


def spellings(name: str) -> list[str]:
    """What `lcp list` or the catalogue may call the model of this name, the likeliest first:
    Ollama leaves out its own host, the user `library` and the tag `latest`."""
    bare = plain(name)
    short = _OLLAMA.sub("", bare, count=1)
    tagged = short if ":" in short.rpartition("/")[2] else f"{short}:latest"
    hub = [str(parse(bare))] if is_remote(bare) and "/" in _path_of(bare)[0].strip("/") else []
    return list(dict.fromkeys([bare, short, tagged, *hub]))


def front(name: str) -> str:
    """The part of an address that stands in front of owner/repo, or of Ollama's name."""
    found = _HUB.match(name) or _OLLAMA.match(name)
    return found[0] if found else ""


def parse(name: str) -> Name:
    """The parts of owner/repo, owner/repo:QUANT, owner/repo/file.gguf, each with or without
    @revision, and of the addresses a browser shows; UsageError for another form."""
    rest, address = _path_of(plain(name))
    shown = None  # the file whose panel is open on the Hub's page
    if address:
        shown = re.search(r"[?&]show_file_info=([^&#]+)", rest)
        rest = unquote(rest.partition("?")[0].partition("#")[0])
    owner, _, rest = rest.strip("/").partition("/")
    repo, slash, rest = rest.partition("/")
    if slash and address and (found := re.match(r"(blob|resolve|raw|tree)/(.+)", rest)):
        branch, path = _revision_and_path(found[2])
        quant = None if _file(path) else quant_of(f"{path}/")
        revision = None if branch == "main" else branch
        return _checked(name, Name(f"{owner}/{repo}", quant, _file(path), revision))
    repo, revision, quant = _suffixes(repo)
    file, later, _ = _suffixes(rest)
    file = file or (unquote(shown[1]) if shown else "")
    if file and not _file(file):
        raise UsageError(f"{name} is no file of a model. {_FORMS}")
    quant = None if file or (quant or "").lower() == "latest" else quant and normal(quant)
    return _checked(name, Name(f"{owner}/{repo}", quant, file or None, revision or later))


_FORMS = "Write owner/repo, owner/repo:QUANT or owner/repo/file.gguf."


def _path_of(name: str) -> tuple[str, bool]:
    """What stands behind the host, and whether there was one."""
    if (mirror := _mirror()) and name.startswith(f"{mirror}/"):
        return name[len(mirror) + 1 :], True
    hosted = _HUB.match(name)
    return (name[hosted.end() :], True) if hosted else (name, False)


def _mirror() -> str:
    """The address in HF_ENDPOINT, if there is one."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return endpoint if "://" in endpoint and split_address(endpoint) else ""


def _suffixes(text: str) -> tuple[str, str | None, str | None]:
    """The text, its @revision and its :QUANT, which may stand in either order."""
    revision = quant = None
    while found := re.search(r"([@:])([^@:]*)$", text):
        if found[1] == "@":
            revision = found[2]
        else:
            quant = found[2]
        text = text[: found.start()]
    return text, revision or None, quant or None


def _revision_and_path(rest: str) -> tuple[str, str]:
    """A revision of an address has no slash, but for refs/pr/N and refs/convert/x."""
    found = re.match(r"(refs/[^/]+/[^/]+|[^/]+)(?:/(.*))?$", rest)
    return (found[1], found[2] or "") if found else (rest, "")


def _file(path: str) -> str | None:
    """A file that can be a model; a folder of a tree is none."""
    return path if path.lower().endswith(".gguf") else None


def _checked(given: str, name: Name) -> Name:
    if not re.fullmatch(_OWNER_REPO, name.repo):
        raise UsageError(f"{given} names no repository. {_FORMS}")
    return name
