"""Notices of an engine: what it reports about an answer or a model. chat/ turns them into text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TemplateFault:
    """The chat template of a model leaves something out. `is_base`: the model has none."""

    sentence: str
    is_base: bool = False


@dataclass(frozen=True)
class ThinkingEnded:
    """The thinking reached its limit, in tokens; the answer followed."""

    limit: int


@dataclass(frozen=True)
class Repetition:
    """The answer was stopped: its last `period` tokens were generated `times` times."""

    period: int
    times: int


@dataclass(frozen=True)
class NoTokenFits:
    """The answer was stopped: no token of the model matches the constraint. `why` may be ""."""

    why: str


@dataclass(frozen=True)
class ContextStays:
    """The context could not grow: it keeps its `size` instead of the `promised` one. Growing would
    have `needed` so many bytes; so many were `free` (None: memory was not the reason)."""

    size: int
    promised: int
    needed: int
    free: int | None


@dataclass(frozen=True)
class ConnectionLost:
    """The connection to the server broke during the answer. `why`: the reason, in a few words."""

    why: str


EngineNotice = ThinkingEnded | Repetition | NoTokenFits | ContextStays | ConnectionLost
