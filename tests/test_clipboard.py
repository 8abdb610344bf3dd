"""The clipboard: tools on PATH, and terminals that support OSC 52."""

import base64
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from fakes import Said
from terminal import ENTER, Pty, Scene, ScriptedPty, terminal_environment

from lcp.terminal import clipboard

TEXT = "Grüße, 世界\n\x1b[31mred\n"
FAR = {"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}
NEVER = "#!/bin/sh\nexit 1\n"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Creates a clipboard tool, the only one on PATH, that writes its input to a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name, script="", got="got"):
        path = folder / name
        default = f'#!/bin/sh\necho "$0 $*" > {tmp_path}/call\n/bin/cat > {tmp_path}/{got}\n'
        path.write_text(script or default)
        path.chmod(0o755)
        return tmp_path / got

    return make


class Terminal:
    """A stream that takes control sequences, or does not."""

    def __init__(self, there=True):
        self.there = there
        self.sent = ""

    def __call__(self, sequence):
        self.sent += sequence if self.there else ""
        return self.there

    def text(self):
        (data,) = re.fullmatch(r"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", self.sent).groups()
        return base64.b64decode(data).decode()


@pytest.mark.parametrize("name", ["pbcopy", "wl-copy", "xclip", "xsel"])
def test_a_tool_gets_the_text_unchanged(tool, name):
    got, terminal = tool(name), Terminal()
    assert clipboard.copy(TEXT, terminal, {}) == f"copied with {name}"
    assert (got.read_text("utf-8"), terminal.sent) == (TEXT, "")


def test_the_text_goes_to_the_clipboard_not_to_the_selection(tool, tmp_path):
    for name, arguments in (("xclip", "-selection clipboard"), ("xsel", "--clipboard --input")):
        tool(name)
        clipboard.copy(TEXT, Terminal(), {})
        assert (tmp_path / "call").read_text().split(" ", 1)[1] == f"{arguments}\n"
        (tmp_path / "bin" / name).unlink()


def test_windows_gets_the_text_in_utf16(tool):
    got = tool("clip.exe")
    assert clipboard.copy(TEXT, Terminal(), {}) == "copied with clip.exe"
    assert got.read_bytes().decode("utf-16") == TEXT


def test_if_a_tool_fails_the_next_one_and_then_the_terminal_is_tried(tool):
    tool("wl-copy", NEVER)
    got, terminal = tool("xclip"), Terminal()
    assert clipboard.copy(TEXT, terminal, {}) == "copied with xclip"
    assert got.read_text("utf-8") == TEXT
    tool("xclip", NEVER)
    assert clipboard.copy(TEXT, terminal, {}) == clipboard.ASKED
    assert terminal.text() == TEXT


def test_a_tool_that_keeps_running_does_not_block(tool):
    """Like xclip, it stays in the background with its output open."""
    tool("xclip", "#!/bin/sh\n/bin/cat > /dev/null\n/bin/sleep 30 &\nexit 0\n")
    began = time.monotonic()
    assert clipboard.copy(TEXT, Terminal(), {}) == "copied with xclip"
    assert time.monotonic() - began < 20


def test_over_ssh_the_terminal_is_tried_first(tool):
    got, terminal = tool("xclip"), Terminal()
    assert clipboard.copy(TEXT, terminal, FAR).startswith("sent to the terminal")
    assert (terminal.text(), got.exists()) == (TEXT, False)
    assert clipboard.copy(TEXT, Terminal(there=False), FAR) == "copied with xclip"


def test_tmux_passes_the_text_to_its_terminal(tool, tmp_path):
    got = tool("tmux")
    assert clipboard.copy(TEXT, Terminal(), {**FAR, "TMUX": "/tmp/x,1,0"}) == "copied with tmux"
    assert got.read_text("utf-8") == TEXT
    assert (tmp_path / "call").read_text().endswith("load-buffer -w -\n")
    tool("wl-copy")  # on the person's own computer its clipboard is nearer
    assert clipboard.copy(TEXT, Terminal(), {"TMUX": "/tmp/x,1,0"}) == "copied with wl-copy"


@pytest.mark.parametrize("term", ["tmux-256color", "screen.xterm-256color"])
def test_over_ssh_the_multiplexer_is_known_from_term(tool, term):
    terminal = Terminal()
    assert clipboard.copy(TEXT * 99, terminal, {**FAR, "TERM": term}) == clipboard.ASKED
    plain = Terminal()
    clipboard.copy(TEXT * 99, plain, {**FAR, "TERM": "xterm-256color"})
    if term.startswith("tmux"):
        wrapped = "\x1bPtmux;" + plain.sent.replace("\x1b", "\x1b\x1b") + "\x1b\\"
        assert terminal.sent == plain.sent + wrapped
    else:
        parts = re.findall(r"\x1bP(.*?)\x1b\\", terminal.sent, re.DOTALL)
        assert "".join(parts) == plain.sent
        assert max(map(len, parts)) <= clipboard.SCREEN_MOST < len(plain.sent)


def test_a_text_too_long_for_the_terminal_is_refused(tool):
    terminal = Terminal()
    long = "x" * (clipboard.MOST + 1)
    with pytest.raises(clipboard.ClipboardError, match="74,995"):
        clipboard.copy(long, terminal, FAR)
    assert terminal.sent == ""
    got = tool("xsel")
    assert clipboard.copy(long, terminal, FAR) == "copied with xsel"
    assert got.read_text() == long
    assert clipboard.copy(long[1:], terminal, FAR).startswith("sent to the terminal")
    assert len(terminal.text()) == clipboard.MOST


def test_without_a_tool_or_terminal_the_error_names_the_next_step(tool):
    with pytest.raises(clipboard.ClipboardError, match="wl-copy, xclip or xsel"):
        clipboard.copy(TEXT, Terminal(there=False), {})


@pytest.mark.slow
def test_a_real_terminal_gets_the_answer(home, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    home.mkdir()
    with ScriptedPty(Scene([Said("Paris, 世界.")]), home) as chat:
        assert terminal_environment(home)["PATH"] == os.environ["PATH"]
        chat.sees(">")
        chat.type("Where?" + ENTER)
        chat.sees("tokens/s")
        chat.type("/copy" + ENTER)
        chat.sees("The last answer, 10 characters: sent to the terminal")
        (data,) = re.findall(r"\x1b\]52;c;([^\x07]*)\x07", chat.raw)
        assert base64.b64decode(data).decode() == "Paris, 世界."
        chat.ends()


# in the real tmux and screen, in a real terminal

LONG = TEXT * 400  # more than screen takes at once
COPIES = """
import sys
from pathlib import Path
from lcp.terminal import clipboard
input("ready")
text = Path(sys.argv[1]).read_text("utf-8")
print(clipboard.copy(text, lambda sent: bool(sys.stdout.write(sent)) or True), flush=True)
input()
"""


@pytest.fixture
def copies(home, tmp_path):
    """A function that copies a text inside a program and returns what the outer terminal got."""
    home.mkdir()
    (tmp_path / "text").write_text(LONG)
    (tmp_path / "copies.py").write_text(COPIES)

    def run(*command, env=None):
        with Pty(*command, home=home, env={"SSH_TTY": "x", **(env or {})}) as outer:
            outer.sees("ready")  # before this, there is no outer terminal
            outer.type(ENTER)
            outer.waits(lambda: "OSC 52" in outer.screen() or "with tmux" in outer.screen(), "no")
            asked = lambda: re.findall(r"\x1b\]52;c?;([A-Za-z0-9+/=]+)(?:\x07|\x1b)", outer.raw)  # noqa: E731
            outer.waits(lambda: bool(asked()), "nothing was asked of the terminal")
            assert "R3LDvMOfZ" not in outer.screen()  # nothing of it is printed
            return {base64.b64decode(data).decode() for data in asked()}

    return run


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tmux"), reason="the system has no tmux")
@pytest.mark.parametrize("option", ["set-clipboard external", "set-clipboard on", "passthrough"])
def test_in_tmux_the_outer_terminal_gets_the_text(copies, tmp_path, option):
    tmux = shutil.which("tmux")
    options = option if option != "passthrough" else "allow-passthrough on"
    (tmp_path / "conf").write_text(f"set -g {options}\n")
    path = os.environ["PATH"]
    if option != "set-clipboard external":  # as with a tmux that is too old to do it by itself
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "tmux").write_text(NEVER)
        (tmp_path / "bin" / "tmux").chmod(0o755)
        path = f"{tmp_path / 'bin'}:{path}"
    inside = f"PATH={path} {sys.executable} {tmp_path}/copies.py {tmp_path}/text"
    command = [tmux, "-S", str(tmp_path / "socket"), "-f", str(tmp_path / "conf"), "new", inside]
    try:
        assert copies(*command) == {LONG}
    finally:
        subprocess.run([*command[:3], "kill-server"], capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("screen"), reason="the system has no GNU screen")
def test_in_screen_the_outer_terminal_gets_the_text(copies, tmp_path):
    (tmp_path / "sockets").mkdir(mode=0o700)
    command = ["screen", "-U", "-c", "/dev/null", sys.executable]
    program = [str(tmp_path / name) for name in ("copies.py", "text")]
    assert copies(*command, *program, env={"SCREENDIR": str(tmp_path / "sockets")}) == {LONG}
