"""The values of options and arguments, without pydantic: typer imports it to convert a text to a
text, and that takes as long as all the rest of a start."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import typer.core


class _Converter:
    """Converts the values of one parameter, as typer's own converter does."""

    def __init__(self, typers: Callable[[Any], Any], kind: Any) -> None:
        self._typers = typers
        self._plain = next((k for k in (str, Path) if kind is k or get_args(kind) == (k,)), None)

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value for the command; None and () stand for an option that was not given."""
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        if self._plain is None:
            return self._typers(param).coerce(value, param, ctx)
        return [self._plain(v) for v in value] if many else self._plain(value)


@functools.cache  # once
def convert_without_pydantic() -> None:
    """Let typer take texts and paths as they are, and convert other values only if given."""
    for kind in (typer.core.TyperOption, typer.core.TyperArgument):
        if typers := getattr(kind, "get_runtime_param", None):  # typer 0.29
            kind.get_runtime_param = _of(typers)  # type: ignore[method-assign]


def _of(typers: Callable[[Any], Any]) -> Any:
    return lambda parameter: _Converter(typers, parameter.type_descriptor.annotation)
