"""What a person reads about an error: its sentence, and what to type next."""

from lcp.errors import AnswerDoesNotMatch, LcpError


def with_advice(error: LcpError) -> str:
    """The error's sentence, and the flags or the command that would help."""
    if isinstance(error, AnswerDoesNotMatch):
        return f"{error} /retry answers again."
    ways = [f"--{name.replace('_', '-')} {value}" for name, value in error.change.items()]
    return f"{error} Try {' or '.join(ways)}." if ways else str(error)
