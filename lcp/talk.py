"""Talk: line after line of a person, until Ctrl-D: a command to run, or a message to answer."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from lcp.chat import Chat
from lcp.errors import LcpError
from lcp.terminal.signals import quiet

if TYPE_CHECKING:
    from lcp.terminal.keyboard import Keyboard

# Runs a line that is a command, gives the text that the next line begins with; EOFError leaves.
Command = Callable[[Chat, str], str | None]


def talk(chat: Chat, keyboard: "Keyboard", command: Command) -> None:
    """The chat of a person at a terminal."""
    text, interrupted = "", False
    with quiet():  # between two prompts, too
        while True:
            try:
                if interrupted:
                    interrupted = False
                    chat.screen.notice("Ctrl-D or /exit leaves.")
                text = _line(chat, keyboard, command, text)
            except EOFError:
                return
            except KeyboardInterrupt:
                text, interrupted = "", True  # said above: here another one would end lcp


def _line(chat: Chat, keyboard: "Keyboard", command: Command, text: str) -> str:
    """One line that begins with `text`, and what comes of it; what the next one begins with."""
    said = ""
    try:
        chat.look_ahead(text)
        line = keyboard.read(text)
        if line.is_command:
            text = command(chat, line.text) or ""
            if chat.loading is None:
                chat.overflow.settle(chat.settings)
            return text
        if line.text.strip():
            said = line.text
            chat.ask_with_files(said)
            chat.say_status()
            chat.make_room()
    except LcpError as error:
        if chat.loading and chat.loading.done:
            chat.loading.result()  # a model that cannot be loaded ends the chat
        chat.screen.error(str(error))
        return said  # to be shortened or sent later
    return ""
