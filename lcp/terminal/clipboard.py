"""Copies a text to the clipboard, with a program such as xclip or through the terminal (OSC 52).

Over ssh the clipboard is that of the terminal's computer, so the terminal is asked first. OSC 52
has no reply: lcp cannot know whether the terminal took the text, and many terminals cut or drop
long ones. tmux and GNU screen pass a sequence on to their own terminal only if it is wrapped.
"""

import base64
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping

from lcp.errors import LcpError

TOOLS = (
    ("pbcopy",),
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
    ("clip.exe",),
)
TMUX = ("tmux", "load-buffer", "-w", "-")  # -w: and into the clipboard of its own terminal
ASKED = "sent to the terminal (OSC 52); some terminals ignore it"
PATIENCE_S = 5.0  # a program that cannot reach its display may wait forever
MOST = 74_994  # bytes; as base64 just under the 100,000 characters that terminals take
SCREEN_MOST = 700  # characters GNU screen passes on at once; it prints the rest


class ClipboardError(LcpError):
    """The text could not be copied."""


def copy(text: str, send: Callable[[str], bool], environ: Mapping[str, str] = os.environ) -> str:
    """Copy a text; returns how, as the end of a sentence. `send` writes a control sequence to the
    terminal and returns whether there is one. ClipboardError if neither way works."""
    data = text.encode("utf-8", "replace")
    far = "SSH_CONNECTION" in environ or "SSH_TTY" in environ
    tools = [TMUX] if "TMUX" in environ else []
    if far and not tools and _ask_terminal(data, send, environ):
        return ASKED
    for command in [*tools, *TOOLS] if far else [*TOOLS, *tools]:
        if _runs(command, data):
            return f"copied with {command[0]}"
    if _ask_terminal(data, send, environ):
        return ASKED
    if len(data) > MOST:
        raise ClipboardError(
            f"The text has {len(data):,} bytes; a terminal takes at most {MOST:,} for its "
            "clipboard. Install wl-copy, xclip or xsel"
        )
    raise ClipboardError("lcp found no clipboard. Install wl-copy, xclip or xsel")


def _ask_terminal(data: bytes, send: Callable[[str], bool], environ: Mapping[str, str]) -> bool:
    asking = f"\x1b]52;c;{base64.b64encode(data).decode()}\x07"
    return len(data) <= MOST and send(_through(asking, environ))


def _through(sequence: str, environ: Mapping[str, str]) -> str:
    """The sequence, wrapped so that tmux or GNU screen passes it on. Over ssh only TERM tells
    that one of them is running."""
    term = environ.get("TERM", "")
    if "TMUX" in environ or term.startswith("tmux"):
        # tmux either takes the sequence itself (set-clipboard on), or passes on the wrapped one
        # (allow-passthrough; always before 3.3).
        wrapped = sequence.replace("\x1b", "\x1b\x1b")
        return f"{sequence}\x1bPtmux;{wrapped}\x1b\\"
    if "STY" in environ or term.startswith("screen"):
        starts = range(0, len(sequence), SCREEN_MOST)
        return "".join(f"\x1bP{sequence[i : i + SCREEN_MOST]}\x1b\\" for i in starts)
    return sequence


def _runs(command: tuple[str, ...], data: bytes) -> bool:
    tool = shutil.which(command[0])
    if tool is None:
        return False
    if command[0] == "clip.exe":  # it does not take UTF-8
        data = data.decode().encode("utf-16")
    try:
        # xclip stays in the background to serve the text: Ctrl-C must not reach it, and lcp must
        # not wait for the end of its output.
        done = subprocess.run(
            [tool, *command[1:]],
            input=data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
