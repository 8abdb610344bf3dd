"""Cells: llama.cpp's memory of one sequence, and which tokens can be removed from it.

Cells has a position for each token, but not the tokens themselves. Models differ in what their
memory allows, and several llama.cpp functions return True although they did nothing. So this file
relies on the table below and checks the memory after each call.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lcp.engine.llama_library import library
from lcp.engine.model import Model
from lcp.engine.params import N_BATCH
from lcp.machine import physical_memory

# The most snapshots of a state, for models whose memory cannot be cut.
MAX_SNAPSHOTS = 4
MAX_SNAPSHOT_BYTES = 256 << 20
# llama.h: LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, the part of the state that seq_rm cannot rewind
_PARTIAL = 1
_SEQ = 0
# Bytes of one number, including its share of the block's scale.
_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}


@dataclass(frozen=True)
class MemoryKind:
    """What one kind of memory allows.

    cut    how the last tokens are removed: at no cost ("free"), with a snapshot if the sliding
           window has moved past them ("window"), or always with a snapshot ("snapshot")
    slide  what happens to the tokens after a removed middle: "move" them down, leave a "hole" in
           the positions, or "reread" them
    """

    cut: Literal["free", "window", "snapshot"]
    slide: Literal["move", "hole", "reread"]
    window: int = 0  # how many tokens back the sliding-window layers look

    def notice(self) -> str:
        """What a person should know about this memory; "" if it allows everything."""
        if self.slide != "reread":
            return ""
        why = "This model's memory cannot be moved"
        if self.cut == "window":
            why = (
                f"To save memory, only the last {self.window:,} tokens stay in this model's "
                "sliding-window layers"
            )
        return f"{why}: when the window slides, the model reads the chat again."


def memory_kind(model: Model, memory: Any) -> MemoryKind:
    """The row of this table for a model and its memory.

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
    """Whether sliding-window layers should keep the cells of all tokens, not only of their window.

    Such a cache can be moved when the window slides and cut without snapshots, but it takes several
    times the memory (gemma-3 12B at 32k: 12.3 GB instead of 2.5 GB). So the layers keep all cells
    only if the whole cache takes at most an eighth of the machine's memory.
    """
    if not model.memory.window:
        return False
    return kv_bytes(model, size, kv_type) <= physical_memory() / 8


def first_size(model: Model, size: int, all_cells: bool, start: int) -> int:
    """How many cells a context that may grow to `size` starts with: `start`, or more if growing
    later would change the results.

    - A saved state contains only the window of sliding-window layers. If these layers keep all
      cells, they would lose the others in a larger context, so such a context never grows.
    - If these layers keep only their window, they still keep all cells in a context that is hardly
      larger than the window.
    - Models with two sets of RoPE factors (LongRoPE) use one set up to the context length of their
      first training, and the other in longer contexts.
    """
    window, border = model.memory.window, model.rope_border
    if window and all_cells:
        return size
    if window:
        start = max(start, window + 2 * N_BATCH)
    if border < size:
        start = max(start, border + 1)
    return min(start, size)


def kv_bytes(model: Model, size: int, kv_type: str) -> float:
    """About how many bytes the keys and values of `size` cells take if every layer keeps all."""
    return 2 * model.n_layers * model.n_head_kv * model.head_size * size * _BYTES[kv_type]


@dataclass(frozen=True)
class Snapshot:
    """The part of the state that cannot be rewound, saved after the first `n` tokens."""

    n: int
    blob: Any  # ctypes array of bytes


class Cells:
    """The memory of one sequence; `positions[i]` is the position of token i."""

    def __init__(self, ctx: Any, model: Model) -> None:
        self._ctx = ctx
        self._memory = library().llama_get_memory(ctx)
        self._last_position = model.n_ctx_train
        self.snapshots: list[Snapshot] = []
        self.kind = memory_kind(model, self._memory)
        self.positions: list[int] = []

    def append(self, count: int) -> None:
        """Record that `count` more tokens were decoded after the last one."""
        first = self.positions[-1] + 1 if self.positions else 0
        self.positions.extend(range(first, first + count))

    def count(self) -> int:
        """How many tokens are in llama.cpp's memory, after a decode that failed."""
        last = library().llama_memory_seq_pos_max(self._memory, _SEQ)
        return sum(position <= last for position in self.positions)

    def clear(self) -> None:
        """Remove all tokens."""
        library().llama_memory_clear(self._memory, True)
        self.positions.clear()
        self.snapshots.clear()

    def cut(self, n: int, poisoned: bool = False) -> int:
        """Keep the first `n` tokens, or fewer if that is not possible. Returns how many.

        Attention drops its last tokens at no cost. A recurrent state cannot go back. Layers with a
        sliding window have already dropped the cells that a query at position n would look at,
        unless pos_min <= n - window (seq_rm returns True and the results are wrong). Both restore
        a snapshot first, and then cut what comes after it. `poisoned`: an aborted decode left a
        recurrent state in the middle of a batch.
        """
        c, memory = library(), self._memory
        last = c.llama_memory_seq_pos_max(memory, _SEQ)
        if n == len(self.positions) and not poisoned and last == self._end(n):
            return n
        window = self.kind.window
        first = c.llama_memory_seq_pos_min(memory, _SEQ)
        passed = window and n and first > max(0, self._end(n) + 1 - window)
        if self.kind.cut == "snapshot" or passed:
            n = self._restore_snapshot(n)
        if n == 0 or not c.llama_memory_seq_rm(memory, _SEQ, self._end(n) + 1, -1):
            n = 0
        if n == 0 or c.llama_memory_seq_pos_max(memory, _SEQ) != self._end(n):
            self.clear()
            return 0
        # A snapshot of more tokens than attention still has could be restored, but would be wrong.
        self.snapshots = [s for s in self.snapshots if s.n <= n]
        del self.positions[n:]
        return n

    @property
    def cuts_freely(self) -> bool:
        """Whether `cut` costs nothing and keeps exactly n tokens. It does so for sliding-window
        layers that keep all cells, unless a restored file lacks their first cells."""
        if self.kind.cut == "window" and self.kind.slide == "move":
            return bool(library().llama_memory_seq_pos_min(self._memory, _SEQ) == 0)
        return self.kind.cut == "free"

    def drop(self, ranges: Sequence[tuple[int, int]], coming: int) -> bool:
        """Remove ranges of tokens from the middle and close the gaps; False if nothing was done.

        `coming`: how many more tokens may follow. The next decode rotates the keys of moved cells
        to their new positions, and must not be aborted.
        """
        c, memory = library(), self._memory
        moving = self.kind.slide == "move"
        if self.kind.slide == "reread" or not ranges:
            return False
        if not moving and self.positions[-1] + coming >= self._last_position:
            return False  # holes use up positions, and the model was trained for so many
        for begin, end in reversed(ranges):  # from the last, so that earlier indexes stay valid
            first, after = self.positions[begin], self.positions[end]
            if not c.llama_memory_seq_rm(memory, _SEQ, first, after):
                self.clear()
                return False
            if moving:
                gap = after - first
                c.llama_memory_seq_add(memory, _SEQ, after, -1, -gap)
                self.positions[end:] = [p - gap for p in self.positions[end:]]
            del self.positions[begin:end]
        self.snapshots.clear()  # they contain the removed tokens
        return True

    # snapshots, for memory that cannot be cut

    def snapshot(self) -> None:
        """Save the present state if this memory cannot be cut."""
        if self.kind.cut == "free" or self.kind.slide == "move":
            return  # sliding-window layers that keep all cells can be cut
        c = library()
        size = c.llama_state_seq_get_size_ext(self._ctx, _SEQ, _PARTIAL)
        if not 0 < size <= MAX_SNAPSHOT_BYTES:
            return
        blob = (ctypes.c_uint8 * size)()
        if c.llama_state_seq_get_data_ext(self._ctx, blob, size, _SEQ, _PARTIAL) != size:
            return
        n = len(self.positions)
        self.snapshots = [s for s in self.snapshots if s.n != n] + [Snapshot(n, blob)]
        while (
            len(self.snapshots) > MAX_SNAPSHOTS
            or sum(len(s.blob) for s in self.snapshots) > MAX_SNAPSHOT_BYTES
        ):
            del self.snapshots[0]

    def _restore_snapshot(self, n: int) -> int:
        """Restore the newest snapshot of at most n tokens. Returns its tokens; 0 without one."""
        for snapshot in reversed(self.snapshots):
            if snapshot.n <= n:
                loaded = library().llama_state_seq_set_data_ext(
                    self._ctx, snapshot.blob, len(snapshot.blob), _SEQ, _PARTIAL
                )
                return snapshot.n if loaded else 0
        return 0

    def _end(self, n: int) -> int:
        """The position of the n-th token; -1 if n is 0."""
        return self.positions[n - 1] if n else -1

    # the whole state, for a file

    def save(self) -> Any:
        """The whole state as bytes (a ctypes array); None if llama.cpp cannot copy it."""
        c = library()
        size = c.llama_state_seq_get_size_ext(self._ctx, _SEQ, 0)
        blob = (ctypes.c_uint8 * size)()
        written = c.llama_state_seq_get_data_ext(self._ctx, blob, size, _SEQ, 0)
        return blob if size and written == size else None

    def restore(
        self, blob: Any, positions: Sequence[int], snapshots: Sequence[Snapshot] = ()
    ) -> bool:
        """Replace the state with a saved one. If llama.cpp refuses it, clear and return False."""
        c = library()
        self.clear()
        loaded = c.llama_state_seq_set_data_ext(self._ctx, blob, len(blob), _SEQ, 0)
        if not loaded or c.llama_memory_seq_pos_max(self._memory, _SEQ) != positions[-1]:
            self.clear()  # llama.cpp may have restored half of it
            return False
        self.positions, self.snapshots = list(positions), list(snapshots)
        return True
