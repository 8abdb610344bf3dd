"""The first answer of a chat that is resumed: with its saved KV cache, over without it.

    python -m bench.resume [MODEL.gguf] [-t N] [--pairs N] [--tokens N] [--json FILE]

A conversation of about `--tokens` tokens is had once (`--lines`, `-c 8192`), named (the cache of a
one-shot is not saved), resumed once and left, so that its KV cache is saved. A sample is then one
process, `lcp chat --resume last -p QUESTION -n 1 --json`, in a copy of that home: seconds from just
before exec to the first byte on stdout, so Python, the model and the KV file are all loaded within
it. Ours is the copy as it is, the other side the copy without its .kv file, where the whole
conversation is read again. All files are in the page cache.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run

from bench import sides
from bench.measure import BenchError, Row, abba
from bench.sides import Model, failed, lcp_chat, lcp_env, prose
from lcp.session.store import Store

TURNS, ANSWER = 8, 16
QUESTION = "What did we talk about?"


def command(model: Model, *words: str) -> list[str]:
    """A chat with a large context that is saved."""
    line = lcp_chat(model, "--json", "-c", "8192", *words)
    line.remove("--no-save")
    return line


def build(model: Model, home: Path, tokens: int) -> tuple[int, float]:
    """Have the conversation and leave it: tokens in its context, MiB of its KV file."""
    said = [f"{turn}. {prose(tokens // TURNS - 40 + turn)}\n" for turn in range(TURNS)]
    line = command(model, "--lines", "-n", str(ANSWER))
    env = lcp_env(str(home))
    done = run(line, env=env, input="".join(said), text=True, capture_output=True)
    if done.returncode:
        raise failed("lcp chat --lines", done)
    (log,) = home.rglob("*.jsonl")
    Store(log.parent).rename(log, "bench")
    line = command(model, "--resume", "bench", "-n", str(ANSWER), "-p", QUESTION)
    done = run(line, env=env, text=True, capture_output=True, stdin=DEVNULL)
    if done.returncode:
        raise failed("lcp chat --resume", done)
    if not (saved := list(home.rglob("*.kv"))):
        raise BenchError("lcp saved no KV cache: reading it takes under 3 s; give more --tokens.")
    used = json.loads(done.stdout.splitlines()[-1])["stats"]["ctx_used"]
    return used, saved[0].stat().st_size / 2**20


def resume(model: Model, home: Path, used: int, cached: bool) -> float:
    """Seconds to the first byte of the answer, in a copy of that home."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(home, Path(folder) / "home")
        for file in () if cached else copy.rglob("*.kv"):
            file.unlink()
        line = command(model, "--resume", "last", "-p", QUESTION, "-n", "1")
        with tempfile.TemporaryFile("w+") as stderr:
            begun = time.perf_counter()
            process = Popen(line, env=lcp_env(str(copy)), stdin=DEVNULL, stdout=PIPE, stderr=stderr)
            assert process.stdout
            first = process.stdout.read(1)
            seconds = time.perf_counter() - begun
            answer = first + process.communicate()[0]  # its end, too: nothing else may run beside
            if process.returncode or not first:
                stderr.seek(0)
                raise BenchError(f"lcp chat --resume failed: {stderr.read().strip()[-200:]}")
    read = json.loads(answer)["stats"]["read"]
    if cached != (read < used // 2):
        raise BenchError(f"{read} tokens of {used} were read {'with' if cached else 'without'} it.")
    return seconds


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        used, size = build(model, home, options.tokens)
        known["KV file"] = f"{size:.0f} MiB"
        with_file, without = (partial(resume, model, home, used, on) for on in (True, False))
        found = abba(with_file, without, options.pairs)
    return [Row(f"resume {used}, with / without file", "s", found, "<= 0.05")]


def main() -> int:
    parser = sides.arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=4000, help="to resume (default 4000)")
    parser.set_defaults(pairs=5)
    return sides.run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
