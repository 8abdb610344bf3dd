"""What it costs that a context grows with its tokens, and what it saves.

    python -m bench.growth [MODEL.gguf] [-t N] [--pairs N] [--only PART ...] [--json FILE]

decode  tokens/s of a short chat in a context of 8192 tokens that has 2048 cells so far, over one
        that has all its cells. Both decode in turn, token by token, so that nothing else that the
        computer does favours one of them; the figure of each is that of its median token.
pause   the longest time between two tokens while the context grows, at 2048 and at 4096 tokens,
        beside 0.3 s. It includes the decode of one token. An answer begins NEAR tokens before, as
        lcp then makes the larger context while it decodes.
memory  the largest resident memory of a one-shot with the default context (MiB), beside llama-cli
        with its own. Memory does not depend on what else the machine does: one pair is enough.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import closing

from bench.build_tools import tool
from bench.measure import BenchError, Row
from bench.sides import SPIN, arguments, lcp_chat, lcp_env, prose, run
from bench.sides import Model as Side
from lcp.engine.context import START, Context
from lcp.engine.llama_library import StopByte
from lcp.engine.model import Model

SIZE, DEPTH, TOKENS, ANY, NEAR = 8192, 40, 128, 7, 80
LIMIT = 0.3  # s
STORY, ANSWER = "Write a very long story about a lighthouse keeper.", 64
PARTS = ("decode", "pause", "memory")


def context(model: Model, side: Side, start: int = START) -> Context:
    flash = side.flash_attn
    return Context(model, SIZE, StopByte(), threads=side.threads, flash_attn=flash, start=start)


def feed(one: Context, tokens: Sequence[int]) -> None:
    for _ in one.feed(tokens):
        pass


def step(one: Context) -> float:
    """Seconds to decode one more token."""
    begun = time.perf_counter()
    one.append(ANY)
    return time.perf_counter() - begun


def decode(model: Model, side: Side, text: Sequence[int], pairs: int) -> Row:
    """Tokens/s, grown and with all cells."""
    with closing(context(model, side)) as grown, closing(context(model, side, SIZE)) as whole:
        found = []
        for _ in range(pairs):
            for one in (grown, whole):
                feed(one, text[:DEPTH])
            steps = [(step(grown), step(whole)) for _ in range(TOKENS)]
            a, b = map(statistics.median, zip(*steps, strict=True))
            found.append((1 / a, 1 / b))
    return Row(f"decode {TOKENS} at depth {DEPTH}", "tokens/s", found)


def pause(model: Model, side: Side, text: Sequence[int], pairs: int) -> list[Row]:
    """Seconds of each growth, beside LIMIT."""
    rows = []
    for held in (START, 2 * START):
        with closing(context(model, side)) as one:
            feed(one, text[: held - NEAR])
            state = one.save()
        found = []
        for _ in range(pairs):
            with closing(context(model, side)) as one:
                if state is None or not one.restore(state):
                    raise BenchError("llama.cpp cannot copy the state of this model.")
                found.append((max(step(one) for _ in range(NEAR + 4)), LIMIT))
        rows.append(Row(f"pause at {held:,} tokens", "s", found, "<= 1"))
    return rows


def peak(command: Sequence[str], env: Mapping[str, str]) -> float:
    """The largest resident memory of a program, in MiB."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=env, stdin=quiet, stdout=quiet, stderr=quiet)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"{command[0]} ended with {process.returncode}.")
    return usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def memory(side: Side) -> Row:
    """MiB of a one-shot."""
    n = str(ANSWER)
    command = [
        str(tool("llama-cli")), "-m", str(side.path), "-t", str(side.threads), "-p", STORY,
        "-n", n, "-fa", side.flash_attn, "--no-warmup", "-st",
    ]  # fmt: skip
    theirs = peak(command, os.environ | SPIN)
    with tempfile.TemporaryDirectory() as home:
        ours = peak(lcp_chat(side, "-n", n, "-p", STORY), lcp_env(home))
    return Row("memory of a one-shot", "MiB", [(ours, theirs)], "<= 1")


def measure(options: Namespace, side: Side, known: dict[str, object]) -> list[Row]:
    rows: list[Row] = []
    if "memory" in options.only:  # first: a program begins with the peak of the one that starts it
        rows.append(memory(side))
    with closing(Model.load(side.path)) as model:
        text = model.tokenize(prose(2 * START + 200))
        if "decode" in options.only:
            rows.append(decode(model, side, text, options.pairs))
        if "pause" in options.only:
            rows += pause(model, side, text, options.pairs)
    return rows


def main() -> int:
    parser = arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.set_defaults(pairs=5)
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
