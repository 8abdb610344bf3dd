"""`lcp serve`: llama.cpp's own llama-server, with a model that lcp finds and sizes.

lcp serves nothing itself: it chooses the options, then llama-server takes its place. So machines
of --rpc are never connected to this process, which a lost one would abort.
"""

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lcp import paths
from lcp.cli import first_run, free_memory, options, shell_completion
from lcp.cli.chat_services import find, title
from lcp.cli.options import argument, option, switch
from lcp.cli.pull import find_or_pull
from lcp.errors import LcpError, UsageError
from lcp.machine import machine, physical_cores
from lcp.settings import Layers, Sampling, Settings

if TYPE_CHECKING:
    from lcp.chat.services_interface import FoundModel
    from lcp.engine.loading import LoadPlan

SERVER = "llama-server"
MISSING = (
    f"{SERVER} is not on PATH. Install llama.cpp, for example with brew install llama.cpp, "
    "winget install llama.cpp or conda install -c conda-forge llama.cpp; "
    "https://github.com/ggml-org/llama.cpp/releases has it for every system."
)
MOST_MACHINES = 16  # llama.cpp: GGML_RPC_MAX_SERVERS
EVERY_LAYER = 999  # "all" is newer than some servers
CACHE_MIB = 8192  # what llama-server keeps of other chats if it is not told: as much as a model
SAMPLING = tuple(field.name for field in fields(Sampling))
SIZES = ("ctx_size", "n_gpu_layers", "threads", "kv_type", "flash_attn")


@dataclass(frozen=True)
class ServeArguments:
    """What was typed after `lcp serve`, except the settings."""

    name: str | None = argument(
        "MODEL", "Model name or file.", autocompletion=shell_completion.models
    )
    host: str = option("--host", "ADDR", "Address to listen on (127.0.0.1).", "127.0.0.1")
    port: str = option("--port", "N", "Port to listen on (8080).", "8080")
    rpc: str | None = option(
        "--rpc", "HOST:PORT,…", "Machines to split the model over (rpc-server)."
    )
    show: bool = switch("--print", "Print the command line of llama-server, and stop.")


def run(asked: ServeArguments, flags: dict[str, Any]) -> None:
    """Serve a model to other programs and machines, with llama.cpp's llama-server.

    Uses the settings of a chat. Clients must send the key that is in LCP_API_KEY.
    """
    key, machines = _key(), _machines(asked.rpc)
    host, port = _host(asked.host), _port(asked.port)
    if not key and not _is_loopback(host):
        raise UsageError(
            f"Other machines could use a server on {host}, and there is no API key. "
            "Set one in the environment variable LCP_API_KEY."
        )
    program = shutil.which(SERVER)
    if program is None and not asked.show:
        raise LcpError(MISSING)
    found, settings = _model(asked, flags)
    words = [*_listening(found, host, port), *_sizes(found, settings, program, machines)]
    words += _sampling(settings)
    if asked.show:
        sys.stdout.write(_spelled(words, '"$LCP_API_KEY"' * bool(key)) + "\n")
        return
    _say(f"Chat with it: lcp chat --server http://{_in_url(host)}:{port}")
    _become(str(program), words, key)


serve = options.command(ServeArguments, run, (*SIZES, *SAMPLING))


# 1) What was asked for.


def _key() -> str:
    """The key that clients must send, "" for none."""
    key = os.environ.get("LCP_API_KEY", "")
    # llama-server takes a list of keys: with a comma or a quote in it, one would be others.
    if re.search('[^!-~]|[,"]', key):
        raise UsageError(
            "LCP_API_KEY has a character that cannot be part of a key. "
            "Use ASCII letters, digits and signs, but no space, comma or double quote."
        )
    return key


def _host(given: str) -> str:
    host = given.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[A-Za-z0-9.:%_-]*[A-Za-z0-9:]", host) or host.startswith("-"):
        raise UsageError(f'--host must be one IP address or name (got "{given}").')
    return host


def _port(given: str) -> str:
    if not _is_port(given):
        raise UsageError(f'--port must be a whole number from 1 to 65535 (got "{given}").')
    return given


def _is_port(text: str) -> bool:
    return bool(re.fullmatch("[1-9][0-9]{0,4}", text)) and int(text) < 65536


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _in_url(host: str) -> str:
    """The host as this machine reaches it."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{here}]" if ":" in here else here


def _machines(given: str | None) -> tuple[str, ...]:
    """The machines of --rpc. Only their spelling is checked."""
    if given is None:
        return ()
    machines = tuple(part.strip() for part in given.split(","))
    for one in machines:
        host, _, port = one.partition(":")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", host) or not _is_port(port):
            raise UsageError(
                f'--rpc must be a list of HOST:PORT, with commas between them (got "{one}"). '
                "A host is a name or an IPv4 address."
            )
    if len(machines) > MOST_MACHINES:
        raise UsageError(f"--rpc names {len(machines)} machines; llama.cpp uses {MOST_MACHINES}.")
    return machines


def _model(asked: ServeArguments, flags: dict[str, Any]) -> "tuple[FoundModel, Settings]":
    layers = Layers.of(flags)
    name = asked.name or layers.resolve().model or first_run.default_name()
    found = find(name, partial(find_or_pull, remember=not asked.show))
    for notice in found.notices:
        _say(notice)
    return found, layers.with_model(found.settings).resolve()


# 2) The options of llama-server.


def _listening(found: "FoundModel", host: str, port: str) -> list[str]:
    from lcp.session.export import plain_name

    alias = plain_name(found.name) if paths.at(found.name) else found.name
    words = ["-m", str(found.file.absolute()), "--alias", alias]
    # Whatever the environment says (LLAMA_ARG_HOST). With several slots, each has its own cache,
    # and a chat may come to another one.
    return [*words, "--host", host, "--port", port, "-np", "1"]


def _sizes(
    found: "FoundModel", settings: Settings, program: str | None, machines: tuple[str, ...]
) -> list[str]:
    """Context, layers, KV type and batch. Raises what `memory_fit.choose` does."""
    from lcp.chat import memory_fit
    from lcp.engine import cpu_check
    from lcp.engine.params import N_BATCH, flash_attention

    name = title(found.file.name, found.name)
    here = cpu_check.check_once(paths.cache())  # llama.cpp has a GPU, as lcp is installed
    gpu = here if program is None else _uses_gpu(program)
    if unseen := bool(machines) or (gpu and not here):
        plan = memory_fit.without_figures(found.file, settings, name)
    else:
        plan = memory_fit.choose(found.file, settings, free_memory.figures_folder(), gpu, name)
    for notice in plan.notices:
        _say(notice)
    words = ["-c", str(plan.ctx_size), "-b", str(N_BATCH)]
    words += ["-ctk", settings.kv_type, "-ctv", settings.kv_type]
    # Without -ngl, llama-server fills the memories that it finds.
    if settings.n_gpu_layers is not None or (gpu and not unseen):
        words += ["-ngl", str(EVERY_LAYER if plan.n_gpu_layers < 0 else plan.n_gpu_layers)]
    flash = plan.flash_attn if settings.flash_attn == "auto" else settings.flash_attn
    if plan.n_gpu_layers == 0 or not (gpu or machines):
        flash = flash_attention(flash, settings.kv_type, offloaded=False)
    words += ["-fa", flash]
    if settings.threads:
        words += ["-t", str(settings.threads)]
    elif plan.threads:  # measured for answers; prompts are read on all cores
        words += ["-t", str(plan.threads), "-tb", str(physical_cores())]
    if (free := machine().free) is not None and (spare := (free >> 20) // 8) < CACHE_MIB:
        words += ["--cache-ram", str(spare)]
    if not _may_repack(plan):
        words += ["--no-repack"]
    if machines:
        words += ["--rpc", ",".join(machines)]
    return words


def _uses_gpu(program: str) -> bool:
    """Whether this llama-server has a GPU; it may be built otherwise than lcp's llama.cpp."""
    try:
        told = subprocess.run(
            [program, "--list-devices"], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=60, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    except OSError as error:
        raise _cannot_start(program, error) from None
    # "  CUDA0: NVIDIA H100 (81559 MiB, 80000 MiB free)"; a BLAS library has 0 MiB
    return bool(re.search(rb"(?m)^ +\S+: .*\([1-9][0-9]* MiB", told.stdout))


def _may_repack(plan: "LoadPlan") -> bool:
    """Whether weights may be copied in an order that suits the CPU. Not on one with AMX: see
    `llama_library.extra_bufts`; but lcp cannot know how llama.cpp was built here."""
    forced = os.environ.get("LCP_EXTRA_BUFTS")
    amx = "amx_int8" in paths.contents(Path("/proc/cpuinfo"))
    return plan.repack and (forced != "0" if forced else not amx)


def _sampling(settings: Settings) -> Iterator[str]:
    """What a client gets that does not choose for itself: all that is not llama.cpp's default."""
    for name in SAMPLING:
        value = settings.value(name)
        if settings.sources[name] != "default" and value is not None:
            yield from (f"--{name.replace('_', '-')}", str(value))


# 3) What is done with them.


def _spelled(words: list[str], key: str) -> str:
    """The command line for a shell. `key`: how the shell finds it."""
    if os.name == "nt":
        return subprocess.list2cmdline([SERVER, *words])
    variables = [f"{name}={value}" for name, value in _variables(key).items()]
    return " ".join([*variables, shlex.join([SERVER, *words])])


def _variables(key: str) -> dict[str, str]:
    """What the environment of llama-server has beyond that of lcp: what other users must not see
    on the command line, and what older servers do not know as an option."""
    # By default, the web pages in a browser of this machine may use the server.
    found = {"LLAMA_ARG_CORS_ORIGINS": "localhost"} | ({"LLAMA_API_KEY": key} if key else {})
    return {name: value for name, value in found.items() if value == key or name not in os.environ}


def _become(program: str, words: list[str], key: str) -> None:
    """Replace this process."""
    from lcp.engine.llama_library import ENVIRONMENT

    environment = {**ENVIRONMENT, **os.environ, **_variables(key)}
    sys.stderr.flush()
    try:
        if os.name == "nt":  # where the shell would not wait for what replaces it
            raise typer.Exit(subprocess.run([program, *words], env=environment).returncode)
        os.execve(program, [program, *words], environment)
    except OSError as error:
        raise _cannot_start(program, error) from None


def _cannot_start(program: str, error: OSError) -> LcpError:
    return LcpError(f"{program} cannot be started: {error.strerror}. Install llama.cpp again.")


def _say(sentence: str) -> None:
    from lcp.terminal.screen import Screen

    Screen().notice(sentence)
