"""The file names of a split model, as llama.cpp spells them: NAME-00001-of-00003.gguf."""

import re
from pathlib import Path

PART = re.compile(r"-(\d{5})-of-(\d{5})(?=(\.gguf)?$)", re.IGNORECASE)  # llama.h: llama_split_path


def stem(name: str) -> str:
    """A file name without its part number and .gguf."""
    return re.sub(r"\.gguf$", "", PART.sub("", name), flags=re.IGNORECASE)


def part_name(name: str, number: int, count: int) -> str:
    """The name of one of the `count` parts of a model; `name` is that of any of its files."""
    return f"{stem(name)}-{number:05}-of-{count:05}.gguf"


def size_here(path: Path) -> int:
    """The bytes of a model file; of a split model, those of all parts that are here."""
    names = [path.name]
    if part := PART.search(path.name):
        count = int(part[2])
        names = [part_name(path.name, number, count) for number in range(1, count + 1)]
    return sum(file.stat().st_size for file in map(path.with_name, names) if file.is_file())
