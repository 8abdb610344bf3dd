"""The first token of a turn whose window slides, over that of an ordinary turn beside it.

    python -m bench.window [MODEL.gguf] [-t N] [--pairs N] [--json FILE]

One conversation of questions of equal length, in a window of 2048 tokens (`lcp chat --lines --json
-n 48`), that goes on until the window has slid `--pairs` times (12: about 60 turns); once with
`--slide move`, once with `--slide reread`. A turn slides when `moved` is above 0 or `dropped_turns`
grew. A pair is a sliding turn and the mean of the ordinary turns right before and after it.

said  `ttft_s` of the stats
seen  seconds from the question into the pipe to its JSON line, less `decode_s`: with what is done
      before the model is asked, as choosing what leaves
read too much  turns that read over 16 tokens more than were new, with no "re-read" on stderr.
      New are prompt_tokens - the turn before's ctx_used; in a sliding turn, where that means
      nothing, what an ordinary turn reads (median): the questions are of equal length
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from subprocess import PIPE, Popen
from typing import Any

from bench.measure import BenchError, Row
from bench.sides import Model, arguments, lcp_chat, lcp_env, run

SIZE, ANSWER, SPARE, MOST_TURNS = 2048, 48, 16, 400
QUESTION = "My friend lost a {} near the {} and found it behind the {}. What of the {}, I ask you?"
NOUNS = "boat horse house table book ring lamp coat clock garden piano stone town school church"
Turn = dict[str, Any]  # the stats of a turn, and of it `notice` (stderr) and `wait`


def questions() -> Iterator[str]:
    """Questions of equal length, without end, the same ones every time."""
    draw = random.Random(1)
    while True:
        yield QUESTION.format(*draw.sample(NOUNS.split(), k=4))


def talk(model: Model, slide: str, slides: int) -> list[Turn]:
    """A conversation that ends with the ordinary turn after the last of so many slides."""
    flags = ("--lines", "--json", "-c", str(SIZE), "-n", str(ANSWER), "--slide", slide)
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as stderr:
        line = lcp_chat(model, *flags)
        with Popen(line, env=lcp_env(home), stdin=PIPE, stdout=PIPE, stderr=stderr) as process:
            assert process.stdin and process.stdout
            for question in itertools.islice(questions(), MOST_TURNS):
                said, begun = stderr.seek(0, 2), time.perf_counter()
                process.stdin.write(f"{question}\n".encode())
                process.stdin.flush()
                answer, ended = process.stdout.readline(), time.perf_counter()
                stderr.seek(said)
                notice = stderr.read().decode(errors="replace")
                if not answer:
                    raise BenchError(f"lcp chat --lines ended: {notice}")
                stats = json.loads(answer)["stats"]
                turns.append(stats | {"notice": notice, "wait": ended - begun - stats["decode_s"]})
                at = slid(turns)
                if len(at) >= slides and at[-1] < len(turns) - 1:
                    return turns
    raise BenchError(f"{MOST_TURNS} turns slid the window {len(slid(turns))} times.")


def slid(turns: list[Turn]) -> list[int]:
    """Which turns made the window slide."""
    pairs = enumerate(itertools.pairwise(turns), 1)
    return [i for i, (a, b) in pairs if b["moved"] or b["dropped_turns"] > a["dropped_turns"]]


def compared(turns: list[Turn], what: str) -> list[tuple[float, float]]:
    """That time of each sliding turn, and of the ordinary turns beside it, in seconds."""
    at = slid(turns)
    beside = {i: [turns[j][what] for j in (i - 1, i + 1) if j not in at] for i in at}
    return [(turns[i][what], statistics.mean(times)) for i, times in beside.items() if times]


def unsaid(turns: list[Turn]) -> int:
    """How many turns read more than what was new, and did not say so."""
    at, used = slid(turns), [0, *(turn["ctx_used"] for turn in turns)]
    usual = statistics.median(t["read"] for i, t in enumerate(turns) if i and i not in at)
    new = [usual if i in at else t["prompt_tokens"] - used[i] for i, t in enumerate(turns)]
    too_much = (t for t, fair in zip(turns, new, strict=True) if t["read"] > fair + SPARE)
    return sum("re-read" not in turn["notice"] for turn in too_much)


def measure(options: Namespace, model: Model, known: dict[str, object]) -> list[Row]:
    rows = []
    for slide, target in (("move", "<= 1.3"), ("reread", "")):
        turns = talk(model, slide, options.pairs)
        for how, what in (("said", "ttft_s"), ("seen", "wait")):
            name = f"slide / ordinary, {slide}, {how}"
            rows.append(Row(name, "s", compared(turns, what), target))
        known[f"read too much, {slide}"] = f"{unsaid(turns)} of {len(turns)} turns"
    return rows


def main() -> int:
    parser = arguments((__doc__ or "").partition("\n")[0])
    parser.set_defaults(pairs=12)
    return run(parser, measure)


if __name__ == "__main__":
    sys.exit(main())
