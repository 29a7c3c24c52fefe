"""`patroni-node check` on a hand-made patroni.yml: what it finds, where, and what it leaves alone."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

import pytest
from conftest import DATA, MINIMAL, FakeIp, Node

from patroni_node import cli, lint, patroni_yml
from patroni_node.configure import configure
from patroni_node.errors import spell

# The configuration of the manual procedure that these nodes replace, line by line.
TUTORIAL = DATA / "tutorial.yml"
GOOD = "kJ8sd7f6Qw3rTy"
INITDB = "initdb: [encoding: UTF8, data-checksums, auth-local: peer, auth-host: scram-sha-256]"
HBA = "bootstrap.dcs.postgresql.pg_hba"
PARAMETERS = "bootstrap.dcs.postgresql.parameters"


def found(text: str) -> list[tuple[int | None, str, str]]:
    problems = lint.findings(patroni_yml.parse(text, "patroni.yml"))
    return [(problem.line, spell(problem.key), problem.message) for problem in problems]


def local(text: str) -> str:
    """A patroni.yml with these parameters of PostgreSQL."""
    return f"scope: a\npostgresql:\n  parameters:\n    {text}\n"


def cluster(text: str) -> str:
    """The same in the cluster's configuration."""
    return f"scope: a\nbootstrap:\n  {INITDB}\n  dcs: {{postgresql: {{parameters: {{{text}}}}}}}\n"


def rules(*lines: str, more: str = "") -> str:
    return f"scope: a\npostgresql:\n  use_unix_socket: true\n{more}  pg_hba:\n" + "".join(
        f"  - {line}\n" for line in lines
    )


TUTORIAL_FINDINGS = [
    (5, "watchdog.mode", "split brain"),
    (8, "consul.host", "write 127.0.0.1"),
    (15, "restapi.auth", "write restapi.authentication with username and password"),
    (15, "restapi.auth", "everybody tries first"),
    (26, f"{PARAMETERS}.archive_mode", "until the disk is full"),
    (27, f"{PARAMETERS}.wal_level", "write wal_level: replica"),
    (29, f"{PARAMETERS}.wal_keep_segments", "write wal_keep_size: 128MB"),
    (30, f"{PARAMETERS}.archive_timeout", "remove it"),
    (35, f"{HBA}[0]", "lets every local user in as anybody, even the superuser, without a password: write peer"),
    (36, f"{HBA}[1]", "lets whoever has that address copy the whole cluster"),
    (37, f"{HBA}[2]", "write scram-sha-256"),
    (38, f"{HBA}[3]", "write scram-sha-256"),
    (39, f"{HBA}[4]", "lets every local user copy the whole cluster"),
    (43, "initdb", "move it below bootstrap"),
    (53, "postgresql.pg_rewind", "move it to postgresql.authentication.rewind"),
    (55, "postgresql.pg_rewind.password", "openssl rand"),
    (56, "postgresql.replication", "move it to postgresql.authentication.replication"),
    (58, "postgresql.replication.password", "openssl rand"),
    (59, "postgresql.superuser", "move it to postgresql.authentication.superuser"),
    (61, "postgresql.superuser.password", "openssl rand"),
]


def test_the_tutorial_s_file_shows_every_mistake_in_its_line() -> None:
    said = found(TUTORIAL.read_text())
    assert [(line, key) for line, key, _ in said] == [(line, key) for line, key, _ in TUTORIAL_FINDINGS]
    assert [
        key for (_, key, message), (*_, part) in zip(said, TUTORIAL_FINDINGS, strict=True) if part not in message
    ] == []


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        # 1: initdb
        (f"initdb: [data-checksums]\nbootstrap:\n  {INITDB}\n", "initdb", "is read by nobody here"),
        (f"bootstrap: {{{INITDB.replace('data-checksums, ', '')}}}\n", "bootstrap.initdb", "add `- data-checksums`"),
        (f"bootstrap: {{{INITDB.replace('UTF8', 'LATIN1')}}}\n", "bootstrap.initdb", "add `- encoding: UTF8`"),
        (f"bootstrap: {{{INITDB.replace('encoding: UTF8', 'no-locale')}}}\n", "bootstrap.initdb", "ask for UTF8"),
        (f"bootstrap: {{method: initdb, {INITDB.replace('data-', '')}}}\n", "bootstrap.initdb", "damaged pages"),
        # 2: where credentials are
        (
            "postgresql: {authentication: {}, superuser: {username: x}}\n",
            "postgresql.superuser",
            "is passed over, because postgresql.authentication exists",
        ),
        ("postgresql: {replication: {username: x}}\n", "postgresql.replication", "turns use_pg_rewind off"),
        ("postgresql: {rewind: {username: x}}\n", "postgresql.rewind", "so the superuser rewinds"),
        (
            "postgresql: {authentication: {pg_rewind: {username: x}}}\n",
            "postgresql.authentication.pg_rewind",
            "its name is postgresql.authentication.rewind",
        ),
        (f"restapi: {{auth: 'a:{GOOD}'}}\n", "restapi.auth", "restapi.authentication"),
        (f"scope: a\nctl: {{auth: 'a:{GOOD}'}}\n", "ctl.auth", "ctl.authentication"),
        # 3: old names
        (cluster("wal_keep_segments: 100"), f"{PARAMETERS}.wal_keep_segments", "write wal_keep_size: 1600MB"),
        (cluster("WAL_KEEP_SEGMENTS: many"), f"{PARAMETERS}.WAL_KEEP_SEGMENTS", "write wal_keep_size: 128MB"),
        (
            local("wal_keep_segments: 8"),
            "postgresql.parameters.wal_keep_segments",
            f"is not read here: write wal_keep_size: 128MB in {PARAMETERS}",
        ),
        (cluster("wal_level: archive"), f"{PARAMETERS}.wal_level", "passes it over: write wal_level: replica"),
        (local("wal_level: hot_standby"), "postgresql.parameters.wal_level", f"replica in {PARAMETERS}"),
        # 4: archives that are none
        (local("archive_mode: on"), "postgresql.parameters.archive_mode", "until the disk is full"),
        (local("{archive_mode: Always, archive_command: ' '}"), "postgresql.parameters.archive_mode", "disk is full"),
        (local("{archive_mode: on, archive_library: ''}"), "postgresql.parameters.archive_mode", "disk is full"),
        (
            local("{archive_mode: on, archive_command: 'false'}"),
            "postgresql.parameters.archive_command",
            "always fails",
        ),
        (local("{archive_mode: on, archive_command: exit 1}"), "postgresql.parameters.archive_command", "always fails"),
        (local("archive_timeout: 30min"), "postgresql.parameters.archive_timeout", "for an archive that is not on"),
        # 5: rules
        (rules("host all all 10.0.0.1/32 trust"), "postgresql.pg_hba[0]", "has that address in as anybody"),
        (rules("hostssl app app 10.0.0.0 255.0.0.0 trust"), "postgresql.pg_hba[0]", "in as that user"),
        (rules("local all app trust"), "postgresql.pg_hba[0]", "write scram-sha-256"),
        (rules("local all postgres trust"), "postgresql.pg_hba[0]", "write peer"),
        (rules("local  replication, app  all  trust  # why not"), "postgresql.pg_hba[0]", "even the superuser"),
        (rules('host all "trust me" ::1/128 trust'), "postgresql.pg_hba[0]", "lets every local user in as that user"),
        (rules("host all all 10.0.0.0/8 password"), "postgresql.pg_hba[0]", "sent over the network as they are"),
        (rules("host all all samenet ident map=a"), "postgresql.pg_hba[0]", "takes the other machine's word"),
        (
            f"bootstrap: {{{INITDB}, pg_hba: [local all all peer, host all all all trust]}}\n",
            "bootstrap.pg_hba[1]",
            "whoever has that address",
        ),
        (
            "bootstrap: {initdb: [encoding: UTF8, data-checksums, auth: trust]}\n",
            "bootstrap.initdb[2].auth",
            "initdb's own rules stay",
        ),
        (
            "bootstrap: {initdb: {locale: C.UTF-8, data-checksums: '', auth-host: scram-sha-256}}\n",
            "bootstrap.initdb",
            "does not name both auth-local and auth-host",
        ),
        # 6: passwords
        ("restapi: {authentication: {password: patroni}}\n", "restapi.authentication.password", "openssl rand"),
        (
            "postgresql: {authentication: {rewind: {password: 12345}}}\n",
            "postgresql.authentication.rewind.password",
            "first",
        ),
        ("etcd3: {password: rep-pass}\n", "etcd3.password", "everybody tries first"),
        (
            "restapi: {authentication: {username: Bob, password: bob}}\n",
            "restapi.authentication.password",
            "the user's name",
        ),
        ("restapi: {keyfile_password: changeit}\n", "restapi.keyfile_password", "everybody tries first"),
        ("consul: {token: secret}\n", "consul.token", "everybody tries first"),
        # 11: the watchdog
        ("scope: a\nwatchdog: {mode: 'Off'}\n", "watchdog.mode", "split brain"),
        ("scope: a\nwatchdog: {mode: disabled}\n", "watchdog.mode", "write automatic, or required"),
        ("scope: a\nwatchdog: {mode: on}\n", "watchdog.mode", "no mode that Patroni knows"),
        ("scope: a\nwatchdog: {mode: }\n", "watchdog.mode", "no mode that Patroni knows"),
        # 17: Consul
        ("consul: {url: 'http://localhost:8500/v1'}\n", "consul.url", "127.0.0.1"),
        ("consul: {host: LocalHost}\n", "consul.host", "127.0.0.1"),
        # 21: Patroni itself
        (
            "postgresql:\n  use_unix_socket: false\n  pg_hba: [local all all peer, hostssl all all 10.0.0.0/8 md5]\n",
            "postgresql.use_unix_socket",
            "bootstrap fails in a loop",
        ),
        (
            "postgresql: {pg_hba: [local all all peer, host all all ::1/128 reject, host replication a all md5]}\n",
            "postgresql.use_unix_socket",
            "write use_unix_socket: true",
        ),
        ("scope: a\nnamespace: a\nscope: b\n", "scope", "given twice (first in line 1), and Patroni takes the last"),
    ],
)
def test_each_mistake(text: str, key: str, says: str) -> None:
    [(line, at, message)] = found(text)
    assert at == key and says in message
    assert line is not None


@pytest.mark.parametrize(
    "command",
    [
        *("/bin/true", "/usr/bin/true", "'true'", "':'", "exit 0", "cd .", "echo %p", "true %p", "'true # for now'"),
        *("': > /dev/null'", "test -f %p && true", "'echo archiving %f; exit 0'", "'true;'"),
    ],
)
def test_commands_that_archive_nothing(command: str) -> None:
    said = found(local(f"{{archive_mode: 'on', archive_command: {command}}}"))
    if ">" in command or command.startswith("test"):
        # These look at something, or write something: what, a reader of the file cannot tell.
        assert said == []
    else:
        [(_, key, message)] = said
        assert key == "postgresql.parameters.archive_command" and "throws WAL away" in message


@pytest.mark.parametrize(
    "text",
    [
        f"scope: a\nbootstrap: {{{INITDB}}}\n",
        "scope: a\nbootstrap: {initdb: [locale: de_DE.utf8, data-checksums, auth: scram-sha-256]}\n",
        "scope: a\nbootstrap: {method: pgbackrest}\n",
        "scope: a\nbootstrap: {dcs: {standby_cluster: {host: 10.0.0.1}}}\n",
        "scope: a\nbootstrap:\n",
        local("{archive_mode: on, archive_command: 'pgbackrest --stanza=a archive-push %p', archive_timeout: 60}"),
        local("{archive_mode: on, archive_command: 'echo %p >>/list && cp %p /wal/%f'}"),
        local("{archive_mode: on, archive_command: 'echo $(cp %p /wal)'}"),
        local("{archive_mode: on, archive_library: basic_archive, archive_command: /bin/true}"),
        local("{archive_mode: off, archive_command: /bin/true, archive_timeout: 0}"),
        cluster("archive_mode: on") + "postgresql: {parameters: {archive_command: 'cp %p /wal/%f'}}\n",
        cluster("archive_mode: on") + "postgresql: {parameters: {archive_mode: off}}\n",
        rules("local all all peer", "host all trust 10.0.0.0/8 scram-sha-256 # no trust", "# local all all trust"),
        rules("hostssl all all 10.0.0.0/8 password", "local all all ident", "host all all 10.0.0.0/8 md5"),
        rules("local all all peer", "host all all 0.0.0.0/0 scram-sha-256").replace("true", "false"),
        rules("local all all peer", "host all all all scram-sha-256").replace("true", "false"),
        rules("local all all peer", "host all all localhost scram-sha-256").replace("true", "false"),
        rules("local all all peer", "host all all 10.0.0.0/8 md5", more="  listen: '10.0.0.1,x:5432'\n").replace(
            "true", "no"
        ),
        rules("host all all 10.0.0.0/8 scram-sha-256", "nonsense").replace("true", "false"),
        f"bootstrap: {{{INITDB}, dcs: {{postgresql: {{use_unix_socket: true, pg_hba: [local all all peer]}}}}}}\n",
        "scope: a\nconsul: {host: '127.0.0.1:8500'}\nwatchdog: {mode: required}\n",
        "scope: a\nconsul: {host: localhost.example.org}\nwatchdog: {device: /dev/watchdog}\n",
        f"restapi: {{authentication: {{username: a, password: {GOOD}}}}}\npostgresql: {{pgpass: /x/.pgpass}}\n",
        "scope: 7\nbootstrap: 5\npostgresql: [not, a, mapping]\nconsul: 3\nrestapi: {auth: }\nwatchdog: off\n",
        "postgresql: {pg_hba: local, parameters: [a], authentication: x}\nbootstrap: {method: x, pg_hba: [3]}\n",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "more",
    [
        "",
        "watchdog: required\n",
        "networks: ['fd00::/64', 10.129.0.0/24]\n",
        "archive: {pgbackrest: {create_replica: false}}\n",
        "dcs: {consul: {mode: external, host: 10.0.0.1}}\n",
        "dcs: {consul: {mode: external, host: consul.example.org, tls: {ca: {file: /etc/pki/ca.pem}}}}\n",
        "dcs: {consul: {mode: client, join: [10.0.0.1]}}\n",
        "dcs: {etcd3: {hosts: ['10.0.0.1:2379'], username: patroni}}\n",
        "tuning: false\ntags: {nofailover: true}\ncallbacks: {on_role_change: /bin/true}\nrestart: 'no'\n",
        "tuning: {workload: dw, parameters: {wal_level: logical, wal_keep_size: 1GB, archive_timeout: 0}}\n",
        "tls: {ca: {file: /etc/pki/ca.pem}, certificate: {file: /etc/pki/node.pem}, key: {file: /etc/pki/node.key}}\n",
        "patroni: {bootstrap: null}\n",
        "patroni: {watchdog: null, postgresql: {parameters: {log_statement: ddl}}}\n",
    ],
)
def test_what_patroni_node_writes_has_no_mistake(node: Node, more: str) -> None:
    pki = node.paths.root / "etc/pki"
    pki.mkdir(parents=True)
    for name in ("ca.pem", "node.pem", "node.key"):
        (pki / name).write_bytes((DATA / name).read_bytes())
        (pki / name).chmod(0o600)
    program = node.paths.root / "usr/bin/pgbackrest"
    program.parent.mkdir(parents=True)
    program.touch()
    given = MINIMAL + (f"  etcd: {GOOD}\n" if "etcd3" in more else "")
    node.write(given + ("" if "networks" in more else "networks: [10.129.0.0/24]\n") + more)
    configure(node.paths, node.machine)
    assert lint.findings(patroni_yml.read(node.paths.patroni_yml), node.paths.patroni_yml) == []


def test_what_patroni_node_writes_on_ipv6_has_no_mistake(node: Node) -> None:
    node.ip = FakeIp({"eth0": ["fd00::21", "fe80::1"]}, [], ["eth0"])
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    assert lint.findings(patroni_yml.read(node.paths.patroni_yml), node.paths.patroni_yml) == []


def test_no_finding_quotes_a_secret() -> None:
    words = re.findall(r"password: (\w+)", TUTORIAL.read_text())
    said = "\n".join(
        message for _, _, message in found(TUTORIAL.read_text().replace("password: postgres", "password: 'postgres1!'"))
    )
    assert len(words) == 3
    assert "postgres1!" not in said and "patroni:patroni" not in said


def test_a_file_that_everybody_may_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.yml"
    path.write_text(f"scope: a\nrestapi: {{authentication: {{username: a, password: {GOOD}}}}}\n")
    path.chmod(0o644)
    assert cli.main(["check", str(path)]) == 78
    message = f"{path}: holds passwords, and everybody may read it: chown root:postgres, chmod 0640\n"
    assert capsys.readouterr().err == message
    path.chmod(0o640)
    assert cli.main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: a patroni.yml without a known mistake\n"


def test_a_file_that_everybody_may_change(tmp_path: Path) -> None:
    path = tmp_path / "p.yml"
    path.write_text("scope: a\n")
    path.chmod(0o646)
    [problem] = lint.findings(patroni_yml.read(path), path)
    assert "may be changed by everybody" in problem.message
    path.chmod(0o644)
    assert lint.findings(patroni_yml.read(path), path) == []


@pytest.mark.parametrize(
    ("name", "text", "code", "says"),
    [
        ("any.yml", MINIMAL, 0, "a node of cluster pg-15-cluster"),
        ("patroni.yml", MINIMAL, 0, "a node of cluster pg-15-cluster"),
        ("any.yml", "scope: a\n", 0, "a patroni.yml without"),
        ("any.yml", "scope: a\ntags: {}\ncallbacks: {}\n", 0, "a patroni.yml without"),
        ("any.yml", MINIMAL + "scope: a\n", 78, "scope: "),
        ("node.yml", "secrets: {key: x}\npostgresql: {}\n", 78, "cluster: "),
        ("patroni.yml", "cluster: a\npostgresql: {pg_hba: [local all all trust]}\n", 78, "write peer"),
        ("patroni-1.yml", "watchdog: {mode: off}\n", 78, "split brain"),
        ("node.yml", "watchdog: off\nname: a\n", 78, "cluster: "),
        ("patroni.yml", "", 78, "must be a mapping"),
        ("node.yml", "", 78, "write `cluster:`"),
        ("node.yml", "cluster: &a b\n", 78, "anchors and aliases (&name, *name) are not accepted"),
        ("any.yml", "scope: &a b\nname: *a\n", 0, "a patroni.yml without"),
        ("patroni.yml", "scope: [a\n", 78, "patroni.yml:2: is not valid YAML"),
        ("patroni.yml", None, 78, "patroni.yml: does not exist"),
        ("node.yml", None, 78, "node.yml: does not exist"),
    ],
)
def test_the_command_tells_the_two_kinds_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, code: int, says: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    assert cli.main(["check", str(path)]) == code
    said = capsys.readouterr()
    assert says in (said.err if code else said.out)
    assert "Traceback" not in said.err


def test_a_pipe_in_the_place_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("patroni.yml", "node.yml"):
        os.mkfifo(tmp_path / name)
        assert cli.main(["check", str(tmp_path / name)]) == 78
        assert capsys.readouterr().err == f"{tmp_path / name}: is not a regular file\n"


def test_it_needs_yaml_and_nothing_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Anew, and without the modules that take long to import, or that a machine elsewhere may not have."""
    for name in [name for name in sys.modules if name.split(".")[0] == "patroni_node"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("jinja2", "jsonschema", "urllib.request", "patroni"):
        monkeypatch.setitem(sys.modules, name, None)
    fresh = importlib.import_module("patroni_node.cli")
    assert fresh.main(["check", str(TUTORIAL)]) == 78
    assert len(capsys.readouterr().err.splitlines()) in (len(TUTORIAL_FINDINGS), len(TUTORIAL_FINDINGS) + 1)


def test_every_kind_of_finding_is_in_the_manual() -> None:
    page = (Path(__file__).parents[3] / "docs/migrating.md").read_text()
    _, _, section = page.partition("\n## Checking a hand-made patroni.yml\n")
    table = "\n".join(line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|"))
    named = {span.rpartition(".")[2] for span in re.findall(r"`([^`]+)`", table)}
    keys = {re.sub(r"\[\d+\]", "", key).rpartition(".")[2] for _, key, _ in TUTORIAL_FINDINGS}
    assert keys - named == set()
