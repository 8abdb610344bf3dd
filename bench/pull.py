"""Downloading over loopback, with every byte verified, beside hf_hub_download, which verifies none.

    python -m bench.pull [--size BYTES] [--pairs N] [--folder DIR] [--json FILE]

Both get the same file from tests/hub.py, which runs in a process of its own and sends it with
sendfile: nobody will meet a faster server, so the figures are what a client can do at most. Both
write into an empty cache, each time in a fresh process, and are timed from the call to the path:
imports are left out, and so is what they cost on the CPU. hf_hub_download runs over plain HTTP
(HF_HUB_DISABLE_XET=1), as with any server but the Hub's own. Ours waits until the disk has the
file; with --folder on a tmpfs the disk has no part in it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.build_tools import HERE
from bench.measure import BenchError, Row, abba, report

sys.path.insert(0, str(HERE.parent / "tests"))
from hub import File, pattern

NAME = "owner/name"
PLAIN = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# Each prints seconds and CPU seconds of one download.
TIMED = """
import json, sys, time
from pathlib import Path
given = json.loads(sys.argv[1])
{imports}
begun, cpu = time.perf_counter(), time.process_time()
path = {call}
print(json.dumps([time.perf_counter() - begun, time.process_time() - cpu, str(path)]))
"""
OURS = TIMED.format(
    imports="from lcp.downloads.download import download\n"
    "from lcp.downloads.hub_cache import CacheEntry\n"
    "blob = CacheEntry(**given['blob'] | {'folder': Path(given['cache'], 'models--owner--name')})",
    call="download(blob)",
)
THEIRS = TIMED.format(
    imports="from huggingface_hub import hf_hub_download",
    call="hf_hub_download('owner/name', given['blob']['path'], cache_dir=given['cache'])",
)


@dataclass(frozen=True)
class Sample:
    seconds: float
    cpu: float


@dataclass(frozen=True)
class Wanted:
    """What both sides download. The fields are those of CacheEntry."""

    url: str
    etag: str
    size: int
    commit: str
    path: str = "model.gguf"


@contextlib.contextmanager
def server(folder: Path, size: int) -> Iterator[tuple[str, Wanted]]:
    """A Hub in a process of its own; its address, and the file it has."""
    content = folder / NAME / Wanted.path
    content.parent.mkdir(parents=True)
    etag = File(pattern(content, size)).etag
    command = [sys.executable, str(HERE.parent / "tests" / "hub.py"), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url, commit = process.stdout.readline().split()
            yield url, Wanted(f"{url}/{NAME}/resolve/{commit}/{Wanted.path}", etag, size, commit)
        finally:
            process.terminate()


def download(code: str, folder: Path, url: str, wanted: Wanted) -> Sample:
    """One download by a fresh process into an empty cache."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env = kept | PLAIN | {"HF_ENDPOINT": url, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env["PYTHONPATH"] = str(HERE.parent)
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        env["HF_HOME"] = cache
        given: dict[str, Any] = {"blob": asdict(wanted), "cache": cache}
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(given)], env=env, text=True, capture_output=True
        )
        if done.returncode:
            raise BenchError(f"A download failed: {done.stderr.strip().splitlines()[-1]}")
        seconds, cpu, path = json.loads(done.stdout)
        if Path(path).stat().st_size != wanted.size:
            raise BenchError(f"{path} has another size than {wanted.size}")
    return Sample(seconds, cpu)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=10**9, help="bytes (default 1 GB)")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files lie (default: the temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args()
    facts: dict[str, object] = {
        "bytes": options.size,
        "folder": options.folder or tempfile.gettempdir(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    try:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            with server(folder / "hub", options.size) as (url, wanted):
                ours = partial(download, OURS, folder, url, wanted)
                theirs = partial(download, THEIRS, folder, url, wanted)
                ours(), theirs()
                found = abba(ours, theirs, options.pairs)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    mb, gb = options.size / 1e6, options.size / 1e9
    rows = [
        Row("speed", "MB/s", [(mb / a.seconds, mb / b.seconds) for a, b in found], ">= 1.0"),
        Row("CPU for a GB", "s", [(a.cpu / gb, b.cpu / gb) for a, b in found]),
    ]
    report(rows, facts, options.json, theirs="huggingface_hub")
    return 0


if __name__ == "__main__":
    sys.exit(main())
