"""`lcp doctor`: what this computer can do, what is wrong with the installation, how to repair it.

Each check gives a Finding. llama.cpp runs in a process of its own, so that a crash of it is a
finding and does not end lcp.
"""

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcp import paths
from lcp.downloads.catalog import catalog
from lcp.downloads.library import OWN, places
from lcp.downloads.model_folders import HUB
from lcp.engine import cpu_check
from lcp.errors import ChooseModel, LcpError
from lcp.formatting import count, size
from lcp.machine import Gpu, Machine, machine, physical_cores
from lcp.modelfile.llamacpp_answers import gpus, stored_speeds
from lcp.servers.config import ServerTable, key, servers
from lcp.settings import Layers, from_file, personas
from lcp.terminal.screen import Screen

PACKAGES = ("llama-cpp-python", "huggingface-hub", "gguf", "rich", "prompt-toolkit", "typer")
WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"  # prebuilt, by CUDA version
CUDA_WHEELS = (121, 125)  # the oldest and the newest CUDA version that has an index there
LITTLE = 1 << 30  # a disk with fewer free bytes is nearly full

# name of a CPU feature in Linux -> in llama_print_system_info
FEATURES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_int8": "AMX_INT8",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
# PCI vendor -> the maker of the card, and the build of llama.cpp that uses it
VENDORS = {"0x10de": ("NVIDIA", "CUDA"), "0x1002": ("AMD", "HIP"), "0x8086": ("Intel", "SYCL")}
DISCRETE = ("0x10de", "0x1002")  # Intel's are mostly small ones, part of the CPU


@dataclass(frozen=True)
class Finding:
    """One line of the page. `wrong` and `advice` are sentences; `mend` is the command to run."""

    name: str
    value: str
    wrong: str = ""
    advice: str = ""
    mend: str = ""


def examine(root: Path = Path("/")) -> list[Finding]:
    """All findings, in the order of the page; `root` is the folder with proc/ and sys/ (Linux)."""
    try:
        answer = json.loads(cpu_check.run())
    except LcpError as error:
        sentence, *command = re.split(": (?=pip )", str(error))
        wrong = f"{sentence.rstrip('.')}."
        broken = Finding("llama.cpp", "does not work", wrong=wrong, mend="".join(command))
        return [*_versions(), broken, *_folders()]
    built = features(answer["system_info"])
    return [
        *_versions(),
        Finding("llama.cpp", "works"),
        cpu(built, paths.contents(root / "proc/cpuinfo")),
        _amx(built),
        gpu(gpus() if answer["gpu"] else (), cards(root), _cuda_version()),
        _memory(machine(root)),
        _threads(),
        llama_server(),
        *_speeds(cpu_check.answers(paths.cache())),
        *_folders(),
        *_servers(),
    ]


def features(system_info: str) -> set[str]:
    """The features that llama.cpp was built with, from its lines "NAME = 1"."""
    return set(re.findall(r"(\w+) = 1", system_info))


def cpu(built: set[str], cpuinfo: str) -> Finding:
    """The CPU features that make llama.cpp faster, and those that the build does not use."""
    flags = set(re.findall(r"\w+", "".join(re.findall(r"^(?:flags|Features).*$", cpuinfo, re.M))))
    name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    here = [ours for linux, ours in FEATURES.items() if linux in flags]
    unused = [feature for feature in here if feature not in built]
    value = f"{name[1] if name else platform.machine()} ({' '.join(here) or 'features not known'})"
    if not unused:
        return Finding("CPU", value)
    return Finding(
        "CPU",
        value,
        advice=f"llama.cpp was built without {', '.join(unused)}; a build for this CPU is faster.",
        mend=f"CMAKE_ARGS=-DGGML_NATIVE=ON {cpu_check.REBUILD}",
    )


def _amx(built: set[str]) -> Finding:
    if "AMX_INT8" not in built:
        return Finding("AMX", "not built in")
    if os.environ.get("LCP_EXTRA_BUFTS", "0") != "0":
        return Finding(
            "AMX",
            "on (LCP_EXTRA_BUFTS)",
            advice="A llama.cpp built by GCC 12 crashes at the first answer. Unset the variable to "
            "turn AMX off.",
        )
    return Finding("AMX", "built in, turned off: it crashes if GCC 12 built it")


def cards(root: Path = Path("/")) -> list[str]:
    """The PCI vendors of the graphics cards in this computer (Linux)."""
    found = []
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if paths.contents(device / "class").startswith("0x03"):  # a display controller
            found.append(paths.contents(device / "vendor"))
    return found


def gpu(used: tuple[Gpu, ...], cards: list[str], cuda: tuple[int, int] | None) -> Finding:
    """The graphics cards that llama.cpp uses; if it uses none of them, the build that does."""
    if used:
        described = (
            f"{g.description or g.name} ({size(g.free)} of {size(g.total)} free)" for g in used
        )
        return Finding("GPU", ", ".join(described))
    vendor = next((card for card in cards if card in DISCRETE), "")
    if not vendor and cuda is None:
        if sys.platform == "darwin" and platform.machine() == "arm64":
            return Finding(
                "GPU",
                "Apple, not used",
                wrong="llama.cpp was built without Metal.",
                mend=f"CMAKE_ARGS=-DGGML_METAL=ON {cpu_check.REBUILD}",
            )
        return Finding("GPU", "none found; lcp uses the CPU")
    name, build = VENDORS[vendor or "0x10de"]
    mend = f"CMAKE_ARGS=-DGGML_{build}=ON {cpu_check.REBUILD}"
    if build == "CUDA" and cuda and (number := cuda[0] * 10 + cuda[1]) >= CUDA_WHEELS[0]:
        index = f"{WHEELS}/cu{min(number, CUDA_WHEELS[1])}"
        mend = f"pip install --force-reinstall llama-cpp-python --extra-index-url {index}"
    return Finding(
        "GPU", f"{name}, not used", wrong=f"llama.cpp was built without {build}.", mend=mend
    )


def _cuda_version() -> tuple[int, int] | None:
    """The newest CUDA version that the driver supports; None without an NVIDIA driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        output = subprocess.run([tool], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", output.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _memory(machine: Machine) -> Finding:
    if machine.free is None or machine.total is None:
        return Finding("memory", "not known")
    return Finding("memory", f"{size(machine.free)} of {size(machine.total)} free")


def _threads() -> Finding:
    cores, cpus = physical_cores(), os.cpu_count() or 1
    asked = os.environ.get("LCP_THREADS")
    value = f"{asked or cores} threads, {cores} physical cores, {cpus} CPUs"
    return Finding("threads", value)


def llama_server() -> Finding:
    """The program that `lcp serve` runs; nothing else needs it."""
    found = shutil.which("llama-server")
    return Finding("llama-server", found or "not on PATH; only lcp serve needs it")


def _speeds(folder: Path) -> Iterator[Finding]:
    """What was measured to be fastest, model by model."""
    for name, found in sorted(stored_speeds(folder).items()):
        off, on = (f"{1000 * time['seconds']:.0f} ms" for time in found["times"][:2])
        chosen = f"flash attention {found['flash_attn']}, {count(found['threads'], 'thread')}"
        yield Finding("speed", f"{name}: {chosen} ({on} a token with it, {off} without)")


def _versions() -> Iterator[Finding]:
    yield Finding("lcp", f"{_version('lcp')}, Python {platform.python_version()}")
    yield Finding("system", platform.platform(terse=True))
    yield Finding("packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _servers() -> Iterator[Finding]:
    """The servers of config.toml: what they run, or why they do not answer."""
    try:
        tables = servers(paths.config() / "config.toml")
    except LcpError as error:
        yield Finding("servers", "config.toml", wrong=str(error))
        return
    for name, table in tables.items():
        yield server(name, table)


def server(name: str, table: ServerTable) -> Finding:
    """What this server runs."""
    from lcp.remote.discovery import look_up

    title, address = f"server {name}", table.address
    try:
        facts = look_up(address, key(table), table.headers)
    except LcpError as error:
        if isinstance(error, ChooseModel) and not address.model:  # each chat can name one
            return Finding(title, str(error).rstrip("."))
        return Finding(title, address.name, wrong=str(error))
    size = f", context {facts.size:,}" if facts.size else ""
    return Finding(title, f"{facts.kind.name}: {facts.model}{size}")


def _folders() -> Iterator[Finding]:
    yield space("settings", paths.config(), configured(paths.config()))
    yield space("chats", paths.sessions())
    yield space("cache", paths.cache())
    with suppress(LcpError):  # of the catalogue: reported above
        for place, folders in places().items():
            yield models(place, folders)


def models(place: str, folders: list[Path]) -> Finding:
    """A place where lcp looks for models. lcp writes to its own folder and the Hub's cache."""
    if place in (OWN, HUB):
        return space(place, folders[0])
    described = (f"{f} ({size(_used(f)) if _here(f) else 'not here'})" for f in folders)
    return Finding(place, ", ".join(described) or "none")


def configured(folder: Path) -> str:
    """What is wrong with the configuration files in this folder; "" if nothing is."""
    file = folder / "config.toml"
    try:
        Layers(config=from_file(file)).resolve()
        for table in personas(file).values():
            Layers(persona=table).resolve()
        catalog()
    except LcpError as error:
        return str(error)
    return ""


def space(name: str, folder: Path, wrong: str = "") -> Finding:
    """A folder, its size and the free space on its disk; `wrong` is a problem found before."""
    there = next((f for f in (folder, *folder.parents) if _here(f)), None)
    if there is None or not os.access(there, os.W_OK):
        return Finding(
            name,
            str(folder),
            wrong=f"lcp cannot write to {folder}.",
            mend=_mend(folder, there, "HF_HOME" if name == HUB else "LCP_HOME"),
        )
    free = shutil.disk_usage(there).free
    value = f"{folder} ({size(_used(folder))}, {size(free)} free)"
    if free < LITTLE:
        return Finding(
            name, value, wrong=f"The disk of {folder} is nearly full. Free some space on it."
        )
    return Finding(name, value, wrong=wrong)


def _mend(folder: Path, there: Path | None, variable: str) -> str:
    """The command that makes it writable. It changes the owner of this folder only, never of one
    above it."""
    read_only = there and hasattr(os, "statvfs") and os.statvfs(there).f_flag & os.ST_RDONLY
    if there == folder and not read_only:
        return f'chown -R "$USER" "{folder}"'
    return f"export {variable}=FOLDER  # one that you can write to"


def _here(path: Path) -> bool:
    """Whether it exists and lcp may see it; the folder of Ollama's service may belong to another
    user."""
    return os.access(path, os.F_OK)


def _used(folder: Path) -> int:
    """The bytes of a file, or of all files in a folder; a link is not followed."""
    total = folder.stat().st_size if _here(folder) and folder.is_file() else 0
    for at, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += Path(at, file).lstat().st_size
    return total


def show(findings: list[Finding], screen: Screen) -> None:
    """The page for people: a line for each finding, then what to do."""
    marks = {f.name: "✗" if f.wrong else "!" if f.advice else "✓" for f in findings}
    screen.table([(marks[f.name], f.name, f.value) for f in findings])
    for finding in findings:
        if finding.wrong:
            screen.error(f"\n{finding.name}: {finding.wrong}")
        elif finding.advice:
            screen.notice(f"\n{finding.name}: {finding.advice}")
        if finding.mend:
            screen.notice(f"    {finding.mend}")


def as_json(findings: list[Finding]) -> dict[str, Any]:
    """{"ok", "findings": [{name, value, wrong, advice, mend}]}"""
    return {
        "ok": not any(finding.wrong for finding in findings),
        "findings": [vars(finding) for finding in findings],
    }
