"""The pictures of the docs: the real program in a terminal of its own, drawn as SVG.

    python docs/screenshots.py            # writes docs/*.svg; needs the demo model (make chat)

Each picture is a list of steps: what is typed, and what must be seen before the next one. Answers
are the likeliest ones (temperature 0), so that two runs differ in their figures only.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from terminal import CTRL_D, ENTER, Pty  # noqa: E402

COLUMNS, ROWS = 84, 30
CHAT = ("chat", "smollm2-135m", "--temp", "0", "--no-save")
# name -> command, and (typed, then seen) one after another
PICTURES = {
    "chat": (
        (*CHAT, "-n", "160"),
        [
            ("What is the capital of Japan?", "first token"),
            ("Write a Python function that adds two numbers, with an example.", "first token"),
        ],
    ),
    "window": (
        (*CHAT, "-c", "512", "-n", "60"),
        [
            ("Tell me about the sea.", "first token"),
            ("Tell me about the moon.", "first token"),
            ("Tell me about the desert.", "first token"),
            ("Tell me about the forest.", "first token"),
            ("Tell me about the wind.", "first token"),
            ("Tell me about the rain.", "first token"),
            ("Tell me about the snow.", "Context full"),
            ("/context", "kept for the answer"),
        ],
    ),
    "info": (("info", "smollm2-135m"), []),
}
# name -> `lcp look`, which draws its pictures itself
LOOKS = {
    "look-swap": ("swap", "The capital of France is", "The capital of Italy is"),
    "look-next": (
        "next", "My favourite animal is the", "--seed", "1", "--temp", "0.8", "--top-p", "0.95",
    ),
    "look-without": (
        "without", "The office opens at nine on weekdays. Maria keeps the spare key in the blue "
        "box. Coffee is free on Fridays. The printer is on the second floor. Tom waters the "
        "plants. Where is the spare key?", "-n", "24",
    ),
    "look-layers": ("layers", "The capital of France is"),
    "look-heads": ("heads",),
}  # fmt: skip
THEME = TerminalTheme(
    (255, 255, 255),
    (36, 41, 47),
    [
        (36, 41, 47), (180, 35, 24), (17, 99, 41), (125, 78, 0),
        (9, 84, 166), (130, 80, 223), (27, 124, 131), (110, 119, 129),
    ],
    [
        (101, 109, 118), (207, 34, 46), (26, 127, 55), (154, 103, 0),
        (33, 139, 255), (164, 117, 249), (49, 146, 170), (140, 149, 159),
    ],
)  # fmt: skip


def main() -> None:
    for name in sys.argv[1:] or [*PICTURES, *LOOKS]:
        if name in LOOKS:
            file = ROOT / "docs" / f"{name}.svg"
            with tempfile.TemporaryDirectory() as folder:  # --svg replaces no file
                made = Path(folder) / file.name
                words = [*LOOKS[name], "--model", "smollm2-135m", "--svg", str(made)]
                subprocess.run([sys.executable, "-m", "lcp", "look", *words], check=True)
                shutil.copy(made, file)
            continue
        command, steps = PICTURES[name]
        with tempfile.TemporaryDirectory() as home:
            text = shoot(command, steps, Path(home))
        file = ROOT / "docs" / f"{name}.svg"
        file.write_text(svg(text, f"lcp {command[0]}"), "utf-8")
        sys.stdout.write(f"{file.relative_to(ROOT)}\n")


def shoot(command: tuple[str, ...], steps: list[tuple[str, str]], home: Path) -> Text:
    """Run the program; what stands in its terminal at the end."""
    with Pty(sys.executable, "-m", "lcp", *command, home=home) as pty:
        pty.resize(COLUMNS, ROWS)
        if steps:
            pty.sees(">")
        for typed, seen in steps:
            before = pty.screen().count(seen)
            pty.type(typed)
            pty.sees(typed[-20:])
            pty.type(ENTER)
            pty.waits(lambda n=before, s=seen: pty.screen().count(s) > n, f"{seen!r} never came")
        if steps:
            pty.sees(">")
            text = picture(pty)
            pty.type(CTRL_D)
            pty.leaves()
        else:
            pty.leaves()
            text = picture(pty)
    return text


def picture(pty: Pty) -> Text:
    """The terminal's screen with its colours, without the empty rows at the end."""
    screen = pty.glass._screen
    rows = [row(screen.buffer[y]) for y in range(screen.lines)]
    while rows and not rows[-1].plain.strip():
        rows.pop()
    return Text("\n").join(rows)


def row(cells) -> Text:
    text = Text(no_wrap=True)
    for x in range(COLUMNS):
        cell = cells[x]
        text.append(cell.data, style(cell))
    text.rstrip()
    return text


def style(cell) -> Style:
    return Style(
        color=colour(cell.fg), bgcolor=colour(cell.bg), bold=cell.bold, italic=cell.italics,
        underline=cell.underscore, reverse=cell.reverse, strike=cell.strikethrough,
    )  # fmt: skip


def colour(name: str) -> str | None:
    """pyte's name of a colour as rich's."""
    if name == "default":
        return None
    if len(name) == 6 and all(c in "0123456789abcdef" for c in name):
        return f"#{name}"
    name = {"brown": "yellow", "brightbrown": "brightyellow"}.get(name, name)
    return name.replace("bright", "bright_")


def svg(text: Text, title: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=True)
    return console.export_svg(title=title, theme=THEME)


if __name__ == "__main__":
    main()
