"""`user-data` on the real thing: its files boot nodes, and cloud-init finds nothing to say about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from foundry.machine import Machine
from tests.pipeline.conftest import Scratch
from tests.pipeline.harness import inv
from tests.pipeline.lab import Lab, leads, mac, refusal

NETWORK = "10.129.0.0/24"


def made(scratch: Scratch, lab: Lab, *words: str) -> Path:
    """The folder that the task wrote."""
    target = lab.folder / "user-data"
    keys = lab.folder / "authorized"
    keys.write_text(lab.public)
    options = [f"--network={NETWORK}", f"--output={target}", f"--ssh-key={keys}"]
    inv(scratch(), "user-data", "--cluster=pg-15-cluster", *options, *words).expect(0)
    return target


def boot(lab: Lab, user_data: str, network_config: str | None = None, name: str = "") -> Machine:
    spec = lab.spec(1, None, name=name)
    network = yaml.safe_load(network_config) if network_config else spec.seed.network
    return lab.boot(replace(spec, seed=replace(spec.seed, user_data=user_data, network=network)))


def cloud_init_is_content(node: Machine) -> None:
    said = node.ssh("sudo cloud-init schema --system 2>&1; sudo cloud-init status --long").output
    assert "Valid cloud-config" in said and "status: done" in said, said
    assert not [word for word in ("warn", "deprecat", "error") if word in said.lower()], said
    logged = node.ssh("sudo grep -E 'WARNING|ERROR|CRITICAL' /var/log/cloud-init.log", check=False).output
    assert logged == ""


def test_a_node_s_own_seed(scratch: Scratch, lab: Lab) -> None:
    folder = made(scratch, lab, "pg-srv1=10.129.0.21")
    files = {name: (folder / "pg-srv1" / name).read_text() for name in ("user-data", "network-config")}
    node = boot(lab, files["user-data"], files["network-config"])
    leads(node, "pg-srv1", "10.129.0.21")
    cloud_init_is_content(node)


def test_a_card_by_its_mac(scratch: Scratch, lab: Lab) -> None:
    given = ("--gateway=10.129.0.1", "--nameserver=10.129.0.2", f"pg-srv1=10.129.0.21,{mac(1).upper()}")
    folder = made(scratch, lab, *given) / "pg-srv1"
    node = boot(lab, (folder / "user-data").read_text(), (folder / "network-config").read_text())
    leads(node, "pg-srv1", "10.129.0.21")
    assert "default via 10.129.0.1 dev eth0" in node.ssh("ip -4 route").output
    assert "10.129.0.2" in node.ssh("resolvectl dns eth0").output
    cloud_init_is_content(node)


def test_one_cloud_config_for_all(scratch: Scratch, lab: Lab) -> None:
    folder = made(scratch, lab, "--shared", "10.129.0.21")
    node = boot(lab, (folder / "shared.yaml").read_text())
    leads(node, "pg-srv1", "10.129.0.21")
    cloud_init_is_content(node)


def test_a_machine_of_a_group_that_nobody_named(scratch: Scratch, lab: Lab) -> None:
    folder = made(scratch, lab, "--shared", "10.129.0.21")
    node = boot(lab, (folder / "shared.yaml").read_text(), name="localhost")
    assert "name: is not set and the host name is localhost" in refusal(node)
