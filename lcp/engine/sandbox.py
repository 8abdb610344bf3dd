"""Sandbox: Jinja for programs out of downloaded files.

No way out through attributes (Jinja's own sandbox), a limit on time, checked in every turn of a
loop and in every macro, and a limit on size: every operation that can multiply sizes is priced
before it runs, every result that can add them up is measured after it. It knows no chat.
"""

import functools
import json
import math
import re
import time
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_SIZE_FLOOR = 1 << 22
_ITEMS = 1 << 17


class Exceeded(Exception):
    """The program wants more time or memory than it is given."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as model makers use it (the options of transformers), with limits."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, seconds: float) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        self._seconds = seconds
        self._deadline = math.inf
        self._limit = _SIZE_FLOOR
        for name in ("urlize", "wordwrap", "striptags", "pprint", "random"):
            del self.filters[name]  # slow or pointless in a prompt
        self.filters["tojson"] = _tojson
        self.filters = {name: self._priced(f) for name, f in self.filters.items()}
        self.filters["measured"] = self.measured
        self.finalize = self.measured
        del self.globals["lipsum"]

    def render(self, template: jinja2.Template, **names: Any) -> str:
        self._deadline = time.monotonic() + self._seconds
        self._limit = _SIZE_FLOOR + 16 * _size(names["messages"])
        parts: list[str] = []
        total = 0
        for part in template.generate(**names):
            total += len(part)
            if total > self._limit:
                raise Exceeded("room")
            parts.append(part)
        return "".join(parts)

    def tick(self) -> str:
        """Called in every turn of a loop."""
        if time.monotonic() > self._deadline:
            raise Exceeded("time")
        return ""

    def concat_all(self, *parts: Any) -> str:
        """The ~ operator."""
        return self.measured("".join(str(self.measured(part)) for part in parts))

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        bound = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        # a macro is made of operations that are looked at themselves
        if bound is not self and not isinstance(function, Macro):
            self._price([bound, *args, *kwargs.values()], bound)
        return self.measured(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * (abs(right) if operator == "**" else 1) + right.bit_length()
            if bits > 4096:
                raise Exceeded("room")
        elif operator != "+":
            self._price([left, right], left if operator == "%" else None)
        return self.measured(super().call_binop(context, operator, left, right))

    def _priced(self, function: Any) -> Any:
        @functools.wraps(function)  # keeps Jinja's marks on filters that take the environment
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self._price([*args, *kwargs.values()], args[0])
            return self.measured(function(*args, **kwargs))

        return guarded

    def _price(self, values: list[Any], pattern: Any) -> None:
        """No product of all sizes and numbers that is out of proportion, no field as wide."""
        if isinstance(pattern, str) and len(pattern) < 256 and _WIDE.search(pattern):
            raise Exceeded("room")
        sizes = (abs(v) if isinstance(v, int) else _size(v) for v in values)
        if math.prod(max(1, size) for size in sizes) > 64 * self._limit:
            raise Exceeded("room")

    def measured(self, value: Any) -> Any:
        if _size(value) > self._limit:
            raise Exceeded("room")
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        tick = nodes.Output([_call("tick", [])])
        for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            node.body.insert(0, tick)  # type: ignore[attr-defined]
        for block in tree.find_all(nodes.AssignBlock):
            block.filter = nodes.Filter(block.filter, "measured", [], [], None, None)
        return _watched(tree)


# A printf or format field of a million columns.
_WIDE = re.compile(r"[%:{][^a-zA-Z]{0,9}\d{6}")


def _watched(node: Any) -> Any:
    """The tree with every ~ as a call of concat_all and every list built under a measure.

    A list of twice the same list of twice the same list is small in memory, not when printed.
    """
    for name, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, name, [_watched(v) if isinstance(v, nodes.Node) else v for v in value])
        elif isinstance(value, nodes.Node):
            setattr(node, name, _watched(value))
    if isinstance(node, nodes.Concat):
        return _call("concat_all", node.nodes)
    if isinstance(node, nodes.List | nodes.Dict) or (
        isinstance(node, nodes.Tuple) and node.ctx == "load"
    ):
        return _call("measured", [node])
    return node


def _call(method: str, arguments: list[Any]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


class _Generation(Extension):
    """{% generation %}...{% endgeneration %} marks training targets; a prompt keeps the inside."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own protocol)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
    """As transformers': no HTML escapes."""
    if indent is not None:
        indent = min(int(indent), 16)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _size(value: Any) -> int:
    """Characters and items, nested ones as often as they would be printed; boundless
    past _ITEMS items."""
    total = seen = 0
    stack = [value]
    while stack:
        item = stack.pop()
        seen += 1
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, Namespace):
            stack.extend(item._Namespace__attrs.values())
        if seen > _ITEMS:
            return 1 << 62
    return total + seen
