"""Consul as HashiCorp's package lays it out: another account, other folders, another unit. The program is Debian's."""

from __future__ import annotations

import base64

from tests.cluster.conftest import Clusters
from tests.pipeline.harness import until

NAME = "pg-srv1"
SECONDS = 120
# Debian's package goes, with all that it has made; what the other one would bring comes in its place.
_UNIT = """[Unit]
Requires=network-online.target
After=network-online.target
ConditionFileNotEmpty=/etc/consul.d/consul.hcl
[Service]
Type=notify
EnvironmentFile=-/etc/consul.d/consul.env
User=consul
Group=consul
ExecStart=/usr/bin/consul agent -config-dir=/etc/consul.d/
ExecReload=/bin/kill --signal HUP $MAINPID
KillMode=process
KillSignal=SIGTERM
Restart=on-failure
LimitNOFILE=65536
[Install]
WantedBy=multi-user.target
"""
_CONVERT = f"""set -eu
systemctl stop patroni consul
cp /usr/bin/consul /root/consul
dpkg --purge --force-depends consul
rm -rf /var/lib/consul
getent passwd consul >/dev/null && userdel consul
useradd --system --user-group --uid 987 --home-dir /etc/consul.d --no-create-home --shell /bin/false consul
install -m 0755 /root/consul /usr/bin/consul
install -d -o consul -g consul /opt/consul /etc/consul.d
echo 'data_dir = "/opt/consul"' >/etc/consul.d/consul.hcl
chown consul:consul /etc/consul.d/consul.hcl
cat >/lib/systemd/system/consul.service <<'UNIT'
{_UNIT}UNIT
systemctl daemon-reload
systemctl restart patroni-node
systemctl start patroni
"""


def test_a_node_runs_with_consul_in_hashicorps_layout(clusters: Clusters) -> None:
    """A cluster of one, where nobody is joined and its unit would wait for that without end."""
    cluster = clusters.make(nodes=1)
    machine = cluster.machines[NAME]
    machine.ssh(f"echo {base64.b64encode(_CONVERT.encode()).decode()} | base64 -d | sudo sh", timeout=SECONDS)

    def well() -> tuple[bool, object]:
        answer = machine.ssh("sudo patroni-node status", check=False)
        return answer.returncode == 0, answer.output

    until(well, "the node is well", SECONDS)
    assert machine.ssh("sudo stat -c '%U %a' /var/lib/consul").output == "consul 700"
    assert "leader" in machine.ssh("sudo consul operator raft list-peers").output
    assert machine.ssh("sudo -u nobody consul kv put service/x x", check=False).output.endswith("Permission denied)")
    # The packet filter knows the account by its number.
    assert "skuid 987" in machine.ssh("sudo nft list table inet patroni_node").output
