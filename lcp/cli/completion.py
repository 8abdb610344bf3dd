"""What the shell's Tab key offers: models, saved chats, personas.

The shell evaluates what it gets, and help texts would cost the import of rich: only names of
harmless characters are offered, without a word on them.
"""

import re
from collections.abc import Callable, Iterable

from lcp import paths
from lcp.errors import LcpError

_HARMLESS = re.compile(r"[\w.@/+][\w.@/+:-]*", re.ASCII)
CHATS = 50  # the last ones


def _offer(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """A completion: those of the names that begin so; none where they cannot be read."""

    def complete(incomplete: str) -> list[str]:
        try:
            found = list(dict.fromkeys(names()))
        except (LcpError, OSError):
            return []
        return [n for n in found if n.startswith(incomplete) and _HARMLESS.fullmatch(n)]

    return complete


def _models() -> Iterable[str]:
    """Those that are here, then the catalogue's."""
    from lcp.downloads import library
    from lcp.downloads.catalog import catalog

    return [*library.installed(), *catalog()]


def _chats() -> Iterable[str]:
    """The names of saved chats, then their ids."""
    from lcp.session.store import Store, name_of

    newest = Store(paths.sessions()).newest()[:CHATS]
    return [*map(name_of, newest), "last", *(path.stem for path in newest)]


def _personas() -> Iterable[str]:
    from lcp.settings import personas

    return personas(paths.config() / "config.toml")


models = _offer(_models)
chats = _offer(_chats)
persona = _offer(_personas)
