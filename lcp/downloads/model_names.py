"""Names of models on the Hugging Face Hub and at Ollama: owner/repo:QUANT, addresses, name:tag.

Only parses; it does not check that there is such a model.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from lcp.downloads.repo_files import normal, quant_of
from lcp.errors import UsageError
from lcp.network.urls import split_address

_OWNER_REPO = r"\w[\w.-]*/\w[\w.-]*"  # ./x.gguf and a/../x.gguf are paths
_REMOTE = re.compile(
    rf"{_OWNER_REPO}/?(@[\w.-]+)?(:[\w.-]+)?(@[\w.-]+)?$"
    rf"|{_OWNER_REPO}(@[\w.-]+)?(/(?!\.\.?/)[^/\n]+)*/[^/\n]+\.gguf(@[\w.-]+)?$",
    re.IGNORECASE,
)
# Commands that are often copied together with a name, from web pages and manuals.
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
    """The parts of a name on the Hub."""

    repo: str  # owner/name
    quant: str | None = None
    path: str | None = None  # a file in the repository
    revision: str | None = None  # a branch, a tag or a commit

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        what = f"/{self.path}" if self.path else f":{self.quant}" if self.quant else ""
        return f"{self.repo}{what}{at}"


def is_remote(name: str) -> bool:
    """Whether a name has the form of a repository, or is an address of the Hub."""
    rest, address = _path_of(plain(name))
    return address or (bool(_REMOTE.match(rest)) and not is_ollama(name))


def is_ollama(name: str) -> bool:
    """Whether a name has the form of a model in Ollama's registry."""
    return bool(_OLLAMA.match(plain(name)))


def plain(name: str) -> str:
    """The name without a command that was copied with it."""
    return _COMMAND.sub("", name.strip(), count=1).strip()


def spellings(name: str) -> list[str]:
    """The names under which this model may be listed, the likeliest first: Ollama omits its own
    host, the user `library` and the tag `latest`."""
    bare = plain(name)
    short = _OLLAMA.sub("", bare, count=1)
    tagged = short if ":" in short.rpartition("/")[2] else f"{short}:latest"
    hub = [str(parse(bare))] if is_remote(bare) and "/" in _path_of(bare)[0].strip("/") else []
    return list(dict.fromkeys([bare, short, tagged, *hub]))


def front(name: str) -> str:
    """The part of an address before owner/repo, or before Ollama's name."""
    found = _HUB.match(name) or _OLLAMA.match(name)
    return found[0] if found else ""


def parse(name: str) -> Name:
    """Parse owner/repo, owner/repo:QUANT or owner/repo/file.gguf, each with or without @revision,
    or an address as a browser shows it; UsageError for any other form."""
    rest, address = _path_of(plain(name))
    shown = None  # the file whose panel is open on the web page
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
        raise UsageError(f"{name} is not a model file. {_FORMS}")
    quant = None if file or (quant or "").lower() == "latest" else quant and normal(quant)
    return _checked(name, Name(f"{owner}/{repo}", quant, file or None, revision or later))


_FORMS = "Write owner/repo, owner/repo:QUANT or owner/repo/file.gguf."


def _path_of(name: str) -> tuple[str, bool]:
    """The part after the host, and whether there was a host."""
    if (mirror := _mirror()) and name.startswith(f"{mirror}/"):
        return name[len(mirror) + 1 :], True
    hosted = _HUB.match(name)
    return (name[hosted.end() :], True) if hosted else (name, False)


def _mirror() -> str:
    """The address in HF_ENDPOINT, if there is one."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return endpoint if "://" in endpoint and split_address(endpoint) else ""


def _suffixes(text: str) -> tuple[str, str | None, str | None]:
    """The text without its @revision and its :QUANT, in either order; then these two."""
    revision = quant = None
    while found := re.search(r"([@:])([^@:]*)$", text):
        if found[1] == "@":
            revision = found[2]
        else:
            quant = found[2]
        text = text[: found.start()]
    return text, revision or None, quant or None


def _revision_and_path(rest: str) -> tuple[str, str]:
    """Split at the first slash, except that refs/pr/N and refs/convert/x are one revision."""
    found = re.match(r"(refs/[^/]+/[^/]+|[^/]+)(?:/(.*))?$", rest)
    return (found[1], found[2] or "") if found else (rest, "")


def _file(path: str) -> str | None:
    """The path, if it is that of a GGUF file."""
    return path if path.lower().endswith(".gguf") else None


def _checked(given: str, name: Name) -> Name:
    if not re.fullmatch(_OWNER_REPO, name.repo):
        raise UsageError(f"{given} is not the name of a repository. {_FORMS}")
    return name
