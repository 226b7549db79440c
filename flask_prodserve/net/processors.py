"""Counts the processors that this process may use: those in its affinity, limited by the quota of
its cgroups (containers, systemd).

Rule: nothing here raises. A missing or unexpected file is no limit: most systems have only some of
them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def available(root: Path = ROOT) -> int:
    """Return how many processes can compute at the same time, at least 1. *root* has ``/proc`` and
    the cgroup file systems.
    """
    allowed, granted = _allowed(), quota(root)
    return max(1, allowed if granted is None else min(allowed, granted))


def quota(root: Path = ROOT) -> int | None:
    """Return the lowest quota of the cgroups around this process, in processors, rounded up; None
    if there is no quota.

    Rounded up, because a process that sometimes waits can use a part of a processor, which one
    process too few would leave idle.
    """
    granted = [processors for folder in _cgroups(root) for processors in (_quota_v2(folder), _quota_v1(folder))]
    return min((processors for processors in granted if processors is not None), default=None)


def _allowed() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13; respects PYTHON_CPU_COUNT
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroups(root: Path) -> Iterator[Path]:
    """Yield the folders of the cgroups that limit this process's time, from each tree's mount point
    down to its own cgroup.
    """
    own = dict(_own_cgroups(root))
    for line in _lines(root / "proc/self/mountinfo"):
        # proc_pid_mountinfo(5): id, parent, device, root, mount point, options, any number of
        # fields, "-", type, source, options
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(" "), (*after.split(" "), "", "", "")[:3]
        controller = {"cgroup2": "", "cgroup": "cpu"}.get(kind)
        if controller is None or controller not in own or len(fields) < 5:
            continue
        if controller and controller not in options.split(","):
            continue
        top, mounted = (_unescaped(field) for field in fields[3:5])
        folder = root / mounted.lstrip("/")
        yield folder
        # A path that is not below the mount belongs to another namespace, and only the mount point
        # is visible.
        path = PurePosixPath(own[controller])
        if path.is_relative_to(top) and ".." not in path.parts:
            for part in path.relative_to(top).parts:
                folder /= part
                yield folder


def _own_cgroups(root: Path) -> Iterator[tuple[str, str]]:
    """Yield controllers and paths from lines of ``hierarchy:controllers:path`` (cgroups(7));
    version 2's controller is ``""``.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            yield from ((controller, path) for controller in controllers.split(","))


def _quota_v2(folder: Path) -> int | None:
    """Read ``cpu.max``: microseconds, or ``max``, in a period of microseconds."""
    time, _, period = "\n".join(_lines(folder / "cpu.max")).partition(" ")
    return _processors(time, period)


def _quota_v1(folder: Path) -> int | None:
    time, period = ("\n".join(_lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return _processors(time, period)


def _processors(time: str, period: str) -> int | None:
    # Digits only: without a quota, version 2 has "max" and version 1 "-1". No kernel writes more
    # than 20 digits.
    if not all(re.fullmatch(r"[0-9]{1,20}", text) and int(text) for text in (time, period)):
        return None
    return -(-int(time) // int(period))


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).strip().split("\n")
    except (OSError, ValueError):  # ValueError: a path with a NUL
        return []


def _unescaped(field: str) -> str:
    """Decode a path of mountinfo, in which blanks and backslashes are octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
