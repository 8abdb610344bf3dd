"""The tree of docs/tour.md: where imports point, who owns which package, how large a file is."""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from lcp.cli.lazy_commands import COMMANDS
from lcp.commands.command_table import TABLE

LCP = Path(__file__).parents[1] / "lcp"
FILES = sorted(LCP.rglob("*.py"))
ROOMS = ("engine", "remote", "modelfile", "session", "terminal", "downloads", "look")
FOLDERS = ("cli", "cli.look", "commands", "chat", "answers", "servers", "network", *ROOMS)
# An import points to a lower number, or stays in its own folder.
LEVELS = {
    "__main__": 9,
    "cli": 8,
    "commands": 7,
    "chat": 4,
    "health_checks": 3,
    **dict.fromkeys(ROOMS, 2),
    "recommended_settings": 1.5,
    "answers": 1.5,
    "engine_interface": 1.2,
    "engine_notices": 1,
    "settings": 1,
    "servers": 1.2,
    "network": 0,
    "worker": 0,
    "gguf_kinds": 0,
    "split_names": 0,
    "submodule_import": 0,
    "child_process": 0,
    "machine": 0,
    "paths": -0.5,
    "formatting": 0,
    "common_prefix": 0,
    "__init__": 0,
    "errors": -1,
}
PARTS_OF_THE_KEYBOARD = (
    "keyboard",
    "key_bindings",
    "history",
    "tab_completion",
    "toolbar",
    "graphemes",
)
# A foreign package -> the only files or folders that import it.
OWNERS = {
    "llama_cpp": ("engine",),
    "llguidance": ("engine",),
    "jinja2": ("engine",),
    "gguf": ("modelfile",),
    "numpy": ("engine/observer.py", "engine/probs.py", "look", "modelfile/weights.py"),
    "huggingface_hub": ("downloads",),
    "filelock": ("downloads/hub_cache.py",),
    "httpx2": ("downloads/hub_client.py",),
    "truststore": ("network/connections.py",),
    "rich": ("terminal",),
    "markdown_it": ("terminal/markdown.py",),
    "pygments": ("terminal/code_block.py",),
    "prompt_toolkit": tuple(f"terminal/{part}.py" for part in PARTS_OF_THE_KEYBOARD),
    "typer": ("cli",),
    "platformdirs": ("paths.py",),
    "tomllib": ("settings.py", "downloads/catalog.py"),  # foreign to Python 3.10
    "tomli": ("settings.py", "downloads/catalog.py"),
}
MOST_PARAMETERS = 10
# Files that run other programs or parse their command lines.
SPELL_FLAGS_OF_OTHERS = ("terminal/clipboard.py", "downloads/model_names.py")
# What cli/ may import at the top of its files, so that `lcp --help` is fast.
LIGHT = {"typer", "lcp"}


def name(path):
    return path.relative_to(LCP).as_posix()


def dotted(path):
    """The name under which Python imports a file: lcp.chat.input_loop."""
    return ".".join(("lcp", *path.relative_to(LCP).with_suffix("").parts)).removesuffix(".__init__")


def imports(tree):
    """The modules that the file imports, also inside functions and through importlib."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where an arrow points"
            assert node.module
            if node.module == "lcp" or node.module.removeprefix("lcp.") in FOLDERS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func).split(".")[-1]
            literal = isinstance(node.args[0], ast.Constant)
            if function in ("import_module", "import_submodule", "find_spec") and literal:
                yield node.args[0].value


def at_run_time(tree):
    """The tree without the imports that only a type checker reads."""
    kept = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return ast.Module(kept, [])


def top_level(tree):
    """What runs when the module is imported: the tree without functions and classes."""
    kept = [
        node
        for node in at_run_time(tree).body
        if not isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    return ast.Module(kept, [])


def part(module):
    """The piece of the tree a module of lcp belongs to: a room, or a file at the top."""
    first = module.split(".")[1:2]
    return first[0] if first and first[0] in LEVELS else "__init__"


@pytest.fixture(scope="module")
def trees():
    return {path: ast.parse(path.read_text("utf-8")) for path in FILES}


def test_every_top_level_module_has_a_level():
    assert {name(p).split("/")[0].removesuffix(".py") for p in FILES} <= set(LEVELS)


def test_imports_point_down_and_rooms_do_not_import_each_other(trees):
    wrong = []
    for path, tree in trees.items():
        own = name(path).split("/")[0].removesuffix(".py")
        for module in imports(tree):
            ours = module.split(".")[0] == "lcp" and part(module) != own
            if ours and LEVELS[part(module)] >= LEVELS[own]:
                wrong.append(f"{name(path)} imports {module}")
    assert not wrong


def test_no_two_modules_import_each_other_in_a_circle(trees):
    paths = {dotted(path): path for path in FILES}
    graph = {}
    for own, path in paths.items():
        asked = imports(at_run_time(trees[path]))
        # "lcp.gguf_kinds.DRAFT" is a name in the module lcp.gguf_kinds
        found = {m if m in paths else m.rpartition(".")[0] for m in asked}
        graph[own] = found & paths.keys() - {own}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def types(tree):
    """The classes of a file, also nested and private ones, and its names for types: each with what
    it means."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, node
    blocks = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.If))]
    for node in (node for block in blocks for node in block if isinstance(node, ast.Assign)):
        alias = ast.unparse(node.targets[0])
        if re.fullmatch(r"[A-Z]\w*[a-z]\w*", alias):
            yield alias, ast.unparse(node.value)


def test_a_name_of_a_class_or_a_type_means_one_thing(trees):
    meanings = {}
    for path, tree in trees.items():
        for type_, meaning in types(tree):
            meanings.setdefault(type_, {}).setdefault(meaning, name(path))
    assert not {type_: [*found.values()] for type_, found in meanings.items() if len(found) > 1}


@pytest.mark.parametrize(
    "line",
    [
        'importlib.import_module("llama_cpp.llama_cpp")',
        'importlib.util.find_spec("llama_cpp")',
        'import_submodule("llama_cpp.llama_cpp")',
        "import llama_cpp",
        "def f():\n    from llama_cpp import llama_cpp",
    ],
)
def test_every_way_to_import_a_package_is_found(line):
    assert [module.split(".")[0] for module in imports(ast.parse(line))] == ["llama_cpp"]


def test_every_foreign_package_has_its_owner(trees):
    wrong = []
    for path, tree in trees.items():
        for module in imports(tree):
            package = module.split(".")[0]
            if package in sys.stdlib_module_names or package == "lcp":
                continue
            places = OWNERS.get(package, ())
            if not any(
                name(path) == place or name(path).startswith(f"{place}/") for place in places
            ):
                wrong.append(f"{name(path)} imports {module}")
    assert not wrong


def test_cli_imports_nothing_heavy_at_the_top_of_its_files(trees):
    wrong = []
    for path, tree in trees.items():
        if name(path).startswith("cli/"):
            for module in imports(top_level(tree)):
                package = module.split(".")[0]
                heavy = package not in sys.stdlib_module_names and package not in LIGHT
                if heavy or (package == "lcp" and part(module) in (*ROOMS, "chat", "commands")):
                    wrong.append(f"{name(path)} imports {module}")
    assert not wrong


def test_no_import_does_any_work(trees):
    """At the top of a module: definitions, names and imports, and what depends on the platform."""
    allowed = (
        ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign,
        ast.If, ast.Expr,
    )  # fmt: skip
    for path, tree in trees.items():
        for node in tree.body:
            assert isinstance(node, allowed), f"{name(path)}:{node.lineno}"


def sentences(tree):
    """The strings of a file, without docstrings."""
    docs = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
            yield node


def test_rooms_name_no_command_and_no_flag(trees):
    """A room says what is wrong; chat/ and cli/ say what to type (chat/error_advice.py)."""
    commands = "|".join(command.name for command in TABLE)
    own = "|".join(COMMANDS)
    typed = re.compile(rf"(?<![\w/])/({commands})\b|(?<!\w)--[a-z]|\blcp ({own})\b")
    wrong = [
        f"{name(path)}:{node.lineno}: {node.value}"
        for path, tree in trees.items()
        if name(path).split("/")[0] in (*ROOMS, "child_process.py")
        and name(path) not in SPELL_FLAGS_OF_OTHERS
        for node in sentences(tree)
        if typed.search(node.value) and "pip install" not in node.value
    ]
    assert not wrong


def test_functions_have_few_parameters(trees):
    wrong = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and len(node.args.args) + len(node.args.kwonlyargs) > MOST_PARAMETERS
    ]
    assert not wrong


def test_a_file_says_what_it_is_and_is_not_long(trees):
    mute = [name(path) for path in FILES if len(ast.get_docstring(trees[path]) or "") <= 10]
    long = [name(path) for path in FILES if len(path.read_text("utf-8").splitlines()) > 400]
    assert not mute + long


def test_no_line_is_longer_than_a_hundred_characters():
    long = [
        f"{name(path)}:{number}"
        for path in FILES
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if len(line) > 100
    ]
    assert not long
