"""Bad node.yml files: one sentence each, with key and line, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import KEY, MINIMAL, FakeAccounts, Node

from patroni_node import cli, notice
from patroni_node.configure import configure
from patroni_node.errors import EX_CONFIG, EX_SOFTWARE, NodeError

BAD: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "is empty"),
    ("only a comment", "# later\n", "is empty"),
    ("a list", "- cluster: a\n", r":1: must be a mapping"),
    ("a word", "postgres\n", r":1: must be a mapping"),
    ("two documents", "a: 1\n---\nb: 2\n", r":2: is not valid YAML"),
    ("broken quoting", 'cluster: "pg\n', "is not valid YAML"),
    ("tab indentation", "secrets:\n\tkey: x\n", r":2: is not valid YAML"),
    ("binary", b"\x7fELF\x02\x01\x01\x00" * 9, "is not text"),
    ("NUL", b"cluster: a\x00\n", "is not text"),
    ("Latin-1", "cluster: a\nname: café\n".encode("latin-1"), r":2: is not UTF-8"),
    ("UTF-16", MINIMAL.encode("utf-16"), "is not UTF-8"),
    ("10 MB", b"# x\n" * 2_500_000, "is larger than 64 KiB"),
    ("alias bomb", "a: &a [x, x]\nb: [*a, *a]\n", r":1: is not valid YAML: anchors and aliases"),
    ("merge key", "base: {}\n<<: *base\n", "anchors and aliases"),
    ("python tag", "cluster: !!python/object/apply:os.system [id]\n", r":1: .*tags"),
    ("own tag", "cluster: a\nname: !secret b\n", r":2: .*tags"),
    ("half a character", MINIMAL + 'tags:\n  rack: "\\ud83d"\n', r":5: tags.rack: holds a NUL, or half of a character"),
    ("NUL by its number", MINIMAL + 'tags: {rack: "\\0"}\n', r":4: tags.rack: holds a NUL"),
    ("half a character as key", MINIMAL + 'tags: {"\\ud83d": 1}\n', r":4: tags.\?: holds a NUL"),
    ("deep nesting", "patroni: " + "[" * 2000 + "]" * 2000, "nested deeper"),
    ("number of a thousand digits", MINIMAL + "name: " + "9" * 5000 + "\n", r":4: name: must be 1 to 63"),
    ("duplicate key", MINIMAL + "cluster: b\n", r":4: cluster: is given twice \(first in line 1\)"),
    ("duplicate below", f"cluster: a\nsecrets:\n  key: {KEY}\n  key: {KEY}\n", r":4: secrets.key: is given twice"),
    ("list as key", MINIMAL + "? [a]\n: b\n", r":4: a key must be a name"),
    ("no cluster", f"secrets: {{key: {KEY}}}\n", "cluster: is missing: set it to the cluster's name"),
    ("no secrets", "cluster: a\n", "secrets: is missing"),
    ("no key", "cluster: a\nsecrets: {}\n", r"secrets.key: is missing: set it to at least 16 random"),
    ("cluster left empty", f"cluster:\nsecrets: {{key: {KEY}}}\n", r":1: cluster: must be text, not empty"),
    (
        "cluster a number",
        f"cluster: 15\nsecrets: {{key: {KEY}}}\n",
        r":1: cluster: must be text, not a number: put it in q",
    ),
    ("cluster no", f"cluster: no\nsecrets: {{key: {KEY}}}\n", r":1: cluster: .*true or false: put it in quotes"),
    ("cluster with slash", f"cluster: a/b\nsecrets: {{key: {KEY}}}\n", r":1: cluster: must be 1 to 63"),
    ("cluster in capitals", f"cluster: PG\nsecrets: {{key: {KEY}}}\n", r":1: cluster: must be 1 to 63"),
    ("cluster with newline", f'cluster: "a\\n"\nsecrets: {{key: {KEY}}}\n', r":1: cluster: must be 1 to 63"),
    ("secrets a string", f"cluster: a\nsecrets: {KEY}\n", r":2: secrets: must be a mapping, not text"),
    ("short key", "cluster: a\nsecrets:\n  key: abc123\n", r":3: secrets.key: is too short"),
    ("known key", "cluster: a\nsecrets:\n  key: postgrespostgres\n", r":3: secrets.key: is a well-known"),
    ("example key", "cluster: a\nsecrets:\n  key: replace-with-a-long-random-key\n", r":3: secrets.key: .*example"),
    ("long key", "cluster: a\nsecrets:\n  key: " + "aB3" * 500 + "\n", r":3: secrets.key: is too long"),
    ("number as key", "cluster: a\nsecrets:\n  key: 1234567890123456789\n", r":3: secrets.key: .*put it in quotes"),
    ("unknown key", MINIMAL + "adress: 10.0.0.1\n", r":4: adress: unknown key; did you mean address\?"),
    ("unlike any key", MINIMAL + "zzz: 1\n", r":4: zzz: unknown key; known here: address, archive"),
    ("unknown below", MINIMAL + "dcs:\n  consul:\n    peers: []\n", r":6: dcs.consul.peers: unknown key"),
    ("unknown store", MINIMAL + "dcs: {consol: {}}\n", r":4: dcs.consol: unknown key; did you mean consul"),
    ("name with space", MINIMAL + "name: pg srv1\n", r":4: name: must be 1 to 63"),
    ("name with a dash at the end", MINIMAL + "name: pg-\n", r":4: name: must be"),
    ("address a number", MINIMAL + "address: 10\n", r":4: address: must be text or a mapping, not a number"),
    ("address a name", MINIMAL + "address: pg-srv1\n", r":4: address: pg-srv1 is not an IPv4 or IPv6"),
    ("address too big", MINIMAL + "address: 10.0.0.256\n", r":4: address: 10.0.0.256 is not an"),
    ("address all", MINIMAL + "address: 0.0.0.0\n", r":4: address: .*cannot be a node's"),
    ("address loopback", MINIMAL + "address: 127.0.0.1\n", r":4: address: .*cannot be a node's"),
    ("address IPv6 loopback", MINIMAL + 'address: "::1"\n', r":4: address: .*cannot be a node's"),
    ("address multicast", MINIMAL + "address: 224.0.0.1\n", r":4: address: .*cannot be a node's"),
    ("address link-local", MINIMAL + "address: fe80::1\n", r":4: address: .*cannot be a node's"),
    ("address broadcast", MINIMAL + "address: 255.255.255.255\n", r":4: address: .*cannot be a node's"),
    ("address with prefix", MINIMAL + "address: 10.0.0.1/24\n", r":4: address: .* is not an IPv4"),
    ("address empty mapping", MINIMAL + "address: {}\n", r":4: address: must be an address"),
    ("address both ways", MINIMAL + "address: {interface: a, cidr: 10.0.0.0/8}\n", r":4: address: must be an address"),
    (
        "address odd way",
        MINIMAL + "address: {iface: eth0}\n",
        r":4: address.iface: unknown key; did you mean interface",
    ),
    (
        "cidr with host bits",
        MINIMAL + "address: {cidr: 10.0.0.9/24}\n",
        r":4: address.cidr: .*did you mean 10.0.0.0/24",
    ),
    ("cidr nonsense", MINIMAL + "address: {cidr: lan}\n", r":4: address.cidr: lan is not a network"),
    ("networks text", MINIMAL + "networks: 10.0.0.0/8\n", r":4: networks: must be a list, not text"),
    ("networks none", MINIMAL + "networks: []\n", r":4: networks: is empty"),
    ("networks twice", MINIMAL + "networks: [10.0.0.0/8, 10.0.0.0/8]\n", r":4: networks: names something twice"),
    ("network number", MINIMAL + "networks:\n  - 10\n", r":5: networks\[0\]: must be text"),
    ("network mask", MINIMAL + "networks:\n  - 10.0.0.0/33\n", r":5: networks\[0\]: .* is not a network"),
    ("network host bits", MINIMAL + "networks: [10.129.0.21/24]\n", r":4: networks\[0\]: .*did you mean 10.129.0.0/24"),
    ("network trick", MINIMAL + 'networks: ["10.0.0.0/8 trust"]\n', r":4: networks\[0\]: .*is not a network"),
    (
        "network with a zone",
        MINIMAL + 'networks: ["fd00::%a all trust /64"]\n',
        r":4: networks\[0\]: .*is not a network",
    ),
    ("address with a zone", MINIMAL + 'address: "fd00::1%eth0"\n', r":4: address: .*is not an IPv4"),
    ("join with a zone", MINIMAL + 'dcs: {consul: {join: ["fd00::2%eth0"]}}\n', r"join\[0\]: .*is not an IPv4"),
    ("dcs text", MINIMAL + "dcs: consul\n", r":4: dcs: must be a mapping"),
    ("consul mode", MINIMAL + "dcs: {consul: {mode: leader}}\n", r":4: dcs.consul.mode: must be one of server, client"),
    ("expect zero", MINIMAL + "dcs: {consul: {expect: 0}}\n", r":4: dcs.consul.expect: is too small: at least 1"),
    ("expect text", MINIMAL + 'dcs: {consul: {expect: "3"}}\n', r":4: dcs.consul.expect: must be a whole number"),
    ("expect alone", MINIMAL + "dcs: {consul: {expect: 3}}\n", r":4: dcs.consul.expect: is 3 but join names no other"),
    (
        "expect one of many",
        MINIMAL + "dcs: {consul: {expect: 1, join: [10.0.0.1, 10.0.0.2]}}\n",
        r"each node would become",
    ),
    ("expect only itself", MINIMAL + "dcs: {consul: {expect: 3, join: [10.129.0.21]}}\n", "join names no other server"),
    ("expect one, other", MINIMAL + "dcs: {consul: {expect: 1, join: [10.129.0.22]}}\n", "a cluster of its own"),
    ("join a name", MINIMAL + "dcs:\n  consul:\n    join: [pg-srv2]\n", r":6: dcs.consul.join\[0\]: pg-srv2 is not an"),
    ("join twice", MINIMAL + "dcs: {consul: {join: [10.0.0.2, 10.0.0.2]}}\n", r"join: names something twice"),
    ("datacenter", MINIMAL + "dcs: {consul: {datacenter: A B}}\n", r"datacenter: must be 1 to 63"),
    ("patroni text", MINIMAL + "patroni: yes please\n", r":4: patroni: must be a mapping"),
    ("patroni name", MINIMAL + "patroni:\n  name: x\n", r":5: patroni.name: cannot be set here: set `name:`"),
    ("patroni scope", MINIMAL + "patroni: {scope: x}\n", r":4: patroni.scope: .*set `cluster:`"),
    (
        "patroni password",
        MINIMAL + "patroni:\n  postgresql:\n    authentication:\n      superuser:\n        password: postgres\n",
        r":8: patroni.postgresql.authentication.superuser.password: is a well-known password",
    ),
    ("two stores", MINIMAL + "dcs:\n  consul: {}\n  etcd3: {hosts: ['a:1']}\n", r":4: dcs: names two stores"),
    (
        "client alone",
        MINIMAL + "networks: [10.0.0.0/8]\ndcs: {consul: {mode: client}}\n",
        r":5: dcs.consul.join: is missing",
    ),
    (
        "client that expects",
        MINIMAL + "networks: [10.0.0.0/8]\ndcs: {consul: {mode: client, expect: 3, join: [10.0.0.2]}}\n",
        r":5: dcs.consul.expect: is for mode: server, and mode is client",
    ),
    ("client without networks", MINIMAL + "dcs: {consul: {mode: client, join: [10.0.0.2]}}\n", "networks: is missing"),
    (
        "external nowhere",
        MINIMAL + "networks: [10.0.0.0/8]\ndcs: {consul: {mode: external}}\n",
        r":5: dcs.consul.host: is missing",
    ),
    (
        "external that joins",
        MINIMAL + "networks: [10.0.0.0/8]\ndcs: {consul: {mode: external, host: c, join: [10.0.0.2]}}\n",
        r":5: dcs.consul.join: is for mode: server or client",
    ),
    (
        "server elsewhere",
        MINIMAL + "dcs: {consul: {host: c.example.org}}\n",
        r":4: dcs.consul.host: is for mode: external",
    ),
    ("consul's port", MINIMAL + "dcs: {consul: {port: 0}}\n", r":4: dcs.consul.port: is too small"),
    ("etcd nowhere", MINIMAL + "networks: [10.0.0.0/8]\ndcs: {etcd3: {}}\n", r":5: dcs.etcd3.hosts: is missing"),
    (
        "etcd without port",
        MINIMAL + "networks: [10.0.0.0/8]\ndcs: {etcd3: {hosts: [10.0.0.1]}}\n",
        r":5: dcs.etcd3.hosts\[0\]: must be host:port",
    ),
    (
        "etcd's port",
        MINIMAL + "networks: [10.0.0.0/8]\ndcs: {etcd3: {hosts: ['10.0.0.1:99999']}}\n",
        r":5: dcs.etcd3.hosts\[0\]: has no port between",
    ),
    *[
        (
            f"etcd at {host}",
            MINIMAL + f"networks: [10.0.0.0/8]\ndcs: {{etcd3: {{hosts: ['{host}:2379']}}}}\n",
            rf":5: dcs.etcd3.hosts\[0\]: {re.escape(host)} is no host name, no IPv4",
        )
        for host in ("fd00::31", "a..b", "-a", "10.0.0.256", "[etcd1]", "é", "a,b", "1")
    ],
    *[
        (
            f"Consul at {host}",
            MINIMAL + f"networks: [10.0.0.0/8]\ndcs: {{consul: {{mode: external, host: '{host}'}}}}\n",
            rf":5: dcs.consul.host: {re.escape(host)} is no host name",
        )
        for host in ("consul:8500", "a_-.b", "fd00::1%eth0", "[10.0.0.1]")
    ],
    (
        "etcd's user without password",
        MINIMAL + "networks: [10.0.0.0/8]\ndcs: {etcd3: {hosts: ['a:1'], username: patroni}}\n",
        r"secrets.etcd: is missing: the password of patroni",
    ),
    (
        "etcd's password without user",
        f"cluster: a\nsecrets:\n  key: {KEY}\n  etcd: {KEY}\n",
        r":4: secrets.etcd: is the password of dcs.etcd3.username",
    ),
    (
        "token for etcd",
        f"cluster: a\nsecrets:\n  key: {KEY}\n\n  consul_token: {KEY}\ndcs: {{etcd3: {{hosts: ['a:1']}}}}\n",
        r":5: secrets.consul_token: is of Consul",
    ),
    ("gossip in words", f"cluster: a\nsecrets:\n  key: {KEY}\n  gossip: hello\n", r":4: secrets.gossip: is not 16, 24"),
    (
        "weak superuser",
        f"cluster: a\nsecrets:\n  key: {KEY}\n  superuser: postgres\n",
        r":4: secrets.superuser: is too",
    ),
    (
        "known replication",
        f"cluster: a\nsecrets:\n  key: {KEY}\n  replication: replicator-patroni\n",
        r":4: secrets.replication: is a well-known",
    ),
    (
        "half the secrets",
        f"cluster: a\nsecrets:\n  superuser: {KEY}\n",
        r"secrets.key: is missing.*or give gossip, replic",
    ),
    (
        "secret from two places",
        "cluster: a\nsecrets:\n  key: {file: /a, credential: b}\n",
        r":3: secrets.key: must be text",
    ),
    (
        "secret from a relative path",
        "cluster: a\nsecrets:\n  key: {file: key}\n",
        r":3: secrets.key.file: must be an abs",
    ),
    (
        "secret from a missing file",
        "cluster: a\nsecrets:\n  key: {file: /no}\n",
        r":3: secrets.key: /no cannot be read",
    ),
    (
        "secret from nowhere",
        "cluster: a\nsecrets:\n  key: {credential: none}\n",
        r":3: secrets.key: there is no systemd cr",
    ),
    (
        "key with two lines",
        'cluster: a\nsecrets:\n  key: "kJ8sd7f6Qw3r\\nTy0pLmN2"\n',
        r":3: secrets.key: holds a line break",
    ),
    ("tls without ca", MINIMAL + "tls: {certificate: a, key: b}\n", r":4: tls.ca: is missing"),
    ("tls without key", MINIMAL + "tls: {ca: a, certificate: b}\n", r":4: tls: certificate and key belong together"),
    ("tls with a ca only", MINIMAL + "tls: {ca: a}\n", r"tls.certificate: is missing"),
    ("tls of words", MINIMAL + "tls: {ca: a, certificate: b, key: c}\n", r":4: tls.ca: is not a certificate in PEM"),
    ("unknown workload", MINIMAL + "tuning: {workload: olap}\n", r":4: tuning.workload: must be one of web, oltp"),
    ("unknown storage", MINIMAL + "tuning: {storage: tape}\n", r":4: tuning.storage: must be one of ssd"),
    (
        "few connections",
        MINIMAL + "tuning: {max_connections: 3}\n",
        r":4: tuning.max_connections: is too small: at least 25",
    ),
    ("memory without unit", MINIMAL + "tuning: {memory: 4096}\n", r":4: tuning.memory: must be text.*put it in quotes"),
    ("memory in parts", MINIMAL + "tuning: {memory: 1.5GB}\n", r":4: tuning.memory: must be a size like"),
    (
        "parameter of elsewhere",
        MINIMAL + "tuning: {parameters: {listen_addresses: '*'}}\n",
        r":4: tuning.parameters.listen_addresses: cannot be set here",
    ),
    (
        "parameter's name",
        MINIMAL + "tuning: {parameters: {work-mem: 1MB}}\n",
        r":4: tuning.parameters: must be the name of",
    ),
    (
        "parameter that Patroni would drop",
        MINIMAL + "tuning: {parameters: {max_wal_senders: 2}}\n",
        r":4: tuning.parameters.max_wal_senders: must be a whole number from 3 to 262143",
    ),
    (
        "parameter that Patroni cannot read",
        MINIMAL + "tuning: {parameters: {max_worker_processes: all}}\n",
        r":4: tuning.parameters.max_worker_processes: must be a whole number from 2",
    ),
    (
        "parameter of two lines",
        MINIMAL + 'tuning: {parameters: {log_line_prefix: "%m\\n"}}\n',
        r":4: tuning.parameters.log_line_prefix: must be one line",
    ),
    ("watchdog on", MINIMAL + "watchdog: on\n", r":4: watchdog: must be automatic, required or off"),
    ("restart sometimes", MINIMAL + "restart: sometimes\n", r":4: restart: must be on-failure, always or no"),
    ("tag of a wrong kind", MINIMAL + "tags: {nofailover: 1}\n", r":4: tags.nofailover: must be true or false"),
    (
        "tags that contradict each other",
        MINIMAL + "tags:\n  failover_priority: 10\n  nofailover: false\n",
        r":5: tags.failover_priority: and nofailover contradict each other",
    ),
    (
        "tags about synchronous replicas",
        MINIMAL + "tags: {nosync: true, sync_priority: 0}\n",
        r":4: tags.sync_priority: and nosync contradict each other",
    ),
    (
        "tag with a list",
        MINIMAL + "tags: {rack: [a]}\n",
        r":4: tags.rack: must be text or number or true or false, not a list",
    ),
    (
        "callback without path",
        MINIMAL + "callbacks: {on_start: notify}\n",
        r":4: callbacks.on_start: must be the absolute",
    ),
    (
        "unknown callback",
        MINIMAL + "callbacks: {on_startup: /a}\n",
        r":4: callbacks.on_startup: .*did you mean on_start",
    ),
    ("archive without program", MINIMAL + "archive: true\n", r":4: archive: names no program"),
    ("archive to a number", MINIMAL + "archive: {pgbackrest: {retention: 0}}\n", r"pgbackrest.retention: is too small"),
    (
        "option with a line break",
        MINIMAL + 'archive: {pgbackrest: {options: {a-b: "x\\ny"}}}\n',
        r"options.a-b: must be one line",
    ),
]


@pytest.mark.parametrize(("text", "said"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_node_file(node: Node, text: str | bytes, said: str) -> None:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    before = node.paths.patroni_yml.read_bytes(), node.paths.consul_json.read_bytes()
    node.paths.node_file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(NodeError, match=said) as caught:
        configure(node.paths, node.machine)
    assert caught.value.exit_code == EX_CONFIG
    assert "\n" not in notice.lines(caught.value)[0]
    assert (node.paths.patroni_yml.read_bytes(), node.paths.consul_json.read_bytes()) == before
    assert not node.paths.ready.exists(), "Patroni must not start from what an earlier boot rendered"


def test_there_are_enough_of_them() -> None:
    assert len(BAD) >= 60


def test_all_problems_at_once_with_file_and_line(node: Node) -> None:
    node.write("cluster: A B\nname: x y\nsecrets:\n  key: short\nadress: 1\nnetworks: [nonsense]\n")
    node.write("dcs:\n  consul:\n    mode: leader\n", "10-dcs.yml")
    with pytest.raises(NodeError) as caught:
        configure(node.paths, node.machine)
    found = {(Path(p.file or "").name, p.line, p.key[-1]) for p in caught.value.problems}
    assert found == {
        ("node.yml", 1, "cluster"),
        ("node.yml", 2, "name"),
        ("node.yml", 4, "key"),
        ("node.yml", 5, "adress"),
        ("node.yml", 6, 0),
        ("10-dcs.yml", 3, "mode"),
    }


@pytest.mark.parametrize("text", [f"cluster: A B\nsecrets: {{key: {KEY}}}\n", "cluster: a\nsecrets: {key: hunter2}\n"])
def test_no_secret_is_ever_said(node: Node, capsys: pytest.CaptureFixture[str], text: str) -> None:
    node.write(text)
    assert cli.main(["configure", "--root", str(node.paths.root)]) == EX_CONFIG
    said = "".join(capsys.readouterr()) + node.paths.issue.read_text()
    assert KEY not in said
    assert "hunter2" not in said


def test_broken_yaml_is_not_quoted(node: Node) -> None:
    node.write('cluster: a\nsecrets:\n  key: "hunter2-hunter2-hunter2\n')
    with pytest.raises(NodeError) as caught:
        configure(node.paths, node.machine)
    assert "hunter2" not in str(caught.value)


def test_missing_file_says_what_to_write(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["configure", "--root", str(node.paths.root)]) == EX_CONFIG
    said = capsys.readouterr().err
    assert "node.yml: is missing: write `cluster:` and `secrets: {key: ...}` to it" in said
    assert said.endswith("then run `systemctl start patroni`\n")
    assert said.strip() == node.paths.issue.read_text().strip()


def test_the_issue_goes_when_healthy(node: Node) -> None:
    notice.show(node.paths, NodeError("x"))
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    assert not node.paths.issue.exists()
    assert node.paths.ready.exists()


def test_the_issue_is_short_and_safe_for_a_terminal(node: Node) -> None:
    notice.show(node.paths, NodeError([*NodeError("evil \x1b[31m \\n").problems * 20]))
    text = node.paths.issue.read_text()
    assert "\x1b" not in text
    assert "\\\\n" in text
    assert len(text.splitlines()) == notice.MAX_LINES + 1


def test_consul_that_is_not_installed(node: Node) -> None:
    node.write(MINIMAL)
    node.accounts = FakeAccounts(missing="consul")
    with pytest.raises(NodeError, match="Consul is not installed"):
        configure(node.paths, node.machine)
    assert not node.paths.patroni_yml.exists()


def test_what_is_no_file(node: Node) -> None:
    node.paths.node_file.mkdir()
    with pytest.raises(NodeError, match=r"cannot be read|not a regular file"):
        configure(node.paths, node.machine)


def test_an_unexpected_error_shows_its_place_and_not_its_text(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError(KEY)

    monkeypatch.setattr("patroni_node.configure.configure", explode)
    assert cli.main(["configure", "--root", str(node.paths.root)]) == EX_SOFTWARE
    said = capsys.readouterr().err
    assert "RuntimeError at test_refusals.py:" in said
    assert KEY not in said


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "n.yml"
    assert cli.main(["check", str(path)]) == EX_CONFIG
    path.write_text(MINIMAL)
    assert cli.main(["check", str(path)]) == 0
    assert "a node of cluster pg-15-cluster" in capsys.readouterr().out
    path.write_text("cluster: a\n")
    assert cli.main(["check", str(path)]) == EX_CONFIG
    assert capsys.readouterr().err == f"{path}: secrets: is missing: set it to a mapping with `key:`\n"
