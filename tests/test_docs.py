"""The docs agree with the program. Run as a script, this file rewrites their generated parts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import terminal_environment

import lcp
from lcp.commands.command_table import TABLE
from lcp.settings import OPTIONS, Settings
from lcp.terminal.key_bindings import KEYS

ROOT = Path(__file__).parents[1]
USAGE = ROOT / "docs/usage.md"


def generated() -> dict[str, str]:
    """Name of a generated part -> the text between its markers."""
    return {
        "help": f"```\n{help_text('chat')}```",
        "info": f"```\n{help_text('info')}```",
        "bench": f"```\n{help_text('bench')}```",
        "pull": f"```\n{help_text('pull')}```",
        "serve": f"```\n{help_text('serve')}```",
        "settings": settings_table(),
        "commands": commands_table(),
        "keys": keys_table(),
    }


def help_text(*command: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "lcp", *command, "--help"],
        env={**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.replace("python -m lcp", "lcp")


def settings_table() -> str:
    settings = Settings()
    rows = []
    for name, option in OPTIONS.items():
        words = option.metadata.get("words", {})
        default = settings.value(name)
        shown = next((w for w, value in words.items() if value == default), default)
        text = "" if shown in (None, ()) else f"`{shown}`"
        flag = "".join(f"`{flag}`" for flag in option.metadata["flags"][-1:])
        rows.append(f"| `{name}` | {flag} | {text} | {option.metadata['help']} |")
    return "\n".join(["| name | flag | default | meaning |", "|---|---|---|---|", *rows])


def commands_table() -> str:
    names = [f"/{c.name} {c.arguments}".strip().replace("|", r"\|") for c in TABLE]
    rows = [f"| `{name}` | {c.meaning} |" for name, c in zip(names, TABLE, strict=True)]
    return "\n".join(["| command | does |", "|---|---|", *rows])


def keys_table() -> str:
    rows = [f"| {keys} | {meaning} |" for keys, meaning in KEYS]
    return "\n".join(["| key | does |", "|---|---|", *rows])


def marked(name: str) -> re.Pattern[str]:
    return re.compile(f"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)


def test_the_generated_parts_of_usage_are_what_the_program_prints():
    text = USAGE.read_text("utf-8")
    for name, part in generated().items():
        found = marked(name).search(text)
        assert found, f"docs/usage.md has no part {name}"
        assert found.group(0) == f"<!-- {name} -->\n{part}\n<!-- end -->"


def test_the_tree_in_the_tour_is_the_tree():
    block = (ROOT / "docs/tour.md").read_text("utf-8").split("```\nlcp/\n")[1].split("```")[0]
    told, folders = [], []
    for inside, entry in re.findall(r"^((?:│   |    )*)[├└]── ([\w.]+/?)", block, re.MULTILINE):
        folders[len(inside) // 4 :] = [entry]
        told.append("".join(folders))
    files = [p.relative_to(ROOT / "lcp") for p in (ROOT / "lcp").rglob("*.py")]
    shown = [f.as_posix() for f in files if not f.name.startswith("__")]
    rooms = [f"{f.parent}/" for f in files if f.name == "__init__.py" and f.parent.name]
    assert sorted(told) == sorted(shown + rooms)


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## (\S+)", text, re.MULTILINE).group(1) == lcp.__version__


def anchors(page):
    """The ends of links to the headings of a page, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_to_our_files_and_headings_work():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    headings = 0
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)]+)", page.read_text("utf-8")):
            name, _, heading = target.partition("#")
            file = page.parent / name if name else page
            assert file.exists(), f"{page.name} links to {target}"
            if heading:
                assert heading in anchors(file), f"{page.name} links to {target}"
                headings += 1
    assert headings > 50


def test_every_lcp_command_in_the_readme_has_a_known_form():
    text = (ROOT / "README.md").read_text("utf-8")
    known = {
        flag for line in help_text("chat").splitlines() for flag in re.findall(r"--?[\w-]+", line)
    }
    for line in re.findall(r"^.*\blcp chat\b.*$", text, re.MULTILINE):
        command = line.split("lcp chat", 1)[1].split("|")[0].split("#")[0]
        for flag in re.findall(r"(?<=\s)--?[a-z][\w-]*", command):
            assert flag in known, f"{flag} in: {line}"


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for page in (ROOT / "README.md", ROOT / "docs/contributing.md"):
        for target in re.findall(r"\bmake ([a-z]+)", page.read_text("utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


@pytest.mark.slow
def test_the_blocks_of_scripts_md_run(home, tmp_path):
    (tmp_path / "bin").mkdir()
    lcp = tmp_path / "bin/lcp"
    lcp.write_text(f'#!/bin/sh\nexec {sys.executable} -m lcp "$@"\n')
    lcp.chmod(0o755)
    environment = terminal_environment(home) | {
        "PATH": f"{lcp.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "docs/scripts.md").read_text(), re.DOTALL):
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", block],
            cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        if "yesno.gbnf" in block:
            assert re.fullmatch("(yes|no)\\n(yes|no)\\n", done.stdout)


if __name__ == "__main__":
    usage = USAGE.read_text("utf-8")
    for name, part in generated().items():
        usage = marked(name).sub(lambda m, part=part: f"{m[1]}{part}{m[2]}", usage)
    USAGE.write_text(usage, "utf-8")
