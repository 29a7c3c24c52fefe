"""What launches the nodes of a cluster: one key, one seed a node, or one cloud-config for all."""

from __future__ import annotations

import errno
import hashlib
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundry import run, user_data
from foundry.errors import ConfigError
from patroni_node import document, identity, settings
from patroni_node.dcs import Consul

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "templates/user-data"
NODES = ("pg-srv1=10.129.0.21", "pg-srv2=10.129.0.22", "pg-srv3=10.129.0.23")
KEY = "kJ8sd7f6Qw3rTy0pLmN2"
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXkAAAA\n"


@pytest.fixture(autouse=True)
def no_xorriso(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(args: Sequence[Any], **_: Any) -> None:
        target = Path(args[args.index("-output") + 1])
        target.write_bytes(b"".join(Path(path).read_bytes() for path in args[args.index("-output") + 2 :]))

    monkeypatch.setattr(run, "run", write)
    monkeypatch.setattr(run, "find", lambda *_: None)


def plan(*nodes: str, network: str = "10.129.0.0/24", **more: Any) -> user_data.Plan:
    return user_data.plan("pg-15-cluster", network, nodes or NODES, **more)


def node_yml(text: str) -> settings.Settings:
    (written,) = yaml.safe_load(text)["write_files"]
    assert (written["path"], written["permissions"]) == ("/etc/patroni/node.yml", "0600")
    return settings.build(document.parse(written["content"], "node.yml"))


def test_a_seed_for_each_node(tmp_path: Path) -> None:
    target = tmp_path / "new/cluster"
    made = user_data.write(plan(), KEY, target)
    assert [path.name for path in made] == ["cluster.key", "pg-srv1.iso", "pg-srv2.iso", "pg-srv3.iso"]
    for number in (1, 2, 3):
        folder = target / f"pg-srv{number}"
        found = node_yml((folder / "user-data").read_text())
        assert (found.cluster, found.name) == ("pg-15-cluster", f"pg-srv{number}")
        assert str(found.address.literal) == f"10.129.0.2{number}"
        assert isinstance(found.dcs, Consul) and len(found.dcs.join) == 3
        assert found.secrets["key"].text == KEY
        meta = yaml.safe_load((folder / "meta-data").read_text())
        assert meta["local-hostname"] == f"pg-srv{number}"
        network = yaml.safe_load((folder / "network-config").read_text())
        assert network == {"version": 2, "ethernets": {"e*": {"addresses": [f"10.129.0.2{number}/24"]}}}


def test_nobody_else_reads_the_key(tmp_path: Path) -> None:
    target = tmp_path / "cluster"
    user_data.write(plan(), KEY, target)
    user_data.write_shared(plan(), KEY, TEMPLATES, tmp_path / "shared")
    for folder in (target, tmp_path / "shared"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert (target / "cluster.key").read_text() == KEY + "\n"


def test_each_key_is_new_and_good() -> None:
    assert user_data.fresh_key() != user_data.fresh_key()
    assert len(user_data.fresh_key()) >= 32


def test_the_same_key_gives_the_same_instances(tmp_path: Path) -> None:
    def instances(folder: str, key: str) -> list[str]:
        user_data.write(plan(), key, tmp_path / folder)
        return sorted(path.read_text() for path in (tmp_path / folder).glob("*/meta-data"))

    assert instances("a", KEY) == instances("b", KEY)
    assert not set(instances("c", hashlib.sha256(b"x").hexdigest())) & set(instances("d", KEY))


def test_everything_that_a_network_needs(tmp_path: Path) -> None:
    wanted = plan(
        "a=fd00::21,52:54:00:AA:00:01",
        network="fd00::/64",
        gateway="fd00::1",
        nameservers=["fd00::53"],
        ssh_keys='# mine\nssh-ed25519 AAAAa a\nfrom="fd00::/64" ssh-rsa AAAAb b\n',
    )
    user_data.write(wanted, KEY, tmp_path / "x")
    assert yaml.safe_load((tmp_path / "x/a/network-config").read_text())["ethernets"] == {
        "eth0": {
            "match": {"macaddress": "52:54:00:aa:00:01"},
            "addresses": ["fd00::21/64"],
            "gateway6": "fd00::1",
            "nameservers": {"addresses": ["fd00::53"]},
        }
    }
    user = yaml.safe_load((tmp_path / "x/a/user-data").read_text())
    assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAAa a", 'from="fd00::/64" ssh-rsa AAAAb b']


def test_a_router_s_link_local_address() -> None:
    assert str(plan("a=fd00::21", network="fd00::/64", gateway="fe80::1").gateway) == "fe80::1"


def shared(folder: Path, key: str = KEY, **more: Any) -> str:
    return user_data.write_shared(plan(**more), key, TEMPLATES, folder)[1].read_text()


def test_one_cloud_config_for_a_group(tmp_path: Path) -> None:
    text = shared(tmp_path / "x", ssh_keys="ssh-rsa AAAAb {x}: b\n")
    assert text.startswith("## template: jinja\n#cloud-config\n")
    assert isinstance(yaml.safe_load(text), dict), "what a cloud's console may insist on"
    filled = user_data.as_at_boot(text, "pg-srv9")
    assert filled.startswith("#cloud-config\n")
    found = node_yml(filled)
    assert found.name == "pg-srv9" and str(found.address.cidr) == "10.129.0.0/24"
    assert isinstance(found.dcs, Consul) and [str(ip) for ip in found.dcs.join] == [n.split("=")[1] for n in NODES]
    assert yaml.safe_load(filled)["ssh_authorized_keys"] == ["ssh-rsa AAAAb {x}: b"]


@pytest.mark.parametrize("name", ["123", "0x10", "1e3", "no", "null", "pg-srv1"])
def test_a_group_s_names_stay_texts(tmp_path: Path, name: str) -> None:
    assert node_yml(user_data.as_at_boot(shared(tmp_path / "x"), name)).name == name


@pytest.mark.parametrize("name", ["localhost", "debian"])
def test_a_machine_that_nobody_named_is_left_to_patroni_node(tmp_path: Path, name: str) -> None:
    assert name in identity.SHARED_HOST_NAMES
    assert node_yml(user_data.as_at_boot(shared(tmp_path / "x"), name)).name is None


def test_cloud_init_finds_nothing_to_fill_in_within_a_value(tmp_path: Path) -> None:
    key, public = "ab{{x}}cdefg{# hijkl {% raw %}", "ssh-rsa AAAAb {{ v1 }} {%x ü😀"
    text = shared(tmp_path / "x", key, ssh_keys=public)
    filled = user_data.as_at_boot(text, "pg-srv1")
    assert node_yml(filled).secrets["key"].text == key
    assert yaml.safe_load(filled)["ssh_authorized_keys"] == [public]


@pytest.mark.parametrize(
    ("nodes", "more"),
    [
        (NODES, {"gateway": "10.129.0.1"}),
        (NODES, {"nameservers": ["10.129.0.2"]}),
        (["a=10.129.0.21,52:54:00:aa:00:01"], {}),
    ],
)
def test_what_a_group_has_no_use_for(tmp_path: Path, nodes: Sequence[str], more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="are not for it"):
        user_data.write_shared(plan(*nodes, **more), KEY, TEMPLATES, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("nodes", "more", "says"),
    [
        (["pg-srv1"], {}, "'pg-srv1' is not NAME=ADDRESS"),
        (["a=10.129.0.300"], {}, "'10.129.0.300' is not NAME=ADDRESS"),
        (["a=10.130.0.1"], {}, "10.130.0.1 is not in 10.129.0.0/24"),
        (["a=10.129.0.255"], {}, "broadcast"),
        (["a=10.129.0.1", "a=10.129.0.2"], {}, "a is given twice: each node has its own name"),
        (["a=10.129.0.1", "b=10.129.0.1"], {}, "10.129.0.1 is given twice: each node has its own address"),
        (["a=10.129.0.1,52:54"], {}, "is not NAME=ADDRESS or NAME=ADDRESS,MAC"),
        (["a=10.129.0.1"], {"network": "10.129.0.1/24"}, "--network: '10.129.0.1/24' is not a network"),
        (["a=10.129.0.1"], {"gateway": "10.1.0.1"}, "--gateway: 10.1.0.1 is not in 10.129.0.0/24"),
        (["a=10.129.0.1"], {"gateway": "10.129.0.1"}, "--gateway: 10.129.0.1 is the address of a"),
        (["a=10.129.0.1"], {"gateway": "fe80::1"}, "--gateway: fe80::1 is not in 10.129.0.0/24"),
        (["a=10.129.0.1"], {"nameservers": ["one.one"]}, "--nameserver: 'one.one'"),
        (["a_b=10.129.0.1"], {}, "a_b=10.129.0.1: a name is a host name too"),
        (["../x=10.129.0.1"], {}, "a name is a host name too"),
        (["cluster.key=10.129.0.1"], {}, "a name is a host name too"),
        ([f"{'a' * 64}=10.129.0.1"], {}, "a name is a host name too"),
        (["Localhost=10.129.0.1"], {}, "Localhost is what machines without a name are called"),
        (["A=10.129.0.1", "a=10.129.0.2"], {}, "a is given twice: each node has its own name"),
        (["a=10.129.0.1"], {"ssh_keys": PRIVATE}, "--ssh-key: has a line that is no public key"),
    ],
)
def test_what_cannot_be_a_cluster(nodes: list[str], more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(*nodes, **more)
    assert says in (caught.value.details or "")


def test_a_private_key_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as caught:
        plan(ssh_keys=PRIVATE)
    assert "b3Blb" not in str(caught.value) + (caught.value.details or "")


def test_no_node_at_all() -> None:
    with pytest.raises(ConfigError) as caught:
        user_data.plan("a", "10.129.0.0/24", [])
    assert "name at least one node" in (caught.value.details or "")


def test_what_a_node_would_refuse_is_not_written(tmp_path: Path) -> None:
    wanted = user_data.plan("Not_a_cluster", "10.129.0.0/24", NODES)
    for write in (
        lambda: user_data.write(wanted, KEY, tmp_path / "x"),
        lambda: user_data.write_shared(wanted, KEY, TEMPLATES, tmp_path / "x"),
    ):
        with pytest.raises(ConfigError, match="a node would refuse") as caught:
            write()
        assert "cluster: must be 1 to 63" in (caught.value.details or "")
    with pytest.raises(ConfigError, match="a node would refuse"):
        user_data.write(plan(), "postgres", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_needed_for_a_seed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"10\.129\.0\.21 has no name"):
        user_data.write(plan("10.129.0.21"), KEY, tmp_path / "x")
    assert user_data.write_shared(plan("10.129.0.21"), KEY, TEMPLATES, tmp_path / "x")


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    user_data.write(plan(), KEY, tmp_path / "x")
    with pytest.raises(ConfigError, match="holds the key of a cluster") as caught:
        user_data.write(plan(), user_data.fresh_key(), tmp_path / "x")
    assert "cluster.key" in (caught.value.hint or "")
    assert (tmp_path / "x/cluster.key").read_text() == KEY + "\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--output: .*/file/x cannot be made: File exists"):
        user_data.write(plan(), KEY, tmp_path / "file/x")


def test_a_full_disk_is_left_to_whoever_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run, "run", full)
    with pytest.raises(OSError, match="No space left"):
        user_data.write(plan(), KEY, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--ssh-key: .*none\.pub: No such file"):
        user_data.read(tmp_path / "none.pub", "--ssh-key")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--cluster", "c", "--network", "10.0.0.0/24", *NODES], list(NODES)),
        ([*NODES, "--cluster=c", "--network=10.0.0.0/24"], list(NODES)),
        (["--shared", NODES[0], "--output", "a=b", NODES[1], "--cluster", "c"], [NODES[0], NODES[1]]),
        (["--help"], []),
    ],
)
def test_any_number_of_nodes_on_the_command_line(
    argv: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import task_parts
    import tasks

    monkeypatch.setattr(sys, "argv", ["invoke", "user-data", *argv])
    assert task_parts.words_of(sys.argv, "user-data", "--shared") == words
    assert [a.name for a in tasks.user_data.get_arguments() if a.positional] == [f"word-{n}" for n in range(len(words))]
