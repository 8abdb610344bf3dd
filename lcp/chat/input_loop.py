"""The loop of a chat: it reads a line, and runs a command or answers a message, until Ctrl-D."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lcp.chat.chat import Chat
from lcp.chat.error_advice import with_advice
from lcp.chat.toolbar_text import ToolbarText
from lcp.errors import LcpError
from lcp.terminal.signals import quiet

if TYPE_CHECKING:
    from lcp.terminal.keyboard import Keyboard, TypedLine


@dataclass
class InputLoop:
    """A person at a terminal and the current chat."""

    chat: Chat
    keyboard: "Keyboard"
    # Runs a command. It may give the text that the next line begins with, or the chat that takes
    # over; EOFError leaves.
    command: Callable[[Chat, str], str | Chat | None]
    status: ToolbarText = field(init=False)
    _text: str = ""  # the next line begins with it
    _edited: str | None = None  # the head before /edit, until the line is sent
    _reading: bool = False  # whether the person types
    _interrupted: bool = False

    def __post_init__(self) -> None:
        self.chat.typing, self.chat.person = self.keyboard.kept, True
        self._go_on_with(self.chat)
        if loading := self.chat.loading:
            loading.call_when_done(lambda: self.keyboard.fail(loading.error))

    def _go_on_with(self, chat: Chat) -> None:
        self.chat, self.status = chat, ToolbarText(chat)

    def run(self) -> None:
        """Run until Ctrl-D."""
        with quiet():  # also between two prompts
            while True:
                try:
                    if self._interrupted:
                        self._interrupted = False
                        self._go_back()
                    self._line()
                except EOFError:
                    return
                except KeyboardInterrupt:
                    self._interrupted = True  # handled above: here another Ctrl-C would end lcp

    def _line(self) -> None:
        """Read one line and carry it out."""
        chat = self.chat
        try:
            # /edit may be taken back: the turns after it stay in the cache.
            chat.look_ahead(self._text, read=not self._edited)
            self._reading = True
            line = self.keyboard.read(self._text)
            self._reading, self._text = False, ""
            chat.typed.drop()  # the line is complete: stop reading it ahead
            with self.keyboard.ahead():
                self._do(line)
        except LcpError as error:
            if chat.loading and chat.loading.error:
                raise  # a model that cannot be loaded ends the chat
            chat.screen.error(with_advice(error))

    def _do(self, line: "TypedLine") -> None:
        chat = self.chat
        if line.is_command:
            head = chat.conversation.head
            came = self.command(chat, line.text)
            if isinstance(came, Chat):
                self._go_on_with(chat := came)
            self._text = came if isinstance(came, str) else ""
            self._edited = head if self._text and head != chat.conversation.head else None
            if chat.loading is None:
                chat.overflow.settle(chat.settings)
        elif line.text.strip():
            self._text = line.text  # comes back if it is not answered
            chat.ask_with_files(line.text)
            self._text, self._edited = "", None
            chat.say_status()
            chat.make_room()
            chat.warn_of_files()
            chat.engine.measure_speed(chat.services.free_memory)

    def _go_back(self) -> None:
        """Do what Ctrl-C means; at the prompt it clears the text that the line began with."""
        offered = self._text
        if self._reading:
            self._reading, self._text = False, ""
        if self._edited and not self._text:
            self.chat.go(self._edited)
            self._edited = None
            self.chat.screen.notice("The chat is as it was before /edit.")
        elif self._text or not offered:
            self.chat.screen.notice("Ctrl-D or /exit leaves.")
