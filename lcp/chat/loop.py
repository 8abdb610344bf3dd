"""Talk: line after line of a person, until Ctrl-D: a command to run, or a message to answer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lcp.chat.advice import with_advice
from lcp.chat.chat import Chat
from lcp.chat.status import Status
from lcp.errors import LcpError
from lcp.terminal.signals import quiet

if TYPE_CHECKING:
    from lcp.terminal.keyboard import Keyboard, TypedLine


@dataclass
class Talk:
    """The chat of a person at a terminal."""

    chat: Chat
    keyboard: "Keyboard"
    # runs a command; gives the text that the next line begins with, or the chat that takes over;
    # EOFError leaves
    command: Callable[[Chat, str], str | Chat | None]
    status: Status = field(init=False)
    _text: str = ""  # what the next line begins with
    _edited: str | None = None  # where the chat stood before /edit, until that is sent
    _reading: bool = False  # whether it is the person's turn
    _interrupted: bool = False

    def __post_init__(self) -> None:
        self.chat.typing, self.chat.person = self.keyboard.kept, True
        self._go_on_with(self.chat)
        if loading := self.chat.loading:
            loading.call_when_done(lambda: self.keyboard.fail(loading.error))

    def _go_on_with(self, chat: Chat) -> None:
        self.chat, self.status = chat, Status(chat)

    def run(self) -> None:
        """Until Ctrl-D."""
        with quiet():  # between two prompts, too
            while True:
                try:
                    if self._interrupted:
                        self._interrupted = False
                        self._go_back()
                    self._line()
                except EOFError:
                    return
                except KeyboardInterrupt:
                    self._interrupted = True  # told above: here another one would end lcp

    def _line(self) -> None:
        """One line, and what comes of it."""
        chat = self.chat
        try:
            # What is edited is perhaps only looked at: what follows it stays in the cache.
            chat.look_ahead(self._text, read=not self._edited)
            self._reading = True
            line = self.keyboard.read(self._text)
            self._reading, self._text = False, ""
            chat.drafting.drop()  # from here on nothing of it is read ahead
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
            self._text = line.text  # offered again where it is not answered
            chat.ask_with_files(line.text)
            self._text, self._edited = "", None
            chat.say_status()
            chat.make_room()
            chat.warn_of_files()

    def _go_back(self) -> None:
        """After a Ctrl-C; at the prompt it takes away what the line began with."""
        offered = self._text
        if self._reading:
            self._reading, self._text = False, ""
        if self._edited and not self._text:
            self.chat.go(self._edited)
            self._edited = None
            self.chat.screen.notice("The conversation is as it was before /edit.")
        elif self._text or not offered:
            self.chat.screen.notice("Ctrl-D or /exit leaves.")
