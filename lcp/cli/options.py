"""Options: the parameters of a command, made from a frozen dataclass and from the settings.

A command line is parsed into one value, and a mapping of the settings that were given; then one
function is called with both. The values of settings stay text here: lcp.settings checks them.
"""

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, get_type_hints

import typer

from lcp.cli import shell_completion
from lcp.settings import OPTIONS

_SHOWN = "typer"  # the key of a field's metadata for what typer shows
_KIND = inspect.Parameter.KEYWORD_ONLY
_HIDDEN = "_hidden"  # ends the parameter name of spellings that help does not list


def argument(metavar: str, help: str, *, required: bool = False, **more: Any) -> Any:
    """A field of a command's dataclass: words of the command line."""
    default = dataclasses.MISSING if required else None
    return _field(default, typer.Argument(metavar=metavar, help=help, **more))


def option(flags: str, metavar: str, help: str, default: Any = None, **more: Any) -> Any:
    """A field of a command's dataclass: a flag with a value, in these spellings."""
    made = typer.Option(*flags.split(), metavar=metavar, help=help, show_default=False, **more)
    return _field(default, made)


def switch(flags: str, help: str) -> Any:
    """A field of a command's dataclass: a flag without a value."""
    return _field(False, typer.Option(*flags.split(), help=help))


def _field(default: Any, shown: Any) -> Any:
    return dataclasses.field(default=default, metadata={_SHOWN: shown})


def command(
    arguments: type,
    run: Callable[[Any, dict[str, Any]], None],
    settings: Collection[str] = tuple(OPTIONS),
) -> Any:
    """A function for typer, with a parameter for each field of the frozen dataclass `arguments`,
    its own before those that it inherits, and one for each flag of these settings. It calls
    `run(arguments(...), {setting: text})`."""
    hints, here = get_type_hints(arguments), arguments.__annotations__
    own = [
        inspect.Parameter(
            f.name, _KIND, default=_default(f),
            annotation=Annotated[hints[f.name], f.metadata[_SHOWN]],
        )
        for f in sorted(dataclasses.fields(arguments), key=lambda f: f.name not in here)
    ]  # fmt: skip
    flags = [parameter for name in settings for parameter in _flags(name)]

    def call(**given: Any) -> None:
        values = arguments(**{parameter.name: given.pop(parameter.name) for parameter in own})
        chosen: dict[str, Any] = {}
        for parameter, value in given.items():
            name = parameter.removesuffix(_HIDDEN)
            if value or (value == "" and "" in OPTIONS[name].metadata.get("words", {}).values()):
                chosen.setdefault(name, "on" if value is True else value)
        run(values, chosen)

    call.__doc__, call.__name__ = run.__doc__, run.__name__
    call.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    return call


def _default(field: "dataclasses.Field[Any]") -> Any:
    """The default of a parameter; one without has to be given."""
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def _flags(name: str) -> Iterator[inspect.Parameter]:
    """The parameters of one setting: its flag, and one for the spellings that are not listed."""
    option = OPTIONS[name]
    rule = option.metadata
    words = rule.get("choices") or tuple(rule.get("words", ()))
    kind: Any = str | None
    if isinstance(option.default, tuple):
        kind = list[str] | None
    elif rule.get("switch"):
        kind = bool
    shown = dict(help=rule["help"], show_default=False)
    if kind is not bool:
        metavar = rule.get("metavar") or "|".join(words if "choices" in rule else ("N", *words))
        offered = shell_completion.persona if name == "persona" else shell_completion.one_of(words)
        shown |= dict(metavar=metavar, autocompletion=offered if words else None)
    for spellings, hidden, end in ((rule["flags"], False, ""), (rule["hidden"], True, _HIDDEN)):
        if spellings:
            made = typer.Option(*spellings, hidden=hidden, **shown)
            default = False if kind is bool else None
            yield inspect.Parameter(
                name + end, _KIND, default=default, annotation=Annotated[kind, made]
            )
