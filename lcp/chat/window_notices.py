"""What a person reads about turns that left the context window."""

from collections.abc import Sequence

from lcp import formatting
from lcp.chat.overflow import Overflow
from lcp.engine_interface import Progress
from lcp.session.message import Turn
from lcp.session.window import Window
from lcp.settings import Settings

REREAD = 32  # tokens read again that are worth a notice
FILES_NAMED = 3  # files that a sentence names at most


def unseen(overflow: Overflow, settings: Settings | None = None) -> str:
    """A sentence on the turns that the model does not see or, with `settings`, will not see with
    the next question; "" if it sees all."""
    gone = overflow.numbered(overflow.unseen(settings))
    if not gone:
        return ""
    summary = overflow.conversation.summary()
    noted = summary and {turn.user.id for _, turn in gone} <= summary.covers
    note = ", only a note on them" if noted else ""
    back = f"{gone[0][0]} brings it back" if len(gone) == 1 else "N brings one back"
    return f"The model does not see {_named(gone)}{_files(gone)}{note}. /pin {back}."


def reading(
    overflow: Overflow, window: Window, progress: Progress, seconds: float, held: int
) -> str:
    """A line after the prompt was read: which turns left, and how much was read again; "" if only
    the question was read. `held`: tokens in the KV cache before."""
    told = _leaving(overflow, window)
    if told or progress.kept + REREAD < held:
        history = window.tokens - overflow.engine.count(window.messages[-1:])
        twice = max(0, history - progress.kept)  # the question is new, however long it is
        if twice > REREAD and not progress.moved:
            why = "" if told else ", because what comes before them has changed"
            if progress.lost > REREAD:
                why = ", because the server no longer had them in its cache"
            told.append(f"lcp re-read {twice:,} tokens of the chat in {seconds:.1f} s{why}.")
    return " ".join(told)


def _leaving(overflow: Overflow, window: Window) -> list[str]:
    summary = overflow.conversation.summary()
    if not set(window.newly_out) - (summary.covers if summary else frozenset()):
        return []  # no turn left, or the note on them was shown
    gone = overflow.numbered(overflow.unseen())
    alone = all(message.role == "system" for message in window.messages[:-1])
    seen = "sees only this question, not" if alone else "no longer sees"
    files = _files(overflow.numbered(window.newly_out))
    back = f"{gone[0][0]} brings it back" if len(gone) == 1 else "N keeps one"
    return [f"Context full: the model {seen} {_named(gone)}{files}. /pin {back}."]


def _files(turns: Sequence[tuple[int, Turn]]) -> str:
    """ " (with a.txt and b.txt)"; "" for turns without files."""
    files = [name for _, turn in turns for name in turn.user.files]
    return f" (with {formatting.listed(files, FILES_NAMED)})" if files else ""


def _named(turns: Sequence[tuple[int, Turn]]) -> str:
    """ "your first turn", "your first 6 turns", "turns 2, 4-6"."""
    numbers = [n for n, _ in turns]
    if numbers == [1]:
        return "your first turn"
    if numbers == list(range(1, len(numbers) + 1)):
        return f"your first {len(numbers)} turns"
    return f"{'turns' if numbers[1:] else 'turn'} {formatting.ranges(numbers)}"
