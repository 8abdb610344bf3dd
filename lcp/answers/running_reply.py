"""An answer while an engine generates it: see lcp.engine_interface.Reply."""

import time
from collections.abc import Iterator

from lcp.answers.worker import WorkerTask
from lcp.engine_interface import Chunk, Progress, PromptMessage, Stats, TokenProb
from lcp.engine_notices import EngineNotice


class RunningReply:
    """The engine thread sets the fields; iterating gives what it emits."""

    def __init__(self, seed: int, begun: PromptMessage | None = None) -> None:
        """`begun`: the answer that it continues, if its text is not generated again."""
        self.seed = seed
        self.text, self.thinking = (begun.content, begun.thinking) if begun else ("", "")
        self.asked = time.perf_counter()
        self.tokens: list[int] = []
        self.sampled: list[int] = []
        self.before = 0
        self.ended = ""
        self.notice: EngineNotice | None = None
        self.stats = Stats()
        self.stop_asked = False
        self.probs: list[TokenProb] = []  # if they come with the answer
        self.task: WorkerTask[None]

    def __iter__(self) -> Iterator[Chunk | Progress]:
        return iter(self.task)
