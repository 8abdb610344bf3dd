"""docs/how-it-works: every chapter has its parts, and its commands print the shown output."""

import ast
import difflib
import re
import sys
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[1] / "docs/how-it-works"
sys.path.append(str(BOOK))
from outputs import commands, run  # noqa: E402

CHAPTERS = sorted(BOOK.glob("[0-9]*.md"))


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_has_a_command_an_exercise_and_sources(page):
    text = page.read_text("utf-8")
    assert commands(page) and all(output for _, output in commands(page))
    for part in ("\n## Exercise\n", "<summary>Solution</summary>", "\n## Sources\n", "\n```\n"):
        assert part in text, part
    assert len(text.splitlines()) < 180


def test_the_contents_list_every_chapter():
    found = re.findall(r"\((\d\d-[\w-]+\.md)\)", (BOOK / "README.md").read_text("utf-8"))
    assert found == [page.name for page in CHAPTERS]


@pytest.mark.slow
@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_the_commands_print_the_shown_output(page, smollm2, tmp_path):
    """Compare loosely: times, free memory and the last digits depend on the computer."""
    for command, written in commands(page):
        now = run(command, tmp_path)
        alike = difflib.SequenceMatcher(None, _words(written), _words(now), autojunk=False).ratio()
        assert alike > 0.8, f"{command}\n{now}"


def _words(text):
    return re.sub(r"[-+]?\d[\d.,]*", "0", text).split()


def test_attention_in_fifty_lines():
    """Lines of code: without docstrings, comments and empty lines."""
    text = (BOOK / "attention.py").read_text("utf-8")
    tree = ast.parse(text)
    told = {
        number
        for node in (tree, *tree.body)
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node)
        for number in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    lines = [line.strip() for i, line in enumerate(text.splitlines(), 1) if i not in told]
    assert len([line for line in lines if line and not line.startswith("#")]) <= 50
    assert {n.name for n in ast.walk(tree) if isinstance(n, ast.alias)} == {"sys", "gguf", "numpy"}
