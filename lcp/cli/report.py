"""Report: what scripts get after each turn, and whether their answers are whole."""

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        self.cut |= self.whole and reply.ended not in ("end", "stop")
