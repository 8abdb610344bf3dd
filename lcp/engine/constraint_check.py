"""Checks a constraint on answers: a JSON schema, a regular expression or a GBNF grammar.

The check runs in a child process before a model is loaded: a hostile or mistaken constraint may use
up time and memory, or crash the library that compiles it.
"""

from dataclasses import asdict

from lcp import child_process
from lcp.engine_interface import Constraint
from lcp.errors import DoesNotRun, SettingsError
from lcp.formatting import short

CPU_S, MEMORY = 1, 256 << 20  # limits of the check, in seconds and bytes
_WAIT_S = 60  # the machine may be busy


def check(constraint: Constraint) -> list[str]:
    """Notices about a constraint, from a check in the child process.

    Raises SettingsError if no answer can match it or if the check takes too much time or memory;
    DoesNotRun if the library cannot run here.
    """
    result = child_process.run("constraint", asdict(constraint), timeout=_WAIT_S)
    if not result.answers:
        lines = result.stderr.strip().splitlines()
        if result.status == 1 and lines and "MemoryError" not in lines[-1]:  # a bug, or no library
            raise DoesNotRun(f"{constraint.name} cannot be checked: {short(lines[-1], 200)}.")
        raise _too_much(constraint)
    answer = result.answers[-1]
    if "error" in answer:
        raise SettingsError(answer["error"])
    return list(answer["notices"])


def _too_much(constraint: Constraint) -> SettingsError:
    return SettingsError(
        f"{constraint.name} is too complex: compiling it takes more than {CPU_S} s, "
        f"{MEMORY >> 20} MiB of memory or the whole stack. Use smaller counts and fewer levels."
    )
