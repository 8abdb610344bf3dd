"""The cells of llama.cpp's KV cache: what each kind of memory can do, and how it is done safely.

Cells holds a position for each token, not the tokens. Models differ in what can be done with their
memory, and several functions of llama.cpp return True although they did nothing. The table in
`memory_kind` and the checks after each call are the only place that knows about this.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lcp.engine.model import Model
from lcp.engine.native import library

# Most snapshots of the state, for models whose memory cannot be cut.
MAX_SNAPSHOTS = 4
MAX_SNAPSHOT_BYTES = 256 << 20
# llama.h: LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, the part that seq_rm cannot rewind
_PARTIAL = 1
_SEQ = 0
_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}  # of one number, with its block's scale


@dataclass(frozen=True)
class MemoryKind:
    """What can be done with one kind of memory.

    cut    how to remove the last tokens: "free": directly; "window": with a snapshot if a sliding
           window has passed them; "snapshot": always with a snapshot
    slide  how to drop tokens in the middle: "move" the later ones down, leave a "hole" in the
           positions, or "reread" the later ones
    """

    cut: Literal["free", "window", "snapshot"]
    slide: Literal["move", "hole", "reread"]
    window: int = 0  # how many tokens back the sliding-window layers look

    def told(self) -> str:
        """A notice for the person if something cannot be done, else ""."""
        if self.cut == "snapshot":
            return "Sliding the window is slow with this model: it re-reads the rest of the chat."
        if self.window and self.slide == "reread":
            return (
                f"To save memory, this model's sliding-window layers keep only the last "
                f"{self.window:,} tokens. When the window slides, it re-reads the rest of the chat."
            )
        return ""


def memory_kind(model: Model, memory: Any) -> MemoryKind:
    """The kind of a model's memory:

    | model                                       | cut      | slide  |
    |---------------------------------------------|----------|--------|
    | attention only (dense, MoE, MLA)            | free     | move   |
    | M-RoPE (Qwen 2-VL): seq_add aborts          | free     | hole   |
    | sliding window, cache of full size          | window   | move   |
    | sliding window, small cache                 | window   | reread |
    | recurrent, hybrid (can_shift says True)     | snapshot | reread |
    | attention that cannot shift (Step 3.5)      | free     | reread |
    """
    facts = model.memory
    if facts.recurrent:
        return MemoryKind("snapshot", "reread")
    can_shift = library().llama_memory_can_shift(memory)
    slide: Literal["move", "hole", "reread"] = "reread"
    if facts.mrope:
        slide = "hole"
    elif can_shift:
        slide = "move"
    return MemoryKind("window" if facts.window else "free", slide, facts.window)


def keep_all_cells(model: Model, size: int, kv_type: str) -> bool:
    """Whether sliding-window layers should keep all cells, not only those of their window.

    A cache with all cells can be moved and can be cut without snapshots, but it takes several
    times the memory (gemma-3 12B at 32k: 12.3 instead of 2.5 GB). So all cells are kept if the
    whole cache takes less than an eighth of the machine's memory.
    """
    if not model.memory.window:
        return False
    return kv_bytes(model, size, kv_type) <= _physical_memory() / 8


def kv_bytes(model: Model, size: int, kv_type: str) -> float:
    """About how many bytes the keys and values of `size` cells take if all layers keep all."""
    return 2 * model.n_layers * model.n_head_kv * model.head_size * size * _BYTES[kv_type]


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return 8 << 30


@dataclass(frozen=True)
class Snapshot:
    """A copy of the state after the first `n` tokens, of layers whose state cannot be cut."""

    n: int
    blob: Any  # ctypes array of bytes


class Cells:
    """The cells of one sequence. `positions[i]` is the position of token i."""

    def __init__(self, ctx: Any, model: Model) -> None:
        self._ctx = ctx
        self._memory = library().llama_get_memory(ctx)
        self._last_position = model.n_ctx_train
        self._snapshots: list[Snapshot] = []
        self.kind = memory_kind(model, self._memory)
        self.positions: list[int] = []

    def booked(self, count: int) -> None:
        """Record that `count` more tokens were evaluated."""
        first = self.positions[-1] + 1 if self.positions else 0
        self.positions.extend(range(first, first + count))

    def held(self) -> int:
        """How many tokens llama.cpp holds after a decode that failed or was stopped."""
        last = library().llama_memory_seq_pos_max(self._memory, _SEQ)
        return sum(position <= last for position in self.positions)

    def clear(self) -> None:
        """Remove everything."""
        library().llama_memory_clear(self._memory, True)
        self.positions.clear()
        self._snapshots.clear()

    def cut(self, n: int, poisoned: bool = False) -> int:
        """Keep the first `n` tokens, or fewer if llama.cpp refuses. Returns how many are left.

        Attention layers can drop the last tokens at any time. A recurrent state cannot go back.
        Sliding-window layers have already dropped cells that a query at position n needs, unless
        pos_min <= n - window (there seq_rm returns True, and the results are wrong). In these two
        cases, restore a snapshot first, then cut what attention holds after it. `poisoned`: an
        aborted decode left a recurrent state in the middle of a batch.
        """
        c, memory = library(), self._memory
        last = c.llama_memory_seq_pos_max(memory, _SEQ)
        if n == len(self.positions) and not poisoned and last == self._end(n):
            return n
        window = self.kind.window
        first = c.llama_memory_seq_pos_min(memory, _SEQ)
        passed = window and n and first > max(0, self._end(n) + 1 - window)
        if self.kind.cut == "snapshot" or passed:
            n = self._go_back(n)
        if n == 0 or not c.llama_memory_seq_rm(memory, _SEQ, self._end(n) + 1, -1):
            n = 0
        if n == 0 or c.llama_memory_seq_pos_max(memory, _SEQ) != self._end(n):
            self.clear()
            return 0
        # Restoring a snapshot of more tokens than attention holds succeeds, with wrong results.
        self._snapshots = [s for s in self._snapshots if s.n <= n]
        del self.positions[n:]
        return n

    def drop(self, ranges: Sequence[tuple[int, int]], coming: int) -> bool:
        """Remove ranges of tokens in the middle; False if that cannot be done.

        `coming` is how many more tokens may follow. llama.cpp rotates the keys of moved cells to
        their new positions in the next decode, which must not be aborted.
        """
        c, memory = library(), self._memory
        moving = self.kind.slide == "move"
        if self.kind.slide == "reread" or not ranges:
            return False
        if not moving and self.positions[-1] + coming >= self._last_position:
            return False  # positions count holes too, and the model has a last position
        for begin, end in reversed(ranges):  # the last one first: earlier indices stay valid
            first, behind = self.positions[begin], self.positions[end]
            if not c.llama_memory_seq_rm(memory, _SEQ, first, behind):
                self.clear()
                return False
            if moving:
                gap = behind - first
                c.llama_memory_seq_add(memory, _SEQ, behind, -1, -gap)
                self.positions[end:] = [p - gap for p in self.positions[end:]]
            del self.positions[begin:end]
        self._snapshots.clear()  # they belong to the tokens before this
        return True

    # snapshots

    def snapshot(self) -> None:
        """Copy the state as it is now, if this memory needs snapshots."""
        if self.kind.cut == "free" or self.kind.slide == "move":
            return  # a sliding-window cache of full size is cut like any other
        c = library()
        size = c.llama_state_seq_get_size_ext(self._ctx, _SEQ, _PARTIAL)
        if not 0 < size <= MAX_SNAPSHOT_BYTES:
            return
        blob = (ctypes.c_uint8 * size)()
        if c.llama_state_seq_get_data_ext(self._ctx, blob, size, _SEQ, _PARTIAL) != size:
            return
        n = len(self.positions)
        self._snapshots = [s for s in self._snapshots if s.n != n] + [Snapshot(n, blob)]
        while (
            len(self._snapshots) > MAX_SNAPSHOTS
            or sum(len(s.blob) for s in self._snapshots) > MAX_SNAPSHOT_BYTES
        ):
            del self._snapshots[0]

    def _go_back(self, n: int) -> int:
        """Restore the newest snapshot of at most n tokens. Returns its tokens, 0 if none."""
        for snapshot in reversed(self._snapshots):
            if snapshot.n <= n:
                loaded = library().llama_state_seq_set_data_ext(
                    self._ctx, snapshot.blob, len(snapshot.blob), _SEQ, _PARTIAL
                )
                return snapshot.n if loaded else 0
        return 0

    def _end(self, n: int) -> int:
        """The position of the last of the first n tokens; -1 if n is 0."""
        return self.positions[n - 1] if n else -1

    # the whole state, for a file

    def save(self) -> Any:
        """The whole state as a ctypes array of bytes; None if llama.cpp cannot save it."""
        c = library()
        size = c.llama_state_seq_get_size_ext(self._ctx, _SEQ, 0)
        blob = (ctypes.c_uint8 * size)()
        written = c.llama_state_seq_get_data_ext(self._ctx, blob, size, _SEQ, 0)
        return blob if size and written == size else None

    def restore(self, blob: Any, positions: Sequence[int]) -> bool:
        """Restore a saved state. If llama.cpp refuses it, hold nothing and return False."""
        c = library()
        self.clear()
        loaded = c.llama_state_seq_set_data_ext(self._ctx, blob, len(blob), _SEQ, 0)
        if not loaded or c.llama_memory_seq_pos_max(self._memory, _SEQ) != positions[-1]:
            self.clear()  # a refused state may be half loaded
            return False
        self.positions = list(positions)
        return True
