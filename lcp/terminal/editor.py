"""Editor: a text edited in the person's own editor, $VISUAL or $EDITOR."""

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
    """The text as it is when the editor is closed; LcpError when there is no editor, or when it
    says that it failed. Blocks, and the editor has the terminal meanwhile."""
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
                f"{editor} cannot be run ({error.strerror}). Set EDITOR to the one you use."
            ) from error
        if code:
            raise LcpError(f"{editor} ended with code {code}; the text is as it was. Try again.")
        edited = Path(name).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise LcpError(f"The text cannot be edited: {error}. Make room on the disk.") from error
    finally:
        with suppress(OSError):
            Path(name).unlink()
    return edited.replace("\r\n", "\n").removesuffix("\n")  # most editors add a line end


def _command() -> list[str]:
    chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        command = shlex.split(chosen, posix=os.name == "posix")
    except ValueError as error:
        raise LcpError(f"EDITOR={chosen} has an open quote. Close it.") from error
    command = command or [editor for editor in USUAL if shutil.which(editor)][:1]
    if not command:
        raise LcpError("There is no editor here. Set EDITOR to the one you use.")
    return command
