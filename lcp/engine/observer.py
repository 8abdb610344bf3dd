"""A context whose tensors can be read and replaced while llama.cpp computes.

llama.cpp calls a function at every node of its graph (`cb_eval`); an Observer calls the functions
that watch the tensor of that name. Reading changes nothing: the logits are bit-identical with and
without it. An Observer has a context of its own. The context of a chat has no such function,
because the calls at every node take up to 17 % of the time of a token. Flash attention is off,
because it never computes the attention weights as a tensor. Sliding-window layers keep all cells,
so that the index of a cell is a position.
"""

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lcp import formatting
from lcp.engine.context import Stopped
from lcp.engine.kv_cells import kv_bytes
from lcp.engine.llama_library import (
    KV_TYPE_REFUSED,
    StopByte,
    abort_callback,
    library,
    log,
    symbol,
)
from lcp.engine.model import Model
from lcp.engine.params import N_BATCH, context_params
from lcp.engine_interface import Made, Progress, padded
from lcp.errors import UPGRADE, ContextFull, LcpError, ModelError, NativeError, NotEnoughMemory
from lcp.worker import Emit

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]
    Watcher = Callable[[Array], Array | None]
    Reduce = Callable[[Sequence[int], Array], Array]

ROWS = 32  # of logits in one batch: enough to evaluate an answer
MOST_ROWS = 128
_LOGITS = 1 << 24  # numbers in those rows: 64 MiB
_TYPES = {0: "float32", 1: "float16", 26: "int32", 27: "int64"}  # ggml.h: enum ggml_type
_ABORTED = 2  # llama.h: llama_decode


class _TensorHead(ctypes.Structure):
    """The first fields of ggml.h's struct ggml_tensor; llama.cpp has no functions for them."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
    )


class Observer:
    """A model with a context of its own, for experiments: it shows the values of a tensor, and what
    happens if they are replaced.

    A watching function gets a tensor of the graph as an array with three dimensions, in the reverse
    order of llama.cpp's: (heads, tokens, cells) for attention, (1, tokens, width) for the states.
    It may return an array of the same shape, which replaces the tensor before the next node is
    computed. It is called for each batch of a long input, and each time that the name appears in
    the graph: Qcur, Kcur and Vcur appear up to three times, and the last one counts. The last layer
    computes only the tokens whose logits are wanted.
    """

    def __init__(
        self,
        model: Model,
        stop: StopByte,
        *,
        size: int,
        threads: int,
        sequences: int = 1,
        rows: int = 1,
        kv_type: str = "f16",
        watched: bool = True,
        free: int | None = None,
    ) -> None:
        """Make a context for `size` tokens in up to `sequences` sequences (at most 256), which
        share its cells, and for at most `rows` rows of logits at once. A quantized `kv_type` needs
        flash attention, which is then on. If it is not `watched`, it is as fast as a chat's, but no
        function is called. Raises NotEnoughMemory if it takes more than `free` bytes."""
        self.model = model
        self._stop = stop  # llama.cpp has only its address
        self.most_rows = min(rows, MOST_ROWS, max(1, _LOGITS // model.n_vocab))
        size = padded(size)
        needed = about(model, size, kv_type, self.most_rows)
        if free is not None and needed > free:
            raise NotEnoughMemory(
                f"Looking at {size:,} tokens needs about {formatting.size(needed)} of memory; "
                f"{formatting.size(free)} are free. Use a shorter text, or close other programs."
            )
        c = library()
        flash = "on" if kv_type.startswith("q") else "off"
        params = context_params(size, kv_type, flash, True)
        params.n_seq_max, params.kv_unified = sequences, True
        params.n_outputs_max = max(self.most_rows, sequences)
        params.n_threads = params.n_threads_batch = threads
        params.abort_callback = abort_callback()
        params.abort_callback_data = stop.address
        self._callback = c.ggml_backend_sched_eval_callback(self._on_node)  # C has only a pointer
        if watched:
            params.cb_eval = self._callback
        self._watch: Mapping[bytes, Watcher] = {}
        self._every: Callable[[str], None] | None = None
        self._error: BaseException | None = None
        log.lines.clear()
        self._ctx = c.llama_init_from_model(model.handle, params)
        if not self._ctx:
            if line := log.find(*KV_TYPE_REFUSED):
                raise ModelError(
                    f"{model.path.name} cannot use a {kv_type} KV cache ({line.strip()}). "
                    "Choose another type, or another model."
                )
            reason = log.find("failed", "error") or "no reason given"
            raise NotEnoughMemory(
                f"llama.cpp cannot make a context of {size:,} tokens for {model.path.name}: "
                f"{reason.strip()}. Use a shorter text."
            )
        self._memory = c.llama_get_memory(self._ctx)
        self._sequences = sequences
        self.size: int = c.llama_n_ctx(self._ctx)
        self.batch: int = c.llama_n_batch(self._ctx)
        self.n_tokens = 0  # tokens of the first sequence

    def __enter__(self) -> "Observer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the context."""
        if self._ctx:
            library().llama_free(self._ctx)
            self._ctx = None

    # sizes and names

    @property
    def layers(self) -> int:
        return self.model.n_layers

    @property
    def heads(self) -> int:
        """Attention heads of a layer; of the first layer if they differ."""
        return int(library().llama_model_n_head(self.model.handle))

    @property
    def kv_heads(self) -> int:
        """Heads of a layer with keys and values of their own, which the other heads share."""
        return self.model.n_head_kv

    @property
    def vocabulary(self) -> int:
        return self.model.n_vocab

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The names of the tensors in this model's graph: "l_out-0", "kq_soft_max-0". Clears the
        context."""
        found: set[str] = set()
        self._every = found.add
        try:
            self.clear()
            self.decode([0])
        finally:
            self._every = None
            self.clear()
        return frozenset(found)

    @property
    def state_bytes(self) -> int:
        """The bytes of the present tokens: keys and values or a recurrent state, and positions."""
        return int(library().llama_state_seq_get_size(self._ctx, 0))

    # computing

    def clear(self) -> None:
        """Remove all tokens."""
        library().llama_memory_clear(self._memory, True)
        self.n_tokens = 0

    def cut(self, n: int) -> int:
        """Keep the first `n` tokens, or none if the memory cannot go back. Returns how many."""
        if n < self.n_tokens:
            if n and library().llama_memory_seq_rm(self._memory, 0, n, -1):
                self.n_tokens = n
            else:
                self.clear()
        return self.n_tokens

    def decode(
        self,
        tokens: Sequence[int],
        watch: "Mapping[str, Watcher] | None" = None,
        *,
        rows: Sequence[int] | None = None,
        reduce: "Reduce | None" = None,
    ) -> "Array":
        """Evaluate tokens after the present ones, and return logits: (rows, vocabulary).

        `watch`: functions by the name of a tensor. `rows`: the tokens whose logits are wanted, in
        order; None means the last one. `reduce(rows, logits)` is called for each batch, so that the
        logits of a long text are never all in memory. Raises Stopped, ContextFull, or what a
        watching function raised; call `clear` then.
        """
        wanted = [len(tokens) - 1] if rows is None else list(rows)
        found, start, first = [], 0, 0
        while start < len(tokens):
            end, last = min(start + self.batch, len(tokens)), first
            while last < len(wanted) and wanted[last] < end and last - first < self.most_rows:
                last += 1
            if last < len(wanted) and wanted[last] < end:
                end = wanted[last]
            part = [row - start for row in wanted[first:last]]
            positions = range(self.n_tokens, self.n_tokens + end - start)
            logits = self._run(tokens[start:end], positions, [0] * (end - start), part, watch)
            self.n_tokens += end - start
            found.append(reduce(wanted[first:last], logits) if reduce else logits)
            start, first = end, last
        return _numpy().concatenate(found)

    def branch(
        self, endings: Sequence[Sequence[int]], watch: "Mapping[str, Watcher] | None" = None
    ) -> "Array":
        """Evaluate several endings of the present tokens in one batch, each in a sequence of its
        own. Returns the logits of the last token of each: (endings, vocabulary).

        The rows of a watched tensor are the tokens of the endings, one ending after another. At
        most `most_rows` endings and `batch` tokens fit. The present tokens stay as they are.
        """
        c = library()
        lengths = [len(ending) for ending in endings]
        assert len(endings) <= min(self._sequences, self.most_rows) and sum(lengths) <= self.batch
        for sequence in range(1, len(endings)):
            c.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
        tokens = [token for ending in endings for token in ending]
        positions = [self.n_tokens + i for n in lengths for i in range(n)]
        sequences = [s for s, n in enumerate(lengths) for _ in range(n)]
        ends = [sum(lengths[: s + 1]) - 1 for s in range(len(lengths))]
        try:
            return self._run(tokens, positions, sequences, ends, watch)
        finally:
            for sequence in range(1, len(endings)):
                c.llama_memory_seq_rm(self._memory, sequence, -1, -1)
            if not c.llama_memory_seq_rm(self._memory, 0, self.n_tokens, -1):
                self.clear()  # a recurrent state cannot go back

    def _run(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        rows: Sequence[int],
        watch: "Mapping[str, Watcher] | None",
    ) -> "Array":
        """Call llama_decode once. Returns the logits of `rows`."""
        np, c = _numpy(), library()
        batch = c.llama_batch_init(len(tokens), 0, 1)
        try:
            for i, token in enumerate(tokens):
                batch.token[i], batch.pos[i] = token, positions[i]
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequences[i]
                batch.logits[i] = 0
            for row in rows:
                batch.logits[row] = 1
            batch.n_tokens = len(tokens)
            self._watch = {name.encode(): f for name, f in (watch or {}).items()}
            self._error = None
            status = c.llama_decode(self._ctx, batch)
            c.llama_synchronize(self._ctx)
        finally:
            c.llama_batch_free(batch)
            self._watch = {}
        if self._error:
            raise self._error
        if status == _ABORTED:
            raise Stopped
        if status == 1:
            raise ContextFull(self.n_tokens + len(tokens), self.size)
        if status:
            raise NativeError(f"llama.cpp failed to compute (status {status}). Try a shorter text.")
        found = np.empty((len(rows), self.vocabulary), np.float32)
        for i, row in enumerate(rows):
            logits = c.llama_get_logits_ith(self._ctx, row)
            found[i] = np.ctypeslib.as_array(logits, (self.vocabulary,))
        return found

    def _on_node(self, tensor: int, ask: bool, _: Any) -> bool:
        """llama.cpp calls this before each node to ask whether it is wanted, and again when the
        node is computed. Return True to continue. An exception must not reach the C code."""
        try:
            if self._every:
                if ask:
                    self._every(_ggml().ggml_get_name(tensor).decode("utf-8", "replace"))
                return not ask
            function = self._watch.get(_ggml().ggml_get_name(tensor))
            if function is None or self._error:
                return not ask
            if not ask and (array := _read(tensor)).size:
                new = function(array)
                if new is not None:
                    _write(tensor, new)
        except BaseException as error:
            self._error = error
        return True


def about(model: Model, size: int, kv_type: str, rows: int) -> int:
    """About the bytes of a context of `size` tokens with `rows` rows: cache, logits (computed and
    copied), and the attention scores of a batch with their mask."""
    logits = 2 * rows * model.n_vocab * 4
    heads = library().llama_model_n_head(model.handle)
    scores = min(N_BATCH, size) * size * (heads + 1) * 4
    return int(kv_bytes(model, size, kv_type) + logits + scores)


def run_beside(
    model: Model,
    stop: StopByte,
    job: Callable[[Any, Callable[[str, int, int], None]], Made],
    tokens: int,
    threads: int,
    free: int | None,
    emit: Emit,
    **more: Any,
) -> Made:
    """Run `job(observed, tell)` with an Observer for so many tokens, while a chat keeps its own."""
    stop.clear()
    try:
        with Observer(
            model, stop, size=tokens, rows=ROWS, threads=threads, free=free, **more
        ) as observed:
            return job(observed, lambda what, done, all: emit(Progress(0, 0, done, all)))
    except Stopped:
        raise LcpError("Stopped before the end. Start it again to see all of it.") from None


def _numpy() -> Any:
    """numpy, imported for the first experiment so that a chat starts without it."""
    import numpy

    return numpy


@functools.cache
def _ggml() -> Any:
    """The functions of ggml that llama-cpp-python does not bind, with their types."""
    pointer, size = ctypes.c_void_p, ctypes.c_size_t

    found = SimpleNamespace()
    for name, result, arguments in (
        ("ggml_get_name", ctypes.c_char_p, [pointer]),
        ("ggml_nbytes", size, [pointer]),
        ("ggml_backend_tensor_get", None, [pointer, pointer, size, size]),
        ("ggml_backend_tensor_set", None, [pointer, pointer, size, size]),
    ):
        function = symbol(name)
        if function is None:
            raise NativeError(
                f"This llama.cpp has no {name}, so lcp cannot look inside. Upgrade: {UPGRADE}"
            )
        function.restype, function.argtypes = result, arguments
        setattr(found, name, function)
    return found


def _read(tensor: int) -> "Array":
    """A copy of a tensor as an array with three dimensions; strides are respected."""
    np, head = _numpy(), ctypes.cast(tensor, ctypes.POINTER(_TensorHead)).contents
    raw = np.empty(_ggml().ggml_nbytes(tensor), np.uint8)
    _ggml().ggml_backend_tensor_get(tensor, raw.ctypes.data, 0, raw.nbytes)
    numbers = raw.view(_TYPES[head.type])
    shape, strides = tuple(head.ne)[::-1], tuple(head.nb)[::-1]
    return np.lib.stride_tricks.as_strided(numbers, shape, strides)[0]


def _write(tensor: int, new: "Array") -> None:
    np, head = _numpy(), ctypes.cast(tensor, ctypes.POINTER(_TensorHead)).contents
    data = np.ascontiguousarray(new, _TYPES[head.type])
    if data.shape != tuple(head.ne)[2::-1] or data.nbytes != _ggml().ggml_nbytes(tensor):
        name = _ggml().ggml_get_name(tensor).decode()
        raise ValueError(f"{name} cannot be replaced by an array of the shape {data.shape}")
    _ggml().ggml_backend_tensor_set(tensor, data.ctypes.data, 0, data.nbytes)
