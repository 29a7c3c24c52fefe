"""Trap 19: newer packages on a running node restart neither Patroni nor PostgreSQL."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from foundry.machine import Machine
from tests.pipeline.harness import inv
from tests.pipeline.lab import STORE, Lab, in_the_switch, leads

NEWER = "9.0"
OURS = ("patroni-node", "patroni-venv")
NOT_OURS = ("postgresql-15", "postgresql-common", "consul")


def newer(deb: Path, target: Path) -> Path:
    """The same package with a higher version."""
    tree = target / "tree" / deb.name
    tree.parent.mkdir(exist_ok=True)
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    text = re.sub(r"^Version: .*", f"Version: {NEWER}", control.read_text(), flags=re.MULTILINE)
    control.write_text(text)
    made = target / f"{deb.name.partition('_')[0]}_{NEWER}.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, made], check=True, capture_output=True)
    return made


def running(node: Machine) -> dict[str, str]:
    """What must stay as it is: the processes, and when they were started."""
    show = "systemctl show -P MainPID -P NRestarts -P ActiveEnterTimestampMonotonic patroni"
    return {
        "postmaster": node.ssh("sudo head -n 3 /var/lib/postgresql/15/main/postmaster.pid").output,
        "patroni": node.ssh(show).output,
    }


def test_newer_packages_leave_the_node_running(built: Path, lab: Lab) -> None:
    inv(built, "build-deb", "--offline").expect(0)
    offered = lab.folder / "offered"
    offered.mkdir(parents=True)
    names = [newer(next((built / "deb").glob(f"{name}_*.deb")), offered).name for name in OURS]
    pool = max(built.glob("archive/*/stage.json"), key=lambda p: p.stat().st_mtime).parent / "pool"
    for name in NOT_OURS:
        deb = next(pool.glob(f"{name}_*.deb"))
        (offered / deb.name).write_bytes(deb.read_bytes())
        names.append(deb.name)

    node = lab.boot(lab.spec(1, {}))
    leads(node, "pg-srv1", "10.129.0.21")
    before = running(node)
    server = ["python3", "-m", "http.server", "--directory", str(offered), "--bind", STORE, "8999"]
    with in_the_switch(lab, server, 8999):
        for name in names:
            node.ssh(f"curl --fail --silent -O http://{STORE}:8999/{name}")
    listed = " ".join(f"./{name}" for name in names)
    node.ssh(f"sudo DEBIAN_FRONTEND=noninteractive apt-get install --yes --reinstall {listed}", timeout=300)

    versions = node.ssh(f"dpkg-query -W -f '${{Version}} ${{db:Status-Abbrev}}\\n' {' '.join(OURS)}").output
    assert versions.split() == [NEWER, "ii", NEWER, "ii"]
    assert running(node) == before
    leads(node, "pg-srv1", "10.129.0.21")
