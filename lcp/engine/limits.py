"""Limits: little time, memory and stack for the rest of a process, before it reads what may take
all of them. It is for the child, which may die of them.
"""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lcp.paths import contents

Result = TypeVar("Result")
_STACK = 1 << 20  # bytes; what fits into it fits into the stack of the engine's thread


def limited(job: Callable[[], Result], seconds: int, memory: int) -> Result:
    """What the job returns. Its process is ended by the system when the job takes more seconds of
    the CPU, bytes of memory or stack. Windows has only the last limit, macOS none on memory."""
    _limit(seconds, memory)
    threading.stack_size(_STACK)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(job).result()


def _limit(seconds: int, memory: int) -> None:
    try:
        import resource
    except ImportError:
        return
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: math.ceil(spent.ru_utime + spent.ru_stime) + seconds,
    }
    if pages := contents(Path("/proc/self/statm")).split():
        limits[resource.RLIMIT_AS] = int(pages[0]) * resource.getpagesize() + memory
    for kind, limit in limits.items():
        soft, hard = resource.getrlimit(kind)
        known = [x for x in (soft, hard) if x != resource.RLIM_INFINITY]
        resource.setrlimit(kind, (min([limit, *known]), hard))
