"""Texts and files that options name: system text, chat template, schema, grammar."""

from pathlib import Path

from lcp import paths
from lcp.engine_interface import Constraint
from lcp.errors import SettingsError, UsageError
from lcp.formatting import short

MAX_BYTES = 4_000_000  # of a text file; no context window is that large


def constraint(
    schema: str | None, regex: str | None, grammar: str | None
) -> tuple["Constraint | None", list[str]]:
    """The required form of the answers, and notices about it. A schema or a grammar is a file name
    or the text itself."""
    given = {"--json-schema": schema, "--regex": regex, "--grammar": grammar}
    given = {flag: value for flag, value in given.items() if value is not None}
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} cannot be combined. Give one of them.")
    for flag, value in given.items():
        if not value:  # "$SCHEMA" of a script, unset
            raise UsageError(f"{flag} is empty. Give it a value, or leave it out.")
    from lcp.engine.constraint_check import check

    if schema:
        written = schema.lstrip().startswith("{")
        source = schema if written else text(Path(schema), "schema")
        asked = Constraint("schema", source, "The schema" if written else schema)
    elif grammar:
        written = "::=" in grammar
        source = grammar if written else text(Path(grammar), "grammar")
        asked = Constraint("grammar", source, "The grammar" if written else grammar)
    elif regex:
        asked = Constraint("regex", regex, f"The regular expression {short(regex, 60)}")
    else:
        return None, []
    return asked, check(asked)


def system(given: str) -> str:
    """The system text, which may be in a file: @FILE."""
    return text(Path(given[1:]), "system text") if given[:1] == "@" else given


def template(given: Path) -> str:
    """The source of a chat template in a file, or the name of one that is built into llama.cpp."""
    from lcp.engine import cpu_check, template_builtin

    if paths.at(str(given)) is None and given.name == str(given):
        cpu_check.check_once(paths.cache())  # names() asks llama.cpp
        if given.name in template_builtin.names():
            return given.name
    return text(given, "template")


def text(file: Path, what: str) -> str:
    """The text of a file; SettingsError if it cannot be read."""
    try:
        with file.expanduser().open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)  # /dev/zero has no end
        if len(data) <= MAX_BYTES:
            return data.decode("utf-8-sig").replace("\r\n", "\n")
        why = f"it is larger than {MAX_BYTES:,} bytes"
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    except (OSError, RuntimeError) as error:  # "~nobody" has no home
        why = getattr(error, "strerror", None) or str(error)
    raise SettingsError(f"Cannot read the {what} {file}: {why}. Give another file.")
