"""Real servers in processes of their own: llama.cpp's, out of the wheel xllamacpp, and
llama-cpp-python's."""

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
    with _running(PROGRAM, json.dumps(wanted)) as address:
        yield address


# llama-cpp-python's own server. A llama.cpp built by GCC 12 crashes on CPUs with AMX: see above.
PYTHON_PROGRAM = """
import sys
import llama_cpp.llama_cpp as low
from llama_cpp._internals import llama_cpp as used
defaults = low.llama_model_default_params
def plain():
    params = defaults()
    params.use_extra_bufts = False
    return params
low.llama_model_default_params = used.llama_model_default_params = plain
from llama_cpp.server.app import create_app
from llama_cpp.server.settings import ModelSettings, ServerSettings
import threading, uvicorn
model, size = sys.argv[1:]
app = create_app(
    server_settings=ServerSettings(host="127.0.0.1"),
    model_settings=[ModelSettings(model=model, model_alias="m", n_ctx=int(size), n_threads=1,
                                  n_threads_batch=1, verbose=False)],
)
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        print("http://127.0.0.1:%d" % self.servers[0].sockets[0].getsockname()[1], flush=True)
server = Server(uvicorn.Config(app, port=0, log_level="error"))
threading.Thread(target=lambda: (sys.stdin.read(), setattr(server, "should_exit", True))).start()
server.run()
"""


@contextmanager
def python_server(model: Path, size: int) -> Iterator[str]:
    """The address of a server of llama-cpp-python with this model."""
    with _running(PYTHON_PROGRAM, str(model), str(size)) as address:
        yield address


@contextmanager
def _running(program: str, *arguments: str) -> Iterator[str]:
    """A program that prints its address and ends with its stdin."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
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
