"""Containers and their network, as far as no command has to run."""

from __future__ import annotations

import os
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from foundry import run
from foundry.machine import MAKERS, Spec, container, netns, no_user_namespaces, pass_socket
from foundry.machine.container import SEED, Container
from foundry.machine.netns import Network, Nic
from foundry.machine.seed import NodeSeed
from foundry.workspace import Workspace


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What ip(8) would have been told."""
    told: list[str] = []
    monkeypatch.setattr(netns, "NAMESPACES", tmp_path)
    monkeypatch.setattr(netns, "_ip", lambda *words, check=True, cleaning=False: told.append(" ".join(words)))
    monkeypatch.setattr(netns.run, "find", lambda *_: Path("/sbin/ip"))
    return told


def spec(folder: Path, **more: object) -> Spec:
    return Spec(
        "pg-srv1",
        folder / "image.raw",
        NodeSeed("i-1", "pg-srv1", None, "ssh-ed25519 A"),
        folder / "machine",
        folder / "key",
        format="raw",
        **more,
    )  # type: ignore[arg-type]


def test_machines_share_switches_and_have_namespaces_of_their_own(words: list[str], tmp_path: Path) -> None:
    network = Network()
    first = network.attach("a", [Nic("52:54:00:00:00:01"), Nic("52:54:00:00:00:02", switch=1)])
    second = network.attach("b", [Nic("52:54:00:00:00:03")])
    assert first != second
    assert first.parent == tmp_path
    assert sum("type bridge" in line for line in words) == 2
    assert f"-n {network.name} link set p1n0 master br0 up" in words
    assert f"-n {network.name} link set p1n1 master br1 up" in words
    words.clear()
    assert network.attach("a", [Nic("52:54:00:00:00:01")]) == first
    assert words[0] == f"-n {first.name} address flush dev eth0", "a machine that is switched on again starts anew"
    network.close()
    assert {f"netns delete {network.name}", f"netns delete {first.name}", f"netns delete {second.name}"} <= set(words)


def test_a_cut_takes_every_cable_of_one_machine(words: list[str]) -> None:
    network = Network()
    network.attach("a", [Nic("52:54:00:00:00:01"), Nic("52:54:00:00:00:02")])
    network.attach("b", [Nic("52:54:00:00:00:03")])
    words.clear()
    network.cut("a")
    network.restore("b")
    prefix = f"-n {network.name} link set"
    assert words == [f"{prefix} p1n0 down", f"{prefix} p1n1 down", f"{prefix} p2n0 up"]


def test_what_a_killed_run_left_is_swept_and_nothing_else(words: list[str], tmp_path: Path) -> None:
    alive = threading.get_native_id()
    for name in ("pf-999999999-abcdef", "pf-999999999-abcdef-0", f"pf-{alive}-abcdef", "pf-own", "other"):
        (tmp_path / name).touch()
    netns.sweep()
    assert sorted(words) == ["netns delete pf-999999999-abcdef", "netns delete pf-999999999-abcdef-0"]


def test_the_seed_lies_where_cloud_init_looks_first(words: list[str], tmp_path: Path) -> None:
    with Network() as network:
        machine = Container(spec(tmp_path, network=network), Workspace(tmp_path, tmp_path / "build", "t"))
        machine._write_seed()
    upper = machine.folder / "upper"
    assert "instance-id: i-1" in (upper / SEED / "meta-data").read_text()
    assert (upper / "etc/fstab").read_text() == ""
    assert (upper / "etc/systemd/network/10-cloud-init-eth0.network.d/no-ipv6.conf").exists()
    assert {(upper / p).stat().st_mode & 0o777 for p in ("var", "var/lib", "var/lib/cloud", "etc")} == {0o755}


def test_a_machine_that_is_off_says_so(words: list[str], tmp_path: Path) -> None:
    machine = MAKERS["container"](spec(tmp_path), Workspace(tmp_path, tmp_path / "build", "t"))
    assert machine.kind == "container"
    assert machine.dead() == "the machine is off"  # type: ignore[attr-defined]
    with machine:
        pass
    assert any(w.startswith("netns delete") for w in words), "its own network goes with it"


def test_a_socket_is_passed_to_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(pass_socket, "OUTPUT", theirs.detach())
    with server, ours:
        pass_socket.main(server.getsockname()[1])
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        with socket.socket(fileno=descriptors[0]) as passed, server.accept()[0] as accepted:
            accepted.sendall(b"SSH-2.0")
            assert passed.recv(16) == b"SSH-2.0"


def test_where_nobody_listens_nothing_is_passed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        pass_socket.main(port)


def test_a_raw_disk_is_made_once_and_half_made_ones_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Path] = []

    def raw(image: Path, kind: str, target: Path) -> Path:
        made.append(target)
        target.touch()
        return target

    monkeypatch.setattr(container.tree, "raw", raw)
    checked: list[Path] = []
    monkeypatch.setattr(container.tree, "check", checked.append)
    workspace = Workspace(tmp_path, tmp_path / "build", "t")
    (workspace.stage("raw") / ".0123.abc").mkdir(parents=True)
    wanted = replace(spec(tmp_path), format="qcow2")
    wanted.image.touch()
    disk = container.raw_disk(wanted, workspace)
    assert container.raw_disk(wanted, workspace) == disk
    assert disk.exists()
    assert made == checked and len(made) == 1, "the host's kernel mounts it"
    assert workspace.stage("raw").stat().st_mode & 0o777 == 0o700
    assert sorted(p.name for p in workspace.stage("raw").iterdir()) == sorted([disk.parent.name, "lock"])
    wanted.image.write_text("another", encoding="utf-8")
    assert container.raw_disk(wanted, workspace) != disk


def test_what_root_of_a_container_is_left(words: list[str], tmp_path: Path) -> None:
    machine = Container(spec(tmp_path, tmpfs=("/var/x:size=1M",)), Workspace(tmp_path, tmp_path / "build", "t"))
    said = machine._nspawn()
    assert said[2] == no_user_namespaces.__file__
    trusted = container.Container(replace(machine.spec, privileged=True), machine.workspace)._nspawn()
    assert trusted[0] == "systemd-nspawn" and not [word for word in trusted if "drop-capability" in word]
    (dropped,) = [word for word in said if word.startswith("--drop-capability=")]
    assert {"CAP_SYS_ADMIN", "CAP_MKNOD"} <= set(dropped.partition("=")[2].split(","))
    assert "--tmpfs=/var/x:size=1M" in said
    for mounted in container._START.splitlines()[1:3]:
        assert "nodev" in mounted, "devices in an image are nobody's"


@pytest.mark.real_process
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set a filter and keep its rights")
def test_no_user_namespace_by_any_way() -> None:
    tried = """
import ctypes, os
call = ctypes.CDLL(None, use_errno=True).syscall
def said(*words):
    found = call(*words)
    if found == 0 and os.getpid() != own:
        os._exit(0)
    return found if found < 0 else "GOT IN", ctypes.get_errno()
own = os.getpid()
print(said(272, 0x10000000), said(56, 0x10020011, 0, 0, 0, 0), said(435, 0, 0), said(0x40000000 | 272, 0))
print(os.fork() >= 0 and "forks")
"""
    words = [sys.executable, "-I", no_user_namespaces.__file__, sys.executable, "-c", tried]
    out = run.capture(words).splitlines()
    assert out[0] == "(-1, 1) (-1, 1) (-1, 38) (-1, 38)"
    assert out[1] == "forks"
