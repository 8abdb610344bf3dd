"""Machine: how much memory a model may take here, in the machine and on its GPUs.

The least of what is available, what the control group allows, and what the process may have.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lcp.modelfile.child import ask
from lcp.paths import contents

# Where a control group says its limits and its use, and the page cache within: versions 1 and 2.
_CGROUP_1 = (
    "sys/fs/cgroup/memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)  # fmt: skip
_CGROUP_2 = (
    "sys/fs/cgroup", ("memory.max", "memory.high"), "memory.current",
    ("active_file", "inactive_file"),
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """A GPU and its memory, in bytes. `shared`: it is the machine's own memory (Apple, iGPUs)."""

    name: str  # as ggml has it: "CUDA0"
    free: int
    total: int
    shared: bool = False
    description: str = ""


@dataclass(frozen=True)
class Machine:
    """Bytes; None where nobody says."""

    free: int | None
    total: int | None
    gpus: tuple[Gpu, ...] = ()
    mappable: int | None = None  # addresses the process may still use, for files, too


def machine(root: Path = Path("/"), gpus: tuple[Gpu, ...] = ()) -> Machine:
    """This machine now. `root` is where proc/ and sys/ are found (Linux)."""
    if sys.platform == "darwin":
        return Machine(*_mac(), gpus)
    if sys.platform == "win32":
        return Machine(*_windows(), gpus)
    return linux(root, gpus)


def gpus() -> tuple[Gpu, ...]:
    """The GPUs llama.cpp can use; those that do not tell their memory cannot be planned for.

    Raises what `ask` does.
    """
    answer = ask("devices")
    shared = sys.platform == "darwin"  # Metal says "gpu", too, and its limit for all it may use
    return tuple(
        Gpu(d["name"], d["free"], d["total"], shared or d["kind"] == "igpu", d["description"])
        for d in answer["devices"]
        if answer["gpu"] and d["kind"] in ("gpu", "igpu") and d["total"]
    )


def linux(root: Path, gpus: tuple[Gpu, ...] = ()) -> Machine:
    """Linux, by the text files below `root`."""
    memory = _sizes(root / "proc/meminfo")
    status = _sizes(root / "proc/self/status")
    free, total = [memory.get("MemAvailable")], [memory.get("MemTotal")]
    for limit, used in _groups(root):
        free.append(max(0, limit - used))
        total.append(limit)
    addresses = _left(root, "Max address space", status.get("VmSize", 0))
    free += [addresses, _left(root, "Max data size", status.get("VmData", 0))]
    return Machine(_least(free), _least(total), gpus, addresses)


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each control group this process is in, its ancestors included.

    Files the group has in the page cache are no use: they go when memory is asked for.
    """
    for line in contents(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, limits, used, files = _CGROUP_1 if controllers else _CGROUP_2
        # inside a container the path may not exist, but its ancestor "/" does
        for group in (Path(path), *Path(path).parents):
            folder = root / top / str(group).lstrip("/")
            stat = dict(x.split(" ", 1) for x in contents(folder / "memory.stat").splitlines())
            cached = sum(int(stat.get(name, "0")) for name in files)
            for limit in limits:
                told, now = contents(folder / limit), contents(folder / used)
                if told.isdigit() and now.isdigit():
                    yield int(told), max(0, int(now) - cached)


def _left(root: Path, limit: str, used: int) -> int | None:
    """What the process may still take of a limit in /proc/self/limits; None without one."""
    found = re.search(rf"{limit} +(\d+)", contents(root / "proc/self/limits"))
    return max(0, int(found[1]) - used) if found else None


def _mac() -> tuple[int | None, int | None]:
    total = _run("sysctl", "-n", "hw.memsize").strip()
    return mac_free(_run("vm_stat")), int(total) if total.isdigit() else None


def mac_free(vm_stat: str) -> int | None:
    """Bytes that can be had, from what the program vm_stat prints."""
    page = re.search(r"page size of (\d+) bytes", vm_stat)
    kinds = re.findall(r"Pages (?:free|inactive|speculative|purgeable): +(\d+)", vm_stat)
    return int(page[1]) * sum(map(int, kinds)) if page and kinds else None


def _windows() -> tuple[int | None, int | None]:
    import ctypes

    # MEMORYSTATUSEX: two 32-bit numbers, of which the first is its size; then bytes in all, bytes
    # available and five more
    status = (ctypes.c_uint64 * 8)(64)
    if sys.platform == "win32" and ctypes.windll.kernel32.GlobalMemoryStatusEx(status):
        return status[2], status[1]
    return None, None


def _sizes(path: Path) -> dict[str, int]:
    """ "Name:  123 kB" lines, in bytes."""
    return {k: int(n) * 1024 for k, n in re.findall(r"(?m)^(\w+):\s+(\d+) kB$", contents(path))}


def _least(sizes: list[int | None]) -> int | None:
    return min((size for size in sizes if size is not None), default=None)


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
