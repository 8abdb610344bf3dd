"""Fit: what to choose on this machine: the context, the layers on the GPU; and what would fit.

Pure arithmetic on a Memory and a Machine; it asks for more figures through functions it is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lcp.modelfile.machine import Machine
from lcp.modelfile.memory import ALL, Memory, Row, Wish
from lcp.words import size

# "fits"; "pages": runs, but weights are read from the disk again and again; "no": does not run
Verdict = Literal["fits", "pages", "no"]
Estimate = Callable[[Sequence[Wish], int], Memory]  # rows, layers on the GPU

MARGIN = 1 << 30  # stays free on a GPU, for its driver and the screen; as llama.cpp's --fit
RUNTIME = 150 << 20  # the program, its libraries, a large vocabulary
STEP = 256  # llama.cpp rounds contexts up to this
AUTO, AUTO_MOST, AUTO_LEAST = 8192, 32768, 2048  # -c auto: aims at, grows to, shrinks to
# Bits per weight of a model of 8B parameters (llama.cpp, tools/quantize/README.md).
_QUANTS = {
    "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.7, "Q4_K_M": 4.89, "IQ4_XS": 4.46, "Q3_K_M": 4.0,
    "IQ3_XXS": 3.25, "Q2_K": 3.16, "IQ2_XS": 2.59,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One memory and what a model would put there: `anon` must be held, `file` may be dropped."""

    name: str
    room: int | None
    anon: int
    file: int = 0
    weights: int = 0  # of `anon`, copied or on a GPU

    @property
    def verdict(self) -> Verdict:
        if self.room is None:
            return "fits"
        if self.anon > self.room:
            return "no"
        # What is available is an estimate: a tenth of it stays in hand.
        paging = self.file and self.anon + self.file > self.room - self.room // 10
        return "pages" if paging else "fits"


@dataclass(frozen=True)
class Choice:
    """What to load with, what to say of it; with a `refusal` nothing should be loaded."""

    ctx_size: int
    n_gpu_layers: int  # -1: all
    kv_type: str
    notices: tuple[str, ...] = ()
    refusal: str = ""


def places(memory: Memory, row: Row, machine: Machine) -> list[Place]:
    """The machine's own memory, then that of each GPU."""
    gpus = {gpu.name: gpu for gpu in machine.gpus}
    anon, file = memory.weights_anon + row.output + RUNTIME, memory.weights_file
    cards = []
    for device in row.devices:
        gpu = gpus.get(device.name)
        if gpu is None or gpu.shared:  # in the machine's memory
            anon += device.kv + device.compute
            file += device.weights if device.name != "CPU" else 0
        if gpu:
            room = max(0, gpu.free - MARGIN)
            name = gpu.description or gpu.name
            cards.append(Place(name, room, device.total, weights=device.weights))
    here = Place("memory", machine.free, anon, file, memory.weights_anon)
    whole = Place("address space", machine.mappable, anon + file, weights=memory.weights)
    return [here, whole, *cards]


def verdict(memory: Memory, row: Row, machine: Machine) -> Verdict:
    """Whether this context of this model runs here; the worst of all places."""
    said = {place.verdict for place in places(memory, row, machine)}
    return "no" if "no" in said else "pages" if "pages" in said else "fits"


def largest_context(fits: Callable[[list[int]], list[bool]], most: int, least: int = STEP) -> int:
    """The largest context that fits: a multiple of 256 from `least` on, or `most` itself; else 0.

    `fits` is asked for several contexts at once, as a question takes longer than an answer.
    """
    if fits([most])[0]:
        return most
    low, high = least - STEP, most  # low fits, high does not
    while high - low > STEP:
        # seven points cut what is left to an eighth
        points = sorted({low + (high - low) * i // 8 // STEP * STEP for i in range(1, 8)})
        points = [p for p in points if low < p < high] or [low + STEP]
        answers = fits(points)
        for point, fitting in zip(points, answers, strict=True):
            if not fitting:
                high = point
                break
            low = point
    return low if low >= least else 0


def largest_number(fits: Callable[[int], bool], most: int) -> int:
    """The largest of 0..most that fits, where less always fits better; 0 when nothing else."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def with_copies_or_without(choose: Callable[[bool], Choice]) -> tuple[bool, Choice]:
    """Whether weights should be copied in an order that suits the CPU, and what to choose then:
    where the copies have no room, weights that are mapped as they are may be dropped by the
    system and read again. `choose` is asked with and, if it must be, without them."""
    chosen = choose(True)
    if chosen.refusal and not (mapped := choose(False)).refusal:
        return False, mapped
    return True, chosen


def choose(
    estimate: Estimate,
    machine: Machine,
    *,
    trained: int,
    layers: int,
    ctx_size: int | None = None,
    n_gpu_layers: int | None = None,
    kv_type: str = "f16",
    bits_per_weight: float = 0.0,
) -> Choice:
    """What a chat should load with, where None means that the person leaves it to us.

    `trained`: tokens the model was trained for, 0 if nobody knows; `layers`: of the model,
    without the output. Raises what `estimate` does.
    """
    return _Chooser(estimate, machine, trained, layers, kv_type, bits_per_weight).choose(
        ctx_size, n_gpu_layers
    )


def smaller_quant(bits: float, weights: int, room: int) -> str:
    """The best quant in which these weights would take at most `room` bytes; "" if none would."""
    sizes = {name: weights * q / bits for name, q in _QUANTS.items() if bits > 0 and q < bits}
    return next((name for name, size in sizes.items() if size <= room), "")


class _Chooser:
    """The figures asked for, and the choices made with them."""

    def __init__(
        self, estimate: Estimate, machine: Machine, trained: int, layers: int, kv_type: str,
        bits: float,
    ) -> None:  # fmt: skip
        self._estimate = estimate
        self._machine = machine
        self._trained = trained
        self._blocks = layers
        self._kv_type = kv_type
        self._bits = bits
        self._layers = ALL
        self._notices: list[str] = []

    def choose(self, ctx_size: int | None, n_gpu_layers: int | None) -> Choice:
        aim = ctx_size or min(self._trained or AUTO, AUTO)
        self._layers = self._fill_gpu(aim) if n_gpu_layers is None else n_gpu_layers
        context = ctx_size or self._context(aim)
        wish = (context, self._kv_type)
        memory = self._estimate([wish], self._layers)
        row = next(iter(memory.rows), None)
        refusal = ""
        if row is None:
            # Its own tables would not fit. Any other reason llama.cpp says itself, at the load.
            if "bad_alloc" in memory.refused.get(wish, ""):
                refusal = f"A context of {context} does not fit. Give a smaller one: -c auto"
        elif (said := verdict(memory, row, self._machine)) == "no":
            refusal = self._refusal(memory, row)
        elif said == "pages":
            self._notices.append(self._pages(memory, row))
        return Choice(context, self._layers, self._kv_type, tuple(self._notices), refusal)

    def _fill_gpu(self, context: int) -> int:
        """As many layers on the GPU as fit there."""
        if not self._machine.gpus:
            return ALL
        all_of_them = self._blocks + 1  # and the output

        def fits(layers: int) -> bool:
            memory = self._estimate([(context, self._kv_type)], layers)
            cards = [p for row in memory.rows for p in places(memory, row, self._machine)[2:]]
            return all(card.verdict == "fits" for card in cards)

        if fits(ALL):
            return ALL
        found = largest_number(fits, all_of_them - 1)
        self._notices.append(
            f"{found}/{all_of_them} layers on GPU, {all_of_them - found} on CPU: expect slower"
        )
        return found

    def _context(self, aim: int) -> int:
        """-c auto: what the model was trained for, as far as that is cheap."""
        most = min(self._trained or aim, AUTO_MOST)
        sizes = sorted({aim, most, *(n for n in (2 * AUTO, AUTO_MOST) if n < most)})
        told = self._verdicts(sizes)
        if told[aim][1] == "no":
            found = largest_context(self._runs, aim, AUTO_LEAST)
            if found:
                self._less(found, "more does not fit")
            return found or min(aim, AUTO_LEAST)
        chosen = aim
        for n in sizes[sizes.index(aim) + 1 :]:
            row, said = told[n]
            if said != told[aim][1] or not (row and self._cheap(row)):
                self._less(chosen, "more would take over a quarter of the free memory")
                break
            chosen = n
        return chosen

    def _verdicts(self, contexts: list[int]) -> dict[int, tuple[Row | None, Verdict | None]]:
        """For each context its row and verdict, (None, None) where llama.cpp refuses it."""
        memory = self._estimate([(n, self._kv_type) for n in contexts], self._layers)
        rows = {row.context: (row, verdict(memory, row, self._machine)) for row in memory.rows}
        return {n: rows.get(-(-n // STEP) * STEP, (None, None)) for n in contexts}

    def _runs(self, contexts: list[int]) -> list[bool]:
        return [said in ("fits", "pages") for _, said in self._verdicts(contexts).values()]

    def _less(self, context: int, why: str) -> None:
        of = f" of {self._trained}" if self._trained else ""
        self._notices.append(f"context {context}{of}: {why}")

    def _cheap(self, row: Row) -> bool:
        """Whether a context leaves three quarters of each memory to others."""
        free = {gpu.name: gpu.free for gpu in self._machine.gpus}
        rooms = [(d, free.get(d.name, self._machine.free)) for d in row.devices]
        return all(room is None or d.kv + d.compute <= room / 4 for d, room in rooms)

    def _pages(self, memory: Memory, row: Row) -> str:
        place = places(memory, row, self._machine)[0]
        room = place.room or 0
        left = max(0, room - room // 10 - place.anon)
        other = smaller_quant(self._bits, place.file, left)
        return (
            f"The weights ({size(place.file)}) will page from disk: slow; "
            f"{size(left)} of memory are free for them."
            + (f" Its {other} version would fit." if other else "")
        )

    def _refusal(self, memory: Memory, row: Row) -> str:
        """What does not fit where, and what would."""
        context = row.context
        told = places(memory, row, self._machine)
        place = next(p for p in told if p.verdict == "no")
        others = []
        smaller = largest_context(self._runs, context - STEP, AUTO_LEAST) if context > STEP else 0
        if smaller >= AUTO_LEAST:  # with less there is hardly a chat
            others.append(f"-c {smaller}")
        for kv_type in {"f16": ("q8_0", "q4_0"), "q8_0": ("q4_0",)}.get(self._kv_type, ()):
            made = self._estimate([(context, kv_type)], self._layers)
            if made.rows and verdict(made, made.rows[0], self._machine) != "no":
                others.append(f"--kv-type {kv_type}")
                break
        if place in told[2:]:
            others.append("-ngl auto")
        if not others:
            left = (place.room or 0) - (place.anon - place.weights)
            quant = smaller_quant(self._bits, place.weights, left) if place.weights else ""
            others.append(f"its {quant} version" if quant else "a smaller model")
        return (
            f"A context of {context} needs {size(place.anon)} of {place.name}; "
            f"{size(place.room or 0)} can be had. What would fit: {' or '.join(others)}."
        )
