"""Questions to the person: asked on stderr, answered with a line and Enter."""

import os
import select
import sys

_LOOK_UP_S = 0.1  # how long a Ctrl-C may go unnoticed


def ask(question: str, default: str) -> str:
    """Ask for a line; `default` if it is blank. Ctrl-C and Ctrl-D raise KeyboardInterrupt."""
    return _line(f"{question} [{default}]: ").strip() or default


def confirm(question: str, default: bool = False) -> bool:
    """Ask yes or no, again until it is one of them; else as `ask`."""
    answers = {"y": True, "yes": True, "n": False, "no": False, "": default}
    while True:
        answer = _line(f"{question} [{'Y/n' if default else 'y/N'}]: ").strip().lower()
        if answer in answers:
            return answers[answer]
        sys.stderr.write("Please type y or n.\n")


def _line(prompt: str) -> str:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    try:
        _wait()
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise
    if not line:
        sys.stderr.write("\n")
        raise KeyboardInterrupt
    return line


def _wait() -> None:
    """Wait until a line was typed. Not in one long `read`: Python acts on a signal between two of
    its own steps, and one that comes just before such a call would wait for it to end."""
    if os.name == "posix" and sys.stdin.isatty():
        while not select.select([sys.stdin], [], [], _LOOK_UP_S)[0]:
            pass
