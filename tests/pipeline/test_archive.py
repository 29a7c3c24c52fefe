"""`archive:` on real nodes: the leader makes the stanza and the backup, and a replica is made from it."""

from __future__ import annotations

import json
from typing import Any

from foundry.machine import Machine
from tests.pipeline.harness import until
from tests.pipeline.lab import Lab, members, whole_cluster

REPOSITORY = "/var/lib/pgbackrest"
PATRONICTL = "patronictl -c /etc/patroni/patroni.yml"


def stanza(machine: Machine) -> dict[str, Any]:
    """What pgBackRest says about the first stanza of this machine's repository; nothing where there is none."""
    found = json.loads(machine.ssh("sudo -u postgres pgbackrest info --output=json").output)
    return found[0] if found else {}


def test_a_replica_is_made_from_the_leader_s_backup(lab: Lab) -> None:
    nodes = lab.cluster(2, {"archive": {"pgbackrest": {"options": {"compress-type": "zst"}}}})
    found = members(nodes[0])
    names, hosts = ({m["Role"]: m[part] for m in found} for part in ("Member", "Host"))
    leader, replica = (next(n for n in nodes if n.spec.seed.hostname == names[r]) for r in ("Leader", "Replica"))

    leader.ssh("sudo -u postgres psql -qc 'CREATE TABLE kept AS SELECT 42 AS answer' -c 'SELECT pg_switch_wal()'")
    until(lambda: (bool(stanza(leader).get("archive")), stanza(leader)), "the leader's archive", 60)
    for node in nodes:
        node.ssh("sudo systemctl start patroni-node-backup@full", timeout=120)
    assert [backup["type"] for backup in stanza(leader)["backup"]] == ["full"]
    assert not stanza(replica).get("backup")
    said = replica.ssh("sudo journalctl -u patroni-node-backup@full -o cat").output
    assert "this member does not lead" in said

    # In production both see one repository; here the replica is given a copy of the leader's.
    leader.ssh(f"mkdir share && sudo tar -C {REPOSITORY} -cf share/repository.tar . && sudo chmod 644 share/*")
    leader.ssh("sudo systemd-run --quiet --working-directory=$PWD/share python3 -m http.server 8999")
    url = f"http://{hosts['Leader']}:8999/repository.tar"
    replica.ssh(f"curl --fail --silent --retry 9 --retry-connrefused {url} | sudo tar -C {REPOSITORY} -x")
    replica.ssh(f"{PATRONICTL} reinit pg-15-cluster {names['Replica']} --force --wait", timeout=180)
    whole_cluster(leader, 2)
    journal = replica.ssh("sudo journalctl -u patroni -b -o cat").output
    assert "replica has been created using pgbackrest" in journal
    assert replica.ssh("sudo -u postgres psql -Atc 'SELECT answer FROM kept'").output == "42"
    assert leader.ssh("sudo -u postgres psql -Atc 'SELECT failed_count < 5 FROM pg_stat_archiver'").output == "t"
