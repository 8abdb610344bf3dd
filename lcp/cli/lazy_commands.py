"""The commands of lcp by name. Each is imported when it is used: a start pays for no other."""

from collections import UserDict
from importlib import import_module
from typing import Any

import typer
import typer.core
import typer.main

# name -> where its function or its typer.Typer is, and its line in the help
COMMANDS = {
    "chat": ("lcp.cli.chat", "chat", "Chat with a model."),
    "doctor": (
        "lcp.cli.doctor",
        "doctor",
        "Check the installation: llama.cpp, CPU, GPU, folders.",
    ),
    "info": ("lcp.cli.info", "info", "Show what a model is and how much memory it needs."),
    "pull": ("lcp.cli.pull", "pull", "Download a model and print its path."),
    "bench": (
        "lcp.cli.bench",
        "bench",
        "Measure flash attention and threads for a model; its later chats use the fastest.",
    ),
    "list": (
        "lcp.cli.installed_models",
        "list_",
        "List the models on this computer, last used first.",
    ),
    "rm": ("lcp.cli.installed_models", "rm", "Remove a model and the files that only it uses."),
    "verify": ("lcp.cli.installed_models", "verify", "Read a model again and check its sha256."),
    "serve": (
        "lcp.cli.serve",
        "serve",
        "Serve a model to other programs and machines, with llama.cpp's llama-server.",
    ),
    "quantize": (
        "lcp.cli.quantize",
        "quantize",
        "Quantize an installed model to another type, and print the path of the new file.",
    ),
    "sessions": (
        "lcp.cli.sessions",
        "app",
        "List, search, show, export, replay, rename and remove saved chats.",
    ),
    "look": (
        "lcp.cli.look",
        "app",
        "Look inside a model: follow a fact, see how a token is chosen, switch heads off.",
    ),
}


class LoadedCommands(UserDict[str, Any]):
    """Name -> typer's command, made at the first look."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(COMMANDS))

    def __getitem__(self, name: str) -> Any:
        if name in self.data and self.data[name] is None:
            self.data[name] = _made(name)
        return self.data[name]


class LazyCommands(typer.core.TyperGroup):
    """A group of commands that knows their names and lines of help before it imports them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = LoadedCommands()

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


def _made(name: str) -> Any:
    module, attribute, _ = COMMANDS[name]
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)
    else:
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(name)(found)
        command = typer.main.get_command(app)
    command.name = name
    return command
