"""Report: what scripts get after each turn, and whether their answers are whole."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.errors import LcpError
from lcp.words import count

if TYPE_CHECKING:
    from lcp.engines import Reply
    from lcp.terminal.screen import Screen


@dataclass
class Report:
    """What scripts get after each turn."""

    screen: "Screen"
    as_json: bool
    stats: bool
    whole: bool  # whether an answer that was cut is none
    person: bool  # is there, and may go on
    resuming: Callable[[], str] = str  # the command that goes on with the chat; "" if not saved
    cut: bool = False
    unanswered: int = 0  # lines

    def __call__(self, reply: "Reply") -> None:
        if self.as_json:
            _print(reply.text, reply.thinking, reply.ended, reply.stats.as_dict())
        if self.stats:
            from lcp.chat.sentences import all_numbers

            self.screen.notice(all_numbers(reply.stats))
        if reply.ended == "interrupted" and not self.person:
            raise KeyboardInterrupt
        if not (self.as_json or self.person or self.whole or reply.remark):
            self._say_cut(reply)
        self.cut |= self.whole and reply.ended not in ("end", "stop")

    def _say_cut(self, reply: "Reply") -> None:
        """Of an answer that a limit has cut: which one, and what to type for the rest."""
        tokens = count(reply.stats.reply_tokens, "token")
        if reply.ended == "length":
            command = self.resuming()
            on = f", or go on: {command}, then /continue" if command else ""
            self.screen.notice(f"Cut at {tokens}. Give a larger -n for more{on}.")
        elif reply.ended == "full":
            size = f"{reply.stats.ctx_size:,}"
            self.screen.notice(f"Cut at {tokens}: the context of {size} is full. Give a larger -c.")

    def refused(self, number: int, error: LcpError) -> None:
        """This line cannot be answered; with --json it has its object all the same."""
        self.unanswered += 1
        from lcp.chat.advice import with_advice

        sentence = with_advice(error)
        self.screen.error(f"lcp: line {number}: {sentence}")
        if self.as_json:
            _print("", "", "error", {}, error=sentence)


def _print(answer: str, thinking: str, ended: str, stats: dict[str, Any], **more: str) -> None:
    row = {"answer": answer, "thinking": thinking, "ended": ended, "stats": stats, **more}
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()
