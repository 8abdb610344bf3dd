"""The figures of `lcp look quant` beside those of llama.cpp's llama-perplexity, on the same text.

    python -m bench.perplexity [MODEL.gguf] [--quant Q4_0,Q8_0] [-n CHUNKS] [--json FILE]

MODEL is the reference; `lcp quantize` makes the other files of it. The text (the docs) is cut into
chunks of 512 tokens, and each is read by itself in batches of 128, without flash attention and
without repacked weights. As in llama-perplexity, the second half of a chunk counts.

mean KL         nats, over the tokens of all chunks
same first      how often the most likely token is the same, of 1
perplexity      of the other file

llama-perplexity keeps the reference in 16 bits, so the last digits differ. No times: another load
of the machine changes nothing here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

import numpy as np

from bench.build_tools import installed, tool
from bench.measure import BenchError, Row
from bench.sides import Model as File
from bench.sides import arguments, lcp_env, run
from lcp.engine.llama_library import StopByte
from lcp.engine.model import Model
from lcp.engine.observer import Observer
from lcp.look.quant import distances

CHUNK, BATCH = 512, 128  # tokens
DOCS = Path(__file__).parents[1] / "docs"
MEAN = re.compile(r"Mean\s+KLD:\s+([-\d.]+)")
FIRST = re.compile(r"Same top p:\s+([\d.]+)")
PERPLEXITY = re.compile(r"Mean PPL\(Q\)\s+:\s+([\d.]+)")


def ours(a: Path, b: Path, text: str, chunks: int, threads: int) -> list[float]:
    """Mean KL, same first token and perplexity, by the code of `lcp look quant`."""
    models = [Model.load(path, 0, repack=False) for path in (a, b)]
    tokens = models[0].tokenize(text)
    if models[0].adds_bos:
        tokens = [models[0].bos, *tokens]
    if len(tokens) < chunks * CHUNK:
        raise BenchError(f"The docs have {len(tokens):,} tokens. Give a smaller -n.")
    labs = [
        Observer(one, StopByte(), size=CHUNK, rows=BATCH, threads=threads, watched=False)
        for one in models
    ]
    found = []
    for i in range(chunks):
        chunk = tokens[i * CHUNK : (i + 1) * CHUNK]
        if models[0].adds_bos:
            chunk[0] = models[0].bos
        _, other = distances(labs[0], labs[1:], chunk, lambda what, done, total: None)
        counted = slice(CHUNK // 2, CHUNK - 1)
        found.append((other.kl[counted], other.same[counted], other.nats[counted]))
    for lab in labs:
        lab.close()
    for model in models:
        model.close()
    kl, same, nats = (np.concatenate(part) for part in zip(*found, strict=True))
    return [float(kl.mean()), float(same.mean()), float(np.exp(nats.mean()))]


def theirs(a: Path, b: Path, text: Path, chunks: int, threads: int, folder: Path) -> list[float]:
    """The same, by llama-perplexity: first the reference's probabilities, then the comparison."""
    base = folder / "base.kld"
    common = [
        *("-f", text, "--kl-divergence-base", base, "--chunks", chunks, "-t", threads),
        *("-c", CHUNK, "-b", BATCH, "-ub", BATCH, "-fa", "off", "--no-repack", "-ngl", 0),
    ]
    for model, more in ((a, []), (b, ["--kl-divergence"])):
        words = [tool("llama-perplexity"), "-m", model, *common, *more]
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, check=False,
            env={**os.environ, "GOMP_SPINCOUNT": "1000"},
        )  # fmt: skip
        if done.returncode:
            raise BenchError(f"llama-perplexity failed: {done.stderr[-300:]}")
    said = done.stdout + done.stderr
    found = [pattern.search(said) for pattern in (MEAN, FIRST, PERPLEXITY)]
    if not all(found):
        raise BenchError(f"llama-perplexity ended with: {said[-300:]}")
    kl, first, perplexity = (float(match[1]) for match in found if match)
    return [kl, first / 100, perplexity]


def quantized(model: Path, quant: str, folder: Path) -> Path:
    """Another quant of the model, made by `lcp quantize`."""
    words = [sys.executable, "-m", "lcp", "quantize", str(model), quant, "-o", str(folder)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=lcp_env(str(folder))
    )
    if done.returncode:
        raise BenchError(done.stderr[-300:])
    return Path(done.stdout.strip())


def measure(options: Namespace, file: File, facts: dict[str, object]) -> list[Row]:
    facts["llama-cpp-python"] = installed()[0]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        pages = [path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))]
        text.write_text("\n".join(pages), "utf-8")
        for quant in options.quant.split(","):
            other = quantized(file.path, quant, folder)
            print(f"  {quant}", file=sys.stderr, flush=True)
            figures = zip(
                ("mean KL", "same first", "perplexity"),
                ("nats", "of 1", ""),
                ours(file.path, other, text.read_text("utf-8"), options.chunks, file.threads),
                theirs(file.path, other, text, options.chunks, file.threads, folder),
                strict=True,
            )
            rows += [Row(f"{quant}, {what}", unit, [(a, b)]) for what, unit, a, b in figures]
            other.unlink()
    return rows


def main() -> int:
    parser = arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("--quant", default="Q4_0,Q8_0", help="quants to compare (Q4_0,Q8_0)")
    parser.add_argument("-n", dest="chunks", type=int, default=4, help="chunks (default 4)")
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
