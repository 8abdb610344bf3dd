"""Remarks: what an engine did to an answer, or should tell of a model, for a person to know."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TemplateFault:
    """The chat template of a model leaves something out, or there is none: then `is_base`."""

    sentence: str
    is_base: bool = False


@dataclass(frozen=True)
class ThinkingEnded:
    """The thinking reached its limit, in tokens; the answer followed."""

    limit: int


@dataclass(frozen=True)
class Repetition:
    """The answer was cut: its last `period` tokens came `times` times."""

    period: int
    times: int


@dataclass(frozen=True)
class NoTokenFits:
    """The answer was cut: no token of the model fits the constraint. `why` may be ""."""

    why: str


@dataclass(frozen=True)
class ContextStays:
    """The context could not grow: it keeps its `size` instead of the `promised` one. More would
    have needed so many bytes, and so many were `free` (None: that was not the reason)."""

    size: int
    promised: int
    needed: int
    free: int | None


@dataclass(frozen=True)
class ConnectionLost:
    """The connection to the server broke in the middle of the answer. `why`: in a few words."""

    why: str


Remark = ThinkingEnded | Repetition | NoTokenFits | ContextStays | ConnectionLost
