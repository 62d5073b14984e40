"""How many cores there are for us: by affinity and by the quota of the cgroup; and threads so that all fit on them.

Imports nothing but the standard library: the number of threads must be said before numpy is imported.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

__all__ = ["groups", "library_threads", "text", "usable_cores"]

# What the libraries below the models read once, when they are loaded. onnxruntime reads none; its flavor does.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy, at least 1; half a core more in a quota is no core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(root), default=math.inf)
    return max(1, cores if quota >= cores else math.floor(quota))


def library_threads(workers: int, environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return variables that let each of several workers use its share of the cores; none that the user has set."""
    if _VARIABLES[0] in environment:
        # It is the one that all others give way to.
        return {}
    share = str(max(1, usable_cores() // workers))
    return {name: share for name in _VARIABLES if name not in environment}


def groups(root: Path, controller: str) -> Iterator[tuple[bool, Path]]:
    """Yield the folders of the cgroup that this process is in and of those around it, and whether they are of version
    2 of cgroups, in which one hierarchy has all controllers."""
    mounts = root / "sys/fs/cgroup"
    for line in text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for mount in (mounts, mounts / "unified"):
                yield from ((True, group) for group in _groups(mount, path))
        elif controller in controllers.split(","):
            for mount in (mounts / controllers, mounts / controller):
                yield from ((False, group) for group in _groups(mount, path))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of the cgroup that this process is in and of those around it."""
    for unified, group in groups(root, "cpu"):
        if unified:
            yield from _quota(*text(group / "cpu.max").split())
        else:
            yield from _quota(text(group / "cpu.cfs_quota_us"), text(group / "cpu.cfs_period_us"))


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """Yield the group and all around it; in a container the path may be the host's, and only the mount is there."""
    inner = PurePosixPath(path.lstrip("/"))
    if ".." not in inner.parts:
        yield from (mount / group for group in (inner, *inner.parents) if group.parts)
    yield mount


def _quota(quota: str = "max", period: str = "100000") -> Iterator[float]:
    with contextlib.suppress(ValueError, ZeroDivisionError):
        cores = int(quota) / int(period)
        if cores > 0:
            yield cores


def text(path: Path) -> str:
    """Return what is in a file of the system, or nothing if it is not there."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
