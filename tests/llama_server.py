"""Real servers in processes of their own: llama.cpp's, from the wheel xllamacpp, and
llama-cpp-python's."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).with_name("llama_server_program.py")
# A llama.cpp built by GCC 12 crashes on CPUs with AMX if it repacks.
PLAIN = ("--host", "127.0.0.1", "--port", "0", "-np", "1", "-b", "512", "-t", "1", "--no-repack")


@contextmanager
def llama_server(model: Path, size: int = 1024, *options: str) -> Iterator[str]:
    """The address of a server with this model and a context of this size. `options` are those of
    llama-server."""
    words = ["-m", str(model), "-c", str(size), *PLAIN, *options]
    with _running(str(PROGRAM), *words) as address:
        yield address


def install(folder: Path) -> None:
    """Put llama-server into a folder."""
    script = folder / "llama-server"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{PROGRAM}" "$@"\n')
    script.chmod(0o755)


# llama-cpp-python's own server. A llama.cpp built by GCC 12 crashes on CPUs with AMX.
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
    with _running("-c", PYTHON_PROGRAM, str(model), str(size)) as address:
        yield address


@contextmanager
def _running(*words: str) -> Iterator[str]:
    """A Python program that prints its address and ends when its stdin closes."""
    process = subprocess.Popen(
        [sys.executable, *words],
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
