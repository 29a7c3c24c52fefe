"""A leader whose disk is full hands over at once, and comes back when there is space again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml

from foundry.lab.cluster import Cluster
from foundry.lab.plan import Node
from foundry.machine import Spec, seed
from tests.cluster.conftest import Clusters
from tests.cluster.trial import SQL, trial

DATA = "/var/lib/postgresql"
SMALL = [f"mountpoint -q {DATA} && install -d -o postgres -g postgres {DATA} {DATA}/15"]


class SmallDisks(Cluster):
    """Its data lies on 400 MB, where a container's would otherwise be the build host's whole disk."""

    def spec(self, node: Node, **more: Any) -> Spec:
        found = super().spec(node, **more)
        user: dict[str, Any] = yaml.safe_load(seed.documents(found.seed)["user-data"])
        text = "#cloud-config\n" + yaml.safe_dump({**user, "bootcmd": SMALL})
        small = (f"{DATA}:size=400M,mode=0755",)
        return replace(found, seed=replace(found.seed, user_data=text), tmpfs=small)


def test_the_leader_s_disk_is_full(clusters: Clusters) -> None:
    cluster = clusters.make(SmallDisks)
    with trial(cluster, "disk-full") as seen:
        assert seen.on(seen.leader, f"{SQL} 'SHOW max_wal_size'") == "100MB", "a quarter of the disk"
        said = seen.on(seen.leader, f"sudo -u postgres dd if=/dev/zero of={DATA}/fill bs=1M 2>&1", check=False)
        assert "No space left on device" in said
        # The next segment of WAL finds no room.
        seen.on(seen.leader, f"{SQL} 'SELECT pg_switch_wal()'", check=False)
        seen.new_leader()
        seen.writes_go_on()
        assert "removed leader key after trying and failing to start postgres" in seen.journal(seen.leader)
        seen.on(seen.leader, f"sudo rm {DATA}/fill")
