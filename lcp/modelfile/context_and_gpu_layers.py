"""The sizes to load a model with on this computer: its context, and its layers on the GPU."""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from lcp.engine_interface import AUTO_CTX, CTX_STEP, padded
from lcp.formatting import size
from lcp.machine import Machine
from lcp.modelfile.memory_needs import ALL, ContextNeeds, Figures, MemoryNeeds

# "fits"; "pages": runs, but rereads weights from the disk all the time; "no": does not run
Verdict = Literal["fits", "pages", "no"]

MARGIN = 1 << 30  # bytes left free on a GPU for its driver and the screen, as llama.cpp's --fit
RUNTIME = 150 << 20  # bytes for Python, the libraries and a large vocabulary
AUTO_MOST, AUTO_LEAST = 32768, 2048  # the context by default: maximum, minimum
_BESIDE = 512 << 20  # bytes for context and buffers, where only the size of a file is known
# Bits per weight of a model of 8B parameters (llama.cpp, tools/quantize/README.md).
_QUANTS = {
    "Q8_0": 8.5, "Q6_K": 6.56, "Q5_K_M": 5.7, "Q4_K_M": 4.89, "IQ4_XS": 4.46, "Q3_K_M": 4.0,
    "IQ3_XXS": 3.25, "Q2_K": 3.16, "IQ2_XS": 2.59,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One memory, and the bytes that a model needs there."""

    name: str
    room: int | None  # None if not known
    anon: int  # must be held
    file: int = 0  # mapped: may be dropped and reread
    weights: int = 0  # of `anon`, copied or on a GPU

    @property
    def verdict(self) -> Verdict:
        if self.room is None:
            return "fits"
        if self.anon > self.room:
            return "no"
        # What is available is an estimate: keep a tenth of it in reserve.
        paging = self.file and self.anon + self.file > self.room - self.room // 10
        return "pages" if paging else "fits"


@dataclass(frozen=True)
class Places:
    """All the memories that a model needs."""

    memory: Place
    addresses: Place  # a limit on the address space counts mapped files too
    gpus: tuple[Place, ...]

    @property
    def worst(self) -> Place:
        """The place with the worst verdict, the first of several."""
        every = (self.memory, self.addresses, *self.gpus)
        return min(every, key=lambda place: ("no", "pages", "fits").index(place.verdict))


@dataclass(frozen=True)
class Refusal:
    """Why a context cannot be loaded, and what could; facts for a sentence."""

    context: int
    place: str = ""  # where there is too little room; "" if llama.cpp ran out of memory
    needed: int = 0
    room: int = 0
    smaller_context: int = 0  # 0: none that is useful
    smaller_kv_type: str = ""
    too_many_layers: bool = False  # on a GPU
    smaller_quant: str = ""


@dataclass(frozen=True)
class SizeChoice:
    """What to load a model with, and what to say about it. With a `refusal`, do not load."""

    ctx_size: int
    n_gpu_layers: int  # -1: all
    kv_type: str
    repack: bool = True  # whether weights may be copied in an order that suits the CPU
    notices: tuple[str, ...] = ()
    refusal: Refusal | None = None


def places(needs: MemoryNeeds, row: ContextNeeds, machine: Machine) -> Places:
    """The memories of the machine, with what this context of the model needs in each."""
    gpus = {gpu.name: gpu for gpu in machine.gpus}
    anon, file = needs.weights_anon + row.output + RUNTIME, needs.weights_file
    on_gpus = []
    for device in row.devices:
        gpu = gpus.get(device.name)
        if gpu is None or gpu.shared:  # in the computer's own memory
            anon += device.kv + device.compute
            file += device.weights if device.name != "CPU" else 0
        if gpu:
            room = max(0, gpu.free - MARGIN)
            on_gpus.append(Place(gpu.title, room, device.total, weights=device.weights))
    return Places(
        Place("memory", machine.free, anon, file, needs.weights_anon),
        Place("address space", machine.mappable, anon + file, weights=needs.weights),
        tuple(on_gpus),
    )


def verdict(needs: MemoryNeeds, row: ContextNeeds, machine: Machine) -> Verdict:
    """Whether this context of the model runs on the machine."""
    return places(needs, row, machine).worst.verdict


def overhead(file_size: int) -> int:
    """About the bytes that a model needs besides its weights: the program, a context, and buffers
    that grow with the model."""
    return RUNTIME + _BESIDE + file_size // 16


def rough_verdict(file_size: int, room: int | None) -> Verdict:
    """Whether a model file of this size runs in so many bytes; for use before its header is
    here."""
    return Place("", room, overhead(file_size), file_size).verdict


def fits_gpus(needs: MemoryNeeds, machine: Machine) -> bool:
    """Whether every context of these needs fits on the GPUs, whatever is left for the CPU."""
    return all(
        gpu.verdict == "fits" for row in needs.rows for gpu in places(needs, row, machine).gpus
    )


def smaller_quant(bits: float, weights: int, room: int) -> str:
    """The best quant in which these weights would take at most `room` bytes; "" if none would."""
    sizes = {name: weights * q / bits for name, q in _QUANTS.items() if bits > 0 and q < bits}
    return next((name for name, size in sizes.items() if size <= room), "")


def largest_context(
    fits: Callable[[list[int]], list[bool]], most: int, least: int = CTX_STEP
) -> int:
    """The largest context that fits: a multiple of CTX_STEP from `least` on, or `most`; else 0.

    `fits` is asked for several contexts at once, because each question costs a process.
    """
    if fits([most])[0]:
        return most
    low, high = least - CTX_STEP, most  # low fits, high does not
    while high - low > CTX_STEP:
        # seven points cut the rest to an eighth
        points = sorted({low + (high - low) * i // 8 // CTX_STEP * CTX_STEP for i in range(1, 8)})
        points = [p for p in points if low < p < high] or [low + CTX_STEP]
        for point, fitting in zip(points, fits(points), strict=True):
            if not fitting:
                high = point
                break
            low = point
    return low if low >= least else 0


def choose_sizes(
    figures: Figures,
    machine: Machine,
    *,
    trained: int,
    layers: int,
    ctx_size: int | None = None,
    n_gpu_layers: int | None = None,
    kv_type: str = "f16",
    bits_per_weight: float = 0.0,
) -> SizeChoice:
    """What a chat should load a model with; None leaves a number to lcp.

    `trained`: tokens that the model was trained for, 0 if not known; `layers`: of the model,
    without the output. Where repacked copies of the weights do not fit, the weights are mapped
    as they are, so that the system may drop and reread them. Raises what `figures` does.
    """
    choices = (
        _Chooser(figures, machine, trained, layers, kv_type, bits_per_weight, repack).choose(
            ctx_size, n_gpu_layers
        )
        for repack in (True, False)
    )
    first = next(choices)
    if not first.refusal:
        return first
    second = next(choices)
    return first if second.refusal else second


class _Chooser:
    """One choice being made, with or without repacked weights."""

    def __init__(
        self, figures: Figures, machine: Machine, trained: int, layers: int, kv_type: str,
        bits: float, repack: bool,
    ) -> None:  # fmt: skip
        self._figures = figures
        self._machine = machine
        self._trained = trained
        self._blocks = layers
        self._kv_type = kv_type
        self._bits = bits
        self._repack = repack
        self._layers = ALL
        self._notices: list[str] = []

    def choose(self, ctx_size: int | None, n_gpu_layers: int | None) -> SizeChoice:
        aim = ctx_size or min(self._trained or AUTO_CTX, AUTO_CTX)
        self._layers = self._fill_gpus(aim) if n_gpu_layers is None else n_gpu_layers
        context = ctx_size or self._context(aim)
        needs = self._needs([context])
        row = next(iter(needs.rows), None)
        refusal = None
        if row is None:
            # llama.cpp gives any other reason itself when it loads the model.
            if "bad_alloc" in needs.refused.get((context, self._kv_type), ""):
                refusal = Refusal(context)
        elif (result := verdict(needs, row, self._machine)) == "no":
            refusal = self._refusal(needs, row)
        elif result == "pages":
            self._notices.append(self._pages(needs, row))
        return SizeChoice(
            context, self._layers, self._kv_type, self._repack, tuple(self._notices), refusal
        )

    def _needs(
        self, contexts: Iterable[int], layers: int | None = None, kv_type: str = ""
    ) -> MemoryNeeds:
        return self._figures.needs(
            [(n, kv_type or self._kv_type) for n in contexts],
            self._layers if layers is None else layers,
            self._repack,
        )

    def _fill_gpus(self, context: int) -> int:
        """As many layers on the GPUs as fit there."""

        def fits(layers: int) -> bool:
            return fits_gpus(self._needs([context], layers), self._machine)

        if not self._machine.gpus or fits(ALL):
            return ALL
        every = self._blocks + 1  # and the output
        found = bisect_left(range(1, every), True, key=lambda layers: not fits(layers))
        self._notices.append(
            f"{found} of {every} layers are on the GPU, {every - found} on the CPU: slower."
        )
        return found

    def _context(self, aim: int) -> int:
        """What the model was trained for, as far as that is cheap."""
        most = min(self._trained or aim, AUTO_MOST)
        sizes = sorted({aim, most, *(n for n in (2 * AUTO_CTX, AUTO_MOST) if n < most)})
        verdicts = self._verdicts(sizes)
        if verdicts[aim][1] == "no":
            found = largest_context(self._runs, aim, AUTO_LEAST)
            if found:
                self._limited(found, "more does not fit")
            return found or min(aim, AUTO_LEAST)
        chosen = aim
        for n in sizes[sizes.index(aim) + 1 :]:
            row, result = verdicts[n]
            if result != verdicts[aim][1] or not (row and self._cheap(row)):
                self._limited(chosen, "more would take over a quarter of the free memory")
                break
            chosen = n
        return chosen

    def _verdicts(
        self, contexts: list[int]
    ) -> dict[int, tuple[ContextNeeds | None, Verdict | None]]:
        """For each context its needs and verdict, (None, None) if llama.cpp refuses it."""
        needs = self._needs(contexts)
        rows = {row.context: (row, verdict(needs, row, self._machine)) for row in needs.rows}
        return {n: rows.get(padded(n), (None, None)) for n in contexts}

    def _runs(self, contexts: list[int]) -> list[bool]:
        return [result in ("fits", "pages") for _, result in self._verdicts(contexts).values()]

    def _limited(self, context: int, why: str) -> None:
        of = f" of {self._trained:,}" if self._trained else ""
        self._notices.append(f"The context has {context:,}{of} tokens: {why}.")

    def _cheap(self, row: ContextNeeds) -> bool:
        """Whether a context leaves three quarters of each memory free."""
        free = {gpu.name: gpu.free for gpu in self._machine.gpus}
        rooms = [(d, free.get(d.name, self._machine.free)) for d in row.devices]
        return all(room is None or d.kv + d.compute <= room / 4 for d, room in rooms)

    def _pages(self, needs: MemoryNeeds, row: ContextNeeds) -> str:
        place = places(needs, row, self._machine).memory
        room = place.room or 0
        left = max(0, room - room // 10 - place.anon)
        quant = smaller_quant(self._bits, place.file, left)
        return (
            f"Slow: the weights ({size(place.file)}) do not fit in the free memory "
            f"({size(left)}) and are reread from disk."
            + (f" The {quant} version would fit." if quant else "")
        )

    def _refusal(self, needs: MemoryNeeds, row: ContextNeeds) -> Refusal:
        """What does not fit where, and what would."""
        context = row.context
        all_places = places(needs, row, self._machine)
        place = all_places.worst
        smaller = (
            largest_context(self._runs, context - CTX_STEP, AUTO_LEAST) if context > CTX_STEP else 0
        )
        fewer_bits = ""
        for kv_type in {"f16": ("q8_0", "q4_0"), "q8_0": ("q4_0",)}.get(self._kv_type, ()):
            made = self._needs([context], kv_type=kv_type)
            if made.rows and verdict(made, made.rows[0], self._machine) != "no":
                fewer_bits = kv_type
                break
        left = (place.room or 0) - (place.anon - place.weights)
        return Refusal(
            context,
            place.name,
            place.anon,
            place.room or 0,
            smaller if smaller >= AUTO_LEAST else 0,  # with less there is hardly a chat
            fewer_bits,
            place in all_places.gpus,
            smaller_quant(self._bits, place.weights, left) if place.weights else "",
        )
