"""What a person reads about an answer: its numbers, how it ended, how far the prompt is read; with
the command to type next."""

from lcp import formatting
from lcp.engine_interface import Progress, Stats
from lcp.engine_notices import (
    ConnectionLost,
    ContextStays,
    EngineNotice,
    NoTokenFits,
    Repetition,
    TemplateFault,
    ThinkingEnded,
)

_ENDED = {
    "interrupted": " · stopped ({})",
    "length": " · cut ({})",
    "full": " · the context is full",
}


def numbers(stats: Stats, ended: str = "end", said: bool = True) -> str:
    """The numbers of an answer in one line, and how it `ended`; `said`: it has text to continue."""
    cut = _ENDED.get(ended, "").format("/continue" if said else "/retry")
    used = 100 * stats.ctx_used / stats.ctx_size if stats.ctx_size else 0
    speed = f"{stats.tokens_per_second:.1f} tokens/s · " if stats.tokens_per_second else ""
    first = f"first token {stats.ttft_s:.2f} s · " if stats.reply_tokens else ""
    context = f"context {stats.ctx_used:,}/{stats.ctx_size:,} ({used:.0f} %)"
    return f"{speed}{first}{context}{cut}"


def all_numbers(stats: Stats) -> str:
    """All numbers of an answer in one line."""
    kept = f" · {stats.accepted:,} of {stats.drafted:,} drafted tokens kept"
    drafts = kept if stats.drafted else ""
    return (
        f"{stats.reply_tokens:,} tokens in {stats.decode_s:.3f} s · {numbers(stats)} · "
        f"read {stats.read:,} in {stats.read_s:.3f} s, reused {stats.reused:,}{drafts}"
    )


def reading(progress: Progress, seconds: float) -> str:
    """How far the prompt is read after so many seconds, how fast, and how long it will take."""
    # a narrow terminal cuts the end off
    share, rest = 100 * progress.done // progress.total, f"Ctrl-C stops; {progress.total:,} tokens"
    if not progress.done or seconds <= 0:
        return f"reading {share} %; {rest}"
    speed = progress.done / seconds
    left = (progress.total - progress.done) / speed
    return f"reading {share} %, {speed:,.0f} tokens/s, {left:.0f} s left; {rest}"


def sentence(notice: EngineNotice, saved: bool = True) -> str:
    """What happened to an answer, and what to do about it; `saved`: the chat can be resumed."""
    match notice:
        case ThinkingEnded(limit):
            return (
                f"Thinking stopped after {limit:,} tokens. "
                "/set reasoning_budget auto removes the limit."
            )
        case Repetition(period, times):
            what = "token" if period == 1 else f"{period} tokens"
            return (
                f"Stopped: the answer was repeating itself (the last {what}, {times} times). "
                "/set repeat_penalty 1.1 and /retry, or /set loop_guard off."
            )
        case ConnectionLost(why):
            return (
                f"The connection to the server broke: {why.rstrip('.')}. lcp keeps the text that "
                "arrived; /retry answers again."
            )
        case NoTokenFits(why):
            return (
                f"The answer cannot continue: {why or 'no token of this model fits'}. "
                "Use another schema, expression or grammar."
            )
        case ContextStays(size, promised, needed, free):
            left = "" if free is None else f", and {formatting.size(free)} are free"
            return (
                f"The context stays at {size:,} tokens instead of {promised:,}: more would need "
                f"{formatting.size(needed)}{left}. Close other programs and "
                f"{'resume the chat (lcp chat --continue)' if saved else 'start lcp again'}."
            )


def about_model(notice: str | TemplateFault) -> str:
    """What a person should know about a model, and what to do about it."""
    if isinstance(notice, str):
        return notice
    if notice.is_base:
        return f"{notice.sentence} --raw, or /set raw on, continues what you write."
    return f"{notice.sentence} Give another one with --chat-template FILE."
