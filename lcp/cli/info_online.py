"""Models on a server, for `lcp info`: reads their headers, and lists the models of a repository.

It downloads no weights.
"""

import json
import re
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import quote, urlunsplit

from lcp import formatting
from lcp.cli import free_memory
from lcp.cli.info_page import VERDICTS
from lcp.cli.pull import find_on_hub
from lcp.errors import DownloadError, ModelNotFound, UsageError

if TYPE_CHECKING:
    from lcp.downloads.repo_files import RepoModel
    from lcp.modelfile.model_files import ModelFile, OpenFile


def is_address(name: str) -> bool:
    """Whether this looks like the web address of a GGUF file."""
    return bool(re.match(r"https?://[^?#]*\.gguf([?#]|$)", name, re.IGNORECASE))


def at_address(url: str, files: ExitStack) -> "ModelFile":
    """The model at a web address; `files` closes its connections."""
    from lcp.modelfile.model_files import open_model
    from lcp.network.urls import shown, split_address

    split = split_address(url)
    if split is None:
        raise UsageError(f"{shown(url)} is not a web address: its server or port is malformed.")
    folder, _, first = split.path.rpartition("/")

    def source(name: str) -> "OpenFile":
        beside = split._replace(path=f"{folder}/{quote(name, safe='%')}")
        return _source(urlunsplit(beside), files)

    return open_model(first, source)


def on_hub(name: str, files: ExitStack) -> "ModelFile":
    """The model on the Hugging Face Hub that `lcp pull` would download for this name."""
    from lcp.downloads import hub
    from lcp.modelfile.model_files import open_model

    repository, one, _ = find_on_hub(name, free_memory.room())
    folder, slash, first = one.path.rpartition("/")

    def source(part: str) -> "OpenFile":
        return _source(repository.url(folder + slash + part), files, hub.token())

    return open_model(first, source)


def is_repository(name: str) -> bool:
    """Whether a name means all models of a repository, not one of them."""
    from lcp.downloads import library, model_names
    from lcp.downloads.catalog import catalog

    if library.match_name(name, {*catalog(), *library.installed()}) or not library.is_remote(name):
        return False
    where = model_names.parse(name)
    return where.quant is None and where.path is None


def list_models(name: str, as_json: bool) -> None:
    """The models of a repository, each with its size and whether it fits this machine."""
    from lcp.downloads import hub, model_names
    from lcp.downloads.repo_files import models, rank
    from lcp.terminal.printout import Printout

    repository = hub.look_up(model_names.parse(name))
    room = free_memory.room()
    found = sorted(models(repository.files), key=lambda one: (rank(one.quant), one.path))
    if as_json:
        told = [
            {
                "name": one.path,
                "quant": one.quant,
                "size": one.size,
                "fits": _verdict(one, room) == "fits",
            }
            for one in found
        ]
        head = {"name": repository.name, "commit": repository.commit, "licence": repository.licence}
        sys.stdout.write(json.dumps({"repository": head, "models": told}, indent=2) + "\n")
        return
    if not found:
        raise ModelNotFound(
            f"{repository.name} has no GGUF files. Search for another: lcp pull --search WORDS"
        )
    page = Printout()
    page.title(repository.name, repository.licence)
    rows = [
        (
            one.quant or "",
            formatting.size(one.size),
            _verdict(one, room),
            one.path,
        )
        for one in found
    ]
    page.listing([("quant", "size", "here", "file"), *rows])
    first = next((one.quant for one in found if one.quant and not one.missing), None)
    if first:
        page.line(f"Details of one: lcp info {repository.name}:{first}", style="dim", indent=0)


def _verdict(one: "RepoModel", room: int | None) -> str:
    """Whether a model of a repository fits this machine, if the repository has all of it."""
    return "incomplete" if one.missing else VERDICTS[free_memory.verdict(one.size, room)]


def _source(url: str, files: ExitStack, token: str | None = None) -> "OpenFile":
    """A file on a server; ModelNotFound if there is none."""
    from lcp.downloads.remote_file import RemoteFile
    from lcp.modelfile.model_files import OpenFile

    file = files.enter_context(RemoteFile(url, token))
    try:
        return OpenFile(file.name, file.size, file.read)
    except DownloadError as error:
        if error.status == 404:
            raise ModelNotFound(str(error)) from error
        raise
