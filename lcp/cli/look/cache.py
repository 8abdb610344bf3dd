"""`lcp look cache`: what the KV cache saves, and what it takes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp import formatting
from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.errors import UsageError
from lcp.formatting import count

if TYPE_CHECKING:
    from lcp.look.cache import Timed
    from lcp.terminal.printout import Printout

PROMPT = "Once upon a time there was a"
TOKENS = 64  # of the answer, unless -n says otherwise
MOST = 1024
_STEPS = (8, 4, 2, 1)  # rows of the table: an eighth of the answer, a quarter, ...


@dataclass(frozen=True)
class CacheArguments(LookArguments):
    """What was typed after `lcp look cache`, except the settings."""

    chat: bool = common.as_chat()


@dataclass(frozen=True)
class CacheShown:
    """What was measured."""

    opened: OpenModel
    heads: int
    prompt: int  # tokens
    found: "Timed"
    state: int  # bytes of the prompt and the answer
    token: float  # bytes that one more token takes


def run(asked: CacheArguments, flags: dict[str, Any]) -> None:
    """Show what the KV cache saves.

    Generates the same answer with the cache and without it, and measures both.

    The text is optional: lcp look cache "Once upon a time" -n 128
    """
    name, text = common.text_of(asked)

    with common.models(name, flags) as (opened,):
        from lcp.look.cache import measure

        n = opened.settings.max_tokens or TOKENS
        if n > MOST:
            raise UsageError(
                f"-n {n} would take too long without the cache: its time grows with the square. "
                f"Give at most {MOST:,}."
            )
        prompt = opened.tokens(text or PROMPT, chat=asked.chat, least=1)
        observed = opened.observe(len(prompt) + n, watched=False)
        found = opened.work(measure, observed, prompt, n, opened.work.tell)
        observed.clear()
        opened.work(observed.decode, prompt)
        first = observed.state_bytes
        opened.work(observed.decode, found.tokens)
        token = (observed.state_bytes - first) / n
        shown = CacheShown(opened, observed.heads, len(prompt), found, observed.state_bytes, token)
        common.publish(asked, opened, _json(shown), lambda page: _show(page, shown))


cache = options.command(CacheArguments, run, (*common.SETTINGS, "max_tokens"))


def _json(shown: CacheShown) -> dict[str, Any]:
    found, piece = shown.found, shown.opened.piece
    return {
        "prompt_tokens": shown.prompt,
        "tokens": found.tokens,
        "seconds_with": [round(s, 6) for s in found.cached],
        "seconds_without": [round(s, 6) for s in found.again],
        "parted": [
            {"at": p.at, "with": piece(p.cached), "without": piece(p.again),
             "p_with": p.p_cached, "p_without": p.p_again}
            for p in found.differences
        ],
        "state_bytes": shown.state,
        "bytes_per_token": shown.token,
    }  # fmt: skip


def _show(page: "Printout", shown: CacheShown) -> None:
    from lcp.terminal.token_charts import bar

    found, n = shown.found, len(shown.found.tokens)
    rows = []
    for i in sorted({max(1, n // step) for step in _STEPS}):
        without, cached = found.again[i - 1], found.cached[i - 1]
        read = i * shown.prompt + i * (i - 1) // 2
        rows.append([
            f"{i:,}", f"{shown.prompt + i - 1:,}", f"{cached:.2f} s", f"{read:,}",
            f"{without:.2f} s", f"{without / cached:.1f}x", bar(without / found.again[-1], 14),
        ])  # fmt: skip
    page.table(["answer", "read with", "time", "read without", "time", "", ""], rows, drop=(1, 3))
    page.blank()
    page.note(
        f"The same {count(n, 'token')} after a prompt of {shown.prompt:,}, with the KV cache and "
        "without it. read: tokens that the model has to read. With the cache, the time grows with "
        "the length; without it, with the square of the length (Pope et al. 2022)."
    )
    for part in found.differences[:3]:
        ours, other = map(shown.opened.visible, (part.cached, part.again))
        page.note(
            f"At token {part.at + 1} the most likely token differs: {ours} {part.p_cached:.1%} "
            f"with the cache, {other} {part.p_again:.1%} without it. Nothing is wrong: the two are "
            "nearly tied, and llama.cpp rounds differently when it computes many tokens at once."
        )
    page.blank()
    page.line(_memory(shown))
    page.of_this_run(f"{shown.opened.work.seconds:.1f} s.")


def _memory(shown: CacheShown) -> str:
    """What a token takes in the cache, and why."""
    total = (
        f"The {shown.prompt + len(shown.found.tokens):,} tokens take {formatting.size(shown.state)}"
    )
    if shown.token < 64:
        return (
            f"{total}. More tokens would take no more: this model has a recurrent state of a fixed "
            "size."
        )
    model, heads = shown.opened.model, shown.opened.model.n_head_kv
    plain = 2 * model.n_layers * heads * model.head_size * 2
    if abs(shown.token - plain) > 64:
        return (
            f"{total}; each further one takes {shown.token:,.0f} bytes. The layers of this model "
            "keep different things, so no short formula gives this number."
        )
    shared = (
        f" Without heads that share their keys and values ({shown.heads} heads use {heads}), it "
        f"would be {plain * shown.heads // heads:,} (Shazeer 2019)." * (shown.heads != heads)
    )
    window = (
        f" Layers with a sliding window of {model.memory.window:,} need no more than the window; "
        "here they keep all." * bool(model.memory.window)
    )
    return (
        f"{total}: a token takes {plain:,} bytes = 2 (key and value) x {model.n_layers} layers x "
        f"{heads} heads x {model.head_size} numbers x 2 bytes (f16).{shared}{window}"
    )
