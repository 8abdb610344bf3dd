"""Evaluates the tokens of an answer, and in the same batch those that are proposed to follow.

A proposal is certain (a schema allows nothing else) or a draft. Each token is still chosen when its
turn comes, with the logits before it; if it is the proposed one, the model has already read it. The
rest of a wrong draft is taken back.
"""

import time
from array import array
from collections.abc import Callable, Sequence

from lcp.engine.context import Context
from lcp.engine.drafting import DraftControl, draft


class Proposals:
    """The tokens of one answer that the context has read, and those that it has read ahead."""

    def __init__(
        self,
        context: Context,
        control: DraftControl | None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`control` decides how many tokens are drafted; without it, none is. Drafts need a memory
        that takes tokens back freely."""
        self._context = context
        self._control = control if control and context.takes_back_freely else None
        self._now = now
        self._tokens = array("i", context.tokens)
        self._waiting: list[int] = []  # evaluated, and not chosen yet
        self._drafted = False  # `_waiting` is a draft
        self._expected: list[int] = []  # the draft, evaluated or not
        self._step: tuple[int, float] | None = None  # size and beginning of the last step
        self.drafted = self.kept = 0  # tokens
        if self._control:
            self._control.begin()

    @property
    def row(self) -> int:
        """The row of logits that the next token is sampled from, counted from the last one."""
        return -1 - len(self._waiting)

    def add(self, token: int, certain: Sequence[int], most: int) -> None:
        """Add the chosen token and evaluate it, if that is not done. The next ones are `certain`,
        as far as they are known; there will be at most `most`. Raises as Context.append does."""
        self._tokens.append(token)
        if self._control and self._expected:
            self._control.saw(self._expected.pop(0) == token)
        # 1) It was evaluated ahead: the logits after it are there.
        if self._waiting and self._waiting[0] == token:
            del self._waiting[0]
            self.kept += self._drafted
            return
        # 2) What was evaluated ahead did not follow.
        self.take_back()
        # 3) Evaluate it together with what is proposed to follow.
        began = self._now()
        if self._control and self._step:
            self._control.took(self._step[0], began - self._step[1])
        proposed = certain or self._draft(most)
        self._drafted = bool(proposed) and not certain
        self._step = None
        self._waiting = self._context.append(token, proposed[:most], each=self._drafted)
        if not certain:
            self._step = (1 + len(self._waiting), began)
            self.drafted += len(self._waiting)

    def take_back(self) -> None:
        """Forget the tokens that were evaluated and not chosen."""
        waiting, self._waiting = self._waiting, []
        self._context.take_back(len(waiting))

    def _draft(self, most: int) -> list[int]:
        self._expected = draft(self._tokens) if self._control else []
        size = self._control.size(min(most, len(self._expected))) if self._control else 0
        return self._expected[:size]
