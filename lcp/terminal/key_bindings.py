"""Key bindings of the line editor, where prompt_toolkit's own are not enough."""

import signal
from collections.abc import Awaitable, Callable

from prompt_toolkit.application import get_app
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import (
    Condition,
    emacs_insert_mode,
    emacs_mode,
    has_focus,
    vi_insert_mode,
    vi_navigation_mode,
)
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.key_binding.bindings.named_commands import get_by_name
from prompt_toolkit.keys import Keys

from lcp.terminal import graphemes
from lcp.terminal.long_pastes import LongPastes

# The keys that a person should know, and what they do. /help and the docs print it.
KEYS = (
    ("Enter", "send"),
    ("Alt-Enter, Ctrl-J", "new line (with vi keys Ctrl-J)"),
    ("Tab", "complete a command, its argument, or a path after @"),
    ("Right, Ctrl-E", "at the end of the line: accept the suggestion from earlier messages"),
    ("Up, Down, Ctrl-R", "earlier messages; Ctrl-R searches them"),
    ("Ctrl-X Ctrl-E", "edit the text in $VISUAL or $EDITOR (with vi keys also v)"),
    ("Ctrl-X p", "show the whole text of a long paste; Backspace removes it"),
    ("Ctrl-C", "stop the answer; at the prompt, clear the line (Ctrl-_ brings it back)"),
    ("Ctrl-D", "leave, on an empty line"),
    ("Ctrl-Z", "suspend lcp; `fg` resumes it"),
)
_IN_LINE = has_focus(DEFAULT_BUFFER)  # and not in the search of Ctrl-R


def bindings(
    pastes: LongPastes,
    edit: Callable[[KeyPressEvent], Awaitable[None]],
    suspend: Callable[[KeyPressEvent], Awaitable[None]],
    given: Callable[[], bool],
) -> KeyBindings:
    """All key bindings. `edit` opens the line in an external editor; `suspend` stops lcp until fg;
    `given` returns whether the line began with a text that was not typed."""
    keys = KeyBindings()
    _bind_line(keys, given)
    _bind_pastes(keys, pastes)
    _bind_graphemes(keys)
    keys.add("c-x", "c-e", filter=_IN_LINE)(edit)
    keys.add("v", filter=_IN_LINE & vi_navigation_mode)(edit)
    if hasattr(signal, "SIGTSTP"):
        keys.add("c-z")(suspend)
    return keys


def _bind_line(keys: KeyBindings, given: Callable[[], bool]) -> None:
    """Enter, new line, Tab and Ctrl-C."""

    @Condition
    def has_text() -> bool:
        return bool(get_app().current_buffer.text)

    @keys.add("enter", filter=_IN_LINE)
    def send(event: KeyPressEvent) -> None:
        """Accept the completion that is selected in the menu, or send the message."""
        buffer = event.current_buffer
        menu = buffer.complete_state
        if menu and menu.current_completion and len(menu.completions) > 1:
            buffer.complete_state = None
        else:
            buffer.validate_and_handle()

    @keys.add("tab", filter=_IN_LINE & (emacs_insert_mode | vi_insert_mode))
    def complete(event: KeyPressEvent) -> None:
        """Complete; after the only completion there was, complete what follows it."""
        menu = event.current_buffer.complete_state
        if menu and menu.current_completion and len(menu.completions) == 1:
            event.current_buffer.complete_state = None
        get_by_name("menu-complete").call(event)

    # With vi keys, Esc and then Enter sends.
    @keys.add("escape", "enter", filter=_IN_LINE & emacs_mode)
    @keys.add("c-j", filter=_IN_LINE)
    def new_line(event: KeyPressEvent) -> None:
        """Begin a new line."""
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=_IN_LINE & has_text & ~Condition(given))
    def clear(event: KeyPressEvent) -> None:
        """Clear the line. On an empty line, or a given one, Ctrl-C is an interrupt."""
        buffer = event.current_buffer
        buffer.save_to_undo_stack()
        buffer.document = Document()
        event.app.vi_state.reset()


def _bind_pastes(keys: KeyBindings, pastes: LongPastes) -> None:
    """Pasting, and the placeholders of long pastes."""

    @Condition
    def after_paste() -> bool:
        return bool(pastes.at_end(get_app().current_buffer.document.text_before_cursor))

    @keys.add(Keys.BracketedPaste, filter=_IN_LINE)
    def paste(event: KeyPressEvent) -> None:
        """Insert the pasted text, or a placeholder for a long one. A paste is never a command: a
        space before its slash marks it as a message, and is not sent."""
        buffer = event.current_buffer
        text = pastes.fold(event.data.replace("\r\n", "\n").replace("\r", "\n"))
        if text.startswith("/") and buffer.cursor_position == 0:
            text = " " + text
        buffer.insert_text(text)

    @keys.add("backspace", filter=_IN_LINE & after_paste)
    @keys.add("c-w", filter=_IN_LINE & after_paste)
    @keys.add("escape", "backspace", filter=_IN_LINE & emacs_mode & after_paste)
    def remove_paste(event: KeyPressEvent) -> None:
        """Remove a whole placeholder: half of one means nothing."""
        buffer = event.current_buffer
        buffer.delete_before_cursor(len(pastes.at_end(buffer.document.text_before_cursor)))

    @keys.add("c-x", "p", filter=_IN_LINE)
    def open_paste(event: KeyPressEvent) -> None:
        """Replace a placeholder by its text."""
        buffer = event.current_buffer
        if span := pastes.nearest(buffer.text, buffer.cursor_position):
            buffer.cursor_position = span[1]
            folded = buffer.delete_before_cursor(span[1] - span[0])
            buffer.insert_text(pastes.unfold(folded))


def _bind_graphemes(keys: KeyBindings) -> None:
    """Movement and deletion by grapheme, where one has several code points."""

    @Condition
    def after_grapheme() -> bool:
        return graphemes.length_before(get_app().current_buffer.document) > 1

    @Condition
    def at_grapheme() -> bool:
        return graphemes.length_after(get_app().current_buffer.document) > 1

    @keys.add("left", filter=_IN_LINE & after_grapheme)
    @keys.add("c-b", filter=_IN_LINE & after_grapheme & emacs_mode)
    @keys.add("h", filter=_IN_LINE & after_grapheme & vi_navigation_mode)
    def move_left(event: KeyPressEvent) -> None:
        """Move over the grapheme before the cursor."""
        buffer = event.current_buffer
        buffer.cursor_position -= graphemes.length_before(buffer.document)

    @keys.add("right", filter=_IN_LINE & at_grapheme)
    @keys.add("c-f", filter=_IN_LINE & at_grapheme & emacs_mode)
    @keys.add("l", filter=_IN_LINE & at_grapheme & vi_navigation_mode)
    def move_right(event: KeyPressEvent) -> None:
        """Move over the grapheme after the cursor."""
        buffer = event.current_buffer
        buffer.cursor_position += graphemes.length_after(buffer.document)

    @keys.add("backspace", filter=_IN_LINE & after_grapheme & ~vi_navigation_mode)
    def delete_before(event: KeyPressEvent) -> None:
        """Delete the grapheme before the cursor."""
        buffer = event.current_buffer
        buffer.delete_before_cursor(graphemes.length_before(buffer.document))

    @keys.add("delete", filter=_IN_LINE & at_grapheme)
    @keys.add("c-d", filter=_IN_LINE & at_grapheme & emacs_mode)
    @keys.add("x", filter=_IN_LINE & at_grapheme & vi_navigation_mode)
    def delete_after(event: KeyPressEvent) -> None:
        """Delete the grapheme after the cursor."""
        buffer = event.current_buffer
        buffer.delete(graphemes.length_after(buffer.document))
