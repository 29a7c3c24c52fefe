"""WAL archiving: what the three programs that take part in it are told."""

from __future__ import annotations

import configparser
import stat
from typing import Any

import pytest
import yaml
from conftest import MINIMAL, Node

from patroni_node import archive, settings
from patroni_node.configure import configure
from patroni_node.errors import NodeError
from patroni_node.model import PgBackRest

OFF = MINIMAL + "archive: false\n"
ON = MINIMAL + "archive: {pgbackrest: {}}\n"
FULL = MINIMAL + (
    "archive: {pgbackrest: {repository: /srv/wal, stanza: main, retention: 7, create_replica: false,"
    " options: {repo1-type: s3, start-fast: false, process-max: 2, repo1-s3-key-secret: 'x7=y[z]'}}}\n"
)


def postgresql(node: Node, text: str) -> dict[str, Any]:
    node.write(text)
    configure(node.paths, node.machine)
    found: dict[str, Any] = yaml.safe_load(node.paths.patroni_yml.read_text())["postgresql"]
    return found


def written(node: Node) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read(node.paths.pgbackrest_conf)
    return parsed


@pytest.mark.parametrize("text", [MINIMAL, OFF])
def test_off_by_default(node: Node, text: str) -> None:
    found = postgresql(node, text)
    assert not {"archive_mode", "archive_command", "archive_timeout"} & set(found["parameters"])
    assert not {"recovery_conf", "create_replica_methods", "pgbackrest"} & set(found)
    assert not node.paths.pgbackrest_conf.exists() and not node.paths.stanza.exists()


def test_on_with_all_defaults(node: Node) -> None:
    found = postgresql(node, ON)
    assert found["parameters"]["archive_mode"] == "on"
    assert found["parameters"]["archive_command"] == '/usr/libexec/patroni-node/pgbackrest-push pg-15-cluster "%p"'
    assert found["recovery_conf"] == {"restore_command": 'pgbackrest --stanza=pg-15-cluster archive-get %f "%p"'}
    assert found["create_replica_methods"] == ["pgbackrest", "basebackup"]
    assert found["pgbackrest"]["command"] == "pgbackrest --stanza=pg-15-cluster --delta restore"
    conf = written(node)
    assert dict(conf["global"])["repo1-path"] == "/var/lib/pgbackrest"
    assert dict(conf["global"])["repo1-retention-full"] == "2"
    assert conf["pg-15-cluster"]["pg1-path"] == found["data_dir"]
    assert node.paths.stanza.read_text() == "pg-15-cluster\n"


def test_every_setting(node: Node) -> None:
    found = postgresql(node, FULL)
    assert "create_replica_methods" not in found and "--stanza=main " in found["recovery_conf"]["restore_command"]
    conf = written(node)
    assert conf.sections() == ["global", "main"]
    expected = {"repo1-path": "/srv/wal", "repo1-retention-full": "7", "repo1-type": "s3", "process-max": "2"}
    expected |= {"start-fast": "n", "repo1-s3-key-secret": "x7=y[z]"}
    assert {key: conf["global"][key] for key in expected} == expected


def test_only_root_and_postgres_read_the_keys_of_the_repository(node: Node) -> None:
    postgresql(node, FULL)
    assert stat.S_IMODE(node.paths.pgbackrest_conf.stat().st_mode) == 0o640
    assert "x7=y" not in repr(PgBackRest(options={"repo1-s3-key-secret": "x7=y"}))


def test_switched_off_again(node: Node) -> None:
    postgresql(node, ON)
    postgresql(node, OFF)
    assert not node.paths.pgbackrest_conf.exists() and not node.paths.stanza.exists()


def test_somebody_else_s_configuration_is_neither_overwritten_nor_removed(node: Node) -> None:
    theirs = "[global]\nrepo1-path=/srv/theirs\n"
    node.paths.pgbackrest_conf.parent.mkdir(parents=True)
    node.paths.pgbackrest_conf.write_text(theirs)
    postgresql(node, OFF)
    assert node.paths.pgbackrest_conf.read_text() == theirs
    before = node.paths.patroni_yml.read_text()
    with pytest.raises(NodeError, match="was not written by patroni-node: move it away"):
        postgresql(node, ON)
    assert node.paths.pgbackrest_conf.read_text() == theirs
    assert node.paths.patroni_yml.read_text() == before


def test_without_pgbackrest_it_says_what_to_install(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(node.paths), "live", property(lambda _: True))
    node.write(ON)
    wanted = settings.load(node.paths)
    with pytest.raises(NodeError, match=r"archive\.pgbackrest: needs pgBackRest.*apt install pgbackrest"):
        archive.require(wanted, node.paths)
