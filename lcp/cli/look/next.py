"""`lcp look next`: how the next token is chosen, sampler by sampler."""

import dataclasses
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.options import option
from lcp.errors import UsageError
from lcp.settings import Sampling

if TYPE_CHECKING:
    from lcp.cli.look.common import OpenModel
    from lcp.engine.context import Context
    from lcp.look.next import Stage
    from lcp.terminal.printout import Printout

SHOWN = 8  # tokens
MOST_STEPS = 512
SAMPLING = tuple(f.name for f in dataclasses.fields(Sampling))


@dataclass(frozen=True)
class NextArguments:
    """What was typed after `lcp look next`, except the settings."""

    words: list[str] | None = common.texts()
    model: str | None = common.model_name()
    steps: int = option("--steps", "N", "Show the choice of N tokens; 1 if not given.", 1)
    fork: str | None = option("--fork", "TOKEN", "Take this token first, whatever is chosen.")
    chat: bool = common.as_chat()
    as_json: bool = common.as_json()
    svg: Path | None = common.svg()


@dataclass(frozen=True)
class Step:
    """The choice of one token."""

    before: str  # the text that it follows
    stages: list[dict[str, Any]]
    token: int
    piece: str
    forced: bool
    ends: bool


@dataclass(frozen=True)
class NextShown:
    """The choices, one after another."""

    text: str
    steps: list[Step]
    seed: int
    greedy: bool
    seconds: float


def run(asked: NextArguments, flags: dict[str, Any]) -> None:
    """Show how the next token is chosen.

    It shows what each sampler of the chat leaves of all tokens.

    lcp look next "My favourite animal is the" --temp 0.8
    """
    if not 1 <= asked.steps <= MOST_STEPS:
        raise UsageError(f"--steps must be from 1 to {MOST_STEPS} (got {asked.steps}).")
    name, words = common.words_of(asked.words, asked.model)
    text = common.text_of(words)

    def job(opened: "OpenModel") -> NextShown:
        from lcp.engine.sampler import Sampler, TokenCandidates

        tokens = opened.tokens(text, chat=asked.chat, least=1)
        fork = None if asked.fork is None else opened.token(asked.fork)
        sampling = opened.settings.sampling
        seed = secrets.randbelow(2**32 - 1) if sampling.seed is None else sampling.seed
        begun = time.monotonic()
        context = opened.context(len(tokens) + asked.steps)
        for step in context.feed(tokens):
            opened.tell("reading", step.done, step.total)
        sampler = Sampler(opened.model, sampling, seed, tokens)
        candidates, steps = TokenCandidates(opened.model.n_vocab), []
        try:
            for number in range(asked.steps):
                opened.tell("choosing", number, asked.steps)
                forced = fork if number == 0 else None
                steps.append(_step(opened, context, sampler, candidates, forced))
                if steps[-1].ends:
                    break
                sampler.accept(steps[-1].token)
                if number < asked.steps - 1:
                    context.append(steps[-1].token)
        finally:
            sampler.close()
        return NextShown(text, steps, seed, sampling.temp == 0, time.monotonic() - begun)

    shown = common.run(name, flags, job)
    common.publish(lambda page: _show(page, shown), _json(shown), asked.as_json, asked.svg)


next_ = options.command(NextArguments, run, (*common.SETTINGS, *SAMPLING))


def _step(
    opened: "OpenModel", context: "Context", sampler: Any, candidates: Any, forced: int | None
) -> Step:
    """The choice of one token, and what each stage left."""
    from lcp.look import next as look

    candidates.fill(context)
    stages = [look.first(candidates.left()[1])]
    for name in sampler.stages(candidates):
        if name.startswith("?"):
            continue
        if name not in look.CHOOSING:
            stages.append(look.after(name, candidates.left(), stages[-1]))
    chosen = candidates.selected
    if name == "greedy":
        stages.append(look.chosen(name, chosen, stages[-1]))
    token = chosen if forced is None else forced
    listed = look.shown(stages, token, SHOWN)
    return Step(
        opened.model.text(context.tokens), [_stage(opened, one, listed) for one in stages],
        token, opened.piece(token), forced is not None, opened.model.is_end(token),
    )  # fmt: skip


def _stage(opened: "OpenModel", one: "Stage", listed: list[int]) -> dict[str, Any]:
    return {
        "name": one.name, "left": one.left, "bits": one.bits, "dropped": one.dropped,
        "changed": one.changed,
        "tokens": [{"id": t, "text": opened.piece(t), "p": float(one.p[t])} for t in listed],
    }  # fmt: skip


def _json(shown: NextShown) -> dict[str, Any]:
    return {
        "text": shown.text,
        "seed": shown.seed,
        "steps": [
            {
                "stages": step.stages,
                "token": {"id": step.token, "text": step.piece},
                "forked": step.forced,
                "ends": step.ends,
            }
            for step in shown.steps
        ],
        "seconds": round(shown.seconds, 3),
    }


def _show(page: "Printout", shown: NextShown) -> None:
    from lcp.terminal.token_charts import visible

    for number, step in enumerate(shown.steps):
        if number:
            page.blank()
        how = "forked" if step.forced else "likeliest" if shown.greedy else f"seed {shown.seed}"
        end = ", which ends the text" if step.ends else ""
        page.title(_tail(step.before), f"→ {visible(step.piece)} ({how}{end})")
        page.blank()
        _show_stages(page, step)
    page.blank()
    page.line(
        "From left to right: the model's own probabilities, then what each sampler makes of them "
        "before the next one. bits: how open the choice is (3 bits are as open as 8 equal "
        "choices). dropped: the probability of the tokens that the sampler removed. The numbers "
        "are those of one place in the text; they say nothing about whether a token is true.",
        style="dim",
    )
    again = "" if shown.greedy else f" The same choice again: --seed {shown.seed}."
    page.line(f"{shown.seconds:.1f} s.{again}", style="dim")


def _show_stages(page: "Printout", step: Step) -> None:
    from lcp.terminal.token_charts import bar, visible

    stages = step.stages
    rows = [
        ["left", *(f"{one['left']:,}" for one in stages), ""],
        ["bits", *(f"{one['bits']:.2f}" for one in stages), ""],
        ["dropped", "", *(f"{one['dropped']:.1%}" for one in stages[1:]), ""],
    ]
    for i, token in enumerate(stages[-1]["tokens"]):
        shares = [one["tokens"][i]["p"] for one in stages]
        mark = "→" if token["id"] == step.token else ""
        cells = ["" if p == 0 else f"{p:.1%}" for p in shares]
        rows.append([f"{mark}{visible(token['text'])}", *cells, bar(shares[-1], 10)])
    same = [i for i, one in enumerate(stages, 1) if not one["changed"]]
    page.table(
        ["", *(one["name"] for one in stages), ""], rows, drop=(len(stages) + 1, *same), left=True
    )


def _tail(text: str) -> str:
    """The end of a text, for a title."""
    line = " ".join(text.split())
    return line if len(line) <= 44 else f"…{line[-43:]}"
