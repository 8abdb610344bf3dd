"""A chat with a scripted model, and the program that runs it in real terminals.

With a folder as its argument, the program runs the chat of the folder's scene.json. Without, it
forks a process for each line on stdin, see `serve`: Python and the imports of a chat take a second,
and a hundred tests need such a process.
"""

import fcntl
import gc
import json
import os
import sys
import termios
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from itertools import count
from pathlib import Path

from fakes import Said, ScriptedEngine

from lcp import commands
from lcp.chat import attachments
from lcp.chat.chat import Chat
from lcp.chat.input_loop import InputLoop
from lcp.session.conversation import Conversation
from lcp.session.log import Log
from lcp.session.store import Store
from lcp.settings import Layers
from lcp.terminal.keyboard import Keyboard, KeyboardOptions
from lcp.terminal.screen import Screen

NOW = datetime(2026, 11, 22, 9, 31, tzinfo=timezone.utc)


@dataclass
class Scene:
    """What a scripted chat starts with."""

    answers: list[Said | str]
    size: int = 4096
    layers: Layers = field(default_factory=Layers)
    saved: bool = True
    toolbar: bool = False
    env: dict[str, str] = field(default_factory=dict)  # in their values, {home} is the home

    def environment(self, home: Path) -> dict[str, str]:
        return {name: value.format(home=home) for name, value in self.env.items()}


def talk(scene: Scene, engine: ScriptedEngine, home: Path, screen: Screen, **devices):
    """The chat of `lcp chat` with a scripted model. Its times and ids are always the same.
    `devices`: what the Keyboard reads from and draws on, where that is no terminal."""
    ids = (f"id{n}" for n in count())
    chat = Conversation.begin(lambda: NOW, "scripted", new_id=lambda: next(ids))
    store = Store(home / "data" / "sessions", now=lambda: NOW, new_tail=lambda: "tail")
    with store.create(chat.opening) if scene.saved else Log.nowhere() as log:
        talking = Chat(engine, chat, log, screen, "scripted", scene.layers)
        options = KeyboardOptions(
            on_text=lambda text: person.chat.look_ahead(text),
            state=lambda: person.status() if scene.toolbar else (),
            commands=commands.completions(lambda: person.chat),
            paths=partial(attachments.completions, folder=Path()),
            keys=lambda: person.chat.settings.keys,
        )
        keyboard = Keyboard(home / "data" / "history.jsonl", options, **devices)
        person = InputLoop(talking, keyboard, commands.run)
        person.run()


def run(home: Path) -> None:
    """The chat of scene.json in `home`."""
    script = json.loads((home / "scene.json").read_text())
    script["answers"] = [Said(**a) if isinstance(a, dict) else a for a in script["answers"]]
    script["layers"] = Layers(**script["layers"])
    scene = Scene(**script)
    talk(scene, ScriptedEngine(*scene.answers, size=scene.size), home, Screen())


def serve() -> None:
    """Fork for each line of JSON on stdin that has a terminal, an environment and a home, and
    answer with the number of the process, in which this function returns the home's chat.
    For the number of a process, answer with its exit code, null while it runs."""
    gc.freeze()  # the children do not write to these pages
    for line in iter(sys.stdin.readline, ""):
        wanted = json.loads(line)
        if isinstance(wanted, int):
            pid, status = os.waitpid(wanted, os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            _enter(wanted["terminal"], wanted["environment"])
            os.chdir(wanted["home"])
            return run(Path(wanted["home"]))


def _enter(terminal: str, environment: dict[str, str]) -> None:
    """Make this process one that a terminal has started."""
    os.setsid()
    fd = os.open(terminal, os.O_RDWR)
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    for standard in (0, 1, 2):
        os.dup2(fd, standard)
    os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115


if __name__ == "__main__":
    run(Path(sys.argv[1])) if sys.argv[1:] else serve()
