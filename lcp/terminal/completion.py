"""Completion: what may follow in the line, when Tab is pressed: the names of commands, what they
take, and paths after an @. It knows none of them: each is a function it is given.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

# From what is typed of it to the words that may be meant; those that begin otherwise are ignored.
Candidates = Callable[[str], Iterable[str]]

_COMMAND = re.compile(r"/(\S*)(?:\s+(.*))?")
_MENTION = re.compile(r'(?:^|[\s(])@("[^"\n]*|[^\s"]*)$')


class Words(Completer):
    """Commands at the beginning of a line, paths behind an @ anywhere in it."""

    def __init__(self, commands: Mapping[str, Candidates], paths: Candidates) -> None:
        """`commands`: name -> candidates for its whole argument. `paths`: candidates for what
        may stand behind an @, in quotes where it must."""
        self._commands = commands
        self._paths = paths

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        if command := _COMMAND.fullmatch(line):
            name, argument = command[1], command[2]
            if argument is None and not line[-1].isspace():
                yield from _beginning(name, self._commands)
            elif name in self._commands:
                yield from _beginning(argument or "", self._commands[name](argument or ""))
        elif mention := _MENTION.search(document.current_line_before_cursor):
            for path in self._paths(mention[1]):  # with a blank in it, it begins with a quote
                yield Completion(path, start_position=-len(mention[1]))


def _beginning(typed: str, words: Iterable[str]) -> Iterable[Completion]:
    for word in words:
        if word.startswith(typed) and word != typed:
            yield Completion(word, start_position=-len(typed))
