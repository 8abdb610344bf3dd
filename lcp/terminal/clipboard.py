"""The clipboard: by a tool of this computer, or through the terminal (OSC 52).

Over ssh the person's clipboard is where the terminal is, so the terminal is asked first. OSC 52
has no answer: nobody knows whether the terminal took the text, and many cut or drop long ones.
tmux and GNU screen stand between the two and pass on what is wrapped for them.
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
ASKED = "sent to the terminal, which may take it (OSC 52) or not"
PATIENCE_S = 5.0  # a tool that cannot reach its display may wait for ever
MOST = 74_994  # bytes: as base64 under the 100,000 characters that terminals take
SCREEN_MOST = 700  # characters that GNU screen passes on at once; of more it prints the rest


def copy(text: str, send: Callable[[str], bool], environ: Mapping[str, str] = os.environ) -> str:
    """Copy a text; how it was done. `send` writes a control sequence to the terminal, and says
    whether there is one. LcpError where neither a tool nor the terminal can."""
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
        raise LcpError(
            f"{len(data):,} bytes are too many for a terminal's clipboard ({MOST:,}), and no tool "
            "for it works here. /export FILE writes the chat to a file."
        )
    raise LcpError("No clipboard is here. Install wl-copy, xclip or xsel, or use /export FILE.")


def _ask_terminal(data: bytes, send: Callable[[str], bool], environ: Mapping[str, str]) -> bool:
    asking = f"\x1b]52;c;{base64.b64encode(data).decode()}\x07"
    return len(data) <= MOST and send(_through(asking, environ))


def _through(sequence: str, environ: Mapping[str, str]) -> str:
    """The sequence so that it comes to the terminal behind tmux or GNU screen, which over ssh
    are told by TERM alone."""
    term = environ.get("TERM", "")
    if "TMUX" in environ or term.startswith("tmux"):
        # It takes either the sequence itself (set-clipboard on), or passes on what is wrapped
        # (allow-passthrough; before 3.3 always).
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
    if command[0] == "clip.exe":  # the one that takes no UTF-8
        data = data.decode().encode("utf-16")
    try:
        # xclip stays in the background to serve the text: Ctrl-C here must not reach it, and its
        # output must not keep us waiting.
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
