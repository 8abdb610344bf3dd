"""Opens a text in the person's own editor, $VISUAL or $EDITOR."""

import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from lcp.errors import LcpError

USUAL = ("editor", "nano", "vi", "notepad")  # tried in this order where no variable is set


def edit(text: str) -> str:
    """The text after the editor is closed; it has the terminal until then. LcpError if there is
    no editor, or if it fails."""
    command = _command()
    editor = Path(command[0]).name
    try:
        handle, name = tempfile.mkstemp(prefix="lcp-", suffix=".md")  # its owner alone can read it
    except OSError as error:  # or no folder at all
        raise LcpError(
            f"lcp cannot create a file for {editor}: {error.strerror}. "
            "Set TMPDIR to a folder you can write to."
        ) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
        try:
            code = subprocess.call([*command, name])
        except OSError as error:
            raise LcpError(
                f"Cannot run {editor}: {error.strerror}. Set EDITOR to the editor you use."
            ) from error
        if code:
            raise LcpError(f"{editor} failed (exit code {code}); the text is unchanged.")
        edited = Path(name).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        why = error.strerror or error
        raise LcpError(f"Cannot edit the text: {why}. Is the disk full?") from error
    finally:
        with suppress(OSError):
            Path(name).unlink()
    return edited.replace("\r\n", "\n").removesuffix("\n")  # most editors add a line end


def _command() -> list[str]:
    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        command = shlex.split(chosen, posix=os.name == "posix")
    except ValueError as error:
        raise LcpError(f"EDITOR={chosen} has an unclosed quote. Close it.") from error
    command = command or [editor for editor in USUAL if shutil.which(editor)][:1]
    if not command:
        raise LcpError("lcp found no editor. Set EDITOR to the editor you use.")
    return command
