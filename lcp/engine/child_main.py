"""The child process, for work that may crash or take too much time or memory.

`python -m lcp.engine.child_main TASK` reads JSON from stdin and prints one line of JSON. The tasks:

probe       compute with a small model of zeros, as a chat does; if llama.cpp cannot run on this
            CPU (an illegal instruction, a broken kernel), only this process crashes
devices     list the devices on which llama.cpp can compute
constraint  check whether any answer matches a constraint, with limits on time and memory
memory      ask llama.cpp how much memory a model and its contexts would take
load        load a file without its weights, to find out whether that fails
quantize    write another quant of a model file, or find out how large it would be

memory, load and quantize first print {"begun": true}: if they crash after it, the model is the
cause.
"""

import json
import math
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lcp.errors import LcpError
from lcp.paths import contents

Result = TypeVar("Result")
_STACK = 1 << 20  # bytes; what fits into it fits into the stack of the engine's thread

_U32, _F32, _STRING = 4, 6, 8  # GGUF value types
_TYPE_F32, _TYPE_Q4_0 = 0, 2  # ggml tensor types
_WIDTH = 256  # of every matrix: whole blocks of all quants, whole tiles of all kernels
_ALIGN = 32


def probe() -> dict[str, Any]:
    """Evaluate 32 tokens, then one: the code paths of prefill and decode."""
    from lcp.engine.context import Context
    from lcp.engine.llama_library import StopByte, library, supports_gpu
    from lcp.engine.model import Model
    from lcp.engine.temporary_file import scratch

    with scratch() as (file, path):
        file.write(_model_of_zeros())
        file.flush()
        model = Model.load(path)
        context = Context(model, 64, StopByte(), threads=2)
        for _ in context.feed([1] * 32):
            pass
        context.append(1)
        context.close()
        model.close()
    info = library().llama_print_system_info().decode("utf-8", "replace")
    return {"ok": True, "system_info": info.strip(), "gpu": supports_gpu()}


def _model_of_zeros() -> bytes:
    """A one-layer llama in GGUF (ggml/docs/gguf.md), matrices in Q4_0, without a vocabulary."""
    square = (_WIDTH, _WIDTH)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": square,
        "output_norm.weight": (_WIDTH,),
        "blk.0.attn_norm.weight": (_WIDTH,),
        "blk.0.ffn_norm.weight": (_WIDTH,),
        **{f"blk.0.{name}.weight": square for name in names},
    }
    facts: dict[str, int | float | str] = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": _WIDTH,
        "llama.embedding_length": _WIDTH,
        "llama.feed_forward_length": _WIDTH,
        "llama.attention.head_count": 4,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": _WIDTH,
        "tokenizer.ggml.model": "no_vocab",
    }
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for key, value in facts.items():
        head += _string(key) + _value(value)
    offset = 0
    for name, shape in tensors.items():
        kind = _TYPE_Q4_0 if len(shape) == 2 else _TYPE_F32
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        # Q4_0 stores 32 numbers in 18 bytes
        size = _WIDTH * _WIDTH * 18 // 32 if kind == _TYPE_Q4_0 else 4 * _WIDTH
        offset += size + -size % _ALIGN
    return head + bytes(-len(head) % _ALIGN) + bytes(offset)


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(value: int | float | str) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    return struct.pack("<II", _U32, value)


def _of_a_model(what: str) -> dict[str, Any]:
    """Do a task with a model, which may crash this process."""
    from lcp.engine import trial_load
    from lcp.engine.llama_library import library
    from lcp.engine.quantize import quantize

    wish = json.load(sys.stdin)
    library()
    print(json.dumps({"begun": True}), flush=True)
    tasks = {"memory": trial_load.memory_needs, "load": trial_load.load, "quantize": quantize}
    try:
        return tasks[what](wish)
    except LcpError as error:
        return {"ok": False, "error": str(error)}


def _constraint(wish: dict[str, Any]) -> dict[str, Any]:
    """The notices about a constraint, or the error."""
    from lcp.engine import gbnf_matcher, llguidance_matcher
    from lcp.engine.constraint_check import CPU_S, MEMORY
    from lcp.engine.llama_library import library
    from lcp.engine_interface import Constraint

    wanted = Constraint(**wish)
    grammar = wanted.kind == "grammar"
    library() if grammar else llguidance_matcher.bindings()
    try:
        examine = gbnf_matcher.examine if grammar else llguidance_matcher.examine
        return {"notices": _limited(lambda: examine(wanted), CPU_S, MEMORY)}
    except LcpError as error:
        return {"error": str(error)}


# limits of time, memory and stack


def _limited(job: Callable[[], Result], seconds: int, memory: int) -> Result:
    """Run a job; the system kills this process if it takes more CPU seconds, bytes or stack.

    Windows limits only the stack, macOS does not limit memory.
    """
    from concurrent.futures import ThreadPoolExecutor

    _limit(seconds, memory)
    threading.stack_size(_STACK)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(job).result()


def _limit(seconds: int, memory: int) -> None:
    try:
        import resource
    except ImportError:
        return
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(spent.ru_utime + spent.ru_stime) + seconds,
    }
    if pages := contents(Path("/proc/self/statm")).split():
        limits[resource.RLIMIT_AS] = int(pages[0]) * resource.getpagesize() + memory
    for kind, limit in limits.items():
        soft, hard = resource.getrlimit(kind)
        known = [x for x in (soft, hard) if x != resource.RLIM_INFINITY]
        resource.setrlimit(kind, (min([limit, *known]), hard))


def _answer(what: str) -> dict[str, Any]:
    if what == "constraint":
        return _constraint(json.load(sys.stdin))
    if what in ("memory", "load", "quantize"):
        return _of_a_model(what)
    if what == "devices":
        from lcp.engine.devices import devices

        return devices()
    return probe()


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1])), flush=True)
