"""Evaluates the tokens of an answer, and in the same batch the tokens that it proposes to follow.

A proposal is either forced (a schema allows nothing else) or a draft. Each token is still sampled
from the logits before it. If it is the proposed one, the model has already evaluated it. The rest
of a wrong draft is removed from the cache.
"""

import time
from array import array
from collections.abc import Callable, Sequence
from itertools import takewhile

from lcp.engine.context import Context
from lcp.engine.drafting import DraftControl, draft


class Proposals:
    """The tokens of one answer that the context has evaluated, and the proposed ones after them."""

    def __init__(
        self,
        context: Context,
        control: DraftControl | None,
        is_end: Callable[[int], bool],
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`control` decides how many tokens are drafted; without it, none are. Drafts need a memory
        that removes its last tokens at no cost. `is_end`: whether a token ends an answer."""
        self._context = context
        self._control = control if control and context.takes_back_freely else None
        self._is_end = is_end
        self._now = now
        self._tokens = array("i", context.tokens)
        self._waiting: list[int] = []  # evaluated, but not sampled yet
        self._drafted = False  # `_waiting` is a draft
        self._expected: list[int] = []  # the draft, evaluated or not
        self._step: tuple[int, float] | None = None  # size and beginning of the last step
        self.drafted = self.kept = 0  # tokens
        if self._control:
            self._control.begin()

    @property
    def row(self) -> int:
        """The row of logits to sample the next token from, counted from the last row (-1)."""
        return -1 - len(self._waiting)

    def add(self, token: int, forced: Sequence[int], most: int) -> None:
        """Append a sampled token and evaluate it unless that is done. `forced` tokens are known to
        come next; at most `most` tokens will. Raises as Context.append does."""
        self._tokens.append(token)
        if self._control and self._expected:
            self._control.record_hit(self._expected.pop(0) == token)
        # 1) It has been evaluated, so the logits after it are there.
        if self._waiting and self._waiting[0] == token:
            del self._waiting[0]
            self.kept += self._drafted
            return
        # 2) The tokens that were evaluated did not come: remove them.
        self.take_back()
        # 3) Evaluate it together with the proposed tokens.
        began = self._now()
        if self._control and self._step:
            self._control.record_time(self._step[0], began - self._step[1])
        proposed = forced or self._draft(most)
        self._drafted = bool(proposed) and not forced
        self._step = None
        self._waiting = self._context.append(token, proposed[:most], each=self._drafted)
        if not forced:
            self._step = (1 + len(self._waiting), began)
            self.drafted += len(self._waiting)

    def take_back(self) -> None:
        """Remove the tokens that were evaluated but not sampled."""
        waiting, self._waiting = self._waiting, []
        self._context.take_back(len(waiting))

    def _draft(self, most: int) -> list[int]:
        found = draft(self._tokens) if self._control else []
        # An answer that repeats an earlier one ends there, too: what follows is never needed.
        self._expected = list(takewhile(lambda token: not self._is_end(token), found))
        size = self._control.size(min(most, len(self._expected))) if self._control else 0
        return self._expected[:size]
