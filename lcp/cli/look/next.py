"""`lcp look next`: how the next token is chosen, sampler by sampler."""

import dataclasses
import secrets
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.cli import options
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import option
from lcp.errors import UsageError
from lcp.settings import Sampling

if TYPE_CHECKING:
    from lcp.engine.context import Context
    from lcp.terminal.printout import Printout

SHOWN = 8  # tokens
MOST_STEPS = 512
SAMPLING = tuple(f.name for f in dataclasses.fields(Sampling))


@dataclass(frozen=True)
class NextArguments(LookArguments):
    """What was typed after `lcp look next`, except the settings."""

    steps: int = option("--steps", "N", "Show how N tokens are chosen; default: 1.", 1)
    fork: str | None = option("--fork", "TOKEN", "Take this token first instead of the chosen one.")
    chat: bool = common.as_chat()


def run(asked: NextArguments, flags: dict[str, Any]) -> None:
    """Show how the next token is chosen.

    Shows which tokens each sampler of the chat keeps.

    lcp look next "My favourite animal is the" --temp 0.8
    """
    if not 1 <= asked.steps <= MOST_STEPS:
        raise UsageError(f"--steps must be from 1 to {MOST_STEPS} (got {asked.steps}).")
    name, text = common.text_of(asked)

    with common.models(name, flags) as (opened,):
        tokens = opened.tokens(text, chat=asked.chat, least=1)
        fork = None if asked.fork is None else opened.token(asked.fork)
        seed = opened.settings.sampling.seed
        seed = secrets.randbelow(2**32 - 1) if seed is None else seed
        steps = opened.work(_choices, opened, tokens, fork, asked.steps, seed)
        data = {"text": text, "seed": seed, "steps": steps}
        common.publish(asked, opened, data, lambda page: _show(page, opened, tokens, data))


next_ = options.command(NextArguments, run, (*common.SETTINGS, *SAMPLING))


def _choices(
    opened: OpenModel, tokens: list[int], fork: int | None, count: int, seed: int
) -> list[dict[str, Any]]:
    """The choices, one after another, as JSON has them: all probabilities would be gigabytes."""
    from lcp.engine.sampler import Sampler, TokenCandidates

    tell, context = opened.work.tell, opened.context(len(tokens) + count)
    for read in context.feed(tokens):
        tell("reading", read.done, read.total)
    candidates = TokenCandidates(opened.model.n_vocab)
    steps: list[dict[str, Any]] = []
    with closing(Sampler(opened.model, opened.settings.sampling, seed, tokens)) as sampler:
        for number in range(count):
            tell("choosing", number, count)
            if number:
                context.append(steps[-1]["token"]["id"])
            steps.append(_step(opened, context, sampler, candidates, None if number else fork))
            if steps[-1]["ends"]:
                break
            sampler.accept(steps[-1]["token"]["id"])
    return steps


def _step(
    opened: OpenModel, context: "Context", sampler: Any, candidates: Any, forced: int | None
) -> dict[str, Any]:
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
    return {
        "stages": [
            {"name": one.name, "left": one.left, "bits": one.bits, "dropped": one.dropped,
             "changed": one.changed,
             "tokens": [opened.named(t, p=float(one.p[t])) for t in listed]}
            for one in stages
        ],
        "token": opened.named(token), "forked": forced is not None,
        "ends": opened.model.is_end(token),
    }  # fmt: skip


def _show(page: "Printout", opened: OpenModel, tokens: list[int], data: Mapping[str, Any]) -> None:
    before, greedy = list(tokens), opened.settings.sampling.temp == 0
    for step in data["steps"]:
        if len(before) > len(tokens):
            page.blank()
        token = step["token"]["id"]
        how = "forked" if step["forked"] else "likeliest" if greedy else f"seed {data['seed']}"
        end = ", which ends the text" if step["ends"] else ""
        page.title(_tail(opened.model.text(before)), f"→ {opened.visible(token)} ({how}{end})")
        page.blank()
        _show_stages(page, step)
        before.append(token)
    page.blank()
    page.note(
        "From left to right: the model's own probabilities, then what each sampler makes of them "
        "before the next one. bits: how open the choice is (3 bits are as open as 8 equal "
        "choices). dropped: the probability of the tokens that the sampler removed. The numbers "
        "are for one place in the text; they do not say whether a token is true."
    )
    if not greedy:
        page.note(f"The same choice again: --seed {data['seed']}.")
    page.of_this_run(f"{opened.work.seconds:.1f} s.")


def _show_stages(page: "Printout", step: Mapping[str, Any]) -> None:
    from lcp.terminal.token_charts import bar, visible

    stages = step["stages"]
    rows = [
        ["left", *(f"{one['left']:,}" for one in stages), ""],
        ["bits", *(f"{one['bits']:.2f}" for one in stages), ""],
        ["dropped", "", *(f"{one['dropped']:.1%}" for one in stages[1:]), ""],
    ]
    for i, token in enumerate(stages[-1]["tokens"]):
        shares = [one["tokens"][i]["p"] for one in stages]
        mark = "→" if token["id"] == step["token"]["id"] else ""
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
