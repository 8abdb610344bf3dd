"""Command: one slash command, a row of the table in lcp.commands.command_table."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from lcp.chat.chat import Chat
from lcp.engine_interface import Progress
from lcp.errors import LcpError
from lcp.session.message import Turn
from lcp.terminal.signals import leave, stopping
from lcp.worker import Task

Result = TypeVar("Result")

Candidate = str | tuple[str, str]  # a word, or a word and its meaning
Run = Callable[[Chat, str], str | Chat | None]
Completes = Callable[[Chat, str], Iterable[Candidate]]


@dataclass(frozen=True)
class Command:
    """A slash command.

    `run` gets the chat and the text after the name; it returns the text to put into the next
    input line, the chat that replaces this one, or None. `candidates` completes the beginning of
    the text after the name.
    """

    name: str
    arguments: str
    meaning: str
    example: str
    run: Run
    candidates: Completes

    @property
    def help(self) -> str:
        """What /help NAME says."""
        return " ".join((self.run.__doc__ or "").split())


def command(
    name: str, arguments: str, meaning: str, example: str,
    candidates: Completes = lambda chat, begun: (),
) -> Callable[[Run], Command]:  # fmt: skip
    """Makes a slash command of a function; /help NAME prints its docstring and the example."""
    return lambda run: Command(name, arguments, meaning, example, run, candidates)


def turns_of(chat: Chat) -> list[Turn]:
    """The turns of this branch; LcpError if it has none."""
    if turns := chat.conversation.turns():
        return turns
    first = "; /branches lists the earlier turns" if chat.conversation.nodes else " first"
    raise LcpError(f"This chat is empty. Ask something{first}.")


def wait_for(chat: Chat, task: Task[Result], told: Callable[[Progress], str]) -> Result:
    """The result of a task of the engine, with its progress on the screen; Ctrl-C stops it."""
    with stopping(chat.engine.stop) as asked:
        try:
            for step in task:
                if asked:  # perhaps before it started
                    chat.engine.stop()
                if isinstance(step, Progress):
                    chat.screen.progress(told(step))
            return task.result()
        finally:
            chat.screen.clear_progress()
            leave(asked)
