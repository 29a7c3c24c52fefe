"""What root of a container gets at on the machine that runs it: nothing.

A lab runs images of others as well, and cluster-ssh gives root to whoever may use it. Each of these got in once.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundry.lab.cluster import Cluster

SECRET = "ONLY-THE-HOST-HAS-THIS"
NODE = "pg-srv1"
# Whatever it can write it leaves as it was.
ATTEMPTS = r"""
try() { timeout 5 sh -c "$2" >/tmp/said 2>/dev/null && echo "$1"; rm -f /root/node; umount /tmp/at 2>/dev/null; }
same() { echo "read v <$1 && echo \"\$v\" >$1"; }
mkdir -p /tmp/at
try 'a disk of the host' "mknod /root/node b $1 $2 && head -c 22 /root/node | grep ONLY-THE-HOST"
try 'the loop devices' 'mknod /root/node c 10 237 && : </root/node'
try 'the kernel log' 'mknod /root/node c 1 11 && : </root/node'
try 'dmesg' 'dmesg'
try 'the memory of the kernel' 'head -c 4 /proc/kcore'
try 'devices' 'mount -t devtmpfs x /tmp/at'
try 'the debug file system' 'mount -t debugfs x /tmp/at'
try 'sysrq' 'echo h >/proc/sysrq-trigger'
try 'core_pattern' "$(same /proc/sys/kernel/core_pattern)"
try 'core_pattern, /proc/sys remounted' "mount -o remount,rw /proc/sys && $(same /proc/sys/kernel/core_pattern)"
try 'core_pattern of another /proc' "mount -t proc x /tmp/at && $(same /tmp/at/sys/kernel/core_pattern)"
try 'core_pattern in a namespace of users' \
    "unshare -Urmpf --mount-proc sh -c '$(same /proc/sys/kernel/core_pattern)'"
try 'another /sys' 'mount -t sysfs x /tmp/at'
try 'another /sys in a namespace of users' 'unshare -Urmn mount -t sysfs x /tmp/at'
try 'a release_agent' "mount -t cgroup -o cpu x /tmp/at && $(same /tmp/at/release_agent)"
try 'another cgroup2' 'mount -t cgroup2 x /tmp/at'
try 'a namespace of mounts' 'unshare -m true'
call() { try "$1" "python3 -c 'import ctypes; raise SystemExit(ctypes.CDLL(None).syscall($2) < 0)'"; }
call 'a namespace of users by clone' '56, 0x10000000 | 0x4000, 0, 0, 0, 0'
call 'keys of the host' '250, 0, -4, 1, 0, 0'
call 'io_uring' '425, 1, ctypes.create_string_buffer(120)'
call 'loading a module' '175, b"", 0, b""'
call 'userfaultfd' '323, 0'
call 'the clock' '227, 0, ctypes.create_string_buffer(b"\xff" * 16)'
"""
ABLE = "ip addr add 192.0.2.77/32 dev lo && ip addr del 192.0.2.77/32 dev lo && sudo -u postgres sudo -K && echo able"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A block device of the host that no container has anything to do with."""
    disk = tmp_path / "disk"
    disk.write_text(SECRET.ljust(1 << 20))
    words = ["losetup", "--find", "--show", str(disk)]
    found = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield Path(found)
    finally:
        subprocess.run(["losetup", "--detach", found], check=True)


def test_root_of_a_container_gets_nothing_of_the_host(cluster: Cluster, device: Path) -> None:
    number = device.stat().st_rdev
    script = ATTEMPTS.replace("$1 $2 &&", f"{number >> 8 & 0xFFF} {number & 0xFF} &&")
    machine = cluster.machines[NODE]
    assert machine.ssh(f"sudo sh -s <<'END'\n{script}\nEND", check=False, timeout=120).output == ""
    assert machine.ssh(f"sudo sh -c '{ABLE}'", check=False).output.endswith("able"), "what root of a node may"
    assert machine.ssh("systemctl is-system-running").output == "running"
