"""Every QEMU that this program starts: nobody else's account gets a word in, and a guest that breaks out gets nothing.

Packer's own QEMU had a VNC server without a password, behind it QEMU's monitor, and all of root's rights: whoever could
connect to the host's loopback could run what he liked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from foundry import packer, run, sandbox
from foundry.errors import FoundryError
from foundry.machine import Spec, kvm, vm
from foundry.machine.seed import NodeSeed
from foundry.workspace import Workspace

ROOT = Path(__file__).parents[3]
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
MAY_START_IT = {"foundry/machine/kvm.py", "foundry/machine/vm.py"}
# In a tree of the benchmark's own, where Packer starts it: foundry/peers/recipes/packer.
NAMES_ITS_PACKAGE = {"foundry/peers/__init__.py"}
ASK_ITS_VERSION = {"foundry/doctor.py", "foundry/image.py", "foundry/verify.py"}


def exposed(words: Sequence[str]) -> list[str]:
    """What is wrong with a command line of QEMU."""
    said = list(pairwise(words))
    values = {name: [v for n, v in said if n == name] for name, _ in said}
    wrong = [f"{name} is on" for name in ("-gdb", "-s", "-spice", "-incoming", "-daemonize") if name in words]
    wrong += [f"{name} {v}" for name in ("-vnc", "-monitor", "-display") for v in values.get(name, []) if v != "none"]
    wrong += [f"no {name} none" for name in ("-monitor", "-display") if name not in values]
    boxes = values.get("-sandbox", [])
    if len(boxes) != 1 or not {"on", "spawn=deny", "resourcecontrol=deny"} <= set(boxes[0].split(",")):
        wrong.append(f"-sandbox {boxes}")
    if os.geteuid() == 0 and values.get("-runas") != [f"{sandbox.USER}:{sandbox.USER}"]:
        wrong.append("it stays root")
    wrong += [f"-qmp {v}" for v in values.get("-qmp", []) if not v.startswith("unix:")]
    wrong += [
        f"{n} {v}" for n, v in said if n in ("-chardev", "-serial") and not v.startswith(("file", "chardev", "stdio"))
    ]
    for network in values.get("-netdev", []):
        wrong += [
            network for part in network.split(",") if part.startswith("hostfwd=") and "tcp:127.0.0.1:" not in part
        ]
    return wrong


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("accelerator", ["tcg", "kvm"])
def test_of_virtual_machines(online: bool, accelerator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "find", lambda tool, package: Path("/usr/bin") / tool)
    seed = NodeSeed("i-1", "vm-1", None, "ssh-ed25519 AAAA")
    more = {"online": online, "accelerator": accelerator}
    spec = Spec("pg-1", tmp_path / "i.qcow2", seed, tmp_path / "vm", tmp_path / "key", **more)  # type: ignore[arg-type]
    machine = vm.VirtualMachine(spec, Workspace(tmp_path, tmp_path, "run"))
    machine._sockets = tmp_path
    words = machine._command(tmp_path / "seed.iso")
    assert exposed(words) == []
    assert ("-chroot" in words) == (os.geteuid() == 0 and not online)


@pytest.mark.real_process
def test_of_the_probe_of_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu, device = tmp_path / "qemu", tmp_path / "kvm"
    record(qemu, "exit 1")
    device.touch()
    monkeypatch.setattr(kvm, "KVM_DEVICE", device)
    monkeypatch.setattr(run, "find", lambda tool, package: qemu)
    kvm.probe(device, None, Workspace(tmp_path, tmp_path / "build", "run"))
    assert exposed(recorded(qemu)) == []


def test_there_is_no_other() -> None:
    named = {
        str(path.relative_to(ROOT))
        for folder in ("foundry", "packer")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "qemu-system" in path.read_text(encoding="utf-8")
    }
    assert named - ASK_ITS_VERSION - NAMES_ITS_PACKAGE == MAY_START_IT


def record(qemu: Path, then: str) -> None:
    """A QEMU that writes down what it was told."""
    qemu.write_text(
        f'#!/bin/bash\ncase "$*" in -version) exec qemu-system-x86_64 -version;; esac\n'
        f'printf "%s\\0" "$@" >"$0.words"\n{then}\n'
    )
    qemu.chmod(0o755)


def recorded(qemu: Path) -> list[str]:
    return Path(f"{qemu}.words").read_text().rstrip("\0").split("\0")


def packers(tmp_path: Path, qemu: Path) -> tuple[Workspace, dict[str, str]]:
    """Our templates, with another QEMU in them, and variables for them."""
    templates = tmp_path / "project/packer"
    shutil.copytree(ROOT / "packer", templates)
    (tmp_path / "project/foundry").symlink_to(ROOT / "foundry")
    source = templates / "qemu.pkr.hcl"
    source.write_text(source.read_text().replace("headless ", f'qemu_binary = "{qemu}"\n  headless ', 1))
    variables = {name: str(tmp_path / name) for name in ("base", "kernel", "initrd", "repository", "console", "empty")}
    variables |= {"ssh_key": str(tmp_path / "key"), "output": str(tmp_path / "output"), "boot_timeout": "3s"}
    variables |= {"scripts": str(templates / "scripts"), "credentials": str(tmp_path / "credentials"), "epoch": "0"}
    variables |= {"append": "x", "repository_label": "X", "packages": "x", "accelerator": "tcg", "cpu": "max"}
    variables |= {"user": f"{sandbox.USER}:{sandbox.USER}", "cpus": "1", "memory": "64"}
    run.run(["qemu-img", "create", "-q", "-f", "qcow2", variables["base"], "1M"])
    run.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", variables["ssh_key"]])
    for name in ("kernel", "initrd", "repository", "credentials"):
        (tmp_path / name).write_bytes(bytes(512))
    (tmp_path / "empty").mkdir()
    (tmp_path / "scratch").mkdir()
    return Workspace(tmp_path / "project", tmp_path / "build", "run"), variables


@AS_ROOT
@pytest.mark.real_process
def test_of_packer_as_another_account_sees_it(tmp_path: Path) -> None:
    qemu = tmp_path / "qemu"
    # A machine without anything to boot, with all else that Packer gives it.
    record(
        qemu,
        "words=(); while [ $# -gt 0 ]; do case $1 in -kernel|-initrd|-append|-smbios) shift 2;; "
        '*) words+=("$1"); shift;; esac; done; exec qemu-system-x86_64 -S "${words[@]}"',
    )
    workspace, variables = packers(tmp_path, qemu)
    words = [sys.executable, "-c", LOOK, str(tmp_path / "output")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        with pytest.raises(FoundryError):
            packer.build(workspace, tmp_path / "scratch", variables, tmp_path / "console", source="qemu.golden")
        said = process.communicate(timeout=30)[0]
    assert exposed(recorded(qemu)) == []
    assert said.splitlines() == [f"user {sandbox.USER}", "capabilities 0000000000000000", "listens 1", "vnc 0"]


# Finds that QEMU by its disk, looks at it, and tries as `nobody` what a stranger would.
LOOK = """
import os, re, socket, subprocess, sys, time
deadline = time.monotonic() + 20
pid = None
while pid is None and time.monotonic() < deadline:
    time.sleep(0.1)
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and "qemu-system" in os.readlink(f"/proc/{name}/exe"):
                if sys.argv[1] in open(f"/proc/{name}/cmdline").read():
                    pid = name
        except OSError:
            pass
time.sleep(1.5)
status = open(f"/proc/{pid}/status").read()
print("user", re.search(r"Uid:\\t(\\d+)", status)[1])
print("capabilities", re.search(r"CapEff:\\t(\\S+)", status)[1])
listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout
ports = [int(line.split()[3].rpartition(":")[2]) for line in listening.splitlines() if f"pid={pid}," in line]
print("listens", len(ports))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
greeted = 0
for port in ports:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as stream:
        stream.settimeout(0.5)
        try:
            greeted += stream.recv(3) == b"RFB"
        except OSError:
            pass
print("vnc", greeted)
"""
