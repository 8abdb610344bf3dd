"""Completion: what Tab offers: command names, their arguments, and paths after an @.

It knows none of them: the chat passes in the commands, and functions for arguments and paths.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from lcp.terminal.clean import clean

# From the beginning of an argument to the words that may follow, each alone or with its meaning.
# Words that begin differently are ignored.
CompletionWords = Callable[[str], Iterable[str | tuple[str, str]]]

_COMMAND = re.compile(r"/(\S*)(?:\s+(.*))?")
_MENTION = re.compile(r'(?:^|[\s(])@("[^"\n]*|[^\s"]*)$')


class LineCompleter(Completer):
    """Completes commands at the beginning of a line, and paths after an @ anywhere in it."""

    def __init__(
        self,
        commands: Mapping[str, tuple[str, CompletionWords]],
        paths: Callable[[str], Iterable[str]],
    ) -> None:
        """`commands`: name -> (meaning, words for its argument). `paths`: from the text after an @
        to paths, in quotes where they need them."""
        self._commands = commands
        self._paths = paths

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        if command := _COMMAND.fullmatch(line):
            name, argument = command[1], command[2]
            if argument is None and not line[-1].isspace():
                names = ((known, meaning) for known, (meaning, _) in self._commands.items())
                yield from _beginning(name, names)
            elif name in self._commands:
                _, candidates = self._commands[name]
                yield from _beginning(argument or "", candidates(argument or ""))
        elif mention := _MENTION.search(document.current_line_before_cursor):
            for path in self._paths(mention[1]):  # with a blank in it, it begins with a quote
                yield Completion(path, start_position=-len(mention[1]))


def _beginning(typed: str, words: Iterable[str | tuple[str, str]]) -> Iterable[Completion]:
    for candidate in words:
        word, meaning = candidate if isinstance(candidate, tuple) else (candidate, "")
        if word.startswith(typed) and word != typed:
            yield Completion(word, start_position=-len(typed), display_meta=clean(meaning))
