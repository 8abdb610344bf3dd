"""Tells whether the first word of a command line is a model."""

from lcp.cli import server_lookup
from lcp.errors import UsageError


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
