"""What installing llama.cpp costs: install/llama.py's lean build beside the plain build of pip.

    python -m bench.setup [--pairs N] [--json FILE]

cpu    seconds of CPU time that a build takes, all processes together; the wall time of a busy
       machine says little. About 1,000 in all for the one pair
files  source files that the build compiles

Both builds are made from the source archive, without any cache of pip's.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.build_tools import BuildError, installed
from bench.measure import BenchError, Row, abba, report
from install.llama import PIP, build_environment

WHEEL = ["wheel", "--verbose", "--no-deps", "--no-cache-dir", "--no-binary=llama-cpp-python"]
COMPILED = re.compile(r"^\s*\[[^]]*\] (?:Building \w+ object|.*\s-c\s)", re.MULTILINE)


def build(env: Mapping[str, str], release: str) -> tuple[float, float]:
    """CPU seconds and compiled files of one build."""
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*PIP, *WHEEL, f"--wheel-dir={folder}", f"llama-cpp-python=={release}"],
            env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise BenchError(f"pip could not build llama.cpp: {done.stdout.splitlines()[-1]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, len(COMPILED.findall(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=1, help="of builds (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args()
    env = dict(os.environ)
    try:
        release = installed()[0]
        lean = build_environment(env)
        plain = env | {"CMAKE_BUILD_PARALLEL_LEVEL": lean["CMAKE_BUILD_PARALLEL_LEVEL"]}
        found = abba(lambda: build(lean, release), lambda: build(plain, release), options.pairs)
    except (BenchError, BuildError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    rows = [
        Row("cpu time of the build", "s", [(a[0], b[0]) for a, b in found]),
        Row("compiled files", "", [(a[1], b[1]) for a, b in found]),
    ]
    report(rows, {"llama-cpp-python": release}, options.json, "plain")
    return 0


if __name__ == "__main__":
    sys.exit(main())
