"""Files appear together, complete, with their modes and owners, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from conftest import MINIMAL, FakeAccounts, Node

from patroni_node import cli, tls
from patroni_node.configure import configure
from patroni_node.errors import EX_IOERR, InstallError, NodeError
from patroni_node.install import NoAccounts, Target, install, take
from patroni_node.paths import Paths

ROOT = Path(__file__).resolve().parents[3]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_modes_and_owners(node: Node) -> None:
    node.write(MINIMAL)
    node.accounts = FakeAccounts()
    configure(node.paths, node.machine)
    root, postgres, consul = (0, 0), (0, 101), (0, 102)
    # In the order of Paths.rendered: patroni.yml; Consul's, whom it checks last; filter, drop-in; certificates; state.
    consuls = [consul, root, root, consul, root, root]
    assert node.accounts.owned == [postgres, *consuls, root, root, root, root, postgres, root, root]
    assert mode(node.paths.consul_token) == 0o600
    assert mode(node.paths.consul_key) == mode(node.paths.tls / "node.key") == 0o640
    assert mode(node.paths.patroni_yml) == 0o640
    assert mode(node.paths.consul_json) == 0o640
    assert mode(node.paths.identity) == 0o644


def test_node_files_are_closed_to_others(node: Node) -> None:
    node.write(MINIMAL)
    node.write("name: a\n", "10-name.yml")
    node.paths.node_file.chmod(0o644)
    configure(node.paths, node.machine)
    assert mode(node.paths.node_file) == 0o600
    assert mode(node.paths.drop_ins / "10-name.yml") == 0o600


@pytest.mark.parametrize("text", [MINIMAL, "cluster: A B\n"], ids=["accepted", "refused"])
def test_user_data_is_closed_to_others(node: Node, text: str) -> None:
    """Any account read the cluster's key there, on incus, LXD, Oracle's cloud, Vultr and Azure (CVE-2023-1786)."""
    node.write(text)
    node.paths.node_file.chmod(0o644)
    node.paths.instance_data.parent.mkdir(parents=True)
    node.paths.instance_data.write_text("{}")
    node.paths.instance_data.chmod(0o644)
    with contextlib.suppress(NodeError):
        configure(node.paths, node.machine)
    assert mode(node.paths.instance_data) == mode(node.paths.node_file) == 0o600


def test_user_data_is_closed_before_anybody_logs_in() -> None:
    """sshd and logins wait for cloud-init.service, and with it for what ends it."""
    for unit in ("cloud-init-local", "cloud-init"):
        text = (ROOT / f"files/usr/lib/systemd/system/{unit}.service.d/patroni-node.conf").read_text()
        assert f"\nExecStartPost=-/bin/chmod -f 0600 {Paths().instance_data}\n" in text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_a_folder_of_another_account_becomes_root_s(tmp_path: Path) -> None:
    """HashiCorp's package gives /etc/consul.d to consul: a link for the token there sent root's files to the agent."""
    folder = tmp_path / "consul.d"
    take(folder)
    folder.mkdir()
    folder.chmod(0o770)
    os.chown(folder, 65534, 65534)
    take(folder)
    status = folder.stat()
    assert (status.st_uid, status.st_gid, mode(folder)) == (0, 65534, 0o750)


def test_nothing_in_a_folder_of_certificates_holds_up_root(tmp_path: Path) -> None:
    good, pipe, link = (tmp_path / name for name in ("good", "pipe", "link"))
    good.write_text("PEM")
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    assert tls.read_present(good, good, good) == tls.Tls("PEM", "PEM", "PEM")
    for bad in (pipe, link, tmp_path / "absent"):
        assert tls.read_present(good, bad, good) is None


def test_unchanged_files_are_untouched(node: Node) -> None:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    before = node.paths.patroni_yml.stat()
    assert configure(node.paths, node.machine).changed == []
    after = node.paths.patroni_yml.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_wrong_mode_is_mended(node: Node) -> None:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    node.paths.patroni_yml.chmod(0o644)
    assert configure(node.paths, node.machine).changed == [node.paths.patroni_yml]
    assert mode(node.paths.patroni_yml) == 0o640


def targets(root: Path, content: bytes) -> list[Target]:
    return [Target(root / name, content, 0o600) for name in ("a", "b", "new", "c")]


@pytest.fixture
def old(tmp_path: Path) -> dict[str, bytes]:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"old")
    return tree(tmp_path)


# Four files are staged and renamed; three of them existed and so have an old version to link.
STEPS = [(name, at) for name in ("open", "fchmod", "fsync", "replace") for at in (1, 2, 3, 4)]


@pytest.mark.parametrize(("function", "at"), [*STEPS, ("link", 1), ("link", 2), ("link", 3)])
def test_a_failure_leaves_the_old_files(
    tmp_path: Path, old: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, function: str, at: int
) -> None:
    real = getattr(os, function)
    calls = 0

    def fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.ENOSPC, "No space left on device", str(args[0]))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(InstallError, match="No space left on device"):
        install(targets(tmp_path, b"new"), NoAccounts())
    monkeypatch.undo()
    assert tree(tmp_path) == old
    install(targets(tmp_path, b"new"), NoAccounts())
    assert tree(tmp_path) == dict.fromkeys(("a", "b", "c", "new"), b"new")


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.patroni-node-new").write_bytes(b"half")
    (tmp_path / ".a.patroni-node-old").write_bytes(b"older")
    (tmp_path / "a").write_bytes(b"old")
    install([Target(tmp_path / "a", b"new", 0o600)], NoAccounts())
    assert tree(tmp_path) == {"a": b"new"}


def test_a_symlink_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "a").symlink_to("victim")
    install([Target(tmp_path / "a", b"new", 0o600)], NoAccounts())
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()


def test_an_account_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="given to root:postgres"):
        install([Target(tmp_path / "a", b"", 0o640, "root", "postgres")], FakeAccounts(missing="postgres"))
    assert tree(tmp_path) == {}


def test_contents_are_not_in_the_repr(tmp_path: Path) -> None:
    assert "precious" not in repr(Target(tmp_path, b"precious", 0o600))


def test_full_disk_is_said_on_the_command_line(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.write(MINIMAL + "name: a\naddress: 10.129.0.21\n")
    monkeypatch.setattr("patroni_node.network.read_host", lambda _: pytest.fail("not reached"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "patroni.yml")

    monkeypatch.setattr("patroni_node.configure.configure", full)
    assert cli.main(["configure", "--root", str(node.paths.root)]) == EX_IOERR
    assert "No space left on device" in capsys.readouterr().err
