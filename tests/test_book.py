"""docs/how-it-works: every chapter has its parts, and its commands print the shown output."""

import ast
import difflib
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

BOOK = Path(__file__).parents[1] / "docs/how-it-works"
sys.path.append(str(BOOK))
from outputs import FIGURES, commands, figures, run  # noqa: E402

CHAPTERS = sorted(BOOK.glob("[0-9]*.md"))


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_has_a_command_an_exercise_and_sources(page):
    text = page.read_text("utf-8")
    assert commands(page) and all(output for _, output in commands(page))
    for part in ("\n## Exercise\n", "<summary>Solution</summary>", "\n## Sources\n", "\n```\n"):
        assert part in text, part
    assert re.search(r"(?m)^```\n[^`]+^```$", text), "a formula"
    assert len(text.splitlines()) < 190


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_a_chapter_has_a_picture_with_a_ground_and_its_measured_tables(page):
    text = page.read_text("utf-8")
    pictures = re.findall(r"!\[[^]]{20,}\]\(([^)]+\.svg)\)", text)
    assert pictures
    for name in pictures:
        root = ElementTree.fromstring((page.parent / name).read_text("utf-8"))
        grounds = [x.get("fill") for x in root.iter() if x.tag.endswith("}rect")]
        assert grounds and all(fill != "none" for fill in grounds[:1])
    for name in re.findall(r"<!-- (?!end)(.*?) -->", text):
        assert name in figures(text)
        table = text.partition(f"<!-- {name} -->")[2].partition("<!-- end -->")[0]
        assert table.count("\n|") >= 4


def test_a_measured_picture_stays_inside_its_card():
    """Texts are as wide as a monospace font makes them."""
    for name in FIGURES:
        if not (file := BOOK / f"{name}.svg").exists():
            continue
        root = ElementTree.fromstring(file.read_text("utf-8"))
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for text in root.iter("{http://www.w3.org/2000/svg}text"):
            x, y, length = float(text.attrib["x"]), float(text.attrib["y"]), len(text.text) * 8.5
            anchor = text.get("text-anchor", "start")
            left = x - length * {"start": 0, "middle": 0.5, "end": 1}[anchor]
            assert left >= 0 and left + length <= width and y < height, text.text


def test_the_contents_list_every_chapter():
    found = re.findall(r"\((\d\d-[\w-]+\.md)\)", (BOOK / "README.md").read_text("utf-8"))
    assert found == [page.name for page in CHAPTERS]


@pytest.mark.slow
@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.stem)
def test_the_commands_print_the_shown_output(page, smollm2, tmp_path, known):
    """Compare loosely: times, free memory and the last digits depend on the computer.

    One thread: other tests run on the other cores, and two threads would wait for each other."""
    for command, written in commands(page):
        now = run(command, tmp_path, LCP_HOME=str(known), LCP_THREADS="1")
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
