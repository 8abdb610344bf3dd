"""Finds the model that a name on the command line means; errors say which command to type next."""

import shlex
from typing import TYPE_CHECKING

from lcp.cli import server_lookup
from lcp.errors import ModelNotFound, NotHere, UsageError
from lcp.formatting import short

if TYPE_CHECKING:
    from lcp.downloads.library import Installed


def find(name: str) -> "Installed":
    """The model with this name or path. NotHere if `lcp pull` can download it."""
    from lcp.downloads import library

    try:
        return library.find(name)
    except NotHere as error:
        raise NotHere(f"{error} Download it: lcp pull {error.name}", error.name) from None
    except ModelNotFound as error:
        if not error.name:
            raise
        step = "lcp list shows the models here"
        if not error.name.lower().endswith(".gguf"):
            words = shlex.quote(short(error.name, 40))
            step += f", lcp pull the catalogue; lcp pull --search {words} searches the Hub"
        raise ModelNotFound(f"{error} {step}.") from None


def default() -> "Installed":
    """The model to use if none is named."""
    from lcp.downloads import library

    try:
        return library.default()
    except ModelNotFound as error:
        raise ModelNotFound(
            f"{error} lcp pull lists models to download; lcp pull {library.DEFAULT} gets the "
            "smallest one. To use a file: lcp chat path/to/model.gguf"
        ) from None


def is_model(word: str) -> bool:
    """Whether the first word of a command line is a model, not the start of a question.

    UsageError if it almost matches a known name: lcp asks rather than answers with another model.
    """
    from lcp.downloads import library

    if server_lookup.named(word) or library.is_model(word):
        return True
    if similar := library.similar(word):
        raise UsageError(
            f"There is no model called {word}. Did you mean {similar[0]}? "
            f"To ask the model just this word: lcp chat -p {word}"
        )
    return False
