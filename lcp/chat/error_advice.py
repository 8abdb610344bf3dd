"""What a person reads about an error: its sentence, and what to type next."""

import shlex

from lcp.engine_interface import padded
from lcp.errors import (
    ContextFull,
    DoesNotRun,
    LcpError,
    Miscounted,
    ModelNotFound,
    NoModelHere,
    NoSavedChat,
    NotHere,
    TooLong,
)
from lcp.formatting import short


def with_advice(error: LcpError) -> str:
    """The error's sentence, and the flags or the command that would help."""
    if isinstance(error, TooLong):
        way = ways_to_fit(error)
        return f"{error} {way[0].upper()}{way[1:]}."
    if isinstance(error, NoSavedChat):
        if not error.one_shot:
            return f"{error} `lcp chat` starts one."
        last = f"lcp chat --resume {error.one_shot}"
        return f"{error} `lcp sessions --all` lists them. Resume the last one: {last}"
    if isinstance(error, NotHere):
        return f"{error} Download it: lcp pull {error.name}"
    if isinstance(error, NoModelHere):
        return (
            f"{error} lcp pull lists models to download; lcp pull {error.name} gets the "
            "smallest one. To use a file: lcp chat path/to/model.gguf"
        )
    if isinstance(error, ModelNotFound) and error.name:
        step = "lcp list shows the models here"
        if not error.name.lower().endswith(".gguf"):
            words = shlex.quote(short(error.name, 40))
            step += f", lcp pull the catalogue; lcp pull --search {words} searches the Hub"
        return f"{error} {step}."
    if isinstance(error, DoesNotRun):
        return f"{error} See why with: lcp doctor"
    change = dict(error.change)
    if isinstance(error, ContextFull):
        change["ctx_size"] = str(padded(error.needed))
    ways = [f"--{name.replace('_', '-')} {value}" for name, value in change.items()]
    tried = f" Try {' or '.join(ways)}." if ways else ""
    again = " /retry answers again." if error.again else ""
    room = " /forget N and /clear make room." if isinstance(error, Miscounted) else ""
    return f"{error}{tried}{again}{room}"


def ways_to_fit(error: TooLong) -> str:
    """What to do about a prompt that is too long, to follow a semicolon."""
    if error.stopped:
        return "use /forget N, /clear or /set overflow slide"
    unpin = "unpin a turn with /pin N, " if error.pinned else ""
    shorter = "shorten the system text with /system" if error.front > error.room else "send less"
    return f"{unpin}{shorter}, or start with a larger --ctx-size"
