"""Two terminals for chats, with one interface: `type`, `sees`, `screen`, `resize`, `exit_code`.

InProcess: the chat runs in this process, on a prompt_toolkit pipe and a rich Console that both
draw on a pyte screen. Pty: a child runs in a real pseudo-terminal, which pyte reads. `in_both`
makes a test in each from one body.
"""

import atexit
import codecs
import fcntl
import inspect
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pyte
import pytest
import scripted_chat
from fakes import Said, ScriptedEngine
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from rich.console import Console
from scripted_chat import NOW as NOW
from scripted_chat import Scene, talk

from lcp.terminal.screen import Screen

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60  # the machine may be busy; nothing that works takes this long
ENTER, ALT_ENTER, CTRL_J, UP = "\r", "\x1b\r", "\n", "\x1b[A"
CTRL_C, CTRL_D, CTRL_Z = "\x03", "\x04", "\x1a"
ESC, RIGHT, LEFT, TAB, BACKSPACE = "\x1b", "\x1b[C", "\x1b[D", "\t", "\x7f"
CTRL_E, CTRL_R, CTRL_W, UNDO = "\x05", "\x12", "\x17", "\x1f"
DELETE = "\x1b[3~"
OPEN_EDITOR, OPEN_PASTE = "\x18\x05", "\x18p"


def paste(text: str) -> str:
    """Pasted text as a terminal sends it."""
    return "\x1b[200~" + text.replace("\n", "\r") + "\x1b[201~"


def in_both(*answers: Said | str, **scene):
    """Run a test, whose `chat` is a terminal, in both kinds of terminal."""

    def decorate(body: Callable[..., None]):
        def test(place, tmp_path, **more):
            place(Scene(list(answers), **scene), tmp_path).live(lambda chat: body(chat, **more))

        own = inspect.signature(body).parameters
        names = ["place", "tmp_path", *list(own)[1:]]
        kind = inspect.Parameter.KEYWORD_ONLY
        test.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])
        test.__name__ = body.__name__
        places = [InProcess, pytest.param(ScriptedPty, marks=pytest.mark.slow)]
        return pytest.mark.parametrize("place", places)(test)

    return decorate


class Glass:
    """A screen with its scrollback, and every character that was written to it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.raw = ""
        self._screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self._stream = pyte.Stream(self._screen)
        self._lock = threading.Lock()
        self._text: str | None = ""  # None: it has changed

    def write(self, text: str) -> None:
        with self._lock:
            self.raw += text
            self._text = None
            self._stream.feed(text)

    def resize(self, columns: int, rows: int) -> None:
        with self._lock:
            self._text = None
            self._screen.resize(rows, columns)

    def text(self) -> str:
        with self._lock:
            if self._text is None:
                screen = self._screen
                lines = [*screen.history.top, *(screen.buffer[y] for y in range(screen.lines))]
                rows = ("".join(row[x].data for x in range(screen.columns)) for row in lines)
                self._text = "\n".join(row.rstrip() for row in rows).rstrip()
            return self._text


class Terminal:
    """What a person can do in either terminal."""

    type: Callable[[str], None]
    leaves: Callable[[], int | None]
    glass: Glass
    home: Path
    exit_code: int | None = None

    def sees(self, text: str) -> None:
        """Wait until the text is on the screen or in its scrollback."""
        self.waits(lambda: text in self.screen(), f"{text!r} was not seen")

    def waits(self, until: Callable[[], bool], otherwise: str) -> None:
        """Wait until a condition is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            if time.monotonic() > deadline:
                raise AssertionError(f"{otherwise}; exit code {self.exit_code}:\n{self.screen()}")
            self._pass_time(0.01)

    def ends(self) -> None:
        """End the chat with Ctrl-D, so that it is on disk."""
        self.type(CTRL_D)
        assert self.leaves() == 0

    def screen(self) -> str:
        """The text of the scrollback and the screen."""
        return self.glass.text()

    @property
    def raw(self) -> str:
        """Everything that was written to the terminal."""
        return self.glass.raw

    def events(self) -> list[dict]:
        """The lines of the chat's log."""
        return [json.loads(line) for line in self.log().split("\n") if line]

    def log(self) -> str:
        (path,) = (self.home / "data" / "sessions").glob("*.jsonl")
        return path.read_text("utf-8")

    def _pass_time(self, seconds: float) -> None:
        time.sleep(seconds)


class Paper:
    """A file that is a terminal, or a pipe to one: its text appears on the glass."""

    encoding = "utf-8"

    def __init__(self, glass: Glass, piped: bool = False) -> None:
        self.glass = glass
        self.piped = piped
        self.written = ""

    def write(self, text: str) -> int:
        self.written += text
        self.glass.write(text.replace("\n", "\r\n"))  # as the line discipline does
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return not self.piped


def a_console(file, width: int, height: int, **more) -> Console:
    """A terminal of that size, in which the sixteen colours can be seen."""
    return Console(
        file=file, width=width, height=height, force_terminal=True, legacy_windows=False,
        color_system="standard", _environ={"TERM": "xterm-256color"}, **more,
    )  # fmt: skip


class InProcess(Terminal):
    """The person is a thread. The chat runs on the main thread, which gets signals."""

    def __init__(self, scene: Scene, home: Path, piped: bool = False) -> None:
        """`piped`: stdout and stderr are not terminals."""
        self.scene = scene
        self.home = home
        self.size = (80, 24)
        self.glass = Glass(*self.size)
        self.out, self.err = Paper(self.glass, piped), Paper(self.glass, piped)
        self.edited = Paper(self.glass)
        self.engine = ScriptedEngine(*scene.answers, size=scene.size)
        self._raw = self._left = False
        self._failure: BaseException | None = None

    def live(self, body: Callable[["InProcess"], None]) -> None:
        with create_pipe_input() as self._keys, pytest.MonkeyPatch.context() as environment:
            self._keys.raw_mode = self._raw_mode
            output = Vt100_Output(self.edited, lambda: Size(self.size[1], self.size[0]))
            environment.chdir(self.home)
            for name, value in self.scene.environment(self.home).items():
                environment.setenv(name, value)
            environment.setenv("TERM", "xterm-256color")
            environment.delenv("COLUMNS", raising=False)  # it would fix the width
            screen = Screen(self.out, self.err)
            environment.setenv("COLUMNS", "80")  # rich uses it without a real terminal
            person = threading.Thread(target=self._act, args=(body,))
            person.start()
            try:
                talk(self.scene, self.engine, self.home, screen, input=self._keys, output=output)
                self.exit_code = 0
            finally:
                self._left = True
                person.join()
        if self._failure:
            raise self._failure

    def type(self, text: str) -> None:
        """Type as in a terminal: Ctrl-C is a key only in raw mode."""
        if text == CTRL_C and not self._raw:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            self._keys.send_text(text)

    def resize(self, columns: int, rows: int) -> None:
        self.size = (columns, rows)
        os.environ["COLUMNS"] = str(columns)
        self.glass.resize(columns, rows)
        os.kill(os.getpid(), signal.SIGWINCH)

    def leaves(self) -> int | None:
        """Wait until the chat has ended; its exit code."""
        self.waits(lambda: self._left, "the chat goes on")
        return self.exit_code

    def _act(self, body: Callable[["InProcess"], None]) -> None:
        try:
            body(self)
        except BaseException as failure:
            self._failure = failure
        while not self._left:  # in whatever state the body left it
            self.engine.stop()
            self._keys.send_text(CTRL_C + CTRL_D)
            time.sleep(0.05)

    @contextmanager
    def _raw_mode(self):
        self._raw = True
        try:
            yield
        finally:
            self._raw = False


# A session leader gets its controlling terminal, then becomes the command.
_IN_CHARGE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
_IN_CHARGE += "os.execvp(sys.argv[1], sys.argv[1:])"


class Pty(Terminal):
    """A command in a real terminal; `with` ends it in any case."""

    def __init__(
        self, *command: str, home: Path, env: dict[str, str] | None = None, cwd: Path = ROOT
    ) -> None:
        self.home = home
        self.glass = Glass(80, 24)
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        self._set_size(80, 24)
        self.modes_before = termios.tcgetattr(self.slave)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.process = self._start(command, terminal_environment(home) | (env or {}), cwd)

    def _start(self, command, environment, cwd):
        return subprocess.Popen(
            [sys.executable, "-c", _IN_CHARGE, *command],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            cwd=cwd,
            env=environment,
        )

    def __enter__(self) -> "Pty":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)

    def type(self, text: str) -> None:
        left, deadline = text.encode(), time.monotonic() + PATIENCE_S
        while left:
            with suppress(BlockingIOError):
                left = left[os.write(self.master, left) :]
            assert time.monotonic() < deadline, f"nobody reads the keys:\n{self.screen()}"
            self._pass_time(0)

    def screen(self) -> str:
        self._pass_time(0)
        return super().screen()

    def resize(self, columns: int, rows: int) -> None:
        self._pass_time(0)
        self.glass.resize(columns, rows)
        self._set_size(columns, rows)  # the kernel sends SIGWINCH

    def kill(self, number: int) -> None:
        """Send a signal to the command alone."""
        self.process.send_signal(number)

    def hang_up(self) -> None:
        """Close the terminal, as a window is closed."""
        self._pass_time(0)
        os.close(self.slave)
        os.close(self.master)
        self.master = self.slave = -1

    def leaves(self) -> int:
        """Wait until the command has ended; its exit code, negative for a signal."""
        self.waits(lambda: self.process.poll() is not None, "the command goes on")
        self._pass_time(0)
        self.exit_code = self.process.returncode
        return self.exit_code

    def modes(self) -> list:
        """The present modes of the terminal, to compare with `modes_before`."""
        return termios.tcgetattr(self.slave)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _pass_time(self, seconds: float) -> None:
        if self.master < 0:
            time.sleep(seconds)
            return
        while select.select([self.master], [], [], seconds)[0]:
            self.glass.write(self._decode(os.read(self.master, 65536)))
            seconds = 0


class ScriptedPty(Pty):
    """The scripted chat in a child, in a real terminal."""

    def __init__(self, scene: Scene, home: Path) -> None:
        self.command(scene, home)
        super().__init__(home=home, env=scene.environment(home))

    def _start(self, command, environment, cwd):
        return Fork(os.ttyname(self.slave), environment, self.home)

    @staticmethod
    def command(scene: Scene, home: Path) -> list[str]:
        """The command that runs the scene's chat."""
        (home / "scene.json").write_text(json.dumps(asdict(scene)))
        return [sys.executable, scripted_chat.__file__, str(home)]

    def live(self, body: Callable[["ScriptedPty"], None]) -> None:
        with self:
            self.sees(">")
            body(self)


class Fork:
    """A process of `scripted_chat.serve`; what a Pty needs of subprocess.Popen."""

    def __init__(self, terminal: str, environment: dict[str, str], home: Path) -> None:
        wanted = {"terminal": terminal, "environment": environment, "home": str(home)}
        self.pid = self._ask(wanted)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask(self.pid)
        return self.returncode

    def wait(self) -> None:
        while self.poll() is None:
            time.sleep(0.01)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    @staticmethod
    def _ask(wanted: object) -> Any:
        server = _server()
        server.stdin.write(json.dumps(wanted) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())


@cache
def _server() -> subprocess.Popen:
    """One for all tests of this process."""
    server = subprocess.Popen(
        [sys.executable, scripted_chat.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=terminal_environment(Path()),
    )
    atexit.register(server.communicate)  # closes its stdin
    return server


def terminal_environment(home: Path) -> dict[str, str]:
    """What a program in a test's terminal inherits."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | {
        "LCP_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
    }


def uncut(err: bytes) -> bytes:
    """The text on stderr without the line about an answer that -n has truncated."""
    return re.sub(rb"Cut at \d+ tokens?\. .*\n", b"", err)
