"""What the shell's Tab key offers: models, saved chats, personas, the values of settings.

The shell evaluates what it gets, so only names of harmless characters are offered. They have no
help texts, which would need the import of rich.

Two of typer's scripts have flaws that matter to lcp: bash ends a word at a colon, as in qwen3:4b;
zsh loads its script at the first Tab, which then completes nothing.
"""

import re
from collections.abc import Callable, Iterable
from itertools import islice

from lcp import paths
from lcp.errors import LcpError

_HARMLESS = re.compile(r"[\w.@/+][\w.@/+:-]*", re.ASCII)
CHATS = 50  # the last ones
# It asks as fish does, with the whole line, so that nothing is split at a colon. Bash itself keeps
# the part of the word before the colon, so that is removed from each completion.
_BASH = """
%(complete_func)s() {
  local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" word
  word="${line##*[[:space:]]}"
  COMPREPLY=($(env _TYPER_COMPLETE_ARGS="$line" _TYPER_COMPLETE_FISH_ACTION=get-args \\
    %(autocomplete_var)s=complete_fish %(prog_name)s | cut -f 1))
  case "$COMP_WORDBREAKS" in *:*) COMPREPLY=("${COMPREPLY[@]#"${word%%"${word##*:}"}"}") ;; esac
}

complete -o default -F %(complete_func)s %(prog_name)s
"""
_AT_ONCE = """
if [[ "$zsh_eval_context[-1]" == loadautofunc ]]; then %(complete_func)s "$@"; fi
"""


def mend_scripts() -> None:
    """Repair typer's scripts, before it installs or shows one."""
    from typer import _completion_shared as typers

    scripts = typers._completion_scripts
    scripts["bash"] = _BASH
    scripts["zsh"] = typers.COMPLETION_SCRIPT_ZSH + _AT_ONCE


def _offer(
    names: Callable[[], Iterable[str]], front: Callable[[str], str] = lambda begun: ""
) -> Callable[[str], list[str]]:
    """A completion: the names that begin with the typed text; none if they cannot be read. `front`
    gives what may come before each name, such as an address."""

    def complete(incomplete: str) -> list[str]:
        try:
            found = list(dict.fromkeys(names()))
        except (LcpError, OSError):
            return []
        begun = incomplete.removeprefix(before := front(incomplete))
        found = [before + n for n in found if n.lower().startswith(begun.lower())]
        return [n for n in found if _HARMLESS.fullmatch(n)]

    return complete


def _installed() -> Iterable[str]:
    from lcp.downloads import library

    return library.installed()


def _catalogue() -> Iterable[str]:
    from lcp.downloads.catalog import catalog

    return catalog()


def _servers() -> Iterable[str]:
    from lcp.servers.config import servers

    return servers(paths.config() / "config.toml")


def _models() -> Iterable[str]:
    """The models on this computer, then the servers, then the models of the catalogue."""
    return [*_installed(), *_servers(), *_catalogue()]


def _chats() -> Iterable[str]:
    """The names of saved chats, then their ids, then those of one-shots."""
    from lcp.session.store import Store, name_of

    store = Store(paths.sessions())
    chats = [*islice(store.chats(), CHATS)]
    others = [path for path in store.newest()[:CHATS] if path not in chats]
    return [*map(name_of, chats), "last", *(path.stem for path in [*chats, *others])]


def _personas() -> Iterable[str]:
    from lcp.settings import personas

    return personas(paths.config() / "config.toml")


def _front(begun: str) -> str:
    from lcp.downloads import model_names

    return model_names.front(begun)


def one_of(words: Iterable[str]) -> Callable[[str], list[str]]:
    """A completion: these words."""
    return _offer(lambda: words)


models = _offer(_models, _front)
installed = _offer(_installed, _front)
catalogue = _offer(_catalogue)
chats = _offer(_chats)
persona = _offer(_personas)
