"""Attaches the text files that a message names with @: `@notes.txt` puts the file before the text.

Files come first so that the model can read them while the person still types the question. This
module knows no model and prints nothing.
"""

import glob
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lcp import formatting
from lcp.errors import LcpError
from lcp.formatting import short

FILE_BYTES, ALL_BYTES = 1_000_000, 4_000_000  # limits for one file, and for all of a message
TOLD, SHOWN = 3, 60  # at most: hints in one message; characters of a name in them
MATCHES = 100  # files that one pattern may match
# An @ at the beginning of a word, so not user@example.com. The @ is first in the pattern: that is
# fast, and a long text is searched at every pause in the typing.
_MENTION = re.compile(r'@(?<![^\s(]@)(?:"([^"\n]+)"|([^\s"]+))')
_AFTER = ".,;:!?)]}'`"  # ends the sentence, unless there is a file of that name
# @types/node looks like a file, @someone does not
_LIKE_A_FILE = re.compile(r"/|[^.]\.[A-Za-z]\w{0,4}$")
_NO_PATH = (OSError, ValueError, RuntimeError)  # too long, with a NUL, "~nobody"


@dataclass(frozen=True)
class AttachedFile:
    """A text file in a message. `size` is in bytes; `block` is the text that the model reads."""

    path: str
    size: int
    block: str
    stamp: tuple[int, ...] = field(default=(), compare=False)  # changes when the file does


@dataclass(frozen=True)
class Attached:
    """A message with its files before it. `problems`: a sentence for each file that cannot be
    attached. `hints`: a sentence for each word that looks like a file name, but is not one."""

    text: str = ""
    files: tuple[AttachedFile, ...] = ()
    problems: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def checked(self) -> "Attached":
        """This message; LcpError if a file cannot be attached."""
        if self.problems:
            raise LcpError("\n".join(self.problems))
        return self

    def short(self, tokens: str) -> str:
        """All files in a few words; `tokens` is how many tokens they have."""
        what = self.files[0].path if len(self.files) == 1 else f"{len(self.files)} files"
        return f"{what}: {formatting.size(sum(file.size for file in self.files))}, {tokens} tokens"

    def told(self, count: Callable[[str], int], window: int) -> str:
        """A line for each file, the share of the context window that all of them take, and the
        hints. `count` returns the number of tokens of a text."""
        tokens = [count(file.block) for file in self.files]
        lines = [
            f"{file.path}: {formatting.size(file.size)}, {n:,} tokens"
            for file, n in zip(self.files, tokens, strict=True)
        ]
        share = f"{100 * sum(tokens) / window:.0f} % of the context of {window:,}"
        if len(lines) == 1:
            lines = [f"{lines[0]}, {share}"]
        elif lines:
            lines.append(f"{len(lines)} files: {sum(tokens):,} tokens, {share}")
        return "\n".join([*lines, *self.hints])


def attach(text: str, folder: Path, before: Attached = Attached()) -> Attached:
    """The message with every file that it names; relative names are relative to `folder`. A file
    in `before` that has not changed since is not read again."""
    known = {(file.path, file.stamp): file for file in before.files}
    files: dict[str, AttachedFile] = {}
    problems: dict[str, None] = {}
    hints: dict[str, None] = {}
    for quoted, word in dict.fromkeys(_MENTION.findall(text)):
        name = quoted or word
        paths = _files(name, folder) or _files(name.rstrip(_AFTER), folder)
        if not paths and (hint := _hint(quoted, name.rstrip(_AFTER), folder)):
            hints[hint] = None
        if len(paths) > MATCHES:
            paths = []
            problems[f"{name} matches more than {MATCHES} files. Name fewer files."] = None
        for path in paths:
            left = ALL_BYTES - sum(file.size for file in files.values())
            try:
                stamp = _stamp(path, folder)
                file = known.get((path, stamp)) or _file(path, folder, stamp)
                if file.size > left:
                    limit = formatting.size(ALL_BYTES)
                    raise LcpError(
                        f"{path} does not fit: the files of a message may have {limit} together. "
                        "Name fewer files."
                    )
                files.setdefault(path, file)
            except LcpError as problem:
                problems[str(problem)] = None
    message = "\n\n".join([*(file.block for file in files.values()), text])
    told = [*hints][:TOLD] + [f"{len(hints) - TOLD} more names are not files."] * (
        len(hints) > TOLD
    )
    return Attached(message, tuple(files.values()), tuple(problems), tuple(told))


def content(name: str, folder: Path) -> str:
    """The text of one file."""
    if _files(name, folder) != [name]:
        raise LcpError(
            f"There is no file {short(name, SHOWN) or 'without a name'}. Name a text file."
        )
    return _read(name, folder, "Name a text file.")[0]


def mention(path: str) -> str:
    """The @ and the name that attach this file."""
    return f'@"{path}"' if _in_quotes(path) else f"@{path}"


def completions(begun: str, folder: Path) -> Iterator[str]:
    """What Tab offers after an @ and `begun`: paths, in quotes where they need them."""
    for path in paths(begun.lstrip('"'), folder):
        if begun.startswith('"') or _in_quotes(path):
            yield f'"{path}' if path.endswith("/") else f'"{path}"'
        else:
            yield path


def paths(begun: str, folder: Path) -> Iterator[str]:
    """The paths that begin with `begun`. Folders end in "/"; hidden files only after a dot."""
    if begun == "~":
        yield "~/"
    head, slash, name = begun.rpartition("/")
    try:
        entries = list(os.scandir(folder / Path(head + slash).expanduser()))
    except _NO_PATH:
        return
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name.startswith(name) and (name[:1] == "." or entry.name[0] != "."):
            yield head + slash + entry.name + ("/" if entry.is_dir() else "")


def _in_quotes(path: str) -> bool:
    """Whether the path needs quotes: it has a space, perhaps a non-ASCII one as in the names that
    macOS gives to screenshots."""
    return bool(re.search(r"\s", path))


def _files(name: str, folder: Path) -> list[str]:
    """The files that a name or a pattern matches; none for most words with an @."""
    try:
        path = Path(name).expanduser()
        if (folder / path).is_file():
            return [name]
        if not glob.has_magic(name):
            return []
        # unlike Path.glob it takes absolute patterns, and ** does not search the whole disk
        found = glob.iglob(str(path), root_dir=folder)  # noqa: PTH207
        return sorted(islice((p for p in found if (folder / p).is_file()), MATCHES + 1))
    except _NO_PATH:
        return []


def _hint(quoted: str, name: str, folder: Path) -> str:
    """A sentence if the word looks like a file or folder but is not attached; else ""."""
    named = quoted or name
    shown = short(named, SHOWN)
    with suppress(*_NO_PATH):
        if named and (folder / Path(named).expanduser()).is_dir():
            return f"{shown} is a folder. To attach its files, type @{shown.rstrip('/')}/*."
    like = quoted or _LIKE_A_FILE.search(name)
    return f"There is no file {shown}; it stays plain text." if like else ""


def _stamp(path: str, folder: Path) -> tuple[int, ...]:
    """Values that change when the file changes; () if it cannot be read."""
    with suppress(*_NO_PATH):
        facts = (folder / Path(path).expanduser()).stat()
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
    return ()


def _file(path: str, folder: Path, stamp: tuple[int, ...]) -> AttachedFile:
    text, size = _read(
        path, folder, f'Remove it, or type "@ {path}" to send the name as plain text.'
    )
    return AttachedFile(path, size, _block(path, text), stamp)


def _read(path: str, folder: Path, advice: str) -> tuple[str, int]:
    """The text of a file, and its size in bytes. `advice`: what to do if it is not text."""
    try:
        with (folder / Path(path).expanduser()).open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise LcpError(f"Cannot read {path}: {error.strerror}. {advice}") from error
    if len(data) > FILE_BYTES:
        limit = formatting.size(FILE_BYTES)
        raise LcpError(f"{path} is larger than {limit}. Paste the part that matters instead.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise LcpError(f"{path} is not a UTF-8 text file. {advice}")
    return text.replace("\r\n", "\n"), len(data)


def _block(path: str, text: str) -> str:
    """The path, and the text in a fence that is longer than any fence in it."""
    title = "".join(c if c.isprintable() else "?" for c in path)  # a name may have line ends
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{title}\n{fence}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"
