"""Measures how long a token takes, with and without flash attention, on more or fewer threads.

Which is faster depends on the model, the build of llama.cpp and the CPU: at 2,048 tokens of context
flash attention makes SmolLM2 half as fast on some CPUs, and other models a little faster.

1) Two contexts, one of each kind, get as many tokens as a chat of medium length. Only the first few
   are evaluated; the others are copies of them at later positions, because attention takes the same
   time for any numbers.
2) Both evaluate one token after another, in turn, so that a change of clock speed affects both.
3) The faster one does the same on fewer threads.

lcp changes its default only for something clearly faster. If other programs used the cores, it
changes nothing.
"""

import ctypes
import struct
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from lcp import formatting
from lcp.engine.context import Context, Stopped
from lcp.engine.kv_cells import keep_all_cells
from lcp.engine.llama_library import StopByte, library
from lcp.engine.loading import Loaded
from lcp.engine.observer import about
from lcp.errors import LcpError, NotEnoughMemory, NotSupported

DEPTH, UNIT = 2048, 32  # tokens in each context; tokens that are evaluated and copied
ROUNDS, LEAST, LIMIT_S = 8, 3, 2.0  # pairs of times; fewer (not under LEAST) after LIMIT_S
CLEARLY = 1.05  # the speedup for which lcp changes its default
QUIET = 0.7  # the share of the cores' time that the threads must have had
TRIES = 3  # measurements in one chat, if other programs use the cores
SHARE = 4  # the contexts take at most 1/SHARE of the free memory
_SEQ, _OTHER = 0, 1
_CANNOT = "lcp cannot measure this model: {}."
_UNKNOWN = _CANNOT.format("its memory has a form that lcp does not know")

T = TypeVar("T")
Steps = Generator[None, None, T]  # work in small steps; it returns its result


@dataclass(frozen=True)
class TokenTime:
    """The median time of one token, in seconds."""

    flash_attn: str  # on | off
    threads: int
    seconds: float


@dataclass(frozen=True)
class Speeds:
    """The measured times, and the choice that follows from them."""

    flash_attn: str
    threads: int
    depth: int  # tokens of the context
    times: tuple[TokenTime, ...]
    busy: bool = False  # other programs used the cores: the choice is the usual one
    kept: bool = False  # it is stored for the next start

    def as_dict(self) -> dict[str, Any]:
        """The values for JSON."""
        return asdict(self)


class TwoSequences(Context):
    """A Context in which a second sequence uses the same cells."""

    def _params(self, cells: int) -> Any:
        params = super()._params(cells)
        params.n_seq_max = params.n_outputs_max = 2
        params.kv_unified = True
        return params


def measure(loaded: Loaded, stop: StopByte, threads: int, free: int | None = None) -> Steps[Speeds]:
    """Measure in small steps; closing the generator frees everything. `threads` is the usual
    number, `free` the bytes of free memory. Raises Stopped, and LcpError if it cannot measure."""
    model, token = loaded.model, max(0, loaded.model.bos)
    kind = loaded.context.kind
    if loaded.context.fingerprint["flash_attn"] == "auto":
        raise NotSupported(_CANNOT.format("llama.cpp chooses for models on a GPU"))
    if kind.cut == "snapshot":
        why = "the state of its recurrent layers cannot be copied to other positions"
        raise NotSupported(_CANNOT.format(why))
    depth = min(DEPTH, (model.n_ctx_train or DEPTH) // 2) // UNIT * UNIT
    size = depth + 256
    needed = SHARE * 2 * about(model, size, "f16", rows=1)
    if free is not None and needed > free:
        raise NotEnoughMemory(
            f"To measure the speed, lcp needs {formatting.size(needed)} of free memory; "
            f"{formatting.size(free)} are free. Close other programs, then run it again."
        )
    swa_full = keep_all_cells(model, loaded.context.size, "f16")
    with ExitStack() as life:
        made = {}
        for flash in ("off", "on"):
            made[flash] = TwoSequences(
                model, size, stop, threads=threads, flash_attn=flash, swa_full=swa_full, start=size
            )
            life.callback(made[flash].close)
            yield
            fill(made[flash], depth, token)
            yield
        timed = _Timed(token)
        pairs = yield from timed.pairs(made["off"], threads, made["on"], threads)
        chosen = "on" if clearly_faster(pairs) else "off"
        times = [
            TokenTime(kind, threads, median([pair[i] for pair in pairs]))
            for i, kind in enumerate(("off", "on"))
        ]
        best = threads
        for fewer in sorted({threads * 3 // 4, threads // 2} - {0, threads}, reverse=True):
            context = made[chosen]
            pairs = yield from timed.pairs(context, threads, context, fewer)
            seconds = median([pair[1] for pair in pairs])
            times.append(TokenTime(chosen, fewer, seconds))
            if clearly_faster(pairs) and seconds == min(t.seconds for t in times):
                best = fewer
        if timed.busy:
            chosen, best = "off", threads
    return Speeds(chosen, best, depth, tuple(times), timed.busy)


def median(numbers: Sequence[float]) -> float:
    """The middle one. The statistics module would take 10 ms to import."""
    return sorted(numbers)[len(numbers) // 2]


def clearly_faster(pairs: Sequence[tuple[float, float]]) -> bool:
    """Whether the second of each pair is clearly less: in the median, and in nearly all pairs."""
    ratio = median([usual / other for usual, other in pairs])
    wins = sum(other < usual for usual, other in pairs)
    return ratio >= CLEARLY and wins >= 0.8 * len(pairs)


def fill(context: TwoSequences, depth: int, token: int) -> None:
    """Fill a context of two sequences with `depth` tokens at little cost. Raises LcpError if
    llama.cpp's memory of this model has another form."""
    c, ctx = library(), context.handle
    for _ in context.feed([token] * UNIT):
        pass
    length = c.llama_state_seq_get_size_ext(ctx, _SEQ, 0)
    state = (ctypes.c_uint8 * length)()
    if c.llama_state_seq_get_data_ext(ctx, state, length, _SEQ, 0) != length:
        raise NotSupported(_UNKNOWN)
    first, memory = _cells(0), c.llama_get_memory(ctx)
    for begin in range(UNIT, depth, UNIT):
        moved = bytes(state).replace(first, _cells(begin))
        blob = (ctypes.c_uint8 * length).from_buffer_copy(moved)
        if not c.llama_state_seq_set_data_ext(ctx, blob, length, _OTHER, 0):
            break
        c.llama_memory_seq_cp(memory, _OTHER, _SEQ, -1, -1)
    c.llama_memory_seq_rm(memory, _OTHER, -1, -1)
    if c.llama_memory_seq_pos_max(memory, _SEQ) != depth - 1:
        raise NotSupported(_UNKNOWN)


def _cells(first: int) -> bytes:
    """UNIT cells as a state has them (llama_kv_cache::state_write_meta): position, number of
    sequences, sequence."""
    return b"".join(struct.pack("<iIi", first + i, 1, _SEQ) for i in range(UNIT))


class _Timed:
    """Measures the time of single tokens, and the time that they had on the cores."""

    def __init__(self, token: int) -> None:
        self._token = token
        self._wanted = self._had = 0.0  # core seconds

    @property
    def busy(self) -> bool:
        """Whether other programs took too much time of the cores."""
        return self._had < QUIET * self._wanted

    def pairs(
        self, usual: Context, threads: int, other: Context, fewer: int
    ) -> Steps[list[tuple[float, float]]]:
        """Pairs of times of one token, in seconds: with the default and with the other choice."""
        sides = [(usual, threads), (other, fewer)]
        for context, number in sides:
            self._time(context, number)  # the first one allocates
            yield
        begun, found = time.perf_counter(), list[tuple[float, float]]()
        while len(found) < ROUNDS:
            if len(found) >= LEAST and time.perf_counter() - begun > LIMIT_S:
                break
            order = sides if len(found) % 2 == 0 else sides[::-1]
            taken = []
            for context, number in order:
                taken.append(self._time(context, number))
                yield
            found.append((taken[0], taken[1]) if order is sides else (taken[1], taken[0]))
        return found

    def _time(self, context: Context, threads: int) -> float:
        context.decode_on(threads)
        begun, cpu = time.perf_counter(), time.process_time()
        context.append(self._token)
        taken = time.perf_counter() - begun
        self._wanted += threads * taken
        self._had += min(time.process_time() - cpu, threads * taken)
        return taken


class SpeedTest:
    """A measurement in the idle time of the engine thread. A person waits for one step at most, and
    the stop byte ends that step. Any thread may call `ask` and `stop`."""

    def __init__(self) -> None:
        self._tries = TRIES
        self._asked: Callable[[], int | None] | None = None
        self._steps: Steps[Speeds] | None = None
        self._start: Callable[[int | None], Steps[Speeds]] | None = None
        self._keep: Callable[[Speeds], bool]

    def begin(
        self,
        start: Callable[[int | None], Steps[Speeds]],
        keep: Callable[[Mapping[str, Any]], bool] | None,
        known: bool = False,
    ) -> None:
        """Set the loaded model: `start` measures it with so many free bytes, and `keep` stores the
        result. If it is `known` already, only `now` measures it."""
        self._start = start
        self._keep = lambda speeds: bool(keep and not speeds.busy and keep(speeds.as_dict()))
        self._tries *= bool(keep) and not known

    def now(self, free: int | None) -> Speeds:
        """Measure, even if the result is known. Raises what `measure` raises."""
        assert self._start, "no model is loaded"
        with closing(self._start(free)) as steps:
            while True:
                try:
                    next(steps)
                except StopIteration as done:
                    return replace(done.value, kept=self._keep(done.value))

    def ask(self, free: Callable[[], int | None]) -> None:
        """Measure in idle time. `free` returns the bytes of free memory."""
        if self._tries:
            self._asked = free

    def stop(self) -> None:
        """Stop after the present step."""
        self._asked = None

    def end(self) -> None:
        """Free everything, on the engine thread."""
        if self._steps:
            self._steps.close()
            self._steps = None

    def step(self) -> bool:
        """Do a step on the engine thread. Returns whether there is more to do."""
        asked = self._asked
        if asked is None or self._start is None:
            self.end()
            return False
        try:
            self._steps = self._steps or self._start(asked())
            next(self._steps)
            return True
        except StopIteration as done:
            self._keep(done.value)
            self._tries = self._tries - 1 if done.value.busy else 0
        except Stopped:
            pass
        except (LcpError, OSError, MemoryError):
            self._tries = 0  # this model cannot be measured, or there is no memory or process
        self._asked = None
        self.end()
        return False
