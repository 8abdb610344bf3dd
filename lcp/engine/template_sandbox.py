"""Runs Jinja templates from downloaded files safely.

Jinja's own sandbox blocks the way out through attributes. This one adds limits on time, memory and
size: operations that can multiply sizes are estimated before they run, and every value that is
made or printed passes `measured`, which checks the clock, the value's size and the sum of all
text so far. Nothing is computed at compile time.
"""

import functools
import json
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from types import GeneratorType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_SIZE_FLOOR = 1 << 20  # characters
_ITEMS = 1 << 17
_ITEM = 8  # size of an item, in characters: a pointer
_INT_BITS = 60  # with larger numbers arithmetic takes time, and hashes collide
_BOUNDLESS = 1 << 62
_TEXT = (str, bytes)

# slow or pointless in a prompt
_NO_FILTERS = ("urlize", "wordwrap", "striptags", "pprint", "random", "round", "sum")
# filters whose result can be larger than their input
_MULTIPLY = frozenset(["batch", "center", "format", "indent", "join", "replace", "slice"])


class Exceeded(Exception):
    """The template takes more time or memory than allowed."""


class Sandbox(ImmutableSandboxedEnvironment):
    """A Jinja environment with the options of transformers, and with limits."""

    intercepted_binops = frozenset(["+", "*", "//", "**", "%"])

    def __init__(self, seconds: float) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False)
        self.add_extension(loopcontrols)
        self.add_extension(_Generation)
        self._seconds = seconds
        for name in _NO_FILTERS:
            del self.filters[name]
        self.filters["tojson"] = self._tojson
        self.filters = {name: self._filter(f, name) for name, f in self.filters.items()}
        self.filters |= {"checked": self.checked, "measured": self.measured, "joined": self.joined}
        self.tests = {name: self._test(t) for name, t in self.tests.items()}
        self.finalize = self._printed
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]

    def start(self, messages: Sequence[Any]) -> None:
        """Start the clock and the budget of text for the next compilation or rendering."""
        # some templates loop over all messages for each message
        self._deadline = time.monotonic() + self._seconds * (1 + len(messages) / 100)
        self._limit = _SIZE_FLOOR + 16 * _size(messages)  # of one value, in characters
        self._left = 128 * self._limit  # of all text that is made

    def render(self, template: jinja2.Template, names: Mapping[str, Any]) -> str:
        return str(self.checked(template.render(names)))

    # checks of values

    def checked(self, value: Any) -> Any:
        """The value, if it is small enough and there is time left."""
        if time.monotonic() > self._deadline:
            raise Exceeded("time")
        if _size(value) > self._limit:
            raise Exceeded("room")
        return value

    def measured(self, value: Any) -> Any:
        """The same for a new or printed value, which counts towards the sum of all text."""
        if isinstance(self.checked(value), str):
            self._left -= len(value)
            if self._left < 0:
                raise Exceeded("room")
        if isinstance(value, Iterator) and not isinstance(value, LoopContext):
            return self._watched(value)
        return value

    def _watched(self, items: Iterable[Any]) -> Iterator[Any]:
        """A lazy result, checked item by item."""
        size = 0
        for item in items:
            size += _size(self.checked(item))
            if size > self._limit:
                raise Exceeded("room")
            yield item

    def joined(self, *parts: Any) -> Any:
        """The ~ operator."""
        return self.measured("".join(map(str, self.checked(parts))))

    @jinja2.pass_context  # a function with the context is not evaluated at compile time
    def _printed(self, context: Any, value: Any) -> Any:
        return self.measured(value)

    # checks before and after operations

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        bound = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if bound is not None:
            args = tuple(map(_drawn, args))
            if isinstance(bound, str) and function.__name__ in ("format", "format_map"):
                self._check_columns(" ".join(f[2] or "" for f in Formatter().parse(bound)))
            self._price(bound, [*args, *kwargs.values()])
        self.checked((args, kwargs))  # a macro gets them as one list
        return self.measured(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.checked((left, right))
        integers = isinstance(left, int) and isinstance(right, int)
        if operator == "**" and integers and left.bit_length() * abs(right) > _INT_BITS:
            raise Exceeded("room")
        if operator == "*" and not integers:
            value, number = (right, left) if isinstance(left, int) else (left, right)
            self._price(value, [number])
        if operator == "%" and not integers:
            self._check_columns(" ".join(_PERCENT.findall(repr(left))))
            self._price(left, [right])
        return self.measured(super().call_binop(context, operator, left, right))

    def _filter(self, function: Any, name: str) -> Any:
        first = 1 if hasattr(function, "jinja_pass_arg") else 0  # after Jinja's own argument

        @functools.wraps(function)  # keeps the attribute jinja_pass_arg
        def guarded(*args: Any, **kwargs: Any) -> Any:
            args = tuple(map(_drawn, args))
            if name == "format":
                self._check_columns(" ".join(_PERCENT.findall(str(args[first]))))
            if name in _MULTIPLY:
                self._price(args[first], [*args[first + 1 :], *kwargs.values()])
            return self.measured(function(*args, **kwargs))

        return guarded

    def _test(self, function: Any) -> Any:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            return self.checked(function(*args, **kwargs))

        return guarded

    def _price(self, value: Any, by: list[Any]) -> None:
        """Raise Exceeded if an operation could multiply a size too much."""
        factor = sum(abs(b) if isinstance(b, int) else _size(b) for b in by)
        if _size(value) * factor > 64 * self._limit:
            raise Exceeded("room")

    def _check_columns(self, fields: str) -> None:
        """Raise Exceeded for a format with a very wide field, or a width from an argument."""
        if re.search("[*{]", fields) or sum(map(int, re.findall("[0-9]+", fields))) > self._limit:
            raise Exceeded("room")

    def _tojson(
        self, value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any
    ) -> str:
        """The filter as in transformers: without HTML escapes."""
        indent = None if indent is None else min(int(indent), 16)
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent)
        return "".join(self._watched(encoder.iterencode(value)))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.body.insert(0, nodes.Output([nodes.Const("")]))  # printing checks the clock
        for block in tree.find_all(nodes.AssignBlock):
            block.filter = _through("measured", block.filter)
        return _rewritten(tree)


# The flags and the width of the fields in "%-20s, %(name)*d".
_PERCENT = re.compile(r"%(?:\([^)]*\))?([^a-zA-Z%]*)")


def _rewritten(node: Any) -> Any:
    """The syntax tree with checks of the operations that Jinja compiles to plain Python.

    A list that holds one list twice, which holds one list twice, and so on, is small in memory but
    not when it is printed or compared. Literal text becomes a constant, because Jinja passes only
    constants through `finalize`.
    """
    for name, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, name, [_rewritten(v) if isinstance(v, nodes.Node) else v for v in value])
        elif isinstance(value, nodes.Node):
            setattr(node, name, _rewritten(value))
    if isinstance(node, nodes.TemplateData):
        return nodes.Const(node.data)
    if isinstance(node, nodes.Concat):
        return _through("joined", *node.nodes)
    if isinstance(node, nodes.Compare):
        node.expr = _through("checked", node.expr)
    made = isinstance(node, nodes.List | nodes.Dict | nodes.Tuple | nodes.Getitem)
    if made and getattr(node, "ctx", "load") == "load":
        return _through("measured", node)
    return node


def _through(name: str, value: Any, *more: Any) -> nodes.Filter:
    return nodes.Filter(value, name, list(more), [], None, None)


def _drawn(value: Any) -> Any:
    """A lazy result as a list, so that its size can be checked."""
    return list(value) if isinstance(value, GeneratorType) else value


class _Generation(Extension):
    """{% generation %}...{% endgeneration %} marks training targets; a prompt has the inside."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own protocol)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _size(value: Any) -> int:
    """The size of a value in characters; shared items count as often as they would be printed.
    _BOUNDLESS for more than _ITEMS items and for very large numbers."""
    total = seen = 0
    stack = [value]
    while stack:
        item = stack.pop()
        seen += 1
        if isinstance(item, _TEXT):
            total += len(item)
        elif isinstance(item, int):
            if item.bit_length() > _INT_BITS:
                return _BOUNDLESS
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, Namespace):
            stack.extend(item._Namespace__attrs.values())
        elif isinstance(item, Collection):
            stack.extend(item)
        if seen + len(stack) > _ITEMS:
            return _BOUNDLESS
    return total + _ITEM * seen
