"""How many processors there are for this process: files as kernels, containers and systemd lay them out, and whatever else is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_prodserve.net.processors import available, quota

V2 = "31 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot"
V1 = "33 32 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:14 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = """\
23 28 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
32 23 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755
40 32 0:37 / /sys/fs/cgroup/cpuset rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,cpuset
"""


def lay_out(root: Path, cgroup: str, mountinfo: str, **files: str) -> Path:
    """Write the two files of the process, and *files* below /sys/fs/cgroup (``__`` for a slash, as in no name of theirs)."""
    own = root / "proc/self"
    own.mkdir(parents=True)
    (own / "cgroup").write_text(cgroup)
    (own / "mountinfo").write_text(OTHERS + mountinfo + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_no_files(tmp_path: Path) -> None:
    """Where there is no /proc, as on a Mac, there is no quota, and the system's own count is the answer."""
    assert quota(tmp_path) is None
    assert available(tmp_path) == available_of_the_system()


def available_of_the_system() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def test_this_machine() -> None:
    """Whatever this machine grants, the answer is between one and what the system has."""
    assert 1 <= available() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "processors"),
    [
        ("200000 100000\n", 2),
        ("100000 100000\n", 1),
        ("150000 100000\n", 2),
        ("100001 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 1000000\n", 1),
        ("6400000 100000\n", 64),
        ("max 100000\n", None),
        ("max\n", None),
    ],
)
def test_container_with_a_namespace_of_its_own(tmp_path: Path, text: str, processors: int | None) -> None:
    """A container of today sees its own cgroup as the root of the tree: cpu.max there is rounded up, and "max" is no quota."""
    lay_out(tmp_path, "0::/\n", V2, **{"cpu.max": text})
    assert quota(tmp_path) == processors
    assert available(tmp_path) == min(available_of_the_system(), processors or 10**6)


@pytest.mark.parametrize(
    ("service", "slice_", "processors"),
    [
        ("300000", "max", 3),
        ("max", "400000", 4),
        ("300000", "200000", 2),
        ("200000", "300000", 2),
        ("max", "max", None),
    ],
)
def test_service_in_a_slice(tmp_path: Path, service: str, slice_: str, processors: int | None) -> None:
    """A service of systemd is bounded by its own quota and by that of each slice around it; the root of the tree has no file."""
    files = {
        "web.slice__web-shop.slice__shop.service__cpu.max": f"{service} 100000\n",
        "web.slice__web-shop.slice__cpu.max": "max 100000\n",
        "web.slice__cpu.max": f"{slice_} 100000\n",
        "other.slice__cpu.max": "1000 100000\n",
    }
    lay_out(tmp_path, "0::/web.slice/web-shop.slice/shop.service\n", V2, **files)
    assert quota(tmp_path) == processors


def test_version_1(tmp_path: Path) -> None:
    """In version 1 the cpu controller has a tree of its own, where -1 is no quota, and all cgroups around count as well."""
    own = "12:cpuset:/\n4:cpu,cpuacct:/kubepods/pod1/web\n1:name=systemd:/kubepods/pod1/web\n"
    files = {
        "cpu,cpuacct__cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct__cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct__kubepods__pod1__cpu.cfs_quota_us": "250000\n",
        "cpu,cpuacct__kubepods__pod1__cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct__kubepods__pod1__web__cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct__kubepods__pod1__web__cpu.cfs_period_us": "100000\n",
    }
    lay_out(tmp_path, own, V1, **files)
    assert quota(tmp_path) == 3


def test_both_versions(tmp_path: Path) -> None:
    """On a hybrid system the cpu controller belongs to version 1; what version 2 has of the process says nothing of its time."""
    unified = "42 32 0:39 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate"
    files = {
        "unified__system.slice__shop.service__cgroup.procs": "1\n",
        "cpu,cpuacct__system.slice__cpu.cfs_quota_us": "200000\n",
        "cpu,cpuacct__system.slice__cpu.cfs_period_us": "50000\n",
    }
    own = "4:cpu,cpuacct:/system.slice/shop.service\n0::/system.slice/shop.service\n"
    lay_out(tmp_path, own, f"{unified}\n{V1}", **files)
    assert quota(tmp_path) == 4


def test_container_without_a_namespace_of_its_own(tmp_path: Path) -> None:
    """A container that sees the path of the host, but only its own folder mounted, finds its quota there."""
    mounted = V1.replace(" / /sys", " /docker/5f0c /sys")
    files = {"cpu,cpuacct__cpu.cfs_quota_us": "200000\n", "cpu,cpuacct__cpu.cfs_period_us": "100000\n"}
    lay_out(tmp_path, "4:cpu,cpuacct:/docker/5f0c\n", mounted, **files)
    assert quota(tmp_path) == 2


@pytest.mark.parametrize("path", ["/../../system.slice", "/elsewhere", "relative", ""])
def test_path_of_another_namespace(tmp_path: Path, path: str) -> None:
    """A path that is not below what is mounted is not followed; what is mounted counts."""
    mounted = V2.replace(" / /sys", " /docker/5f0c /sys")
    files = {"cpu.max": "200000 100000\n", "elsewhere__cpu.max": "1000 100000\n"}
    lay_out(tmp_path, f"0::{path}\n", mounted, **files)
    assert quota(tmp_path) == 2


def test_blanks_and_colons_in_paths(tmp_path: Path) -> None:
    """Mount points with blanks are written in octal there, and a cgroup may have a colon in its name."""
    lay_out(tmp_path, "0::/a:b c\n", V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/my\\040tree"))
    folder = tmp_path / "sys/fs/cgroup/my tree/a:b c"
    folder.mkdir(parents=True)
    (folder / "cpu.max").write_text("200000 100000\n")
    assert quota(tmp_path) == 2


@pytest.mark.parametrize(
    "text", ["", "\n", "x", "100000", "100000 0", "0 100000", "-5 100000", "1 2 3", "1e5 100000", f"{'9' * 5000} 1"]
)
def test_malformed_quota(tmp_path: Path, text: str) -> None:
    """What no kernel writes is no quota, and hides none of the cgroups around."""
    lay_out(tmp_path, "0::/a\n", V2, **{"cpu.max": "200000 100000\n", "a__cpu.max": text})
    assert quota(tmp_path) == 2


def test_unreadable_files(tmp_path: Path) -> None:
    """Files that cannot be read, here folders in their places, and bytes that are no text are no quota."""
    lay_out(tmp_path, "0::/\n", V2)
    (tmp_path / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    assert quota(tmp_path) is None
    (tmp_path / "proc/self/cgroup").write_bytes(b"\xff\x00:\xfe:/\xff\x00\n0::/\x00\n")
    assert quota(tmp_path) is None
    (tmp_path / "proc/self/mountinfo").unlink()
    (tmp_path / "proc/self/mountinfo").mkdir()
    assert quota(tmp_path) is None


LINES = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from([V1, V2, "0::/", "4:cpu:/a", " - cgroup2 ", "1 2 3 // / x - cgroup2 c rw", "1 - cgroup c cpu"]),
    ),
    max_size=4,
).map("\n".join)


@given(cgroup=LINES, mountinfo=LINES)
def test_whatever_stands_there(tmp_path_factory: pytest.TempPathFactory, cgroup: str, mountinfo: str) -> None:
    """No content of the two files makes it fail."""
    root = tmp_path_factory.mktemp("root")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_bytes(cgroup.encode(errors="replace"))
    (root / "proc/self/mountinfo").write_bytes(mountinfo.encode(errors="replace"))
    assert quota(root) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity() -> None:
    """A process that may run on one processor only, as under taskset, has one."""
    code = (
        "import os; from flask_prodserve.net.processors import available\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(available())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
