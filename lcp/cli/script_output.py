"""ScriptOutput: the output after each turn, and whether all answers were complete."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.engine_interface import Reply
from lcp.engine_notices import ConnectionLost
from lcp.errors import LcpError
from lcp.formatting import count

if TYPE_CHECKING:
    from lcp.terminal.screen import Screen


@dataclass
class ScriptOutput:
    """Prints JSON, statistics and notices after each turn."""

    screen: "Screen"
    as_json: bool
    stats: bool
    whole: bool  # whether a cut answer counts as failed
    person: bool  # is present and may continue the chat
    resuming: Callable[[], str] = str  # the command to resume the chat; "" if not saved
    cut: bool = False  # whether an answer failed because it was cut
    broken: bool = False  # whether the connection to a server broke in an answer
    unanswered: int = 0  # lines without an answer

    def __call__(self, reply: Reply) -> None:
        if self.as_json:
            _print(reply.text, reply.thinking, reply.ended, reply.stats.as_dict())
        if self.stats:
            from lcp.chat.answer_notices import all_numbers

            self.screen.notice(all_numbers(reply.stats))
        broken = isinstance(reply.notice, ConnectionLost)
        if reply.ended == "interrupted" and not (self.person or broken):
            raise KeyboardInterrupt
        if not (self.as_json or self.person or self.whole or reply.notice):
            self._say_cut(reply)
        self.broken |= broken
        self.cut |= self.whole and reply.ended not in ("end", "stop")

    def _say_cut(self, reply: Reply) -> None:
        """If a limit cut the answer, print which one, and what to type for the rest."""
        tokens = count(reply.stats.reply_tokens, "token")
        if reply.ended == "length":
            command = self.resuming()
            on = f", or continue it: {command}, then /continue" if command else ""
            self.screen.notice(f"Cut at {tokens}. Give a larger -n for more{on}.")
        elif reply.ended == "full":
            size = f"{reply.stats.ctx_size:,}"
            self.screen.notice(f"Cut at {tokens}: the context of {size} is full. Give a larger -c.")

    def refused(self, number: int, error: LcpError) -> None:
        """Report a line that cannot be answered; with --json, print an object for it, too."""
        self.unanswered += 1
        from lcp.chat.error_advice import with_advice

        sentence = with_advice(error)
        self.screen.error(f"lcp: line {number}: {sentence}")
        if self.as_json:
            _print("", "", "error", {}, error=sentence)


def _print(answer: str, thinking: str, ended: str, stats: dict[str, Any], **more: str) -> None:
    row = {"answer": answer, "thinking": thinking, "ended": ended, "stats": stats, **more}
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()
