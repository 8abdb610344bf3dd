"""`lcp look quant`: what another quant, or another type of KV cache, changes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lcp.cli import options, shell_completion
from lcp.cli.look import common
from lcp.cli.look.common import LookArguments, OpenModel
from lcp.cli.options import argument, option
from lcp.errors import NotSupported, UsageError
from lcp.formatting import count, either, short, size

if TYPE_CHECKING:
    from lcp.engine.observer import Observer
    from lcp.look.quant import Choice, Distance, Group
    from lcp.modelfile.weights import Weights
    from lcp.terminal.printout import Printout

QUESTION = "Why is the sky blue?"
ANSWER = 48  # tokens of the greedy answers, unless -n says otherwise
KV_TYPES = ("f32", "q8_0", "q4_0")
_SEEN = 2.0  # a difference above so many times the floor is one
_FLOOR = 96  # tokens of the text that are read one by one
_SMALL = 0.005  # groups with a smaller share of the file are shown together


@dataclass(frozen=True)
class QuantArguments(LookArguments):
    """What was typed after `lcp look quant`, except the settings."""

    words: list[str] | None = argument(
        "[A] [B]", "Two files of one model: the reference, and another quant.",
        autocompletion=shell_completion.models,
    )  # fmt: skip
    model: str | None = option(
        "-m --model", "NAME", "Model A; the argument is then B.",
        autocompletion=shell_completion.models,
    )  # fmt: skip
    kv: str | None = option("--kv", "TYPE", f"Compare this type of KV cache: {either(KV_TYPES)}.")
    text: str | None = option("--text", "TEXT", "Text to compare on, or @FILE.")
    ask: str = option("--ask", "TEXT", "Question for the greedy answers.", QUESTION)


@dataclass(frozen=True)
class QuantShown:
    """What was measured."""

    a: OpenModel
    names: list[str]  # of A, and of what is compared with it
    tokens: int
    own: "Distance"  # of A: its perplexity
    other: "Distance | None"
    floors: "list[Distance]"  # of A, and of what is compared with it, each from itself
    worst: str  # the text before the token where they differ most, and this token
    answers: "list[list[Choice]]"
    groups: "list[Group]"
    sampled: bool


def run(asked: QuantArguments, flags: dict[str, Any]) -> None:
    """Show what another quant or KV cache type changes.

    It shows where the bits are, how much the next-token probabilities differ, and where greedy
    answers diverge. lcp quantize makes the other quant.
    """
    names = [*([asked.model] if asked.model else []), *(asked.words or [])]
    if len(names) > 2:
        raise UsageError(f"{len(names)} models are too many. Give one or two.")
    if asked.kv and len(names) == 2:
        raise UsageError("--kv compares one model with itself. Leave out the second model.")
    if asked.kv and asked.kv not in KV_TYPES:
        raise UsageError(f"--kv must be {either(KV_TYPES)} (got {asked.kv}).")
    first, *more = names or [""]
    given = None if asked.text is None else common.read(asked.text)

    with common.models(first or None, flags, *more) as opened:
        shown = _measure(asked, given, *opened)
        common.publish(asked, opened[0], _json(shown), lambda page: _show(page, shown))


quant = options.command(QuantArguments, run, (*common.SETTINGS, "max_tokens"))


def _measure(
    asked: QuantArguments, given: str | None, a: OpenModel, b: OpenModel | None = None
) -> QuantShown:
    from lcp.look import quant as look
    from lcp.modelfile.weights import Weights

    work, tell = a.work, a.work.tell
    text = look.TEXT if given is None else given
    tokens = a.tokens(text)
    if b and b.tokens(text) != tokens:
        raise UsageError(
            f"{a.name} and {b.name} have different vocabularies. Give two quants of one model."
        )
    n = a.settings.max_tokens or ANSWER
    chat = bool(a.model.chat_template)
    prompt = a.tokens(asked.ask, chat=chat, least=1)
    size = max(len(tokens), len(prompt) + n)

    def observe(one: OpenModel, rows: int, kv_type: str = "f16") -> "Observer":
        return one.observe(size, rows=rows, kv_type=kv_type, watched=False)

    compared = [(a, "f16"), *([(b, "f16")] if b else [(a, asked.kv)] if asked.kv else [])]
    models = [observe(one, 128, kv_type) for one, kv_type in compared]
    own, *found = work(look.distances, models[0], models[1:], tokens, tell)
    floors = [
        work(look.distances, observed, [observe(one, 1, kv_type)], tokens[:_FLOOR], tell)[1]
        for observed, (one, kv_type) in zip(models, compared, strict=True)
    ]
    answers = [work(look.greedy, observed, prompt, n, a.model.is_end, tell) for observed in models]
    files = [Weights(one.model.path) for one in (a, b) if one]
    groups, sampled = work(_groups, files, a)
    at = int(found[0].kl.argmax()) if found else 0
    second = [b.name] if b else [f"the same, with a {asked.kv} KV cache"] if asked.kv else []
    return QuantShown(
        a, [a.name, *second], len(tokens), own, found[0] if found else None, floors,
        a.model.text(tokens[max(0, at - 8) : at + 1]), answers, groups, sampled,
    )  # fmt: skip


def _groups(files: "list[Weights]", opened: OpenModel) -> "tuple[list[Group], bool]":
    """Where the bits are, and how far the second file's weights are from the first one's; whether
    only some of them were compared."""
    from lcp.look import quant as look

    found = look.groups([file.tensors for file in files])
    if len(files) < 2:
        return found, False
    a, b = files
    try:
        look.errors(found, a.tensors, b.tensors, a.rows, b.rows, opened.work.tell)
    except NotSupported:  # a quant that only llama.cpp can read
        return found, False
    return found, any(t.elements > 2 * look.SAMPLE for t in a.tensors.values())


def _part(shown: QuantShown) -> int | None:
    from lcp.look.quant import first_difference

    return first_difference(*shown.answers) if len(shown.answers) == 2 else None


def _json(shown: QuantShown) -> dict[str, Any]:
    def measured(distance: "Distance") -> dict[str, Any]:
        return {
            "kl": distance.mean, "kl_median": distance.quantile(0.5),
            "kl_99": distance.quantile(0.99), "kl_max": distance.quantile(1),
            "same_first": float(distance.same.mean()), "perplexity": distance.perplexity,
        }  # fmt: skip

    other = shown.other
    return {
        "models": shown.names, "tokens": shown.tokens, "perplexity": shown.own.perplexity,
        "floors": [measured(floor) for floor in shown.floors],
        "other": None if other is None else {**measured(other), "most_different": shown.worst},
        "answers": ["".join(shown.a.piece(c.token) for c in answer) for answer in shown.answers],
        "same_tokens": _part(shown),
        "groups": [
            {"name": g.name, "weights": g.weights, "bytes": g.bytes, "quants": g.quants,
             "error": g.error}
            for g in shown.groups
        ],
    }  # fmt: skip


def _show(page: "Printout", shown: QuantShown) -> None:
    for letter, name in zip("AB", shown.names, strict=False):
        page.line(f"{letter}  {name}", style="bold", indent=0)
    page.blank()
    _show_groups(page, shown)
    page.blank()
    rows = [["", "", "", "", f"{shown.own.perplexity:.2f}", "A"]]
    if shown.other:
        rows.append(_row(shown.other, "B"))
    for letter, floor in zip("AB", shown.floors, strict=False):
        rows.append([*_row(floor, "")[:4], "", f"floor of {letter}"])
    page.table(["KL", "99 %", "most", "same first", "perplexity", ""], rows, cut=True)
    page.blank()
    if shown.other:
        page.line(_verdict(shown.floors, shown.other))
        page.line(f"Most different at the end of: {' '.join(shown.worst.split())}")
        page.line(_parting(shown))
        page.blank()
    page.note(
        "KL: how far the next-token probabilities are from those of A, in nats, on average over "
        f"the {shown.tokens:,} tokens of a text; 99 %: 99 of 100 tokens are below this. same "
        "first: how often the most likely token is the same. The floor: how far a model is from "
        "itself, because llama.cpp rounds differently when it reads token by token. Another text "
        "gives other numbers."
    )
    page.of_this_run(f"{shown.a.work.seconds:.1f} s.")


def _row(distance: "Distance", name: str) -> list[str]:
    return [
        f"{distance.mean:.4f}", f"{distance.quantile(0.99):.3f}", f"{distance.quantile(1):.2f}",
        f"{distance.same.mean():.1%}", f"{distance.perplexity:.2f}", name,
    ]  # fmt: skip


def _verdict(floors: "list[Distance]", other: "Distance") -> str:
    floor, kl = max(f.mean for f in floors), other.mean
    if kl < _SEEN * floor:
        return f"A KL of {kl:.4f} is less than twice the floor: this text shows no difference."
    return f"A KL of {kl:.4f} is {kl / max(floor, 1e-9):,.0f} times the floor, {floor:.4f}."


def _parting(shown: QuantShown) -> str:
    """Where the greedy answers diverge, and how narrow the choice was."""
    a, b = shown.answers
    at = _part(shown)
    if at is None:
        return f"The greedy answers are the same for {count(min(len(a), len(b)), 'token')}."
    x, y = a[at], b[at]

    def said(choice: "Choice") -> str:
        first, second = (shown.a.visible(t) for t in (choice.token, choice.second))
        return f"{first} {choice.p:.0%}, then {second} {choice.p_second:.0%}"

    before = "".join(shown.a.piece(c.token) for c in a[:at])
    return (
        f"The greedy answers diverge after {count(at, 'token')} "
        f"({short(before, 60) or 'at once'}). "
        f"A: {said(x)}. B: {said(y)}."
    )


def _millions(n: int) -> str:
    return f"{n / 1e6:,.1f} M" if n > 50_000 else f"{n:,}"


def _show_groups(page: "Printout", shown: QuantShown) -> None:
    """Where the bits are."""
    two = len(shown.groups[0].bytes) > 1
    total = sum(g.bytes[0] for g in shown.groups)
    large = [g for g in shown.groups if g.bytes[0] >= _SMALL * total]
    small = [g for g in shown.groups if g.bytes[0] < _SMALL * total]
    head = ["weights", "A", "share", *(["B", "error"] if two else []), "quant", "tensors"]

    def row(groups: "list[Group]", name: str) -> list[str]:
        sizes = [sum(g.bytes[i] for g in groups) for i in range(len(groups[0].bytes))]
        quants = ["+".join(dict.fromkeys(q for g in groups for q in g.quants[i]))
                  for i in range(len(sizes))]  # fmt: skip
        error = groups[0].error if len(groups) == 1 else None
        return [
            _millions(sum(g.weights for g in groups)), size(sizes[0]),
            f"{sizes[0] / total:.0%}",
            *([size(sizes[1]), "" if error is None else f"{error:.1%}"] if two else []),
            " -> ".join(dict.fromkeys(quants)), name,
        ]  # fmt: skip

    rows = [row([g], g.name) for g in large]
    if small:
        rows.append(row(small, f"{len(small)} others"))
    page.table(head, rows, cut=True, drop=(0,))
    if two:
        page.note(
            "error: the length of the difference of the weights, divided by the length of A's."
            + " In large tensors, lcp compared some of the rows, from all over." * shown.sampled
        )
