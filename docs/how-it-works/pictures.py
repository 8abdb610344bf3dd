"""Pictures and tables of the book that no command draws by itself: measured with lcp, drawn here.

Each function of FIGURES measures with `lcp`, which runs commands in an empty folder (outputs.py),
and gives a picture, a table, or both.
"""

import html
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

WIDTH, MARGIN, LINE = 760, 24, 30
GROUND, INK, DIM = "#292929", "#e6e6e6", "#a0a5a8"  # as the pictures that lcp draws
BLUE, GREEN, ORANGE = "#6cb6ff", "#8ddb8c", "#f0a45d"

Lcp = Any  # outputs.Measuring: lcp(words...) gives the JSON of a command


@dataclass(frozen=True)
class Figure:
    """What a function measured: a picture, and a table in Markdown."""

    picture: str = ""
    table: str = ""


@dataclass
class Card:
    """A picture: texts, bars and lines on a dark ground, readable on any page."""

    title: str
    height: int
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, colour: str = INK, anchor: str = "start") -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" fill="{colour}" text-anchor="{anchor}">'
            f"{html.escape(text)}</text>"
        )

    def bar(self, x: float, y: float, width: float, colour: str, height: float = 18) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{max(1, width):.1f}" height="{height:g}" '
            f'fill="{colour}" rx="2"/>'
        )

    def line(
        self, points: Sequence[tuple[float, float]], colour: str, width: float = 2, dash: str = ""
    ) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"'
            + (f' stroke-dasharray="{dash}"' if dash else "") + "/>"
        )  # fmt: skip

    def svg(self) -> str:
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height}" '
            f'role="img" font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">',
            f"<title>{html.escape(self.title)}</title>",
            f'<rect width="{WIDTH}" height="{self.height}" rx="8" fill="{GROUND}"/>',
            f'<text x="{MARGIN}" y="34" fill="{INK}" font-weight="bold">'
            f"{html.escape(self.title)}</text>",
            *self.parts, "</svg>", "",
        ])  # fmt: skip


Row = tuple[str, Sequence[tuple[float, str]], str]  # label, (length of 1, colour) ..., text


def bars(title: str, rows: Sequence[Row], notes: Sequence[tuple[str, str]]) -> str:
    """Bars of one or several pieces; `notes` (text, colour) stand below them."""
    left, room = MARGIN + 8.5 * max(len(label) for label, *_ in rows) + 16, 330
    card = Card(title, 60 + LINE * len(rows) + 24 * len(notes) + 16)
    for i, (label, pieces, text) in enumerate(rows):
        x, y = left, 60 + LINE * i
        card.text(x - 12, y + 14, label, anchor="end")
        for length, colour in pieces:
            card.bar(x, y, length * room, colour)
            x += length * room
        card.text(x + 10, y + 14, text, DIM)
    for i, (text, colour) in enumerate(notes):
        y = 60 + LINE * len(rows) + 24 * i + 14
        if colour != DIM:
            card.bar(MARGIN, y - 11, 12, colour, 12)
        card.text(MARGIN + 22 * (colour != DIM), y, text, DIM)
    return card.svg()


def curves(
    title: str, lines: Sequence[tuple[str, str, Sequence[float]]], x_label: str, y_label: str
) -> str:
    """Lines (name, colour, numbers): one number for each of 1, 2, 3 ... at the lower edge."""
    card = Card(title, 380)
    left, right, top, bottom = 80, WIDTH - 190, 76, 320
    count, most = len(lines[0][2]), max(max(numbers) for *_, numbers in lines)
    step = 10 ** math.floor(math.log10(most))
    step = step / 2 if most / step < 2 else step * 2 if most / step > 6 else step
    for i in range(int(most / step) + 1):
        y = bottom - (bottom - top) * i * step / most
        card.line([(left, y), (right, y)], "#4a4a4a", 1)
        card.text(left - 10, y + 5, f"{i * step:g}", DIM, "end")
    for name, colour, numbers in lines:
        points = [
            (left + (right - left) * (i + 1) / count, bottom - (bottom - top) * number / most)
            for i, number in enumerate(numbers)
        ]
        card.line([(left, bottom), *points], colour)
        card.text(right + 10, points[-1][1] + 5, name, colour)
    card.text(left, bottom + 24, "0", DIM, "middle")
    card.text(right, bottom + 24, str(count), DIM, "middle")
    card.text((left + right) / 2, bottom + 40, x_label, DIM, "middle")
    card.text(MARGIN, top - 8, y_label, DIM)
    return card.svg()


def size(n: float) -> str:
    from lcp import formatting

    return formatting.size(n)


# the chapters


def memory(lcp: Lcp) -> Figure:
    """Chapter 1: what a model takes by the length of its context."""
    told = lcp("info", "smollm2-135m")["memory"]
    found = [row for row in told["rows"] if row["kv_type"] == "f16"]
    most = max(row["total"] for row in found)
    rows = [
        (
            f"{row['context']:,} tokens",
            [(row[part] / most, colour) for part, colour in
             (("weights", BLUE), ("kv", GREEN), ("compute", ORANGE))],
            size(row["total"]),
        )
        for row in found
    ]  # fmt: skip
    notes = [("weights", BLUE), ("KV cache", GREEN), ("temporary memory of a step", ORANGE)]
    return Figure(bars("SmolLM2-135M: memory by the length of the context", rows, notes))


# Shapes that were published with these models, and what Ollama's README said of them in 2023.
LLAMAS = {
    "Orca Mini 3B": ((3200, 8640, 26, 32, 32), "1.9 GB", "8 GB"),
    "Llama 2 7B": ((4096, 11008, 32, 32, 32), "3.8 GB", "16 GB"),
    "Llama 2 13B": ((5120, 13824, 40, 40, 40), "7.3 GB", "32 GB"),
    "Llama 2 70B": ((8192, 28672, 80, 64, 8), "39 GB", ""),
}


def sizes(lcp: Lcp) -> Figure:
    """Chapter 1: the published table, beside what lcp computes for headers of these shapes."""
    lines = [
        "| model | parameters | Ollama: file | lcp: file | Ollama: RAM | lcp: total | of it KV |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, (shape, file, ram) in LLAMAS.items():
        header = lcp.folder / f"{name}.gguf"
        write_llama(header, *shape)
        told = lcp("info", str(header), "-c", "4096")
        row = next(r for r in told["memory"]["rows"]
                   if (r["context"], r["kv_type"]) == (4096, "f16"))  # fmt: skip
        lines.append(
            f"| {name} | {told['model']['parameters'] / 1e9:.2f} billion | {file} | "
            f"{size(told['file']['size'])} | {ram or '-'} | {size(row['total'])} | "
            f"{size(row['kv'])} |"
        )
    return Figure(table="\n".join(lines))


def write_llama(path: Path, width: int, inner: int, layers: int, heads: int, kv_heads: int) -> None:
    """The header of a llama in Q4_0, with a vocabulary of 32,000 tokens: some kB that announce
    gigabytes. As llama.cpp writes it, the output matrix has more bits."""
    import headers

    kv = width // heads * kv_heads
    shapes = {"token_embd.weight": (width, 32000), "output.weight": (width, 32000),
              "output_norm.weight": (width,)}  # fmt: skip
    for p in (f"blk.{i}." for i in range(layers)):
        shapes |= {
            f"{p}attn_norm.weight": (width,), f"{p}ffn_norm.weight": (width,),
            f"{p}attn_q.weight": (width, width), f"{p}attn_output.weight": (width, width),
            f"{p}attn_k.weight": (width, kv), f"{p}attn_v.weight": (width, kv),
            f"{p}ffn_gate.weight": (width, inner), f"{p}ffn_up.weight": (width, inner),
            f"{p}ffn_down.weight": (inner, width),
        }  # fmt: skip
    values = headers.common(
        "llama", layers, width, 32000, attention__head_count=heads,
        attention__head_count_kv=kv_heads, feed_forward_length=inner,
        rope__dimension_count=width // heads, context_length=4096,
    )  # fmt: skip
    values |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(32000)],
        "tokenizer.ggml.merges": ["t 1"],
    }

    def quant(name: str, shape: tuple[int, ...]) -> int:
        if len(shape) < 2:
            return headers.F32
        if name == "output.weight":
            return headers.Q8_0 if width % 256 else headers.Q6_K
        return headers.Q4_0

    headers.write_header(path, values, shapes, quant)


ANALOGIES = (
    ("king", "man", "woman", "queen"),
    ("uncle", "man", "woman", "aunt"),
    ("bigger", "big", "small", "smaller"),
    ("walking", "walk", "swim", "swimming"),
    ("Berlin", "Germany", "Japan", "Tokyo"),
    ("Paris", "France", "Italy", "Rome"),
    ("better", "good", "bad", "worse"),
)


def analogies(lcp: Lcp) -> Figure:
    """Chapter 3: what is nearest to king - man + woman, after the mean row is subtracted."""
    import numpy as np

    from lcp.engine.model import Model
    from lcp.modelfile.weights import Weights

    path = Path(lcp("info", "smollm2-135m")["file"]["path"])
    model, rows = Model.load(path, 0), Weights(path).rows("token_embd.weight")
    rows = rows - rows.mean(0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    lines = ["| sum | nearest rows | the answer that is expected | its rank |", "|---|---|---|--:|"]
    for words in ANALOGIES:
        a, b, c, right = (model.tokenize(f" {word}")[0] for word in words)
        cosines = rows @ (rows[a] - rows[b] + rows[c])
        near = ", ".join(model.spelled(int(t)).strip() for t in np.argsort(-cosines)[:4])
        rank = 1 + int((cosines > cosines[right]).sum())
        lines.append(f"| {words[0]} − {words[1]} + {words[2]} | {near} | {words[3]} | {rank} |")
    model.close()
    return Figure(table="\n".join(lines))


def loop(lcp: Lcp) -> Figure:
    """Chapter 7: three rounds of the loop."""
    told = lcp("look", "next", "The capital of France is", "--steps", "3", "--temp", "0")
    card = Card("Each round: read, give every token a probability, take one", 330)
    read, wide = f"…{told['text'][-12:]}", (WIDTH - 2 * MARGIN) / 3
    for i, step in enumerate(told["steps"]):
        x = MARGIN + wide * i
        card.text(x, 72, "the whole prompt" if i == 0 else "this token only", DIM)
        card.text(x, 96, f"reads {read!r}", BLUE)
        tokens = step["stages"][0]["tokens"][:5]
        for j, token in enumerate(tokens):
            y = 120 + 28 * j
            taken = token["id"] == step["token"]["id"]
            card.bar(x, y, 100 * token["p"], GREEN if taken else "#5f6568", 16)
            card.text(x + 100 * token["p"] + 6, y + 13, f"{token['text']!r} {token['p']:.0%}",
                      INK if taken else DIM)  # fmt: skip
        read = step["token"]["text"]
        card.text(x, 290, f"takes {read!r}", GREEN)
        if i < 2:
            card.line([(x + wide - 36, 285), (x + wide - 12, 285), (x + wide - 12, 92),
                       (x + wide - 4, 92)], DIM, 1.5)  # fmt: skip
    return Figure(card.svg())


def cache(lcp: Lcp) -> Figure:
    """Chapter 8: seconds with and without the KV cache."""
    told = lcp("look", "cache", "Once upon a time there was a", "-n", "128")
    cached, again = told["seconds_with"], told["seconds_without"]
    lines = ["| tokens | with the cache | without | ratio |", "|--:|--:|--:|--:|"]
    for n in (16, 32, 64, 128):
        a, b = cached[n - 1], again[n - 1]
        lines.append(f"| {n} | {a:.2f} s | {b:.2f} s | {b / a:.1f} |")
    picture = curves(
        "The same answer, with the KV cache and without",
        [("with", GREEN, cached), ("without", ORANGE, again)], "tokens of the answer", "seconds",
    )  # fmt: skip
    return Figure(picture, "\n".join(lines))


def quants(lcp: Lcp) -> Figure:
    """Chapter 9: how far each quant is from the 16-bit copy."""
    from lcp import formatting

    whole = lcp.path("quantize", "smollm2-135m", "F16")
    lines = ["| quant | bits per weight | KL | same first token | greedy answers diverge after |",
             "|---|--:|--:|--:|--:|"]  # fmt: skip
    found, floor = [], 0.0
    for quant in ("Q8_0", "Q4_K_M", "Q3_K_M", "Q4_0", "Q2_K"):
        file = lcp.path("quantize", whole, quant)
        told = lcp("look", "quant", whole, file)
        other, groups = told["other"], told["groups"]
        bits = 8 * sum(g["bytes"][1] for g in groups) / sum(g["weights"] for g in groups)
        same = told["same_tokens"]
        parts = "they do not" if same is None else formatting.count(same, "token")
        lines.append(f"| {quant} | {bits:.1f} | {other['kl']:.3f} | {other['same_first']:.0%} | "
                     f"{parts} |")  # fmt: skip
        found.append((quant, other["kl"]))
        floor = max(floor, *(one["kl"] for one in told["floors"]))
        Path(file).unlink()
    lines.append(f"| *the floor* | 16 | {floor:.3f} | | |")

    def length(kl: float) -> float:  # of a logarithmic bar, from 0.001 to 1
        return max(0.0, (math.log10(kl) + 3) / 3)

    rows = [(quant, [(length(kl), BLUE)], f"{kl:.3f}") for quant, kl in found]
    rows.append(("the floor", [(length(floor), ORANGE)], f"{floor:.3f}"))
    notes = [("logarithmic: each third of the width is ten times as much", DIM)]
    title = "SmolLM2-135M: KL of each quant to 16 bits, in nats"
    return Figure(bars(title, rows, notes), "\n".join(lines))


def batches(lcp: Lcp) -> Figure:
    """Chapter 11: what a token costs if several answers are computed in one batch."""
    from lcp.engine.llama_library import StopByte
    from lcp.engine.model import Model
    from lcp.engine.observer import Observer
    from lcp.machine import physical_cores

    model = Model.load(Path(lcp("info", "smollm2-135m")["file"]["path"]), 0)
    counts = (1, 2, 4, 8, 16, 32)
    threads = physical_cores()
    with Observer(
        model, StopByte(), size=256, rows=32, sequences=32, threads=threads, watched=False
    ) as observed:
        observed.decode(model.tokenize("Once upon a time there was a"))
        costs = []
        for count in counts:
            endings = [[model.tokenize(" dog")[0]]] * count
            times = []
            for _ in range(5):
                begun = time.process_time()  # of all cores: other programs change it less
                observed.branch(endings)
                times.append(time.process_time() - begun)
            costs.append(1000 * min(times) / count)
    model.close()
    rows = [
        (f"{count} at once", [(cost / max(costs), GREEN)], f"{cost:.0f} ms of CPU time")
        for count, cost in zip(counts, costs, strict=True)
    ]
    note = f"SmolLM2-135M on {threads} CPU cores"
    return Figure(bars("What one token costs if several answers share a batch", rows,
                       [(note, DIM)]))  # fmt: skip


def losses(lcp: Lcp) -> Figure:
    """Chapter 12: the loss on random words, the first time and the second."""
    told = lcp("look", "heads")["loss"]
    guess = math.log(49152)
    found = [
        ("an even guess", guess, DIM),
        ("random words", told["first"], BLUE),
        ("the same words again", told["second"], GREEN),
    ]
    most = max(loss for _, loss, _ in found)
    rows = [(name, [(loss / most, colour)], f"{loss:.1f} nats") for name, loss, colour in found]
    return Figure(bars("SmolLM2-135M: loss on words that have no meaning", rows, []))


FIGURES: dict[str, Callable[[Lcp], Figure]] = {
    "memory": memory,
    "sizes": sizes,
    "analogies": analogies,
    "loop": loop,
    "cache": cache,
    "quants": quants,
    "batches": batches,
    "losses": losses,
}
