"""The KV cache of one model, and a list of the tokens in it.

`Context.feed(tokens)` makes the cache hold exactly these tokens, evaluates as few as possible and
leaves the logits of the last one. Every feature of a chat uses it: the next turn, undo, edit, a
sliding window, resume. A token joins `Context.tokens` only after llama.cpp has evaluated it, so
an interrupt or an error leaves a valid Context. One thread uses it for its whole life.

Cells are allocated as the tokens come: for the first few thousand tokens, then twice as many.
"""

import ctypes
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lcp.engine.allocation import Allocation, allocate, allocate_in_advance
from lcp.engine.cache_plan import Plan, plan
from lcp.engine.kv_cells import Cells, MemoryKind, Snapshot, first_size
from lcp.engine.llama_library import StopByte, abort_callback, library, supports_gpu, version
from lcp.engine.model import Model
from lcp.engine.params import context_params, flash_attention
from lcp.engine_interface import Progress, padded, room_in
from lcp.engine_notices import ContextStays
from lcp.errors import ContextFull, LcpError, NativeError
from lcp.machine import machine

SHORT = 64
START = 2048  # tokens for which a Context has cells at first
_ABORTED = 2
_PREPARED = 64  # with so few free cells, the next, larger context is made while an answer continues


class Stopped(Exception):
    """The stop byte was set while tokens were evaluated. The Context is valid."""


@dataclass(frozen=True)
class State:
    """Everything in a Context."""

    tokens: list[int]
    positions: list[int]
    blob: Any  # a ctypes array of bytes
    snapshots: Sequence[Snapshot] = ()  # not in files


class Context:
    """The KV cache and the tokens in it, for one sequence of at most `size` tokens.

    `size` is smaller than promised, and `stays` says why, if the memory for more was gone when it
    was needed.
    """

    def __init__(
        self,
        model: Model,
        size: int,
        stop: StopByte,
        *,
        threads: int,
        kv_type: str = "f16",
        flash_attn: str = "auto",
        swa_full: bool = False,
        rows: int = 1,
        start: int | None = None,
    ) -> None:
        """Allocate cells for the first `start` tokens (by default START), or for all `size` if they
        could not be added later.

        With `swa_full`, sliding-window layers keep the cells of all tokens; only such a cache can
        be moved. `rows` is the most tokens whose logits one batch leaves. Raises NotEnoughMemory,
        or SettingsError if the model does not support these settings.
        """
        c = library()
        flash_attn = flash_attention(flash_attn, kv_type)
        self._model = model
        self._kv_type, self._flash_attn, self._swa_full = kv_type, flash_attn, swa_full
        self._rows, self._threads, self._decode_threads = rows, threads, threads
        self._stop = stop
        self._one = (c.llama_token * 1)()
        self._batch_of_one = c.llama_batch_get_one(self._one, 1)
        self.fingerprint = {
            "llama.cpp": version(),
            "model": model.fingerprint,
            "kv_type": kv_type,
            "flash_attn": flash_attn,
        }
        self.size = padded(size)
        if border := model.rope_border:  # see first_size
            factors = "first" if self.size <= border else "second"
            self.fingerprint["set of RoPE factors"] = factors
        self.stays: ContextStays | None = None
        self.tokens: list[int] = []
        self._ctx: Any = None
        self._capacity = self._n_batch = 0  # tokens: for which there are cells; of one decode
        self._next: Future[Allocation] | None = None
        self._prepared_at = 0  # the capacity at which `_next` was made, or there was no memory
        first = first_size(model, self.size, swa_full, start or START)
        self._allocate(first)
        if first < self.size and not self._fits(self.size, _free()):
            self._allocate(self.size)  # later, a copy of the tokens would not fit

    @property
    def handle(self) -> Any:
        """The `llama_context *`, for the sampler."""
        return self._ctx

    def close(self) -> None:
        """Free the cache. Never call it while another thread evaluates tokens."""
        self._discard_next()
        if self._ctx:
            library().llama_free(self._ctx)
        self._ctx, self._capacity, self._bytes = None, 0, 0.0

    def decode_on(self, threads: int) -> None:
        """Evaluate single tokens on so many threads; batches keep theirs."""
        self._decode_threads = threads
        library().llama_set_n_threads(self._ctx, threads, self._threads)

    def feed(
        self, wanted: Sequence[int], boundary: int | None = None, move: bool = False
    ) -> Iterator[Progress]:
        """Make the cache hold exactly `wanted` and leave the logits of its last token. Yields after
        each batch.

        `boundary` is where a later prompt probably differs: the end of the messages, before the
        template's request for an answer. Models whose memory cannot be cut take a snapshot there.
        With `move`, cells after a dropped middle are moved instead of evaluated again. This is an
        approximation: they were computed while the dropped tokens were in the cache.
        Raises Stopped, ContextFull (then nothing has changed) or NativeError.
        """
        self._make_room(len(wanted))
        if len(wanted) + _PREPARED < self._capacity:
            self._discard_next()
        # 1) Keep what the cache already has of `wanted`; cut, drop or move the rest.
        kept, moved = self._take_out(plan(self.tokens, wanted, move), wanted)
        total = len(wanted) - kept
        if moved:
            # llama.cpp rotates the keys of moved cells in the next decode. An abort in the middle
            # would leave only some layers rotated, and a state saved before it would be wrong. So
            # this decode cannot be stopped. It evaluates a short question whole, a long one later.
            with self._unstoppable():
                self._decode(wanted[kept : kept + (total if total <= SHORT // 2 else 1)])
        yield Progress(kept, moved, len(self.tokens) - kept, total)
        # 2) Evaluate the other tokens, batch by batch.
        snapshot_at = boundary or -1
        while (start := len(self.tokens)) < len(wanted):
            end = min(start + self._n_batch, len(wanted))
            if start < snapshot_at < end:
                end = snapshot_at
            self._decode(wanted[start:end])
            if end == snapshot_at:
                self._cells.snapshot()
            yield Progress(kept, moved, len(self.tokens) - kept, total)

    def append(self, token: int, ahead: Sequence[int] = (), each: bool = False) -> list[int]:
        """Evaluate one more token, and in the same batch the tokens that may follow it.

        Leaves the logits of the last token or, with `each`, of every token of at most `rows`.
        Returns the tokens of `ahead` that were evaluated: as many as there are cells for. Raises
        as `feed` does.
        """
        # Guesses are no reason to grow.
        room = max(0, min(self._capacity, self.size) - len(self.tokens) - 1)
        evaluated = list(ahead[: min(room, (self._rows if each else self._n_batch) - 1)])
        if not evaluated:
            self._one[0] = token
            self._run([token], self._batch_of_one)
        elif each:
            self.feed_rows([token, *evaluated])
        else:
            self._decode([token, *evaluated])
        if self._capacity - len(self.tokens) <= _PREPARED and self._capacity < self.size:
            self._prepare()
        return evaluated

    def take_back(self, n: int) -> None:
        """Remove the last n tokens, and more if the memory cannot be cut there."""
        if n:
            self._cut(len(self.tokens) - n)

    @property
    def takes_back_freely(self) -> bool:
        """Whether `take_back` costs nothing and removes no other tokens."""
        return self._cells.cuts_freely

    def feed_rows(self, tokens: Sequence[int]) -> None:
        """Evaluate at most `rows` more tokens; the logits of the i-th are then in row i."""
        c = library()
        ids = (c.llama_token * len(tokens))(*tokens)  # the batch only points to them
        batch = c.llama_batch_get_one(ids, len(tokens))
        batch.logits = (ctypes.c_int8 * len(tokens))(*[1] * len(tokens))
        self._run(tokens, batch)

    def save(self) -> State | None:
        """A copy of the whole cache; None if it is empty or llama.cpp cannot copy it."""
        blob = self._cells.save() if self.tokens else None
        if not blob:
            return None
        cells = self._cells
        return State(list(self.tokens), list(cells.positions), blob, tuple(cells.snapshots))

    def restore(self, state: State) -> bool:
        """Load a saved state. If it does not fit, clear the cache and return False."""
        self.tokens = []
        try:
            self._make_room(len(state.tokens))
        except ContextFull:
            return False
        if not self._cells.restore(state.blob, state.positions, state.snapshots):
            return False
        self.tokens = list(state.tokens)
        return True

    def room(self, max_tokens: int | None) -> int:
        """Tokens a prompt may have so that an answer of `max_tokens` fits after it."""
        return room_in(self.size, max_tokens)

    @property
    def kind(self) -> MemoryKind:
        """What can be done with this model's memory."""
        return self._cells.kind

    # cells

    def _make_room(self, total: int) -> None:
        """Have cells for `total` tokens. Raises ContextFull if the context cannot have so many."""
        if self._capacity < total <= self.size:
            self._grow(total)
        if total > self.size:
            raise ContextFull(total, self.size)

    def _grow(self, total: int) -> None:
        """Move the cache to a context with at least `total` cells. If there is not enough memory,
        the present number of cells becomes the `size`.

        Unless the new context was prepared, the old one is freed before: the two are then never in
        memory together, but each with a copy of the cache.
        """
        before, tokens, state = self._capacity, self.tokens, None
        cells = self._cells_for(total)
        prepared = self._next and not self._next.exception() and self._next.result().cells >= cells
        if not prepared:
            self._discard_next()  # before its memory is missing from what is free
        free, needs = _free(), self._needs(cells)
        lacking = free if free is not None and needs > free else None
        stays = ContextStays(before, self.size, needs, lacking)
        try:
            if not prepared and not self._fits(cells, free):
                raise MemoryError
            state = self.save()
            self._allocate(cells)
        except (MemoryError, LcpError):
            if not before:
                raise
            self.size, self.stays = before, stays
            self._discard_next()
            if self._ctx:  # nothing has changed
                return
            self._allocate(before)
        if not (state and self.restore(state)):
            for at in range(0, len(tokens), self._n_batch):
                self._decode(tokens[at : at + self._n_batch])

    def _cells_for(self, total: int) -> int:
        """How many cells a context gets that must hold `total` tokens."""
        cells = self._capacity or first_size(self._model, self.size, self._swa_full, START)
        while cells < total:
            cells *= 2
        return min(cells, self.size)

    def _prepare(self) -> None:
        """Make the next context in another thread, so that the answer waits for the copy only. Not
        where the memory for both is lacking. A GPU needs no time to clear cells."""
        if self._prepared_at == self._capacity or supports_gpu():
            return
        self._prepared_at = self._capacity
        cells, free = self._cells_for(self._capacity + 1), _free()
        if free is None or self._needs(cells) + self._bytes <= free:
            model, params, kv_type = self._model, self._params(cells), self._kv_type
            self._next = allocate_in_advance(lambda: allocate(model, params, kv_type))

    def _take_next(self, cells: int) -> Allocation | None:
        """The context that was prepared, if it has so many cells."""
        future, self._next, self._prepared_at = self._next, None, 0
        if future is None or future.exception():
            return None  # it is made again, and the error then has an effect
        if future.result().cells >= cells:
            return future.result()
        future.result().free()
        return None

    def _discard_next(self) -> None:
        self._take_next(self.size + 1)

    def _allocate(self, cells: int) -> None:
        """Replace llama.cpp's context with an empty one of so many cells."""
        new = self._take_next(cells)
        self.close()
        self.tokens = []
        new = new or allocate(self._model, self._params(cells), self._kv_type)
        self._ctx, self._capacity, self._n_batch = new.handle, new.cells, new.batch
        self._bytes = new.bytes
        self._cells = Cells(self._ctx, self._model)
        self.decode_on(self._decode_threads)

    def _params(self, cells: int) -> Any:
        """The parameters of llama.cpp's context."""
        params = context_params(cells, self._kv_type, self._flash_attn, self._swa_full)
        params.n_outputs_max = self._rows
        params.abort_callback = abort_callback()
        params.abort_callback_data = self._stop.address
        return params

    def _needs(self, cells: int) -> int:
        """The most bytes that so many cells need in place of the present ones, with a copy of the
        cache: buffers grow no faster than the cells, and the copy is no larger than the cells."""
        return int(self._bytes * cells / self._capacity) if self._ctx else 0

    def _fits(self, cells: int, free: int | None) -> bool:
        return free is None or self._needs(cells) <= free

    # tokens

    def _take_out(self, todo: Plan, wanted: Sequence[int]) -> tuple[int, int]:
        """Cut, drop and move as planned. Returns how many tokens are kept, and how many moved."""
        if todo.drops:
            if self._cut(todo.end) == todo.end and self._cells.drop(
                todo.drops, self.size - todo.keep
            ):
                for begin, end in reversed(todo.drops):
                    del self.tokens[begin:end]
                return todo.keep, todo.moved
            del self.tokens[len(self._cells.positions) :]  # refused, and perhaps cleared
            todo = plan(self.tokens, wanted)
        return self._cut(todo.keep), 0

    def _cut(self, n: int, poisoned: bool = False) -> int:
        n = self._cells.cut(n, poisoned)
        del self.tokens[n:]
        return n

    def _decode(self, tokens: Sequence[int]) -> None:
        c = library()
        batch = (c.llama_token * len(tokens))(*tokens)
        self._run(tokens, c.llama_batch_get_one(batch, len(tokens)))

    def _run(self, tokens: Sequence[int], batch: Any) -> None:
        self._make_room(len(self.tokens) + len(tokens))
        # An abort would leave a recurrent state in the middle of a batch. A short batch is soon
        # over, so it cannot be stopped.
        if self.kind.cut == "snapshot" and len(tokens) <= SHORT:
            with self._unstoppable():
                status = library().llama_decode(self._ctx, batch)
        else:
            status = library().llama_decode(self._ctx, batch)
        self._accept(tokens, status)

    def _accept(self, tokens: Sequence[int], status: int) -> None:
        """Record the tokens if the decode succeeded; if not, make the Context valid and raise."""
        if status == 0:
            self.tokens.extend(tokens)
            self._cells.append(len(tokens))
            return
        if self.kind.cut == "snapshot":
            # llama.cpp reports the whole batch but has a part of it: go back to a known state.
            self._cut(len(self.tokens), poisoned=True)
        else:
            # Physical batches that were complete before the abort are valid.
            self._cells.append(len(tokens))
            count = self._cells.count()
            del self._cells.positions[count:]
            self.tokens = [*self.tokens, *tokens][:count]
        if status == _ABORTED:
            raise Stopped
        if status == 1:
            raise ContextFull(len(self.tokens) + len(tokens), self.size)
        raise NativeError(f"llama.cpp failed to compute (status {status}). Use a new chat.")

    @contextmanager
    def _unstoppable(self) -> Iterator[None]:
        c = library()
        c.llama_set_abort_callback(self._ctx, c.ggml_abort_callback(0), None)
        try:
            yield
        finally:
            c.llama_set_abort_callback(self._ctx, abort_callback(), self._stop.address)


def _free() -> int | None:
    """Bytes that a context can take without pushing mapped weights out of memory."""
    here = machine()
    return None if here.free is None else here.free - here.mapped
