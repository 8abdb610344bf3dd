"""`lcp info`, as a whole command, beside gguf-dump, on a header with a vocabulary of 128k.

    python -m bench.info [MODEL.gguf] [--pairs N] [--json FILE]

time    seconds from exec to the end; both print to a file. gguf-dump prints the metadata only
memory  MiB, the peak of the process (of its largest child, where that is more)

Without MODEL a file is written that says it is a model of 8B parameters in Q4_0, with 128,256
tokens and 280,147 merges: a header of 9 MiB, and data of 4 GiB that takes no space (all zeros).
gguf-dump takes half a minute a time; so two pairs are enough.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.measure import BenchError, Row, abba, report
from bench.sides import arguments, lcp_env

TOKENS, MERGES = 128_256, 280_147
WIDTH, LAYERS, HEADS, KV_HEADS, FFN = 4096, 32, 32, 8, 14336
LIMIT_S, LIMIT_MIB = 1.0, 150
U32, F32, I32, STRING, ARRAY = 4, 6, 5, 8, 9  # GGUF value types
F32_TYPE, Q4_0_TYPE = 0, 2  # ggml tensor types
Q4_0 = 18 / 32  # bytes of a number
ALIGNMENT = 32


def write(path: Path) -> None:
    """The file: a real header, and no data behind it that would take space."""
    keys = list(pairs())
    infos, size = [], 0
    for name, shape in tensors():
        kind = Q4_0_TYPE if len(shape) > 1 else F32_TYPE
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        infos.append(string(name) + dims + struct.pack("<IQ", kind, size))
        size += round(n * (Q4_0 if kind == Q4_0_TYPE else 4))
        size += -size % ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys + infos)
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        file.truncate(file.tell() + size)


def pairs() -> Iterator[bytes]:
    numbers = {
        "block_count": LAYERS, "context_length": 131_072, "embedding_length": WIDTH,
        "feed_forward_length": FFN, "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS, "vocab_size": TOKENS,
    }  # fmt: skip
    yield string("general.architecture") + struct.pack("<I", STRING) + string("llama")
    yield string("general.name") + struct.pack("<I", STRING) + string("An 8B of zeros")
    yield string("general.file_type") + struct.pack("<II", U32, 2)
    for key, number in numbers.items():
        yield string(f"llama.{key}") + struct.pack("<II", U32, number)
    epsilon = "llama.attention.layer_norm_rms_epsilon"
    yield string(epsilon) + struct.pack("<If", F32, 1e-5)
    yield string("tokenizer.ggml.model") + struct.pack("<I", STRING) + string("gpt2")
    tokens = b"".join(string(f"token{n}") for n in range(TOKENS))
    merges = b"".join(string(f"left{n} right{n}") for n in range(MERGES))
    types = struct.pack(f"<{TOKENS}i", *[1] * TOKENS)
    for key, kind, count, data in (
        ("tokens", STRING, TOKENS, tokens),
        ("token_type", I32, TOKENS, types),
        ("merges", STRING, MERGES, merges),
    ):
        head = string(f"tokenizer.ggml.{key}") + struct.pack("<IIQ", ARRAY, kind, count)
        yield head + data


def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (WIDTH, TOKENS)
    yield "output.weight", (WIDTH, TOKENS)
    yield "output_norm.weight", (WIDTH,)
    kv = WIDTH // HEADS * KV_HEADS
    for i in range(LAYERS):
        for name, *shape in (
            ("attn_norm", WIDTH), ("ffn_norm", WIDTH), ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH, kv), ("attn_v", WIDTH, kv), ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", WIDTH, FFN), ("ffn_up", WIDTH, FFN), ("ffn_down", FFN, WIDTH),
        ):  # fmt: skip
            yield f"blk.{i}.{name}.weight", tuple(shape)


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def run(command: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Seconds, and MiB at the peak."""
    with tempfile.TemporaryFile() as out:
        begun = time.perf_counter()
        files = [(os.POSIX_SPAWN_DUP2, out.fileno(), fd) for fd in (1, 2)]
        pid = os.posix_spawnp(command[0], command, env, file_actions=files)
        _, status, used = os.wait4(pid, 0)
        seconds = time.perf_counter() - begun
        if status:
            out.seek(0)
            raise BenchError(f"{' '.join(command)} failed: {out.read()[-300:].decode()}")
    return seconds, used.ru_maxrss / 1024


def main() -> int:
    parser = arguments((__doc__ or "").partition("\n")[0])
    parser.set_defaults(pairs=2, model=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or Path(folder) / "header.gguf"
        if options.model is None:
            write(path)
        env = lcp_env(folder)
        ours = [sys.executable, "-m", "lcp", "info", str(path)]
        theirs = [sys.executable, "-m", "gguf.scripts.gguf_dump", "--no-tensors", str(path)]
        try:
            run(ours, env)  # the first one ever asks llama.cpp; see also "first"
            first = run(ours, lcp_env(f"{folder}/new"))
            found = abba(lambda: run(ours, env), lambda: run(theirs, env), options.pairs)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    rows = [
        Row("time, beside gguf-dump", "s", [(a[0], b[0]) for a, b in found]),
        Row("memory, beside gguf-dump", "MiB", [(a[1], b[1]) for a, b in found]),
        Row(f"time, beside {LIMIT_S} s", "s", [(a[0], LIMIT_S) for a, _ in found], "<= 1"),
        Row(f"memory, beside {LIMIT_MIB} MiB", "s", [(a[1], LIMIT_MIB) for a, _ in found], "<= 1"),
        Row(f"first time ever, beside {LIMIT_S} s", "s", [(first[0], LIMIT_S)]),
    ]
    report(rows, {"file": path.name}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
