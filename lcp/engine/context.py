"""Context: the KV cache of one model, and exactly which tokens are in it.

`feed(tokens)` makes the cache hold exactly these tokens at the least cost and leaves the logits
of the last one; every feature of the chat is a call of it. A token joins `tokens` only after its
decode succeeded, so an interrupt or an error anywhere leaves a valid Context.
It knows no text and no turns; one thread owns it for its whole life.
"""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lcp.engine.model import Model
from lcp.engine.native import StopByte, abort_callback, library, log, supports_gpu
from lcp.engine.plan import plan
from lcp.errors import ContextFull, ModelError, NativeError, NotEnoughMemory, SettingsError

# Tokens per llama_decode: the physical batch, so that an abort or a progress report is never
# more than one graph away. A multiple would save nothing: llama.cpp splits it again.
N_BATCH = 512
# State snapshots kept for models whose memory cannot be cut (see _cut).
MAX_SNAPSHOTS = 4
MAX_SNAPSHOT_BYTES = 256 << 20
# llama.h: LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, the part that seq_rm cannot rewind
_PARTIAL = 1
_SEQ = 0
_ABORTED = 2
_FLASH_ATTN = {"off": 0, "on": 1, "auto": -1}


class Stopped(Exception):
    """The stop byte was set while tokens were read; the Context is valid. Not for people."""


@dataclass(frozen=True)
class Progress:
    """How far a feed is, in tokens: `kept` stood in the cache, `done` of `total` are read."""

    kept: int
    done: int
    total: int


@dataclass(frozen=True)
class Snapshot:
    """The state that cannot be rewound, as it was after the first `n` tokens."""

    n: int
    blob: Any  # ctypes array of bytes


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
    ) -> None:
        """Raises NotEnoughMemory, or SettingsError where the model cannot take these settings."""
        c = library()
        params = c.llama_context_default_params()
        params.n_ctx = size
        params.n_batch = params.n_ubatch = min(N_BATCH, size)
        params.n_outputs_max = 1  # logits of the last token only: 98 -> 21 MiB at 8k
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = getattr(c, f"GGML_TYPE_{kv_type.upper()}")
        params.flash_attn_type = _FLASH_ATTN[_flash_attn(flash_attn, kv_type, offloaded)]
        # The small cache of sliding-window layers: a fifth of the memory; cuts past the window
        # use snapshots.
        params.swa_full = False
        params.abort_callback = abort_callback()
        params.abort_callback_data = stop.address
        log.lines.clear()
        self._ctx = c.llama_init_from_model(model.handle, params)
        if not self._ctx:
            raise _why_not(model, size, kv_type)
        self._memory = c.llama_get_memory(self._ctx)
        self._kind = model.memory_kind
        self._stop = stop
        self._one = (c.llama_token * 1)()
        self._batch_of_one = c.llama_batch_get_one(self._one, 1)
        self._n_batch: int = c.llama_n_batch(self._ctx)
        self._snapshots: list[Snapshot] = []
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

    def feed(self, wanted: Sequence[int], boundary: int | None = None) -> Iterator[Progress]:
        """Hold exactly `wanted` and leave the logits of its last token; a report per batch.

        `boundary` is where a later prompt is likely to branch off (the end of the messages,
        before the tail that asks for an answer); models that cannot be cut take a snapshot there.
        Raises Stopped, ContextFull (nothing is changed then) or NativeError.
        """
        if len(wanted) > self.size:
            raise ContextFull(
                f"The prompt has {len(wanted)} tokens, the context {self.size}. "
                "Shorten it or give a larger --ctx-size."
            )
        # 1) Cut the cache back to what both share.
        kept = self._cut(plan(self.tokens, wanted).keep)
        total = len(wanted) - kept
        yield Progress(kept, 0, total)
        # 2) Read the rest, batch by batch.
        snapshot_at = boundary if self._cannot_be_cut and boundary else -1
        while (start := len(self.tokens)) < len(wanted):
            end = min(start + self._n_batch, len(wanted))
            if start < snapshot_at < end:
                end = snapshot_at
            self._decode(wanted[start:end])
            if end == snapshot_at:
                self._take_snapshot()
            yield Progress(kept, len(self.tokens) - kept, total)

    def append(self, token: int) -> None:
        """Read one more token; its logits are then the next ones. Raises as `feed` does."""
        if len(self.tokens) >= self.size:
            raise ContextFull(f"All {self.size} cells of the context are used.")
        c = library()
        self._one[0] = token
        if self._kind.recurrent:
            # An aborted step would poison the state, and one step is short: let it finish.
            c.llama_set_abort_callback(self._ctx, _no_abort(c), None)
            status = c.llama_decode(self._ctx, self._batch_of_one)
            c.llama_set_abort_callback(self._ctx, abort_callback(), self._stop.address)
        else:
            status = c.llama_decode(self._ctx, self._batch_of_one)
        self._accept([token], status)

    def _decode(self, tokens: Sequence[int]) -> None:
        c = library()
        batch = (c.llama_token * len(tokens))(*tokens)
        self._accept(tokens, c.llama_decode(self._ctx, c.llama_batch_get_one(batch, len(tokens))))

    def _accept(self, tokens: Sequence[int], status: int) -> None:
        """Book the tokens of a decode that succeeded; after any other, make the Context valid."""
        if status == 0:
            self.tokens.extend(tokens)
            return
        if self._kind.recurrent:
            # The state claims the whole batch but holds a part of it: go back to what is sure.
            self._cut(len(self.tokens), poisoned=True)
        else:
            # Whole physical batches that were computed before the abort are exact.
            reached = library().llama_memory_seq_pos_max(self._memory, _SEQ) + 1
            self.tokens = [*self.tokens, *tokens][:reached]
        if status == _ABORTED:
            raise Stopped
        if status == 1:
            raise ContextFull(f"All {self.size} cells of the context are used.")
        raise NativeError(f"llama.cpp failed to compute (status {status}). Use a new chat.")

    # what can be taken back

    @property
    def _cannot_be_cut(self) -> bool:
        return self._kind.recurrent or self._kind.sliding_window > 0

    def _cut(self, n: int, poisoned: bool = False) -> int:
        """Make the cache hold the first `n` tokens or, where that is refused, fewer; how many.

        Attention forgets a tail for nothing. A recurrent state cannot go back, and layers with a
        sliding window have already dropped the cells that a query at position n would look at
        unless pos_min <= n - window (seq_rm says True and is silently wrong); both go back to a
        snapshot, then the tail after it is cut, in this order.
        """
        c, memory = library(), self._memory
        if n == len(self.tokens) == c.llama_memory_seq_pos_max(memory, _SEQ) + 1 and not poisoned:
            return n
        window = self._kind.sliding_window
        too_far = window and c.llama_memory_seq_pos_min(memory, _SEQ) > max(0, n - window)
        if self._kind.recurrent or too_far:
            n = self._restore(n)
        if n == 0 or not c.llama_memory_seq_rm(memory, _SEQ, n, -1):
            n = 0
        if n == 0 or c.llama_memory_seq_pos_max(memory, _SEQ) != n - 1:
            c.llama_memory_clear(memory, True)
            n = 0
        # A snapshot above what attention still holds restores "fine" and is silently wrong.
        self._snapshots = [s for s in self._snapshots if s.n <= n]
        del self.tokens[n:]
        return n

    def _restore(self, n: int) -> int:
        """Load the newest snapshot at or before n tokens; its position, 0 when there is none."""
        for snapshot in reversed(self._snapshots):
            if snapshot.n <= n:
                loaded = library().llama_state_seq_set_data_ext(
                    self._ctx, snapshot.blob, len(snapshot.blob), _SEQ, _PARTIAL
                )
                return snapshot.n if loaded else 0
        return 0

    def _take_snapshot(self) -> None:
        c = library()
        size = c.llama_state_seq_get_size_ext(self._ctx, _SEQ, _PARTIAL)
        if not 0 < size <= MAX_SNAPSHOT_BYTES:
            return
        blob = (ctypes.c_uint8 * size)()
        if c.llama_state_seq_get_data_ext(self._ctx, blob, size, _SEQ, _PARTIAL) != size:
            return
        self._snapshots.append(Snapshot(len(self.tokens), blob))
        while (
            len(self._snapshots) > MAX_SNAPSHOTS
            or sum(len(s.blob) for s in self._snapshots) > MAX_SNAPSHOT_BYTES
        ):
            del self._snapshots[0]


def _flash_attn(asked: str, kv_type: str, offloaded: bool) -> str:
    """llama.cpp's auto turns flash attention on; on a CPU that makes decoding up to 3x slower.

    A quantised V needs it.
    """
    if asked != "auto" or (offloaded and supports_gpu()):
        return asked
    return "off" if kv_type == "f16" else "on"


def _no_abort(c: Any) -> Any:
    return c.ggml_abort_callback(0)


def _why_not(model: Model, size: int, kv_type: str) -> ModelError | SettingsError:
    if line := log.find("quantization requires", "requires flash_attn", "block size"):
        return SettingsError(
            f"{model.path.name} cannot use a {kv_type} KV cache so ({line.strip()}). "
            "Use --kv-type f16, or --flash-attn auto."
        )
    if line := log.find("failed to allocate", "unable to allocate", "alloc", "out of memory"):
        return NotEnoughMemory(
            f"There is not enough memory for a context of {size} tokens ({line.strip()}). "
            "Give a smaller --ctx-size or --kv-type q8_0."
        )
    said = log.find("error", "failed") or "no reason given"
    return ModelError(f"llama.cpp cannot make a context for {model.path.name}: {said.strip()}.")
