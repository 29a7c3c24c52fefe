"""Nothing secret and nothing of one machine was in the image before it was booted (traps 6, 15 and 18)."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest

PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s")
LARGEST_KEY = 64 * 1024
ABSENT = {
    "ssh host keys": "etc/ssh/ssh_host_*",
    "snakeoil key": "etc/ssl/private/*",
    "random seed": "var/lib/systemd/random-seed",
    "credential key": "var/lib/systemd/credential.secret",
    "node.yml": "etc/patroni/node.yml",
    "node.d": "etc/patroni/node.d/*.yml",
    "patroni.yml": "etc/patroni/patroni.yml",
    "Consul's rendered configuration": "etc/consul.d/patroni-node.json",
    "Consul's certificate, key and token": "etc/consul.d/patroni-node-*",
    "certificates": "etc/patroni/tls/*",
    "name of an earlier node": "var/lib/patroni-node/identity*",
    "protection of an earlier node": "var/lib/patroni-node/security*",
    "host name": "etc/hostname",
    "root's ssh": "root/.ssh/*",
    "shell history": "root/.*_history",
    "root's cache": "root/.cache",
    "authorized keys": "etc/ssh/authorized_keys*",
    "netplan": "etc/netplan/*",
    "rendered network": "etc/systemd/network/10-cloud-init-*",
    "sudo rights of a build user": "etc/sudoers.d/90-cloud-init-users",
    "build's package source": "etc/apt/sources.list.d/*foundry*",
    "apt's proxy": "etc/apt/apt.conf.d/*proxy*",
    "dpkg's unsafe-io": "etc/dpkg/dpkg.cfg.d/*unsafe*",
    "policy-rc.d": "usr/sbin/policy-rc.d",
}
EMPTY = (
    "home",
    "tmp",
    "var/tmp",
    "run",
    "var/lib/cloud",
    "var/lib/consul",
    "var/lib/dhcp",
    "var/lib/systemd/network",
    "var/lib/systemd/timesync",
    "var/log/journal",
    "var/lib/postgresql",
    "mnt",
    "media",
    "srv",
)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_symlink() or p.is_file())


@pytest.mark.parametrize("what", ABSENT)
def test_absent(pristine: Path, what: str) -> None:
    assert [str(p.relative_to(pristine)) for p in pristine.glob(ABSENT[what])] == []


@pytest.mark.parametrize("folder", EMPTY)
def test_holds_no_file(pristine: Path, folder: str) -> None:
    assert [str(p.relative_to(pristine)) for p in _files(pristine / folder)] == []


def test_tree_was_read_whole(pristine: Path) -> None:
    """The checks on this tree would all pass on an empty one."""
    assert (pristine / "usr/lib/os-release").is_file()
    assert (pristine / "usr/lib/systemd/system/patroni.service").is_file()
    assert (pristine / "var/lib/dpkg/status").stat().st_size > 10_000


def test_no_block_of_the_disk_holds_a_secret(node: dict[str, Any]) -> None:
    """Trap 18: what was deleted while the image was made may still lie in blocks that no file owns."""
    assert node["residue"] == []


def test_machine_id_is_unset(pristine: Path) -> None:
    path = pristine / "etc/machine-id"
    assert path.is_file()
    assert not path.is_symlink()
    assert path.read_text(encoding="ascii").strip() in ("", "uninitialized")
    bus = pristine / "var/lib/dbus/machine-id"
    assert bus.is_symlink() or not bus.exists()


def test_no_private_key(pristine: Path) -> None:
    found = []
    for top in ("etc", "root", "home", "var", "opt", "srv", "boot"):
        for path in _files(pristine / top):
            if path.is_symlink() or path.stat().st_size > LARGEST_KEY:
                continue
            if PRIVATE_KEY.search(path.read_bytes()):
                found.append(str(path.relative_to(pristine)))
    assert found == []


def test_no_authorized_keys(pristine: Path) -> None:
    found = [p for top in ("etc", "root", "home", "var") for p in (pristine / top).rglob("authorized_keys*")]
    assert found == []


def test_no_password_can_log_in(pristine: Path) -> None:
    rows = [line.split(":") for line in (pristine / "etc/shadow").read_text(encoding="utf-8").splitlines()]
    assert [row[0] for row in rows if not row[1].startswith(("!", "*"))] == []
    assert "root" in [row[0] for row in rows]


def test_no_person_has_an_account(pristine: Path) -> None:
    """The first boot makes the default user; a build user must not be left."""
    rows = [line.split(":") for line in (pristine / "etc/passwd").read_text(encoding="utf-8").splitlines()]
    assert [row[0] for row in rows if 1000 <= int(row[2]) < 60000] == []


def test_apt_has_no_lists_and_no_packages(pristine: Path) -> None:
    found = _files(pristine / "var/lib/apt/lists") + _files(pristine / "var/cache/apt")
    assert [str(p.relative_to(pristine)) for p in found if p.name != "lock"] == []


def test_logs_are_empty(pristine: Path) -> None:
    found = [p for p in _files(pristine / "var/log") if not p.is_symlink() and p.stat().st_size]
    assert [str(p.relative_to(pristine)) for p in found] == []


def test_no_debconf_password(pristine: Path) -> None:
    path = pristine / "var/cache/debconf/passwords.dat"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    assert re.findall(r"^Value: *\S.*$", text, re.MULTILINE) == []


def test_resolver_is_not_the_build_hosts(pristine: Path) -> None:
    path = pristine / "etc/resolv.conf"
    if path.is_symlink():
        assert "systemd/resolve" in str(path.readlink())
    else:
        assert not path.exists() or "nameserver" not in path.read_text(encoding="utf-8")


def test_boot_loader_finds_root_by_uuid(pristine: Path) -> None:
    menu = (pristine / "boot/grub/grub.cfg").read_text(encoding="utf-8")
    kernels = re.findall(r"^\s*linux\s+(.*)$", menu, re.MULTILINE)
    assert kernels
    assert [line for line in kernels if "root=UUID=" not in line or "console=ttyS0" not in line] == []


def test_nobody_may_write_what_all_run(pristine: Path) -> None:
    found = []
    for top in ("etc", "usr/bin", "usr/sbin", "usr/lib/systemd", "usr/share/patroni-node"):
        for path in (pristine / top).rglob("*"):
            if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH:
                found.append(str(path.relative_to(pristine)))
    assert found == []


def test_folder_for_secrets_is_closed(pristine: Path) -> None:
    shadow = (pristine / "etc/shadow").stat().st_mode
    assert not shadow & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP)
    assert not (pristine / "etc/patroni").stat().st_mode & stat.S_IWOTH
