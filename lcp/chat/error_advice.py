"""What a person reads about an error: its sentence, and what to type next."""

from lcp.errors import DoesNotRun, LcpError, Miscounted, NoSavedChat, TooLong


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
    if isinstance(error, DoesNotRun):
        return f"{error} See why with: lcp doctor"
    ways = [f"--{name.replace('_', '-')} {value}" for name, value in error.change.items()]
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
