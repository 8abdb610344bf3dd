"""llama.cpp's own HTTP server, out of the wheel xllamacpp, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# It runs until its stdin is closed, so that it cannot outlive the test.
PROGRAM = """
import json, sys
from xllamacpp import CommonParams, Server
params = CommonParams()
params.no_extra_bufts = True  # a llama.cpp built by GCC 12 crashes on CPUs with AMX
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
for name, value in json.loads(sys.argv[1]).items():
    at, _, last = name.rpartition(".")
    setattr(getattr(params, at) if at else params, last, value)
server = Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def llama_server(model: Path, **options: Any) -> Iterator[str]:
    """The address of a server of this model; `options` are fields of xllamacpp's CommonParams."""
    wanted = {"model.path": str(model), "n_ctx": 1024, "n_parallel": 1, "n_batch": 512} | options
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, json.dumps(wanted)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http"), address
        yield address
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)
