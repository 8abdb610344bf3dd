"""Imports a submodule without the `__init__` of its package, which may import much more."""

import importlib
import importlib.util
import sys
from typing import Any


def import_submodule(name: str) -> Any:
    """Import a module such as `gguf.constants`. ImportError if its package is not installed."""
    package = name.partition(".")[0]
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ImportError(f"there is no package {package}")
        sys.modules[package] = importlib.util.module_from_spec(spec)
    return importlib.import_module(name)
