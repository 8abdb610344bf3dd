"""Context: the KV cache of one model, and exactly which tokens are in it.

`feed(tokens)` makes the cache hold exactly these tokens at the least cost and leaves the logits
of the last one; every feature of the chat is a call of it. A token joins `tokens` only after its
decode succeeded, so an interrupt or an error anywhere leaves a valid Context.
It knows no text and no turns; one thread owns it for its whole life.
"""

import ctypes
import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lcp.engine.cache_plan import Plan, plan
from lcp.engine.kv_cells import Cells, MemoryKind
from lcp.engine.model import Model
from lcp.engine.native import StopByte, abort_callback, library, log
from lcp.engine.params import N_BATCH as N_BATCH
from lcp.engine.params import context_params, flash_attention
from lcp.errors import ContextFull, ModelError, NativeError, NotEnoughMemory, SettingsError

SHORT = 64
_ABORTED = 2


class Stopped(Exception):
    """The stop byte was set while tokens were read; the Context is valid. Not for people."""


@dataclass(frozen=True)
class Progress:
    """How far a feed is, in tokens: `kept` stood in the cache, of these `moved` changed their
    place; `done` of `total` are read."""

    kept: int
    moved: int
    done: int
    total: int

    def line(self, seconds: float) -> str:
        """For people: how far it is after so many seconds, how fast, how long it will take."""
        # what a narrow terminal cuts off stands last
        share, rest = 100 * self.done // self.total, f"Ctrl-C stops; {self.total:,} tokens"
        if not self.done or seconds <= 0:
            return f"reading {share} %; {rest}"
        speed = self.done / seconds
        left = (self.total - self.done) / speed
        return f"reading {share} %, {speed:,.0f} tokens/s, {left:.0f} s left; {rest}"


@dataclass(frozen=True)
class State:
    """Everything a Context holds, as it can be put into a file."""

    tokens: list[int]
    positions: list[int]
    blob: Any  # a ctypes array of bytes


class Context:
    """The KV cache and the tokens in it, for one sequence of at most `size` tokens."""

    def __init__(
        self,
        model: Model,
        size: int,
        stop: StopByte,
        *,
        threads: int,
        kv_type: str = "f16",
        flash_attn: str = "auto",
        offloaded: bool = True,
        swa_full: bool = False,
        rows: int = 1,
    ) -> None:
        """`swa_full`: sliding-window layers keep all cells; only then can such a cache be moved.
        `rows`: tokens of a batch whose logits can be had (see `feed_rows`).
        Raises NotEnoughMemory, or SettingsError where the model cannot take these settings."""
        c = library()
        flash_attn = flash_attention(flash_attn, kv_type, offloaded)
        params = context_params(size, kv_type, flash_attn, swa_full)
        params.n_outputs_max = rows
        params.n_threads = params.n_threads_batch = threads
        params.abort_callback = abort_callback()
        params.abort_callback_data = stop.address
        log.lines.clear()
        self._ctx = c.llama_init_from_model(model.handle, params)
        if not self._ctx:
            raise _why_not(model, size, kv_type)
        self._cells = Cells(self._ctx, model)
        self._stop = stop
        self._one = (c.llama_token * 1)()
        self._batch_of_one = c.llama_batch_get_one(self._one, 1)
        self.fingerprint = {
            "llama.cpp": importlib.metadata.version("llama-cpp-python"),
            "model": model.fingerprint,
            "kv_type": kv_type,
            "flash_attn": flash_attn,
            "swa_full": swa_full,
        }
        self._n_batch: int = c.llama_n_batch(self._ctx)
        self.size: int = c.llama_n_ctx(self._ctx)
        self.tokens: list[int] = []

    @property
    def handle(self) -> Any:
        """The `llama_context *`, for the sampler."""
        return self._ctx

    def close(self) -> None:
        """Free the cache; never while a decode runs on another thread."""
        if self._ctx:
            library().llama_free(self._ctx)
            self._ctx = None

    def feed(
        self, wanted: Sequence[int], boundary: int | None = None, move: bool = False
    ) -> Iterator[Progress]:
        """Hold exactly `wanted` and leave the logits of its last token; a report per batch.

        `boundary` is where a later prompt is likely to branch off (the end of the messages,
        before the tail that asks for an answer); models that cannot be cut take a snapshot there.
        With `move`, what follows a dropped middle is moved and not read again: an approximation,
        as moved cells still carry the influence of what was dropped.
        Raises Stopped, ContextFull (nothing is changed then) or NativeError.
        """
        if len(wanted) > self.size:
            raise ContextFull(
                f"The prompt has {len(wanted):,} tokens, the context {self.size:,}. "
                "Shorten it or give a larger --ctx-size."
            )
        # 1) Take out what is not wanted.
        kept, moved = self._take_out(plan(self.tokens, wanted, move), wanted)
        total = len(wanted) - kept
        if moved:
            # The keys of moved cells are turned within the next decode. An abort in the middle of
            # it would leave some layers turned and some not, and a state saved before it would
            # be wrong: it happens here, before anybody can stop. A short question goes along.
            with self._unstoppable():
                self._decode(wanted[kept : kept + (total if total <= SHORT // 2 else 1)])
        yield Progress(kept, moved, len(self.tokens) - kept, total)
        # 2) Read the rest, batch by batch.
        snapshot_at = boundary or -1
        while (start := len(self.tokens)) < len(wanted):
            end = min(start + self._n_batch, len(wanted))
            if start < snapshot_at < end:
                end = snapshot_at
            self._decode(wanted[start:end])
            if end == snapshot_at:
                self._cells.snapshot()
            yield Progress(kept, moved, len(self.tokens) - kept, total)

    def append(self, token: int) -> None:
        """Read one more token; its logits are then the next ones. Raises as `feed` does."""
        if len(self.tokens) >= self.size:
            raise ContextFull(f"All {self.size} cells of the context are used.")
        self._one[0] = token
        self._run([token], self._batch_of_one)

    def feed_rows(self, tokens: Sequence[int]) -> None:
        """Read at most `rows` more tokens and leave the logits of each: the i-th in row i."""
        c = library()
        ids = (c.llama_token * len(tokens))(*tokens)  # the batch only points to them
        batch = c.llama_batch_get_one(ids, len(tokens))
        batch.logits = (ctypes.c_int8 * len(tokens))(*[1] * len(tokens))
        self._run(tokens, batch)

    def save(self) -> State | None:
        """All that is held, for a file; None when there is nothing or llama.cpp cannot."""
        blob = self._cells.save() if self.tokens else None
        return State(list(self.tokens), list(self._cells.positions), blob) if blob else None

    def restore(self, state: State) -> bool:
        """Hold what was saved; False, and hold nothing, when it does not fit."""
        self.tokens.clear()
        if len(state.tokens) > self.size or not self._cells.restore(state.blob, state.positions):
            return False
        self.tokens = list(state.tokens)
        return True

    def room(self, max_tokens: int | None) -> int:
        """Tokens a prompt may have, so that an answer of so many fits behind it; at least half.
        An answer without a limit gets a quarter."""
        return self.size - min(max_tokens or self.size // 4, self.size // 2)

    @property
    def kind(self) -> MemoryKind:
        """What this memory allows."""
        return self._cells.kind

    def _take_out(self, todo: Plan, wanted: Sequence[int]) -> tuple[int, int]:
        """Execute a plan's cuts and drops; how many tokens are kept, how many of them moved."""
        if todo.drops:
            if self._cut(todo.end) == todo.end and self._cells.drop(
                todo.drops, self.size - todo.keep
            ):
                for begin, end in reversed(todo.drops):
                    del self.tokens[begin:end]
                return todo.keep, todo.moved
            del self.tokens[len(self._cells.positions) :]  # refused: perhaps nothing is left
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
        # An aborted step would poison a recurrent state, and a short one is soon over: it ends.
        if self.kind.cut == "snapshot" and len(tokens) <= SHORT:
            with self._unstoppable():
                status = library().llama_decode(self._ctx, batch)
        else:
            status = library().llama_decode(self._ctx, batch)
        self._accept(tokens, status)

    def _accept(self, tokens: Sequence[int], status: int) -> None:
        """Book the tokens of a decode that succeeded; after any other, make the Context valid."""
        if status == 0:
            self.tokens.extend(tokens)
            self._cells.booked(len(tokens))
            return
        if self.kind.cut == "snapshot":
            # The state claims the whole batch but holds a part of it: go back to what is sure.
            self._cut(len(self.tokens), poisoned=True)
        else:
            # Whole physical batches that were computed before the abort are exact.
            self._cells.booked(len(tokens))
            held = self._cells.held()
            del self._cells.positions[held:]
            self.tokens = [*self.tokens, *tokens][:held]
        if status == _ABORTED:
            raise Stopped
        if status == 1:
            raise ContextFull(f"All {self.size} cells of the context are used.")
        raise NativeError(f"llama.cpp failed to compute (status {status}). Use a new chat.")

    @contextmanager
    def _unstoppable(self) -> Iterator[None]:
        c = library()
        c.llama_set_abort_callback(self._ctx, c.ggml_abort_callback(0), None)
        try:
            yield
        finally:
            c.llama_set_abort_callback(self._ctx, abort_callback(), self._stop.address)


def _why_not(model: Model, size: int, kv_type: str) -> ModelError | SettingsError:
    if line := log.find("quantization requires", "requires flash_attn", "block size"):
        return SettingsError(
            f"{model.path.name} cannot use a {kv_type} KV cache so ({line.strip()}). "
            "Use --kv-type f16, or --flash-attn auto."
        )
    if line := log.find("failed to allocate", "unable to allocate", "alloc", "out of memory"):
        return NotEnoughMemory(
            f"There is not enough memory for a context of {size:,} tokens ({line.strip()}). "
            "Give a smaller --ctx-size or --kv-type q8_0."
        )
    said = log.find("error", "failed") or "no reason given"
    return ModelError(f"llama.cpp cannot make a context for {model.path.name}: {said.strip()}.")
