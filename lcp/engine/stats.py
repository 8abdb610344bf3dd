"""Stats: the figures of one reply, and how they are told."""

from dataclasses import asdict, dataclass, replace
from typing import Any

# What is said of an answer that did not come to its end, and which command goes on from there.
CUT = {
    "interrupted": " · stopped ({})",
    "length": " · cut ({})",
    "full": " · the window is full",
}


@dataclass(frozen=True)
class Stats:
    """The figures of one reply. Tokens and seconds."""

    prompt_tokens: int = 0
    reused: int = 0  # stood in the KV cache already
    moved: int = 0
    read: int = 0
    reply_tokens: int = 0
    dropped_turns: int = 0
    ttft_s: float = 0.0  # from the question to the first text
    read_s: float = 0.0
    decode_s: float = 0.0  # from the first token to the last
    tokens_per_second: float = 0.0  # (reply_tokens - 1) / decode_s: the steps between them
    ctx_used: int = 0  # in the KV cache, or of the conversation as it will be read again
    ctx_size: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON; seconds to a tenth of a millisecond."""
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}

    def followed_by(self, rest: "Stats") -> "Stats":
        """Of an answer that went on after the window slid in the middle of it."""
        tokens = self.reply_tokens + rest.reply_tokens
        seconds = self.decode_s + rest.decode_s
        return replace(
            self,
            moved=self.moved + rest.moved,
            reply_tokens=tokens,
            decode_s=seconds,
            tokens_per_second=(tokens - 2) / seconds if seconds else 0.0,
            ctx_used=rest.ctx_used,
            dropped_turns=rest.dropped_turns,
        )

    def dropping(self, turns: int) -> "Stats":
        """The same with the number of turns that are out of the window."""
        return replace(self, dropped_turns=turns)

    def line(self, ended: str = "end", said: bool = True) -> str:
        """For people, in one line, with how the answer `ended`; `said`: whether it has text that
        can be gone on with."""
        cut = CUT.get(ended, "").format("/continue" if said else "/retry")
        used = 100 * self.ctx_used / self.ctx_size if self.ctx_size else 0
        speed = f"{self.tokens_per_second:.1f} tokens/s · " if self.tokens_per_second else ""
        first = f"first token {self.ttft_s:.2f} s · " if self.reply_tokens else ""
        context = f"context {self.ctx_used:,}/{self.ctx_size:,} ({used:.0f} %)"
        return f"{speed}{first}{context}{cut}"

    def long_line(self) -> str:
        """For people, all of it in one line."""
        return (
            f"{self.reply_tokens:,} tokens in {self.decode_s:.3f} s · {self.line()} · "
            f"read {self.read:,} in {self.read_s:.3f} s, reused {self.reused:,}"
        )
