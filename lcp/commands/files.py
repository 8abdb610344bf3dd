"""The slash commands for files and the clipboard: attach a file, copy an answer, export a chat."""

from collections.abc import Iterable
from pathlib import Path

from lcp import paths
from lcp.chat import attachments
from lcp.chat.chat import Chat
from lcp.commands.command import command, turns_of
from lcp.errors import LcpError, SessionError
from lcp.formatting import number
from lcp.session import export
from lcp.terminal import clipboard


def _paths(_: Chat, begun: str) -> Iterable[str]:
    return attachments.paths(begun, Path())


@command("read", "FILE", "attach a text file to the next message", "/read notes.txt", _paths)
def read(chat: Chat, name: str) -> str:
    """Begins the next message with @FILE, which attaches a UTF-8 text file. A pattern attaches
    several."""
    if not name:
        raise LcpError("/read needs a file: /read notes.txt, or several: /read folder/*.py")
    name = name.strip('"')
    mention = attachments.mention(name)
    if not attachments.attach(mention, Path()).checked().files:
        here = paths.at(name)
        if here and here.is_dir():
            raise LcpError(f"{name} is a folder. Give files in it: /read {name.rstrip('/')}/*.txt")
        what = f"{name} is not a text file" if here else f"There is no file {name}"
        raise LcpError(f"{what}. Give a text file: /read notes.txt")
    return mention + " "


@command(
    "copy",
    "[N|code]",
    "copy the last answer, the Nth last or the last code block",
    "/copy code",
    lambda chat, begun: ("code",),
)
def copy(chat: Chat, argument: str) -> None:
    """Copies the last answer to the clipboard, the Nth from the end, or with code the last code
    block."""
    answers = [turn.answer.content for turn in turns_of(chat) if turn.answer]
    if not answers:
        raise LcpError("There is no answer to copy. Ask something first.")
    if argument == "code":
        blocks = [block for answer in answers for block in export.code_blocks(answer)]
        if not blocks:
            raise LcpError("No answer has a code block. /copy copies the last answer.")
        text, what = blocks[-1], "The last code block"
    else:
        n = number(argument or "1", len(answers), "code or the number of an answer (1 is the last)")
        text, what = answers[-n], "The last answer" if n == 1 else f"Answer {n} from the end"
    try:
        how = clipboard.copy(text, chat.screen.send)
    except clipboard.ClipboardError as error:
        raise LcpError(f"{error}, or use /export FILE.") from error
    chat.screen.notice(f"{what}, {len(text):,} characters: {how}.")


@command(
    "export", "FILE", "write the chat to a .md, .html or .json file", "/export chat.html", _paths
)
def write(chat: Chat, name: str) -> None:
    """Writes the current branch to a new file: Markdown, an HTML page or JSON, by the ending of
    its name."""
    _write(chat, name, replace=False)


@command("export!", "FILE", "write the chat to a file, replacing it", "/export! chat.md", _paths)
def overwrite(chat: Chat, name: str) -> None:
    """Like /export, but replaces an existing file."""
    _write(chat, name, replace=True)


def _write(chat: Chat, name: str, replace: bool) -> None:
    if not name:
        raise LcpError(
            "/export needs a file: /export chat.md, or a name that ends in .html or .json."
        )
    from lcp.chat import webpage  # it imports the parser of Markdown

    file = Path(name.strip('"'))
    turns_of(chat)
    try:
        export.write(chat.conversation, file, webpage.page, replace)
    except FileExistsError:
        raise SessionError(
            f"{file} exists already. Give another name, or replace it: /export! {name}"
        ) from None
    chat.screen.notice(f"Written to {file.expanduser().resolve()}.")
