"""How many processors this process may use: those that its affinity allows, and of their time what its cgroups (containers, systemd) grant.

Rule: nothing here raises. A file that is missing or not as expected limits nothing: most systems have only some of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def available(root: Path = ROOT) -> int:
    """How many processes can compute at the same time, at least 1. *root* is where ``/proc`` and the cgroup file systems are looked for."""
    allowed, granted = _allowed(), quota(root)
    return max(1, allowed if granted is None else min(allowed, granted))


def quota(root: Path = ROOT) -> int | None:
    """How many processors' time the tightest cgroup around this process grants, rounded up; None where none has a quota.

    Up, since a process that waits now and then makes use of a part of a processor, and one process too few leaves that part idle.
    """
    granted = [processors for folder in _cgroups(root) for processors in (_quota_v2(folder), _quota_v1(folder))]
    return min((processors for processors in granted if processors is not None), default=None)


def _allowed() -> int:
    if hasattr(os, "process_cpu_count"):  # Python 3.13, where PYTHON_CPU_COUNT has a say, too
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of the cgroups that limit this process's time: its own ones and all around them, up to where each tree is mounted."""
    own = dict(_own_cgroups(root))
    for line in _lines(root / "proc/self/mountinfo"):
        # proc_pid_mountinfo(5): id, parent, device, root, mount point, options, any number of fields, "-", type, source, options
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
        # A path that is not below what is mounted belongs to another namespace: only what is mounted can be seen.
        path = PurePosixPath(own[controller])
        if path.is_relative_to(top) and ".." not in path.parts:
            for part in path.relative_to(top).parts:
                folder /= part
                yield folder


def _own_cgroups(root: Path) -> Iterator[tuple[str, str]]:
    """Controllers and paths in cgroups(7)' ``hierarchy:controllers:path``; the controller of version 2 has no name."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            yield from ((controller, path) for controller in controllers.split(","))


def _quota_v2(folder: Path) -> int | None:
    """``cpu.max``: how many microseconds, or ``max``, in a period of how many."""
    time, _, period = "\n".join(_lines(folder / "cpu.max")).partition(" ")
    return _processors(time, period)


def _quota_v1(folder: Path) -> int | None:
    time, period = ("\n".join(_lines(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return _processors(time, period)


def _processors(time: str, period: str) -> int | None:
    # Digits only: no quota is written as "max" in version 2 and as "-1" in version 1. No kernel writes more than 20.
    if not all(re.fullmatch(r"[0-9]{1,20}", text) and int(text) for text in (time, period)):
        return None
    return -(-int(time) // int(period))


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).strip().split("\n")
    except (OSError, ValueError):  # ValueError: a path with a NUL
        return []


def _unescaped(field: str) -> str:
    """Blanks and backslashes in a path are octal there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
