"""`lcp look`, each command on the small model: seconds of work after loading, and peak memory.

    python -m bench.look [MODEL.gguf] [--pairs N] [--json FILE] [--only NAME]

work    the seconds that the command itself reports: reading, experiments, without loading
cpu     seconds of all cores, loading included: a busy machine changes them less
memory  MiB, the peak of the process

There is nothing to compare with, so the other side is the target. Look at `best`: on a busy machine
the median is the machine's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from bench.measure import BenchError, Row, report
from bench.sides import arguments, lcp_env

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
OFFICE = (
    "The office opens at nine on weekdays. Maria keeps the spare key in the blue box. Coffee is "
    "free on Fridays. The printer is on the second floor. Tom waters the plants. "
    "Where is the spare key?"
)
# name -> words of the command, and seconds that it may take
COMMANDS: dict[str, tuple[list[str], float | None]] = {
    "swap": ([FRANCE, ITALY], 5.0),
    "next": (["My favourite animal is the"], 1.0),
    "without": ([OFFICE, "-n", "24"], None),
    "layers": ([FRANCE], 2.0),
    "layers --heads": ([FRANCE], None),
    "heads": ([], 2.0),
    "heads --off": (["23.4", FRANCE], None),
    "attention": ([FRANCE], None),
    "quant": (["-n", "24"], None),
    "cache": (["-n", "32"], None),
    "tokens --merges": ([OFFICE], None),
    "words": (["cat", "dog", "car"], None),
}


def sample(name: str, words: list[str], model: Path, env: dict[str, str]) -> list[float]:
    """Seconds of work, seconds of CPU, and MiB at the peak."""
    command = [sys.executable, "-m", "lcp", "look", *name.split(), *words, "-m", str(model)]
    with tempfile.TemporaryFile() as out:
        files = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1)]
        pid = os.posix_spawnp(command[0], [*command, "--json"], env, file_actions=files)
        _, status, used = os.wait4(pid, 0)
        out.seek(0)
        said = out.read()
    if status:
        raise BenchError(f"{' '.join(command)} failed: {said[-300:].decode()}")
    cpu = used.ru_utime + used.ru_stime
    return [json.loads(said)["seconds"], cpu, used.ru_maxrss / 1024]


def main() -> int:
    parser = arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", choices=COMMANDS)
    parser.set_defaults(pairs=3)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        env = lcp_env(folder)
        try:
            for name, (words, limit) in COMMANDS.items():
                if options.only in (None, name):
                    found = [sample(name, words, options.model, env) for _ in range(options.pairs)]
                    for what, unit, samples in zip(
                        ("work", "cpu", "memory"),
                        ("s", "s", "MiB"),
                        zip(*found, strict=True),
                        strict=True,
                    ):
                        beside = (limit if what == "work" else None) or min(samples)
                        target = "<= 1" if what == "work" and limit else ""
                        pairs = [(value, beside) for value in samples]
                        rows.append(Row(f"{name}, {what}", unit, pairs, target))
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    facts = {"file": options.model.name, "load": round(os.getloadavg()[0], 1)}
    report(rows, facts, options.json, "target")
    return 0


if __name__ == "__main__":
    sys.exit(main())
