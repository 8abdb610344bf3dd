"""Report: what scripts get after each turn, and whether their answers are whole."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcp.words import count

if TYPE_CHECKING:
    from lcp.engine.reply import Reply
    from lcp.terminal.screen import Screen


@dataclass
class Report:
    """What scripts get after each turn."""

    screen: "Screen"
    as_json: bool
    stats: bool
    whole: bool  # whether an answer that was cut is none
    person: bool  # is there, and may go on
    kept: Callable[[], bool] = lambda: False  # whether the chat is saved, to go on with later
    cut: bool = False

    def __call__(self, reply: "Reply") -> None:
        if self.as_json:
            line = {
                "answer": reply.text,
                "thinking": reply.thinking,
                "ended": reply.ended,
                "stats": reply.stats.as_dict(),
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        if self.stats:
            self.screen.notice(reply.stats.long_line())
        if reply.ended == "interrupted" and not self.person:
            raise KeyboardInterrupt
        if not (self.as_json or self.person or self.whole or reply.remark):
            self._say_cut(reply)
        self.cut |= self.whole and reply.ended not in ("end", "stop")

    def _say_cut(self, reply: "Reply") -> None:
        """Of an answer that a limit has cut: which one, and what to type for the rest."""
        tokens = count(reply.stats.reply_tokens, "token")
        if reply.ended == "length":
            on = ", or go on: lcp chat --continue, then /continue" * self.kept()
            self.screen.notice(f"Cut at {tokens}. Give a larger -n for more{on}.")
        elif reply.ended == "full":
            size = f"{reply.stats.ctx_size:,}"
            self.screen.notice(f"Cut at {tokens}: the context of {size} is full. Give a larger -c.")
