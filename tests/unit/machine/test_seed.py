from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from foundry import run
from foundry.machine import seed

NODE = "cluster: c\nsecrets: {key: ü}\n"
SEED = seed.NodeSeed("i-1", "vm-1", NODE, "ssh-ed25519 AAAA test\n")
MAC = (("macaddress", "52:54:00:50:47:01"),)


def test_user_data_gives_key_and_node_yml() -> None:
    text = seed.documents(SEED)["user-data"]
    assert text.startswith("#cloud-config\n")
    value = yaml.safe_load(text)
    assert value["ssh_authorized_keys"] == ["ssh-ed25519 AAAA test"]
    (file,) = value["write_files"]
    assert (file["path"], file["permissions"], file["content"]) == ("/etc/patroni/node.yml", "0600", NODE)


def test_a_machine_without_node_yml_gets_none() -> None:
    assert "write_files" not in yaml.safe_load(seed.documents(replace(SEED, node_yml=None))["user-data"])


def test_dhcp_has_no_network_config() -> None:
    assert set(seed.documents(SEED)) == {"user-data", "meta-data"}


@pytest.mark.parametrize(
    ("cidr", "gateway", "key"), [("10.1.2.3/24", "10.1.2.2", "gateway4"), ("fd00::3/64", "fd00::2", "gateway6")]
)
def test_static_address(cidr: str, gateway: str, key: str) -> None:
    static = seed.StaticAddress(cidr, MAC, gateway, ("10.1.2.9",))
    value = yaml.safe_load(seed.documents(replace(SEED, static=static))["network-config"])
    assert value["version"] == 2
    assert value["ethernets"]["eth0"] == {
        "match": dict(MAC),
        "addresses": [cidr],
        key: gateway,
        "nameservers": {"addresses": ["10.1.2.9"]},
    }
    assert static.address == cidr.partition("/")[0]


def test_files_hold_secrets_and_are_closed(tmp_path: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in seed.write(SEED, tmp_path)} == {0o600}


@pytest.mark.real_process
def test_iso_is_labelled_and_holds_the_files(tmp_path: Path) -> None:
    target = seed.iso(SEED, tmp_path / "seed.iso")
    listing = run.capture(["xorriso", "-indev", target, "-pvd_info", "-find", "/", "-type", "f"])
    assert "Volume Id    : CIDATA" in listing
    assert "'/user-data'" in listing and "'/meta-data'" in listing
    assert target.stat().st_mode & 0o777 == 0o600
