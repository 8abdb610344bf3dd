"""`lcp look swap`: where a fact is kept, and which heads move it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.cli import options, shell_completion
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import argument, option
from lcp.errors import LcpError, NotSupported, UsageError

if TYPE_CHECKING:
    from lcp.look.swap import Swap, SwappedHead
    from lcp.terminal.printout import Printout

PARTED = 0.5  # the share of the answer from which on a token is said to have the fact
LISTED = 4  # heads


@dataclass(frozen=True)
class SwapArguments(LookArguments):
    """What was typed after `lcp look swap`, except the settings."""

    words: list[str] | None = argument(
        "[MODEL] A B", "Two prompts with the same number of tokens.",
        autocompletion=shell_completion.models,
    )  # fmt: skip
    tokens: tuple[str, str] | None = option("--tokens", "X Y", "Tokens that answer A and B.")


@dataclass(frozen=True)
class SwapShown:
    """What was found, and the model that spells the tokens in it."""

    opened: OpenModel
    a: list[int]
    b: list[int]
    x: int  # A's answer
    y: int
    found: "Swap"


def run(asked: SwapArguments, flags: dict[str, Any]) -> None:
    """Follow a fact from one prompt into another.

    Puts the state of prompt A into prompt B and shows how much of A's answer comes back, then
    swaps one attention head at a time.

    lcp look swap "The capital of France is" "The capital of Italy is"
    """
    name, prompts = common.words_of(asked)
    if len(prompts) != 2:
        raise UsageError(
            f"lcp look swap needs two prompts, each in quotes (got {len(prompts)}). Example: "
            'lcp look swap "The capital of France is" "The capital of Italy is"'
        )
    with common.models(name, flags) as (opened,):
        from lcp.look.swap import read, swap

        a, b = map(opened.tokens, prompts)
        _check(opened, a, b)
        named = [opened.token(t) for t in asked.tokens or ()]
        observed = opened.observe(len(a) + 512, rows=128, sequences=128)
        if len(a) > observed.batch // 2:
            raise LcpError(
                f"The prompts have {len(a):,} tokens; lcp look swap takes at most "
                f"{observed.batch // 2}. Give shorter ones."
            )
        told = opened.work(read, observed, a, b, opened.work.tell)
        x, y = named or _first_choices(opened, told.logits_a, told.logits_b)
        if x == y:
            raise UsageError(
                f"Both answers are {opened.piece(x)!r}. Name two different ones after --tokens."
            )
        found = opened.work(swap, observed, told, x, y, opened.work.tell)
        shown = SwapShown(opened, a, b, x, y, found)
        common.publish(asked, opened, _json(shown, *prompts), lambda p: _show(p, shown, *prompts))


swap = options.command(SwapArguments, run, common.SETTINGS)


def _check(opened: OpenModel, a: list[int], b: list[int]) -> None:
    """LcpError for prompts that cannot be swapped, or a model whose past cannot be shared."""
    if a == b:
        raise UsageError("The two prompts are the same. Change a word in one of them.")
    if len(a) != len(b):
        spelled = [
            " ".join(f"[{opened.piece(t)}]" for t in tokens[:40]) + " …" * (len(tokens) > 40)
            for tokens in (a, b)
        ]
        raise UsageError(
            f"The prompts have {len(a)} and {len(b)} tokens; lcp look swap needs prompts of the "
            "same length. Use words with as many tokens:\n"
            f"  A  {spelled[0]}\n  B  {spelled[1]}"
        )
    if opened.model.memory.recurrent:
        raise NotSupported(
            f"{opened.name} has recurrent layers. They keep one state for all tokens, so lcp "
            "cannot swap the state of a single token. Choose another model: lcp list."
        )


def _first_choices(opened: OpenModel, a: Any, b: Any) -> tuple[int, int]:
    """The most likely tokens after A and after B. UsageError if they are the same."""
    from lcp.look.distributions import best, softmax

    x, y = int(a.argmax()), int(b.argmax())
    if x == y:
        shares = (softmax(a), softmax(b))
        likely = [", ".join(f"{opened.piece(t)!r} {p[t]:.0%}" for t in best(p, 4)) for p in shares]
        raise UsageError(
            f"Both prompts have the same most likely token, {opened.piece(x)!r}. Name two answers "
            f"to compare: --tokens X Y. After A: {likely[0]}. After B: {likely[1]}."
        )
    return x, y


def _change(shown: SwapShown) -> tuple[int | None, int | None]:
    """The layer from which on the first token that differs has lost the fact, and the one from
    which on the last token has it."""
    shares = shown.found.shares
    lost = next((i for i, share in enumerate(shares[0]) if share < PARTED), None)
    gained = next((i for i, share in enumerate(shares[-1]) if share > PARTED), None)
    return lost, gained


def _json(shown: SwapShown, a: str, b: str) -> dict[str, Any]:
    opened, found = shown.opened, shown.found
    lost, gained = _change(shown)

    def place(i: int, share: float) -> dict[str, Any]:
        return {"token": i, "text": opened.piece(shown.a[i]), "share": share}

    def head(one: "SwappedHead") -> dict[str, Any]:
        return {
            "layer": one.layer, "head": one.head, "share": one.share, "kl": one.kl, "p": one.p,
            "reads": [place(*r) for r in one.reads], "carries": [place(*c) for c in one.carries],
            "writes": [opened.named(t) for t in one.writes],
        }  # fmt: skip

    return {
        "a": {"text": a, "answer": opened.named(shown.x),
              "p": found.p_a[0], "p_other": found.p_a[1]},
        "b": {"text": b, "answer": opened.named(shown.y),
              "p": found.p_b[1], "p_other": found.p_b[0]},
        "left_in_layer": lost, "arrived_in_layer": gained,
        "states": [
            {"token": i, "a": opened.piece(shown.a[i]), "b": opened.piece(shown.b[i]),
             "shares": row.tolist()}
            for i, row in zip(found.places, found.shares, strict=True)
        ],
        "heads": [head(one) for one in found.heads],
        "runs": found.runs,
    }  # fmt: skip


def _show(page: "Printout", shown: SwapShown, a: str, b: str) -> None:
    opened, found = shown.opened, shown.found
    x, y = opened.visible(shown.x), opened.visible(shown.y)
    page.title(f"A: {a}", f"→ {x} {found.p_a[0]:.0%}, {y} {found.p_a[1]:.0%}")
    page.title(f"B: {b}", f"→ {y} {found.p_b[1]:.0%}, {x} {found.p_b[0]:.0%}")
    page.blank()
    page.line(
        "The model reads B with one state of A in it, after one layer, at one token. The bars show "
        "how much of A's answer comes back (a space is nothing, █ is all of it)."
    )
    page.blank()
    page.grid(
        ["|".join(dict.fromkeys(opened.visible(t[i]) for t in (shown.a, shown.b)))
         for i in found.places],
        found.shares.tolist(), "layer",
    )  # fmt: skip
    page.blank()
    page.line(_summary(shown), style="bold")
    if found.heads:
        page.blank()
        page.line(
            "Then it reads A with the output of one head from B, at the last token. The table "
            f"shows p({x}), and the share of the difference that the head moves."
        )
        page.blank()
        page.table(
            ["head", f"{x}", "moves", "looks at · carries from · writes"],
            [_head_row(shown, one) for one in found.heads[:LISTED]],
            cut=True,
        )
    page.blank()
    page.note(
        "Both states are the model's own, so they carry what comes back. This shows what "
        "distinguishes A from B, not all that the answer needs: it does not show what both prompts "
        "have in common, and if several parts do the same, each of them alone moves little."
    )
    page.of_this_run(f"{found.runs:,} runs in {opened.work.seconds:.1f} s.")


def _summary(shown: SwapShown) -> str:
    """The sentence that says where the fact changes place."""
    places = shown.found.places
    first, last = (shown.opened.visible(shown.a[i]) for i in (places[0], places[-1]))
    lost, gained = _change(shown)
    if len(places) == 1:
        return f"The prompts differ in their last token only: {first} has the fact from layer 0 on."
    if lost is None or gained is None:
        return f"The fact does not move as a whole from {first} to {last}."
    if lost == gained:
        return f"The fact moves from {first} to {last} in layer {lost}."
    return f"{first} has the fact until layer {lost}, {last} from layer {gained} on."


def _head_row(shown: SwapShown, one: "SwappedHead") -> list[str]:
    visible = shown.opened.visible
    said = [f"{visible(shown.a[i])} {share:.0%}" for i, share in one.reads[:1] + one.carries[:1]]
    said.append(" ".join(map(visible, one.writes)))
    return [
        f"{one.layer}.{one.head}", f"{shown.found.p_a[0]:.0%} → {one.p:.0%}", f"{one.share:+.2f}",
        " · ".join(filter(None, said)),
    ]  # fmt: skip
