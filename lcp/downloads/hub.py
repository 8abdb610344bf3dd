"""The Hugging Face Hub: search it, list the files of a repository, check access; the token.

Requests go through huggingface_hub, which knows the API and mirrors (HF_ENDPOINT). Its errors
become sentences. Files are downloaded by lcp.downloads.download instead.
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
from lcp.downloads.model_names import Name
from lcp.downloads.repo_files import RepoFile
from lcp.errors import DownloadError, ModelNotFound
from lcp.network.urls import host, shown, split_address

if TYPE_CHECKING:
    from huggingface_hub import HfApi

HUB = "https://huggingface.co"
TIMEOUT = 15.0  # seconds without an answer
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str  # owner/name
    commit: str
    revision: str  # the branch, tag or commit that was asked for
    files: tuple[RepoFile, ...]
    licence: str
    gated: bool

    def url(self, path: str) -> str:
        """The address of one of its files."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.name, path, revision=self.commit, endpoint=_api().endpoint)


@dataclass(frozen=True)
class SearchResult:
    """A repository that a search found."""

    name: str  # owner/name
    downloads: int  # in the last month
    parameters: int | None  # of its model; None if the Hub does not know
    gated: bool


def search(words: str, most: int) -> list[SearchResult]:
    """The repositories with GGUF files whose names contain these words, most downloaded first."""
    api = _api()
    with _sentences(api, Name(words), ()):
        found = api.list_models(
            search=words, filter="gguf", sort="downloads", limit=most,
            expand=["downloads", "gated", "gguf"],
        )  # fmt: skip
        return [_search_result(info) for info in found]


def look_up(name: Name, known: Iterable[str] = ()) -> Repository:
    """The repository of this name; `known` repositories are suggested if it is misspelled.

    Sizes and hashes come from the tree: a mirror may leave them out of model_info. ModelNotFound
    if there is no such repository or revision, DownloadError if it is not accessible.
    """
    api = _api()
    with _sentences(api, name, known):
        info = api.model_info(name.repo, revision=name.revision, timeout=TIMEOUT)
        commit = str(info.sha)
        tree = api.list_repo_tree(name.repo, revision=commit, recursive=True)
        files = tuple(_file(entry) for entry in tree if hasattr(entry, "size"))
        if info.gated:
            api.auth_check(name.repo)  # the tree of a gated repository is public, its files not
    # Spelled as the Hub does; a renamed one keeps the name asked for, as in huggingface_hub.
    repo = info.id if info.id.lower() == name.repo.lower() else name.repo
    revision = name.revision or "main"
    return Repository(repo, commit, revision, files, _licence(info), bool(info.gated))


def endpoint() -> str:
    """The address of the Hub: HF_ENDPOINT, or huggingface.co."""
    given = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if not given:
        return HUB
    split = split_address(given)
    if split is None or split.scheme not in ("http", "https"):
        raise DownloadError(
            f"HF_ENDPOINT={shown(given)} is not a web address. "
            f"Set it to one such as {HUB}, or unset it."
        )
    return given


def token() -> str | None:
    """The access token: HF_TOKEN, or the one that `hf auth login` saved."""
    import huggingface_hub
    from huggingface_hub import constants

    given = next(((n, os.environ[n]) for n in _TOKENS if os.environ.get(n)), None)
    where = given[0] if given else f"The file {constants.HF_TOKEN_PATH}"
    try:
        found = given[1] if given else huggingface_hub.get_token()
    except UnicodeDecodeError:
        found = "\0"
    except OSError as error:
        raise DownloadError(
            f"The Hugging Face token in {constants.HF_TOKEN_PATH} cannot be read: "
            f"{error.strerror}. Fix the file, or set HF_TOKEN."
        ) from None
    found = (found or "").strip()
    if found and not re.fullmatch("[!-~]+", found):
        raise DownloadError(
            f"{where} does not contain a token: a token is one word of ASCII letters and digits, "
            f"such as hf_…. Copy it again from {HUB}/settings/tokens."
        )
    return found or None


def _file(entry: Any) -> RepoFile:
    return RepoFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)


def _search_result(info: Any) -> SearchResult:
    gguf_facts = info.gguf if isinstance(getattr(info, "gguf", None), dict) else {}
    total = gguf_facts.get("total")
    parameters = total if isinstance(total, int) and total > 0 else None
    return SearchResult(str(info.id), int(info.downloads or 0), parameters, bool(info.gated))


def _licence(info: Any) -> str:
    card = info.card_data or {}
    licence = card.get("license") or next(
        (tag[8:] for tag in info.tags or () if tag.startswith("license:")), ""
    )
    return str(card.get("license_name") or licence) if licence == "other" else str(licence)


def _api() -> "HfApi":
    """huggingface_hub with our connections, without its own downloads, telemetry and log."""
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # both are read when it is imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    address = endpoint()
    for variable in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):  # it crashes otherwise
        if not re.fullmatch(r"\s*\d*\s*", seconds := os.environ.get(variable, "")):
            raise DownloadError(
                f"{variable}={seconds} is not a number of seconds. Set it to one, or unset it."
            )
    from huggingface_hub import HfApi

    from lcp.downloads import hub_client

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    hub_client.install(TIMEOUT)
    return HfApi(
        address,
        token=token() or False,
        library_name="lcp",
        library_version=lcp.__version__,
    )


@contextmanager
def _sentences(api: "HfApi", name: Name, known: Iterable[str]) -> Iterator[None]:
    """Turn the errors of huggingface_hub into ours."""
    from huggingface_hub import errors

    server = host(api.endpoint)
    try:
        yield
    except errors.HFValidationError:
        raise ModelNotFound(
            f"{name.repo} is not a valid repository name. Write owner/repo, as in its address."
        ) from None
    except errors.OfflineModeIsEnabled:
        raise DownloadError(
            f"HF_HUB_OFFLINE is set, so lcp cannot look up {name}. Unset it and run this again."
        ) from None
    except errors.GatedRepoError:
        raise DownloadError(_gated(api, name)) from None
    except errors.RepositoryNotFoundError:
        raise ModelNotFound(_no_such(api, name, known)) from None
    except errors.RevisionNotFoundError:
        raise ModelNotFound(
            f"{name.repo} has no revision {name.revision}. Leave it out to get the newest one."
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise DownloadError(
                f"{server} does not accept your token. Create a new one at "
                f"{shown(api.endpoint)}/settings/tokens and set HF_TOKEN to it, or unset HF_TOKEN."
            ) from None
        message = f" ({error.server_message})" if error.server_message else ""
        raise DownloadError(
            f"{server} answered {status}{message} for {name.repo}. Try again later."
        ) from None
    # a web page of a proxy, a server of another kind, a redirect loop
    except (ValueError, KeyError, TypeError, errors.HTTPError):  # type: ignore[attr-defined]
        raise DownloadError(
            f"{server} does not answer like the Hugging Face Hub. Check HF_ENDPOINT, and whether "
            "a proxy requires a login."
        ) from None


def _gated(api: "HfApi", name: Name) -> str:
    page = f"{shown(api.endpoint)}/{name.repo}"
    if token():
        return (
            f"{name.repo} is gated and your account has no access yet. "
            f"Request it at {page}, then run this again."
        )
    return (
        f"{name.repo} is gated. Accept its terms at {page}, create a token at "
        f"{shown(api.endpoint)}/settings/tokens and set HF_TOKEN to it."
    )


def _no_such(api: "HfApi", name: Name, known: Iterable[str]) -> str:
    who = "that your token can see" if token() else "that is public"
    sentence = f"There is no repository {name.repo} {who}."
    if near := _near(api, name, known):
        return f"{sentence} Did you mean {near}?"
    return f"{sentence} Check the spelling; for a private one, set HF_TOKEN."


def _near(api: "HfApi", name: Name, known: Iterable[str]) -> str | None:
    """The repository that this name may misspell: a known one, or one that the Hub finds."""

    def nearest(repos: Iterable[str], cutoff: float) -> str | None:
        others = [repo for repo in repos if repo.lower() != name.repo.lower()]
        close = difflib.get_close_matches(name.repo, others, 1, cutoff)
        return close[0] if close else None

    if near := nearest(known, 0.8):
        return near
    with suppress(Exception):  # only a suggestion: if this fails, the first error counts
        wanted = name.repo.partition("/")[2].removesuffix("-GGUF")
        return nearest((model.id for model in api.list_models(search=wanted, limit=5)), 0)
    return None
