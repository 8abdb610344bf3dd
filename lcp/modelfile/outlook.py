"""Outlook: the contexts a model can have here, what each takes, and which the chat would choose."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lcp.modelfile.facts import Facts
from lcp.modelfile.fit import (
    STEP,
    Choice,
    Estimate,
    Verdict,
    choose,
    largest_context,
    largest_number,
    places,
    verdict,
    with_copies_or_without,
)
from lcp.modelfile.machine import Gpu, Machine
from lcp.modelfile.memory import ALL, CARD, Memory, Row, Wish, estimate, on_card
from lcp.modelfile.parts import ModelFile

KV_TYPES = ("f16", "q8_0")  # that are always shown
_LEAST, _MOST = 2048, 1 << 20  # contexts that are shown, in tokens; more only if asked for
SMALL_CARD = 8 * 10**9
_UNTOLD = 32768  # where the file does not say what the model was trained for


@dataclass(frozen=True)
class Outlook:
    """Rows by context, then KV type. `choice` is what a chat would load with."""

    memory: Memory
    machine: Machine
    choice: Choice
    rows: tuple[tuple[Row, Verdict], ...]
    asked: bool  # whether a person gave the context
    chosen: Row | None  # the row of the choice, None where llama.cpp refuses it
    fits: bool  # the choice, in the memory that is free
    largest: int  # the largest context that fits, with the KV type of the choice; 0: none shown
    refused: str  # why llama.cpp refuses the choice
    on_small_card: int | None  # where no GPU is: layers that one of 8 GB would hold


def outlook(
    model: ModelFile,
    known: Facts,
    machine: Machine,
    *,
    ctx_size: int | None = None,
    kv_type: str = "f16",
    n_gpu_layers: int | None = None,
    flash_attn: str = "auto",
    card: int | None = None,
    remembered: Path | None = None,
) -> Outlook:
    """What this model would take here; None is what `auto` means to the chat.

    `card`: bytes of a GPU that is not here but might be. `remembered`: the folder of answers that
    were had before. Raises what `estimate` does.
    """
    offloads = card is None and bool(machine.gpus)
    trained, blocks = known.context_length or 0, known.layers or 0
    wishes = [(n, kv) for n in contexts(trained, ctx_size) for kv in sorted({*KV_TYPES, kv_type})]
    in_one_question = not machine.gpus or card is not None
    if card is not None:
        machine = _with_card(machine, card)
    asked: dict[bool, Figures] = {}

    def estimate_of(figures: Figures) -> Estimate:
        return figures if card is None else figures.on_card

    def choice_for(repack: bool) -> Choice:
        figures = asked[repack] = Figures(model, flash_attn, offloads, repack, remembered)
        if in_one_question:  # later ones find these rows
            figures(wishes, ALL)
        return choose(
            estimate_of(figures), machine, trained=trained, layers=blocks, ctx_size=ctx_size,
            n_gpu_layers=n_gpu_layers, kv_type=kv_type, bits_per_weight=known.bits_per_weight or 0,
        )  # fmt: skip

    repack, choice = with_copies_or_without(choice_for)
    figures, estimate = asked[repack], estimate_of(asked[repack])
    wish, layers = (choice.ctx_size, kv_type), choice.n_gpu_layers
    memory = estimate([*wishes, wish], layers)
    chosen = next(iter(estimate([wish], layers).rows), None)
    by_size = sorted({(row.context, row.kv_type): row for row in memory.rows}.items())
    rows = tuple((row, verdict(memory, row, machine)) for _, row in by_size)
    return Outlook(
        memory=memory,
        machine=machine,
        choice=choice,
        rows=rows,
        asked=ctx_size is not None,
        chosen=chosen,
        fits=chosen is not None and memory.loads and verdict(memory, chosen, machine) == "fits",
        largest=_largest(rows, estimate, machine, choice, trained or _UNTOLD) * memory.loads,
        refused=memory.refused.get(wish, ""),
        on_small_card=None if machine.gpus else _on_small_card(figures, machine, wish, blocks),
    )


def _largest(
    rows: Sequence[tuple[Row, Verdict]], estimate: Estimate, machine: Machine, choice: Choice,
    most: int,
) -> int:  # fmt: skip
    """The largest context that fits, between the rows that are known to fit and not to."""
    known = [
        (min(row.context, most), said == "fits") for row, said in rows
        if row.kv_type == choice.kv_type and row.context < most + STEP
    ]  # fmt: skip
    low = max((n for n, fitting in known if fitting), default=0)
    high = min((n for n, fitting in known if not fitting and n > low), default=0)
    if not low or not high or high - low <= STEP:
        return low

    def fits(contexts: list[int]) -> list[bool]:
        made = estimate([(n, choice.kv_type) for n in contexts], choice.n_gpu_layers)
        answers = {row.context: verdict(made, row, machine) == "fits" for row in made.rows}
        return [answers.get(-(-n // STEP) * STEP, False) for n in contexts]

    return largest_context(fits, high, low)  # which asks for `high` first: that is known


def _on_small_card(figures: "Figures", machine: Machine, wish: Wish, blocks: int) -> int:
    """How many layers, the output among them, a GPU of 8 GB would hold."""
    machine = _with_card(machine, SMALL_CARD)

    def fits(layers: int) -> bool:
        made = figures.on_card([wish], layers)
        cards = [place for row in made.rows for place in places(made, row, machine)[2:]]
        return all(place.verdict == "fits" for place in cards)

    return largest_number(fits, blocks + 1)


def _with_card(machine: Machine, size: int) -> Machine:
    return replace(machine, gpus=(Gpu(CARD, size, size),))


def contexts(trained: int, asked: int | None) -> list[int]:
    """2048, doubled up to what the model was trained for, that itself, and what was asked for."""
    most = min(trained or _UNTOLD, _MOST)
    doubled = [_LEAST << i for i in range(20) if _LEAST << i < most]
    return sorted({*doubled, most} | ({asked} if asked else set()))


class Figures:
    """Estimates of one model, each row asked for once: a question costs a process."""

    def __init__(
        self, model: ModelFile, flash_attn: str, offloads: bool, repack: bool = True,
        remembered: Path | None = None,
    ) -> None:  # fmt: skip
        self._model = model
        self._flash_attn = flash_attn
        self._offloads = offloads
        self._repack = repack
        self._remembered = remembered
        self._known: dict[int, dict[Wish, Row | str]] = {}
        self._last: dict[int, Memory] = {}  # for what is no row: the weights

    def __call__(self, rows: Sequence[Wish], layers: int) -> Memory:
        """The estimate with so many layers on the GPUs that are here."""
        return self._asked(rows, layers if self._offloads else 0)

    def on_card(self, rows: Sequence[Wish], layers: int) -> Memory:
        """The estimate with so many layers on one GPU that is not here."""
        plain = self._asked(rows, 0)
        return on_card(plain, self._model.header, layers) if layers else plain

    def _asked(self, rows: Sequence[Wish], layers: int) -> Memory:
        known = self._known.setdefault(layers, {})
        if unknown := [wish for wish in dict.fromkeys(rows) if wish not in known]:
            made = estimate(
                self._model, unknown, n_gpu_layers=layers, flash_attn=self._flash_attn,
                repack=self._repack, known=self._remembered,
            )  # fmt: skip
            accepted = [wish for wish in unknown if wish not in made.refused]
            known |= {**made.refused, **dict(zip(accepted, made.rows, strict=True))}
            self._last[layers] = made
        found = {wish: known[wish] for wish in rows}
        return replace(
            self._last[layers],
            rows=tuple(row for row in found.values() if isinstance(row, Row)),
            refused={wish: why for wish, why in found.items() if isinstance(why, str)},
        )
