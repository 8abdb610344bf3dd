"""How many threads compute best here: one per physical core that this process may use.

Two threads on one core share its vector unit, so hyper-threads do not help; a container may be
allowed less than the machine has.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

from lcp.paths import contents


def physical_cores(root: Path = Path("/")) -> int:
    """Physical cores within the affinity mask and the cgroup's CPU quota, at least 1.

    `root` is where sys/ and proc/ are found (Linux); tests give a folder of their own.
    """
    if sys.platform == "darwin":
        return _mac_performance_cores()
    if not hasattr(os, "sched_getaffinity"):
        return max(1, (os.cpu_count() or 1) // 2)  # Windows: nearly every CPU has two a core
    cpus = os.sched_getaffinity(0)
    folder = root / "sys/devices/system/cpu"
    cores = {contents(folder / f"cpu{cpu}/topology/core_cpus_list") or str(cpu) for cpu in cpus}
    return max(1, math.ceil(min(len(cores), _quota(root))))


def _quota(root: Path) -> float:
    """CPUs the cgroup allows (v2 cpu.max, v1 cfs quota), infinity when it sets no limit."""
    allowed = math.inf
    for line in contents(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        # v2 limits hold for all ancestors too; inside a container the path may not exist
        for group in (Path(path), *Path(path).parents):
            name = str(group).lstrip("/")
            if not controllers:
                quota, _, period = contents(root / f"sys/fs/cgroup/{name}/cpu.max").partition(" ")
            elif "cpu" in controllers.split(","):
                folder = root / "sys/fs/cgroup/cpu" / name
                quota = contents(folder / "cpu.cfs_quota_us")
                period = contents(folder / "cpu.cfs_period_us")
            else:
                continue
            if quota.isdigit() and period.isdigit() and int(period):
                allowed = min(allowed, int(quota) / int(period))
    return allowed


def _mac_performance_cores() -> int:
    for key in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):
        found = subprocess.run(["sysctl", "-n", key], capture_output=True, text=True, check=False)
        if found.stdout.strip().isdigit():
            return max(1, int(found.stdout))
    return os.cpu_count() or 1
