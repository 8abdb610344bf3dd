"""This computer: the memory and the CPU cores that this process may use.

Limits of the process and of its control groups (containers) are included.
"""

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lcp.paths import contents

_MEMORY_UNKNOWN = 8 << 30  # bytes that lcp assumes if the system does not tell

# Files of a control group, versions 1 and 2: its limits, its use, and the page cache in that use.
_CGROUP_1 = (
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)
_CGROUP_2 = (("memory.max", "memory.high"), "memory.current", ("active_file", "inactive_file"))


@dataclass(frozen=True)
class Gpu:
    """A GPU and its memory in bytes. `shared`: it uses the computer's memory (Apple, iGPUs)."""

    name: str  # ggml's name: "CUDA0"
    free: int
    total: int
    shared: bool = False
    description: str = ""

    @property
    def title(self) -> str:
        """The name for people: "NVIDIA H100"."""
        return self.description or self.name


@dataclass(frozen=True)
class Machine:
    """Bytes of memory; None if the system does not tell."""

    free: int | None
    total: int | None
    gpus: tuple[Gpu, ...] = ()
    mappable: int | None = None  # address space left to this process, for mapped files too
    mapped: int = 0  # of the free bytes: they hold this process's mapped files, such as a model


def machine(root: Path = Path("/"), gpus: tuple[Gpu, ...] = ()) -> Machine:
    """The present memory of this computer. `root` is the folder with proc/ and sys/ (Linux)."""
    if sys.platform == "darwin":
        return Machine(*_mac(), gpus)
    if sys.platform == "win32":
        return Machine(*_windows(), gpus)
    return linux(root, gpus)


def linux(root: Path, gpus: tuple[Gpu, ...] = ()) -> Machine:
    """The memory of a Linux system, from the text files below `root`."""
    memory = _sizes(root / "proc/meminfo")
    status = _sizes(root / "proc/self/status")
    free, total = [memory.get("MemAvailable")], [memory.get("MemTotal")]
    for limit, used in _memory_limits(root):
        free.append(max(0, limit - used))
        total.append(limit)
    addresses = _left(root, "Max address space", status.get("VmSize", 0))
    limits = [addresses, _left(root, "Max data size", status.get("VmData", 0))]
    files = status.get("RssFile", 0)  # in the page cache, which counts as free
    beside = [None if size is None else max(0, size - files) for size in free]
    all_free, spare = _least(free + limits), _least(beside + limits)
    mapped = (all_free or 0) - (spare or 0)
    return Machine(all_free, _least(total), gpus, addresses, mapped)


def physical_memory() -> int:
    """Bytes of memory built into this computer, free or not."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return _MEMORY_UNKNOWN


def physical_cores(root: Path = Path("/")) -> int:
    """The best number of threads: physical cores that this process may use, at least 1.

    Two threads on one core share its vector unit, so hyper-threads do not help. The affinity mask
    and the CPU quota of the control group count.
    """
    if sys.platform == "darwin":
        return _mac_performance_cores()
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 1) // 2)  # Windows: nearly every core has two threads
    cpus = os.sched_getaffinity(0)
    folder = root / "sys/devices/system/cpu"
    cores = {contents(folder / f"cpu{cpu}/topology/core_cpus_list") or str(cpu) for cpu in cpus}
    return max(1, math.ceil(min(len(cores), _cpu_quota(root))))


# control groups


def _groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Version (1 or 2) and folder of each control group of this process for a controller. This
    includes ancestors: their limits apply, too, and in a container only "/" may exist."""
    for line in contents(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        for group in (Path(path), *Path(path).parents):
            yield (1 if controllers else 2), top / str(group).lstrip("/")


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each control group, in bytes. Its page cache does not count as use: the
    system drops it if a process needs memory."""
    for version, folder in _groups(root, "memory"):
        limits, used, files = _CGROUP_1 if version == 1 else _CGROUP_2
        stat = dict(x.split(" ", 1) for x in contents(folder / "memory.stat").splitlines())
        cached = sum(int(stat.get(name, "0")) for name in files)
        for limit in limits:
            most, now = contents(folder / limit), contents(folder / used)
            if most.isdigit() and now.isdigit():
                yield int(most), max(0, int(now) - cached)


def _cpu_quota(root: Path) -> float:
    """CPUs that the control groups allow; infinity without a limit."""
    allowed = math.inf
    for version, folder in _groups(root, "cpu"):
        if version == 1:
            quota, period = (contents(folder / f"cpu.cfs_{x}_us") for x in ("quota", "period"))
        else:
            quota, _, period = contents(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            allowed = min(allowed, int(quota) / int(period))
    return allowed


def _left(root: Path, limit: str, used: int) -> int | None:
    """How much of a limit in /proc/self/limits is left for this process; None without the limit."""
    found = re.search(rf"{limit} +(\d+)", contents(root / "proc/self/limits"))
    return max(0, int(found[1]) - used) if found else None


# other systems


def _mac() -> tuple[int | None, int | None]:
    total = _run("sysctl", "-n", "hw.memsize").strip()
    return mac_free(_run("vm_stat")), int(total) if total.isdigit() else None


def mac_free(vm_stat: str) -> int | None:
    """Free bytes, from the output of the program vm_stat."""
    page = re.search(r"page size of (\d+) bytes", vm_stat)
    kinds = re.findall(r"Pages (?:free|inactive|speculative|purgeable): +(\d+)", vm_stat)
    return int(page[1]) * sum(map(int, kinds)) if page and kinds else None


def _mac_performance_cores() -> int:
    for key in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
        if (found := _run("sysctl", "-n", key).strip()).isdigit():
            return max(1, int(found))
    return os.cpu_count() or 1


def _windows() -> tuple[int | None, int | None]:
    import ctypes

    # MEMORYSTATUSEX: two 32-bit numbers, the first of which is its size; then the total bytes, the
    # available bytes and five more
    status = (ctypes.c_uint64 * 8)(64)
    if sys.platform == "win32" and ctypes.windll.kernel32.GlobalMemoryStatusEx(status):
        return status[2], status[1]
    return None, None


def _sizes(path: Path) -> dict[str, int]:
    """Lines such as "Name:  123 kB", in bytes."""
    return {k: int(n) * 1024 for k, n in re.findall(r"(?m)^(\w+):\s+(\d+) kB$", contents(path))}


def _least(sizes: list[int | None]) -> int | None:
    return min((size for size in sizes if size is not None), default=None)


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
