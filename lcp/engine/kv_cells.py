"""Cells: what llama.cpp remembers of one sequence, and what may be taken out of it.

It holds a position for each token; tokens themselves it does not know. Models differ in what
their memory allows, and several calls say True where nothing was done: the table below and the
checks after each call are the whole truth about it here.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lcp.engine.llama_library import library
from lcp.engine.model import Model
from lcp.engine.params import N_BATCH
from lcp.machine import physical_memory

# State snapshots kept for models whose memory cannot be cut.
MAX_SNAPSHOTS = 4
MAX_SNAPSHOT_BYTES = 256 << 20
# llama.h: LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, the part that seq_rm cannot rewind
_PARTIAL = 1
_SEQ = 0
_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "q8_0": 34 / 32,
    "q4_0": 18 / 32,
}  # of one number, with its block's scale


@dataclass(frozen=True)
class MemoryKind:
    """What one kind of memory allows.

    cut    how the tail goes: "free", or by way of a snapshot when a sliding window has passed
           ("window") or always ("snapshot")
    slide  how a dropped middle closes: "move" the rest down, leave a "hole" in the positions,
           or "reread" the rest
    """

    cut: Literal["free", "window", "snapshot"]
    slide: Literal["move", "hole", "reread"]
    window: int = 0  # tokens the sliding-window layers look back

    def told(self) -> str:
        """What a person should know of it, "" when nothing is missing."""
        if self.cut == "snapshot":
            return "This model's memory cannot be moved: when the window slides, it is read again."
        if self.window and self.slide == "reread":
            return (
                f"To save memory, only the last {self.window:,} tokens stay in this model's "
                "sliding-window layers: when the window slides, it is read again."
            )
        return ""


def memory_kind(model: Model, memory: Any) -> MemoryKind:
    """The row for a model and the memory made for it.

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
    """Whether sliding-window layers should keep all cells and not only their window's.

    All cells can be moved when the window slides and cut without snapshots, but take several
    times the memory (gemma-3 12B at 32k: 12.3 against 2.5 GB): they are kept while the whole
    cache stays under an eighth of the machine's memory.
    """
    if not model.memory.window:
        return False
    return kv_bytes(model, size, kv_type) <= physical_memory() / 8


def first_size(model: Model, size: int, all_cells: bool, start: int) -> int:
    """How many cells a context that may grow to `size` begins with: `start`, or more if growing
    would change something else.

    - The state that goes over to a larger context has only the window of sliding-window layers.
      Layers that keep all cells would lose the others, so these contexts never grow.
    - Layers that keep their window keep all cells in a context that is hardly larger.
    - Models with two sets of RoPE factors (LongRoPE) use one up to the length that they were first
      trained for, the other in longer contexts.
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
    """About what keys and values of `size` cells take, where all layers keep all of them."""
    return 2 * model.n_layers * model.n_head_kv * model.head_size * size * _BYTES[kv_type]


@dataclass(frozen=True)
class Snapshot:
    """The state that cannot be rewound, as it was after the first `n` tokens."""

    n: int
    blob: Any  # ctypes array of bytes


class Cells:
    """The memory of one sequence; `positions[i]` is where token i stands."""

    def __init__(self, ctx: Any, model: Model) -> None:
        self._ctx = ctx
        self._memory = library().llama_get_memory(ctx)
        self._last_position = model.n_ctx_train
        self.snapshots: list[Snapshot] = []
        self.kind = memory_kind(model, self._memory)
        self.positions: list[int] = []

    def booked(self, count: int) -> None:
        """`count` more tokens were decoded, behind the last one."""
        first = self.positions[-1] + 1 if self.positions else 0
        self.positions.extend(range(first, first + count))

    def held(self) -> int:
        """How many tokens llama.cpp says it holds, after a decode that did not end well."""
        last = library().llama_memory_seq_pos_max(self._memory, _SEQ)
        return sum(position <= last for position in self.positions)

    def clear(self) -> None:
        """Hold nothing."""
        library().llama_memory_clear(self._memory, True)
        self.positions.clear()
        self.snapshots.clear()

    def cut(self, n: int, poisoned: bool = False) -> int:
        """Hold the first `n` tokens or, where that is refused, fewer; how many.

        Attention forgets a tail for nothing. A recurrent state cannot go back, and layers with a
        sliding window have already dropped the cells that a query at position n would look at
        unless pos_min <= n - window (seq_rm says True and is silently wrong); both go back to a
        snapshot, then the tail after it is cut, in this order. `poisoned`: a recurrent state that
        an aborted decode left somewhere in the middle.
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
        # A snapshot above what attention still holds restores "fine" and is silently wrong.
        self.snapshots = [s for s in self.snapshots if s.n <= n]
        del self.positions[n:]
        return n

    @property
    def cuts_freely(self) -> bool:
        """Whether `cut` takes any tail at no cost, and no more than it. Full-size layers with a
        sliding window do, unless a restored file left them without their first cells."""
        if self.kind.cut == "window" and self.kind.slide == "move":
            return bool(library().llama_memory_seq_pos_min(self._memory, _SEQ) == 0)
        return self.kind.cut == "free"

    def drop(self, ranges: Sequence[tuple[int, int]], coming: int) -> bool:
        """Take tokens out of the middle and close the gaps; False when nothing was done.

        `coming`: how many more tokens may follow. The keys of moved cells are turned to their
        new positions within the next decode, which must not be aborted.
        """
        c, memory = library(), self._memory
        moving = self.kind.slide == "move"
        if self.kind.slide == "reread" or not ranges:
            return False
        if not moving and self.positions[-1] + coming >= self._last_position:
            return False  # positions run on over holes; the model knows only so many
        for begin, end in reversed(ranges):  # from the back, so that earlier positions hold
            first, behind = self.positions[begin], self.positions[end]
            if not c.llama_memory_seq_rm(memory, _SEQ, first, behind):
                self.clear()
                return False
            if moving:
                gap = behind - first
                c.llama_memory_seq_add(memory, _SEQ, behind, -1, -gap)
                self.positions[end:] = [p - gap for p in self.positions[end:]]
            del self.positions[begin:end]
        self.snapshots.clear()  # they are of the text before
        return True

    # what cannot be cut goes back to a snapshot

    def snapshot(self) -> None:
        """Remember the state as it is now, for models whose memory cannot be cut."""
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
        self.snapshots = [s for s in self.snapshots if s.n != n] + [Snapshot(n, blob)]
        while (
            len(self.snapshots) > MAX_SNAPSHOTS
            or sum(len(s.blob) for s in self.snapshots) > MAX_SNAPSHOT_BYTES
        ):
            del self.snapshots[0]

    def _go_back(self, n: int) -> int:
        """Load the newest snapshot at or before n tokens; its place, 0 when there is none."""
        for snapshot in reversed(self.snapshots):
            if snapshot.n <= n:
                loaded = library().llama_state_seq_set_data_ext(
                    self._ctx, snapshot.blob, len(snapshot.blob), _SEQ, _PARTIAL
                )
                return snapshot.n if loaded else 0
        return 0

    def _end(self, n: int) -> int:
        """The position of the last of n tokens, -1 of none."""
        return self.positions[n - 1] if n else -1

    # the whole state, for a file

    def save(self) -> Any:
        """All of it as bytes (a ctypes array); None when llama.cpp cannot."""
        c = library()
        size = c.llama_state_seq_get_size_ext(self._ctx, _SEQ, 0)
        blob = (ctypes.c_uint8 * size)()
        written = c.llama_state_seq_get_data_ext(self._ctx, blob, size, _SEQ, 0)
        return blob if size and written == size else None

    def restore(
        self, blob: Any, positions: Sequence[int], snapshots: Sequence[Snapshot] = ()
    ) -> bool:
        """Hold what was saved; False, and hold nothing, when llama.cpp refuses it."""
        c = library()
        self.clear()
        loaded = c.llama_state_seq_set_data_ext(self._ctx, blob, len(blob), _SEQ, 0)
        if not loaded or c.llama_memory_seq_pos_max(self._memory, _SEQ) != positions[-1]:
            self.clear()  # a refusal leaves half of it
            return False
        self.positions, self.snapshots = list(positions), list(snapshots)
        return True
