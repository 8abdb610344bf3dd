"""Values from a server: each has the type that lcp expects, or is empty."""

from typing import Any, TypeGuard


def record(value: Any) -> dict[str, Any]:
    """An object; {} for anything else."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; [] for anything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether this is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def count(value: Any) -> int:
    """A number of tokens; 0 for anything else."""
    return value if is_whole(value) and value > 0 else 0
