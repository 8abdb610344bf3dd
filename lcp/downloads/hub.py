"""Hub: what a repository on the Hugging Face Hub holds, and whether we may have it.

huggingface_hub asks the questions: it knows tokens, mirrors (HF_ENDPOINT) and the errors. It moves
no bytes here; see lcp.downloads.fetch. Every error of its becomes a sentence.
"""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lcp
from lcp.downloads import http, network
from lcp.downloads.filenames import File
from lcp.downloads.names import Name
from lcp.errors import DownloadError, ModelNotFound

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SECONDS = 15.0  # that a question may go without an answer


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str  # owner/name
    commit: str
    revision: str  # the name it was found by
    files: tuple[File, ...]
    licence: str
    gated: bool

    def url(self, path: str) -> str:
        """Where a file of it is asked for."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.name, path, revision=self.commit, endpoint=_api().endpoint)


@dataclass(frozen=True)
class Hit:
    """A repository that a search found."""

    name: str  # owner/name
    downloads: int  # of the last month
    parameters: int | None  # of its model, as far as the Hub knows
    gated: bool


def search(words: str, most: int) -> list[Hit]:
    """The repositories with GGUF files whose names have these words, the most downloaded first;
    DownloadError where the Hub cannot be asked."""
    api = _api()
    with _sentences(api, Name(words), ()):
        found = api.list_models(
            search=words, filter="gguf", sort="downloads", limit=most,
            expand=["downloads", "gated", "gguf"],
        )  # fmt: skip
        return [_hit(info) for info in found]


def look_up(name: Name, known: Iterable[str] = ()) -> Repository:
    """What the Hub has under this name; `known` repositories are suggested for a near miss.

    Sizes and hashes come from the tree: a mirror may leave them out of model_info. ModelNotFound
    when there is no such repository or revision, DownloadError when it cannot be had.
    """
    api = _api()
    with _sentences(api, name, known):
        info = api.model_info(name.repo, revision=name.revision, timeout=SECONDS)
        commit = str(info.sha)
        tree = api.list_repo_tree(name.repo, revision=commit, recursive=True)
        files = tuple(_file(entry) for entry in tree if hasattr(entry, "size"))
        if info.gated:
            api.auth_check(name.repo)  # the tree of a gated repository is public, its files not
    # As the Hub spells it; a renamed one stays under its old name, as with huggingface_hub.
    repo = info.id if info.id.lower() == name.repo.lower() else name.repo
    revision = name.revision or "main"
    return Repository(repo, commit, revision, files, _licence(info), bool(info.gated))


def _file(entry: Any) -> File:
    return File(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)


def _hit(info: Any) -> Hit:
    said = info.gguf if isinstance(getattr(info, "gguf", None), dict) else {}
    total = said.get("total")
    parameters = total if isinstance(total, int) and total > 0 else None
    return Hit(str(info.id), int(info.downloads or 0), parameters, bool(info.gated))


def _licence(info: Any) -> str:
    card = info.card_data or {}
    licence = card.get("license") or next(
        (tag[8:] for tag in info.tags or () if tag.startswith("license:")), ""
    )
    return str(card.get("license_name") or licence) if licence == "other" else str(licence)


def _api() -> "HfApi":
    """huggingface_hub over our connections, without its own downloads, reports and log."""
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # both are read when it is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    endpoint = network.endpoint()
    for variable in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):  # it dies at another value
        if not re.fullmatch(r"\s*\d*\s*", seconds := os.environ.get(variable, "")):
            raise DownloadError(
                f"{variable}={seconds} is not a number of seconds. Set it to one, or unset it."
            )
    from huggingface_hub import HfApi

    from lcp.downloads import client

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    client.install(SECONDS)
    return HfApi(
        endpoint,
        token=network.token() or False,
        library_name="lcp",
        library_version=lcp.__version__,
    )


@contextmanager
def _sentences(api: "HfApi", name: Name, known: Iterable[str]) -> Iterator[None]:
    """The errors of huggingface_hub as ours, each ending with the next step."""
    from huggingface_hub import errors

    host = http.host(api.endpoint)
    try:
        yield
    except errors.HFValidationError:
        raise ModelNotFound(
            f"{name.repo} cannot be a repository. Write owner/repo, as in its address."
        ) from None
    except errors.OfflineModeIsEnabled:
        raise DownloadError(
            f"HF_HUB_OFFLINE is set, so nobody is asked for {name}. Unset it and run this again."
        ) from None
    except errors.GatedRepoError:
        raise DownloadError(_gated(api, name)) from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFound(_no_such(api, name, known)) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFound(
            f"{name.repo} has no revision {name.revision}. Leave it out to get the newest."
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise DownloadError(
                f"{host} does not accept your token. Make another one at "
                f"{api.endpoint}/settings/tokens and put it into HF_TOKEN, or unset it."
            ) from None
        said = f" ({error.server_message})" if error.server_message else ""
        raise DownloadError(
            f"{host} answers {status}{said} when asked for {name.repo}. Try again later."
        ) from None
    # a page of a proxy, a server of another kind, redirects in circles
    except (ValueError, KeyError, TypeError, errors.HTTPError):  # type: ignore[attr-defined]
        raise DownloadError(
            f"{host} does not answer as a Hub does. Check HF_ENDPOINT, and whether a proxy "
            "wants a login."
        ) from None


def _gated(api: "HfApi", name: Name) -> str:
    page = f"{api.endpoint}/{name.repo}"
    if network.token():
        return (
            f"{name.repo} is gated and your token's account is not let in yet. "
            f"Ask for access at {page} and run this again."
        )
    return (
        f"{name.repo} is gated. Accept its terms at {page}, make a token at "
        f"{api.endpoint}/settings/tokens and put it into HF_TOKEN."
    )


def _no_such(api: "HfApi", name: Name, known: Iterable[str]) -> str:
    who = "that your token may see" if network.token() else "that everybody may see"
    sentence = f"There is no repository {name.repo} {who}."
    if near := _near(api, name, known):
        return f"{sentence} Did you mean {near}?"
    return f"{sentence} Check the spelling; for a private one, put a token into HF_TOKEN."


def _near(api: "HfApi", name: Name, known: Iterable[str]) -> str | None:
    """A repository that this name misspells: one of the catalogue, or one the Hub finds."""

    def nearest(repos: Iterable[str], cutoff: float) -> str | None:
        others = [repo for repo in repos if repo.lower() != name.repo.lower()]
        close = difflib.get_close_matches(name.repo, others, 1, cutoff)
        return close[0] if close else None

    if near := nearest(known, 0.8):
        return near
    with suppress(Exception):  # it is a courtesy; whatever fails, the error said is the first one
        wanted = name.repo.partition("/")[2].removesuffix("-GGUF")
        return nearest((model.id for model in api.list_models(search=wanted, limit=5)), 0)
    return None
