from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from foundry import run
from foundry.errors import GuestError
from foundry.machine import MAKERS, Spec, sockets
from foundry.machine.netns import Nic
from foundry.machine.seed import NodeSeed, StaticAddress
from foundry.machine.vm import CONTROL_MAC, VirtualMachine
from foundry.workspace import Workspace

STATIC = StaticAddress("10.9.8.30/24", (("macaddress", "52:54:00:00:00:09"),), "10.9.8.2")


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    seed = NodeSeed("i-1", "vm-1", None, "ssh-ed25519 AAAA", STATIC)
    return Spec("pg-1", tmp_path / "image.qcow2", seed, tmp_path / "vm", tmp_path / "key")


def command(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(run, "find", lambda tool, package: Path("/usr/bin") / tool)
    machine = VirtualMachine(spec, Workspace(spec.folder, spec.folder, "run"))
    machine._sockets = spec.folder
    spec.folder.mkdir(exist_ok=True)
    return machine._command(spec.folder / "seed.iso")


def option(words: list[str], name: str, part: str) -> str:
    (found,) = [v for k, v in pairwise(words) if k == name and part in v]
    return found


def test_the_image_is_a_read_only_backing_file_of_a_named_format(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = json.loads(option(command(spec, monkeypatch), "-blockdev", '"disk"'))
    assert disk["file"]["filename"] == str(spec.folder / "disk.qcow2")
    assert disk["backing"]["driver"] == "qcow2"
    assert disk["backing"]["read-only"] is True
    assert disk["backing"]["file"] == {"driver": "file", "filename": str(spec.image), "read-only": True}


def test_the_network_is_loopback_only_unless_online(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command(spec, monkeypatch)
    network = option(words, "-netdev", "user")
    assert "restrict=on" in network
    assert "net=10.9.8.0/24,host=10.9.8.2" in network
    assert network.endswith("hostfwd=tcp:127.0.0.1:0-10.9.8.30:22")
    assert "mac=52:54:00:00:00:09" in option(words, "-device", "virtio-net")
    assert "restrict=off" in option(command(replace(spec, online=True), monkeypatch), "-netdev", "user")


def test_accelerators(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command(spec, monkeypatch)
    assert option(words, "-accel", "tcg") == "tcg,thread=multi"
    assert option(words, "-cpu", "max") == "max,-la57"
    assert option(command(replace(spec, accelerator="kvm"), monkeypatch), "-accel", "kvm") == "kvm"


def test_commas_in_paths_are_doubled(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command(replace(spec, folder=tmp_path / "a,b"), monkeypatch)
    assert "/a,,b/console.log" in option(words, "-chardev", "file")


def test_sockets_move_where_the_folders_path_is_too_long(spec: Spec, tmp_path: Path) -> None:
    machine = VirtualMachine(replace(spec, folder=tmp_path / ("x" * 90)), Workspace(tmp_path, tmp_path, "run"))
    machine._sockets = sockets.make(machine.folder)
    assert len(str(machine._sockets)) < 60
    machine.stop()
    assert machine._sockets is None


def test_a_machine_that_was_not_booted_says_so(spec: Spec) -> None:
    machine = MAKERS["vm"](spec, Workspace(spec.folder, spec.folder, "run"))
    with pytest.raises(GuestError, match="not booted"):
        machine.ssh("true")
    with pytest.raises(GuestError, match="is off"):
        machine.cut_network()
    machine.cut_power()
    machine.stop()


@pytest.mark.real_process
def test_qemu_that_refuses_to_start_fails_at_once_with_its_words(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "qemu"
    fake.write_text("#!/bin/sh\necho cannot set up guest memory >&2\nexit 1\n")
    fake.chmod(0o755)
    real = run.find
    monkeypatch.setattr(run, "find", lambda tool, package: fake if tool.startswith("qemu-sys") else real(tool, package))
    run.run(["qemu-img", "create", "-q", "-f", "qcow2", spec.image, "1M"])
    with (
        VirtualMachine(spec, Workspace(tmp_path, tmp_path, "run")) as machine,
        pytest.raises(GuestError, match="code 1 cannot set up guest memory"),
    ):
        machine.boot()


class FakeNetwork:
    """A network of one machine's cards, in a namespace that is not there."""

    switch = Path("/run/netns/pf-1-abcdef")

    def taps(self, machine: str, nics: Sequence[Nic]) -> list[str]:
        return [f"p1n{number}" for number in range(len(nics))]


def test_a_shared_network_has_the_cards_and_qemus_own_is_for_ssh_alone(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: Any = FakeNetwork()
    shared = replace(spec, network=network, nics=(Nic("52:54:00:00:00:15"), Nic("52:54:00:00:00:16", switch=1)))
    words = command(shared, monkeypatch)
    assert words[:3] == ["nsenter", "--net=/run/netns/pf-1-abcdef", "--"]
    assert option(words, "-netdev", "id=lan1") == "tap,id=lan1,ifname=p1n1,script=no,downscript=no"
    assert option(words, "-device", "netdev=lan0") == "virtio-net-pci,netdev=lan0,mac=52:54:00:00:00:15"
    own = option(words, "-netdev", "id=net0")
    assert "restrict=on" in own and own.endswith("hostfwd=tcp:127.0.0.1:0-192.0.2.15:22")
    assert option(words, "-device", "netdev=net0").endswith(f"mac={CONTROL_MAC}")


def test_qemu_is_put_into_the_namespace_once(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    network: Any = FakeNetwork()
    assert command(replace(spec, network=network), monkeypatch).count("nsenter") == 1
    assert "nsenter" not in command(spec, monkeypatch)
