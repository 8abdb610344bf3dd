"""Command: one slash command, as a row of the table that the files of this room fill."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lcp.chat.chat import Chat

Candidate = str | tuple[str, str]  # a word, or one with its meaning


@dataclass(frozen=True)
class Command:
    """`run` gets the chat and the text after the name; it may give what the next line begins
    with, or the chat that takes over. `candidates` gives what that text may be, from its
    beginning."""

    group: str  # the title that /help lists it under
    name: str
    arguments: str
    meaning: str
    run: Callable[[Chat, str], str | Chat | None]
    candidates: Callable[[Chat, str], Iterable[Candidate]] = lambda chat, begun: ()
