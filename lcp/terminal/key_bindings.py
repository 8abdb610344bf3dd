"""Keys: what the keys of the line editor do, where prompt_toolkit's own meaning is not enough."""

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

# What a person should know: (keys, what they do). /help and the docs print it.
KEYS = (
    ("Enter", "sends"),
    ("Alt-Enter, Ctrl-J", "begins a new line (with vi keys Ctrl-J)"),
    ("Tab", "completes commands, their arguments, and paths after an @"),
    ("Right, Ctrl-E", "at the end of the line: takes what is suggested from earlier messages"),
    ("Up, Down, Ctrl-R", "earlier messages, searched with Ctrl-R"),
    ("Ctrl-X Ctrl-E", "opens the text in $VISUAL or $EDITOR (with vi keys also v)"),
    ("Ctrl-X p", "opens a long paste that stands folded; Backspace removes it"),
    ("Ctrl-C", "stops an answer; at the prompt clears the line (Ctrl-_ brings it back)"),
    ("Ctrl-D", "leaves, on an empty line"),
    ("Ctrl-Z", "stops lcp; `fg` brings it back"),
)


def bindings(
    pastes: LongPastes,
    edit: Callable[[KeyPressEvent], Awaitable[None]],
    given: Callable[[], bool],
) -> KeyBindings:
    """The keys; `edit` opens the line in an editor, `given` tells whether it began with a text
    that was not typed."""
    keys = KeyBindings()
    in_line = has_focus(DEFAULT_BUFFER)  # and not in the search of Ctrl-R

    @Condition
    def has_text() -> bool:
        return bool(get_app().current_buffer.text)

    @Condition
    def behind_cluster() -> bool:
        return graphemes.before(get_app().current_buffer.document) > 1

    @Condition
    def at_cluster() -> bool:
        return graphemes.behind(get_app().current_buffer.document) > 1

    @Condition
    def behind_paste() -> bool:
        return bool(pastes.at_end(get_app().current_buffer.document.text_before_cursor))

    @keys.add("enter", filter=in_line)
    def send(event: KeyPressEvent) -> None:
        """Take the completion that was chosen among several, or send the message."""
        buffer = event.current_buffer
        menu = buffer.complete_state
        if menu and menu.current_completion and len(menu.completions) > 1:
            buffer.complete_state = None
        else:
            buffer.validate_and_handle()

    @keys.add("tab", filter=in_line & (emacs_insert_mode | vi_insert_mode))
    def complete(event: KeyPressEvent) -> None:
        """Complete; behind the only completion there was, complete what follows."""
        menu = event.current_buffer.complete_state
        if menu and menu.current_completion and len(menu.completions) == 1:
            event.current_buffer.complete_state = None
        get_by_name("menu-complete").call(event)

    # Esc, then Enter, is what a vi person types to send.
    @keys.add("escape", "enter", filter=in_line & emacs_mode)
    @keys.add("c-j", filter=in_line)
    def new_line(event: KeyPressEvent) -> None:
        """Begin a new line."""
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=in_line & has_text & ~Condition(given))
    def clear(event: KeyPressEvent) -> None:
        """Clear the line. On an empty one, or one that was given, Ctrl-C is an interrupt."""
        buffer = event.current_buffer
        buffer.save_to_undo_stack()
        buffer.document = Document()
        event.app.vi_state.reset()

    @keys.add(Keys.BracketedPaste, filter=in_line)
    def paste(event: KeyPressEvent) -> None:
        """Insert what was pasted, folded when it is long. It is never a command: a blank before
        its slash says so, and is not sent."""
        buffer = event.current_buffer
        text = pastes.fold(event.data.replace("\r\n", "\n").replace("\r", "\n"))
        if text.startswith("/") and buffer.cursor_position == 0:
            text = " " + text
        buffer.insert_text(text)

    @keys.add("backspace", filter=in_line & behind_paste)
    @keys.add("c-w", filter=in_line & behind_paste)
    @keys.add("escape", "backspace", filter=in_line & emacs_mode & behind_paste)
    def remove_paste(event: KeyPressEvent) -> None:
        """Remove a folded paste whole: half a placeholder stands for nothing."""
        buffer = event.current_buffer
        buffer.delete_before_cursor(len(pastes.at_end(buffer.document.text_before_cursor)))

    @keys.add("c-x", "p", filter=in_line)
    def open_paste(event: KeyPressEvent) -> None:
        """Put the text of a folded paste in its place."""
        buffer = event.current_buffer
        if span := pastes.nearest(buffer.text, buffer.cursor_position):
            buffer.cursor_position = span[1]
            folded = buffer.delete_before_cursor(span[1] - span[0])
            buffer.insert_text(pastes.unfold(folded))

    # What a person sees as one character may be several. All else is prompt_toolkit's.

    @keys.add("left", filter=in_line & behind_cluster)
    @keys.add("c-b", filter=in_line & behind_cluster & emacs_mode)
    @keys.add("h", filter=in_line & behind_cluster & vi_navigation_mode)
    def over_the_last(event: KeyPressEvent) -> None:
        """Move to the left."""
        buffer = event.current_buffer
        buffer.cursor_position -= graphemes.before(buffer.document)

    @keys.add("right", filter=in_line & at_cluster)
    @keys.add("c-f", filter=in_line & at_cluster & emacs_mode)
    @keys.add("l", filter=in_line & at_cluster & vi_navigation_mode)
    def over_the_next(event: KeyPressEvent) -> None:
        """Move to the right."""
        buffer = event.current_buffer
        buffer.cursor_position += graphemes.behind(buffer.document)

    @keys.add("backspace", filter=in_line & behind_cluster & ~vi_navigation_mode)
    def remove_the_last(event: KeyPressEvent) -> None:
        """Remove what stands before the cursor."""
        buffer = event.current_buffer
        buffer.delete_before_cursor(graphemes.before(buffer.document))

    @keys.add("delete", filter=in_line & at_cluster)
    @keys.add("c-d", filter=in_line & at_cluster & emacs_mode)
    @keys.add("x", filter=in_line & at_cluster & vi_navigation_mode)
    def remove_the_next(event: KeyPressEvent) -> None:
        """Remove what stands behind the cursor."""
        buffer = event.current_buffer
        buffer.delete(graphemes.behind(buffer.document))

    keys.add("c-x", "c-e", filter=in_line)(edit)
    keys.add("v", filter=in_line & vi_navigation_mode)(edit)
    return keys
