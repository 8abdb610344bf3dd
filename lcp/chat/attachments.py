"""Attach: text files that a message names with an @ are put in front of it.

A message and a folder in, the message with the files out; it knows no model and prints nothing.
In front: the model can read them while the person still writes the question.
"""

import glob
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lcp import words
from lcp.errors import LcpError
from lcp.words import short

FILE_BYTES, ALL_BYTES = 1_000_000, 4_000_000  # at most, of one file and of all in a message
TOLD, SHOWN = 3, 60  # names that are no files; characters of one
MATCHES = 100  # files that one pattern may stand for
# At the beginning of a word; user@example.com is none. The @ comes first in the pattern, because a
# long text is searched for it at every pause in the typing.
_MENTION = re.compile(r'@(?<![^\s(]@)(?:"([^"\n]+)"|([^\s"]+))')
_AFTER = ".,;:!?)]}'`"  # ends a sentence, or belongs to the name; the files here say which

_LIKE_A_FILE = re.compile(r"/|[^.]\.[A-Za-z]\w{0,4}$")  # @types/node may be one, @someone is none
_NO_PATH = (OSError, ValueError, RuntimeError)  # too long, with a NUL, "~nobody"


@dataclass(frozen=True)
class File:
    """A text file as it stands in a message; `size` in bytes."""

    path: str
    size: int
    block: str
    stamp: tuple[int, ...] = field(default=(), compare=False)  # changes when the file does


@dataclass(frozen=True)
class Attached:
    """A message with its files in front; `problems` are sentences on those that cannot be, and
    `hints` are on what looks like the name of a file and is none: it stays text."""

    text: str = ""
    files: tuple[File, ...] = ()
    problems: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def checked(self) -> "Attached":
        """This one; LcpError where something cannot be attached."""
        if self.problems:
            raise LcpError("\n".join(self.problems))
        return self

    def short(self, tokens: str) -> str:
        """All files in a few words, with how many tokens they have."""
        what = self.files[0].path if len(self.files) == 1 else f"{len(self.files)} files"
        return f"{what}: {words.size(sum(file.size for file in self.files))}, {tokens} tokens"

    def told(self, count: Callable[[str], int], window: int) -> str:
        """A line for each file, what all take of the window, and the hints; `count` gives a text's
        tokens."""
        tokens = [count(file.block) for file in self.files]
        lines = [
            f"{file.path}: {words.size(file.size)}, {n:,} tokens"
            for file, n in zip(self.files, tokens, strict=True)
        ]
        share = f"{100 * sum(tokens) / window:.0f} % of the window of {window:,}"
        if len(lines) == 1:
            lines = [f"{lines[0]}, {share}"]
        elif lines:
            lines.append(f"{len(lines)} files: {sum(tokens):,} tokens, {share}")
        return "\n".join([*lines, *self.hints])


def attach(text: str, folder: Path, before: Attached = Attached()) -> Attached:
    """The message with every file it names; relative names are looked for in `folder`. Files that
    have not changed since they were attached `before` are not read again."""
    known = {(file.path, file.stamp): file for file in before.files}
    files: dict[str, File] = {}
    problems: dict[str, None] = {}
    hints: dict[str, None] = {}
    for quoted, word in dict.fromkeys(_MENTION.findall(text)):
        name = quoted or word
        paths = _files(name, folder) or _files(name.rstrip(_AFTER), folder)
        if not paths and (hint := _hint(quoted, name.rstrip(_AFTER), folder)):
            hints[hint] = None
        if len(paths) > MATCHES:
            paths = []
            problems[f"{name} stands for more than {MATCHES} files. Name fewer."] = None
        for path in paths:
            left = ALL_BYTES - sum(file.size for file in files.values())
            try:
                stamp = _stamp(path, folder)
                file = known.get((path, stamp)) or _file(path, folder, stamp)
                if file.size > left:
                    limit = words.size(ALL_BYTES)
                    raise LcpError(
                        f"{path} does not fit: at most {limit} in all. Name fewer files."
                    )
                files.setdefault(path, file)
            except LcpError as problem:
                problems[str(problem)] = None
    message = "\n\n".join([*(file.block for file in files.values()), text])
    told = [*hints][:TOLD] + [f"So do {len(hints) - TOLD} more."] * (len(hints) > TOLD)
    return Attached(message, tuple(files.values()), tuple(problems), tuple(told))


def content(name: str, folder: Path) -> str:
    """What stands in a file."""
    if _files(name, folder) != [name]:
        raise LcpError(f"There is no file {short(name, SHOWN) or 'without a name'} here. Name one.")
    return _read(name, folder)[0]


def mention(path: str) -> str:
    """What stands in a message for a file."""
    return f'@"{path}"' if _in_quotes(path) else f"@{path}"


def completions(begun: str, folder: Path) -> Iterator[str]:
    """What may stand behind an @ that is followed by `begun`, in quotes where it must."""
    for path in paths(begun.lstrip('"'), folder):
        if begun.startswith('"') or _in_quotes(path):
            yield f'"{path}' if path.endswith("/") else f'"{path}"'
        else:
            yield path


def paths(begun: str, folder: Path) -> Iterator[str]:
    """The paths that begin so; folders end in "/", hidden files come only after a dot."""
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
    """Whether it must be: as macOS calls screenshots, with a blank that is none of ASCII's."""
    return bool(re.search(r"\s", path))


def _files(name: str, folder: Path) -> list[str]:
    """The files that a name or a pattern stands for; none for most words with an @."""
    try:
        path = Path(name).expanduser()
        if (folder / path).is_file():
            return [name]
        if not glob.has_magic(name):
            return []
        # unlike Path.glob it takes absolute patterns, and ** does not walk through the whole disk
        found = glob.iglob(str(path), root_dir=folder)  # noqa: PTH207
        return sorted(islice((p for p in found if (folder / p).is_file()), MATCHES + 1))
    except _NO_PATH:
        return []


def _hint(quoted: str, name: str, folder: Path) -> str:
    """A sentence on what a person may take for a file that is read; "" for most words."""
    named = quoted or name
    shown = short(named, SHOWN)
    with suppress(*_NO_PATH):
        if named and (folder / Path(named).expanduser()).is_dir():
            return f"{shown} is a folder and stays text; @{shown.rstrip('/')}/* names its files."
    like = quoted or _LIKE_A_FILE.search(name)
    return f"{shown} is no file here and stays text." if like else ""


def _stamp(path: str, folder: Path) -> tuple[int, ...]:
    """What changes when the file does; () where it cannot be told."""
    with suppress(*_NO_PATH):
        facts = (folder / Path(path).expanduser()).stat()
        return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
    return ()


def _file(path: str, folder: Path, stamp: tuple[int, ...]) -> File:
    text, size = _read(path, folder)
    return File(path, size, _block(path, text), stamp)


def _read(path: str, folder: Path) -> tuple[str, int]:
    """The text of a file, and its size in bytes."""
    try:
        with (folder / Path(path).expanduser()).open("rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise LcpError(f"{path} cannot be read ({error.strerror}). Leave it out.") from error
    if len(data) > FILE_BYTES:
        limit = words.size(FILE_BYTES)
        raise LcpError(f"{path} has more than {limit}. Paste the part of it that matters.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise LcpError(f"{path} is no UTF-8 text. Leave it out, or put a blank behind the @.")
    return text.replace("\r\n", "\n"), len(data)


def _block(path: str, text: str) -> str:
    """The text in a fence that is longer than any in it, under its path."""
    title = "".join(c if c.isprintable() else "?" for c in path)  # a name may have line ends
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{title}\n{fence}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"
