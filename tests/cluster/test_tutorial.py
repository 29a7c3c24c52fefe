"""The tutorial's commands, typed as it types them by the user that a cloud image's administrator is."""

from __future__ import annotations

import json
import shlex

from foundry.lab.cluster import Cluster, Member
from foundry.run import Result
from tests.pipeline.harness import until

PATRONICTL = "patronictl -c /etc/patroni/patroni.yml"
CLUSTER = "pg-15-cluster"
SECONDS = 60
# "Применим настройка PostgreSQL 15", as its editor shows them.
PGTUNE = """\
max_connections: 100
shared_buffers: '1GB'
effective_cache_size: '3GB'
maintenance_work_mem: '256MB'
checkpoint_completion_target: 0.9
wal_buffers: '16MB'
default_statistics_target: 100
random_page_cost: 1.1
effective_io_concurrency: 200
work_mem: '2621kB'
min_wal_size: '1GB'
max_wal_size: '4GB'
"""
NAMES = [line.partition(":")[0] for line in PGTUNE.splitlines()]
EDITOR = """#!/bin/sh
exec sed -i '/^  parameters:$/r /tmp/pgtune' "$1"
"""


def typed(cluster: Cluster, command: str, answers: str = "", *, on: str = "pg-srv1", before: str = "") -> Result:
    """What a command of the tutorial says. answers: what is typed at its questions. before: in front of its words."""
    text = f"printf %b {shlex.quote(answers)} | {before}{PATRONICTL} {command}"
    return cluster.machines[on].ssh(text, timeout=180)


def show(cluster: Cluster, name: str, parameter: str) -> str:
    return cluster.machines[name].ssh(f"cd /; sudo -u postgres psql -XAtc 'SHOW {parameter}'").output


def configuration(cluster: Cluster) -> dict[str, object]:
    """The cluster's configuration (GET /config)."""
    found = json.loads(cluster.machines["pg-srv1"].ssh(cluster.plan.ask(cluster.nodes["pg-srv1"], "/config")).output)
    assert isinstance(found, dict)
    return found


def pending(members: list[Member]) -> list[str]:
    return [m.name for m in members if m.pending_restart]


def wait_pending(cluster: Cluster, names: list[str]) -> None:
    cluster.wait_members(lambda found: len(found) == 3 and pending(found) == names, f"pending: {names}", SECONDS)


def wait_shown(cluster: Cluster, names: list[str], parameter: str, value: str) -> None:
    def look() -> tuple[bool, object]:
        found = {name: show(cluster, name, parameter) for name in names}
        return set(found.values()) == {value}, found

    until(look, f"{parameter} is {value}", SECONDS)


def restarted(cluster: Cluster, name: str) -> str:
    answer = cluster.machines[name].ssh("cd /; sudo -u postgres psql -XAtc 'SELECT pg_postmaster_start_time()'")
    return answer.output


def leader_of(cluster: Cluster) -> str:
    return next(m.name for m in cluster.wait_formed(3, SECONDS) if m.role == "leader")


def test_the_normal_user_sees_the_cluster_and_its_service(cluster: Cluster) -> None:
    for name, machine in cluster.machines.items():
        assert machine.ssh("id -un").output == "debian"
        table = typed(cluster, "list", on=name).output
        for member in cluster.members():
            (row,) = (line for line in table.splitlines() if line.startswith(f"| {member.name} "))
            assert [member.host, member.role.title(), member.state] == [c.strip() for c in row.split("|")[2:5]]
        status = machine.ssh("systemctl status patroni").output
        assert "/usr/bin/patroni /etc/patroni/patroni.yml" in status
        assert "enabled" in status
        # Verbatim, as there; no password is asked for.
        assert machine.ssh("sudo systemctl status patroni").output.splitlines()[1] == status.splitlines()[1]


def test_pgtunes_values_are_taken_and_the_nodes_own_win(cluster: Cluster) -> None:
    before = configuration(cluster)
    own = {name: show(cluster, "pg-srv1", name) for name in NAMES}
    machine = cluster.machines["pg-srv1"]
    lines = "".join(f"    {line}\n" for line in PGTUNE.splitlines() if not line.startswith("max_connections"))
    for path, text in (("/tmp/pgtune", lines), ("/tmp/edit", EDITOR)):
        machine.ssh(f"printf %s {shlex.quote(text)} >{path} && chmod 755 {path}")
    answer = typed(cluster, "edit-config", "y\n", before="EDITOR=/tmp/edit ").output
    assert "+    shared_buffers: 1GB" in answer or "+    shared_buffers: '1GB'" in answer
    assert answer.endswith("Configuration changed")
    shown = [line.strip().replace("'", "") for line in typed(cluster, "show-config").output.splitlines()]
    assert set(PGTUNE.replace("'", "").splitlines()) <= set(shown)
    # Applied with the twelve; a node's own size wins over them, so nothing needs a restart (docs/tuning.md).
    typed(cluster, "edit-config --force -s postgresql.parameters.log_min_duration_statement=6s")
    wait_shown(cluster, sorted(cluster.machines), "log_min_duration_statement", "6s")
    assert {name: show(cluster, "pg-srv1", name) for name in NAMES} == own
    assert pending(cluster.members()) == []
    typed(cluster, "edit-config --force --replace -", json.dumps(before))
    wait_shown(cluster, sorted(cluster.machines), "log_min_duration_statement", "-1")
    assert configuration(cluster) == before


def test_the_clusters_values_wait_for_a_restart_of_all(cluster: Cluster) -> None:
    everybody = sorted(cluster.machines)
    typed(cluster, "edit-config --apply - --force", "postgresql: {parameters: {max_connections: 120}}")
    wait_pending(cluster, everybody)
    assert typed(cluster, "list").output.count("| *  ") == 3
    assert {show(cluster, name, "max_connections") for name in everybody} == {"100"}
    # When, whether, below which version: as in the tutorial.
    answer = typed(cluster, f"restart {CLUSTER}", "\\ny\\n\\n").output
    for name in everybody:
        assert f"Success: restart on member {name}" in answer
    wait_pending(cluster, [])
    assert "Pending restart" not in typed(cluster, "list").output
    assert {show(cluster, name, "max_connections") for name in everybody} == {"120"}

    typed(cluster, "edit-config --force -s postgresql.parameters.max_connections=100")
    wait_pending(cluster, everybody)
    leader = leader_of(cluster)
    typed(cluster, f"restart {CLUSTER} {leader} --force")
    # A standby may not have less than its primary had when it wrote what the standby reads.
    for name in everybody:
        if name != leader:
            replayed(cluster, leader, name)
            typed(cluster, f"restart {CLUSTER} {name} --force")
    wait_pending(cluster, [])
    assert {show(cluster, name, "max_connections") for name in everybody} == {"100"}


def replayed(cluster: Cluster, leader: str, name: str) -> None:
    """Wait until a replica has replayed all that its leader has written."""
    sql = "cd /; sudo -u postgres psql -XAtc"
    position = cluster.machines[leader].ssh(f"{sql} 'SELECT pg_current_wal_lsn()'").output
    query = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"

    def look() -> tuple[bool, object]:
        found = cluster.machines[name].ssh(f'{sql} "{query}"', check=False).output
        return found == "t", found

    until(look, f"{name} replays {position}", SECONDS)


def test_one_member_is_restarted_alone(cluster: Cluster) -> None:
    everybody = sorted(cluster.machines)
    began = {name: restarted(cluster, name) for name in everybody}
    key = "postgresql.parameters.track_activity_query_size"
    typed(cluster, "edit-config", "y\n", before="EDITOR=/bin/true ")
    typed(cluster, f"edit-config --force -s {key}=2kB")
    wait_pending(cluster, everybody)
    typed(cluster, f"restart {CLUSTER} pg-srv1", "\\ny\\n\\n")
    wait_pending(cluster, ["pg-srv2", "pg-srv3"])
    cluster.wait_formed(3, SECONDS)
    assert [show(cluster, n, "track_activity_query_size") for n in everybody] == ["2kB", "1kB", "1kB"]
    after = {name: restarted(cluster, name) for name in everybody}
    assert [name for name in everybody if after[name] != began[name]] == ["pg-srv1"]
    typed(cluster, f"edit-config --force -s {key}=null")
    # Patroni asks for a restart wherever a parameter is taken away, even where it had not been applied yet.
    wait_pending(cluster, everybody)
    typed(cluster, f"restart {CLUSTER} --force")
    wait_pending(cluster, [])
    assert show(cluster, "pg-srv1", "track_activity_query_size") == "1kB"


def test_reload_applies_what_needs_no_restart(cluster: Cluster) -> None:
    everybody = sorted(cluster.machines)
    began = {name: restarted(cluster, name) for name in everybody}
    typed(cluster, "edit-config --force -s postgresql.parameters.log_min_duration_statement=5s")
    answer = typed(cluster, f"reload {CLUSTER}", "y\n").output
    assert answer.count("Reload request received for member") == 3
    wait_shown(cluster, everybody, "log_min_duration_statement", "5s")
    typed(cluster, "edit-config --force -s postgresql.parameters.log_min_duration_statement=null")
    typed(cluster, f"reload {CLUSTER} --force")
    wait_shown(cluster, everybody, "log_min_duration_statement", "-1")
    assert {name: restarted(cluster, name) for name in everybody} == began


def test_switchover_asks_and_is_forced(cluster: Cluster) -> None:
    for command, answers in ((f"switchover {CLUSTER}", "\\n\\n\\ny\\n"), (f"switchover {CLUSTER} --force", "")):
        before = {m.name: m.timeline for m in cluster.members()}
        leader = leader_of(cluster)
        answer = typed(cluster, command, answers).output
        assert "Successfully switched over to" in answer
        after = cluster.wait_formed(3, SECONDS)
        assert leader != next(m.name for m in after if m.role == "leader")
        assert {m.timeline for m in after} == {(before[leader] or 0) + 1}


def test_reinit_makes_a_replica_anew(cluster: Cluster) -> None:
    if leader_of(cluster) == "pg-srv2":
        typed(cluster, f"switchover {CLUSTER} --force")
        cluster.wait_formed(3, SECONDS)
    machine, old = cluster.machines["pg-srv2"], "/var/lib/postgresql/15/main/written-before-reinit"
    machine.ssh(f"sudo -u postgres touch {old}")
    leader = leader_of(cluster)
    answer = typed(cluster, f"reinit {CLUSTER} pg-srv2", "y\n").output
    assert "Success: reinitialize for member pg-srv2" in answer
    until(lambda: (machine.ssh(f"sudo test -e {old}", check=False).returncode == 1, old), "an empty folder", SECONDS)
    assert leader_of(cluster) == leader
    sender = "SELECT count(*) FROM pg_stat_replication WHERE application_name = $$pg-srv2$$ AND state = $$streaming$$"
    ask = f"cd /; sudo -u postgres psql -XAtc '{sender}'"
    # The folder is emptied first, and filled by a copy that takes some seconds.
    until(lambda: ((found := cluster.machines[leader].ssh(ask).output) == "1", found), "pg-srv2 streams", SECONDS)
