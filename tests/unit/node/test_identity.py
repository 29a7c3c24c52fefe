"""The name lives as long as the instance."""

from __future__ import annotations

import pytest
from conftest import MINIMAL, Node

from patroni_node import identity
from patroni_node.configure import configure
from patroni_node.errors import NodeError


def boot(node: Node) -> str:
    return configure(node.paths, node.machine).name


def test_host_name_is_kept_when_dhcp_changes_it(node: Node) -> None:
    node.write(MINIMAL)
    assert boot(node) == "pg-srv1"
    node.host_name = "dhcp-77"
    assert boot(node) == "pg-srv1"


def test_a_new_instance_is_a_new_node(node: Node) -> None:
    node.write(MINIMAL)
    boot(node)
    node.host_name = "pg-srv2"
    node.instance("iid-2")
    assert boot(node) == "pg-srv2"
    node.host_name = "else"
    assert boot(node) == "pg-srv2"


def test_a_given_name_wins_and_stays(node: Node) -> None:
    node.write(MINIMAL)
    boot(node)
    node.write(MINIMAL + "name: db.east\n")
    assert boot(node) == "db.east"
    node.write(MINIMAL)
    assert boot(node) == "db.east"


def test_without_cloud_init_the_machine_id_counts(node: Node) -> None:
    node.paths.instance_id.unlink()
    node.paths.machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    assert identity.resolve(node.paths, None, "pg-srv1").instance_id.startswith("machine-id:")


@pytest.mark.parametrize("text", ["", "uninitialized\n"])
def test_no_instance_at_all(node: Node, text: str) -> None:
    node.paths.instance_id.unlink()
    node.paths.machine_id.write_text(text)
    with pytest.raises(NodeError, match="systemd-machine-id-setup"):
        identity.resolve(node.paths, "given", "pg-srv1")


@pytest.mark.parametrize("host", ["", "localhost", "LOCALHOST", "debian", "(none)", "-dash", "under score", "x" * 64])
def test_host_names_that_are_no_name(node: Node, host: str) -> None:
    with pytest.raises(NodeError, match="set `name:`"):
        identity.resolve(node.paths, None, host)


@pytest.mark.parametrize("state", ["", "{", "[]", '{"name": "a"}', '{"name": "a b", "instance_id": "iid-1"}', "\ud800"])
def test_a_damaged_state_file_is_refused(node: Node, state: str) -> None:
    node.paths.identity.parent.mkdir(parents=True)
    node.paths.identity.write_bytes(state.encode("utf-8", "surrogatepass"))
    with pytest.raises(NodeError, match="damaged"):
        identity.resolve(node.paths, None, "pg-srv1")
    assert identity.resolve(node.paths, "given", "pg-srv1").name == "given"
