"""A lab under way: its machines, its network, and what its cluster says of itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from foundry import files, log
from foundry.errors import FoundryError, GuestError
from foundry.lab.plan import CLIENT, NETWORK, Node, Plan
from foundry.lab.store import Etcd
from foundry.machine import MAKERS, Machine, Spec, seed, ssh, wait
from foundry.machine.netns import Network, Nic
from foundry.machine.vm import CONTROL
from foundry.workspace import Workspace

LIST = "patronictl -c /etc/patroni/patroni.yml list"
# PATCH /config ends Patroni's sleep between two cycles (patroni/api.py, do_PATCH_config); this patch changes nothing.
_WAKE = """sudo python3 -c '
import base64, json, ssl, urllib.request, yaml
api = yaml.safe_load(open("/etc/patroni/patroni.yml"))["restapi"]
login = "{username}:{password}".format(**api["authentication"])
trust = None
if "certfile" in api:
    trust = ssl.create_default_context(cafile=api["cafile"])
    trust.load_cert_chain(api["certfile"], api["keyfile"])
url = ("https://" if trust else "http://") + api["connect_address"] + "/config"
request = urllib.request.Request(url, json.dumps({"wake": None}).encode(), method="PATCH")
request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
urllib.request.urlopen(request, timeout=3, context=trust)
'"""
READY_SECONDS = {"container": 120.0, "vm": 900.0}
FORM_SECONDS = {"container": 120.0, "vm": 600.0}
LOOK_SECONDS = {"container": 0.3, "vm": 2.0}
"""Between two looks at the members."""
WAKE_SECONDS = {"container": 0.5, "vm": 5.0}
"""Between two times of waking all members, while a new cluster forms; at least as long as that took. Emulated machines
that are asked all the time have no time to form."""


@dataclass(frozen=True)
class Member:
    """What Patroni says of one member (REST API, GET /cluster). lag: bytes, None where unknown."""

    name: str
    host: str
    role: str
    state: str
    timeline: int | None = None
    lag: int | None = None
    pending_restart: bool = False

    @property
    def healthy(self) -> bool:
        """Whether it leads, or streams from who leads."""
        return self.state == ("running" if self.role == "leader" else "streaming")


class Cluster:
    """Nodes of one image that see each other and nothing else. Leaving the block ends all of it.

    Machines are booted by the thread that calls, which has to outlive them.
    """

    def __init__(self, plan: Plan, workspace: Workspace, folder: Path) -> None:
        self.plan = plan
        self.workspace = workspace
        self.folder = folder
        self.nodes: dict[str, Node] = {}
        self.machines: dict[str, Machine] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.private, self.public = ssh.key_pair(folder / "keys")
        self.network = Network()
        self.store: Etcd | None = None
        self._next_wake = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every machine, the store and the network."""
        for machine in self.machines.values():
            machine.stop()
        if self.store:
            self.store.stop()
        self.network.close()

    def up(self) -> float:
        """Boot all nodes, and wait until one leads and all others stream from it; returns the seconds that took.

        Meanwhile Patroni is woken again and again: else a new cluster waits for its members' next cycles three times,
        loop_wait each.
        Raises GuestError when a machine does not come up, or the cluster does not form.
        """
        begin = time.monotonic()
        self.network.join(f"{CLIENT}/{NETWORK.prefixlen}")
        if self.plan.dcs == "etcd3":
            self.store = Etcd(self.network, self.workspace, self.folder / "etcd")
            self.store.start()
        for member in self.plan.members:
            self.boot(member)
        self.wait_ready()
        self.wait_formed(self.plan.nodes, dead=self._first_dead, meanwhile=self._wake)
        return time.monotonic() - begin

    def _wake(self) -> None:
        begin = time.monotonic()
        if begin < self._next_wake:
            return
        for machine in (m for m in self.machines.values() if m.dead() is None):
            # Whether it worked is no matter: a Patroni that does not answer yet has its cycle ahead.
            with suppress(FoundryError):
                machine.ssh(_WAKE, check=False)
        end = time.monotonic()
        self._next_wake = end + max(WAKE_SECONDS[self.plan.machine], end - begin)

    def boot(self, node: Node, **changes: Any) -> Machine:
        """Switch a node on, for the first time or again. changes: of its Spec."""
        machine = self.machines.get(node.name)
        if machine is None:
            spec = replace(self.spec(node), **changes)
            machine = MAKERS[self.plan.machine](spec, self.workspace)
            self.machines[node.name] = machine
            self.nodes[node.name] = node
        log.info(f"booting {node.name} ({node.address})")
        machine.boot()
        return machine

    def remove(self, name: str) -> None:
        """Switch a node off for good; its folder stays until the lab is removed."""
        self.machines.pop(name).stop()
        self.nodes.pop(name)

    def spec(self, node: Node, *, node_yml: str | None = None, instance: str | None = None) -> Spec:
        """What a node boots as."""
        plan = self.plan
        return Spec(
            name=node.name,
            image=Path(plan.image),
            seed=seed.NodeSeed(
                instance or f"i-{node.name}-{files.sha256_text(plan.key)[:8]}",
                node.name,
                node_yml or plan.node_yml(node),
                self.public,
                network=self._addresses(node),
            ),
            folder=self.folder / "machines" / node.name,
            private_key=self.private,
            format=plan.format,
            cpus=plan.cpus,
            memory_mib=plan.memory_mib,
            accelerator="kvm" if plan.accelerator == "kvm" else "tcg",
            network=self.network,
            nics=(Nic(node.mac),),
        )

    def _addresses(self, node: Node) -> Mapping[str, Any]:
        lan = {"match": {"macaddress": node.mac}, "addresses": [f"{node.address}/{NETWORK.prefixlen}"]}
        if self.plan.machine == "container":
            return {"version": 2, "ethernets": {"eth0": {**lan, "match": {"name": "eth0"}}}}
        control = {"match": dict(CONTROL.match), "addresses": [CONTROL.cidr]}
        return {"version": 2, "ethernets": {"lan": lan, "control": control}}

    def wait_ready(self, names: Sequence[str] | None = None) -> None:
        """Wait until these machines (default: all) have booted. Raises GuestError."""
        for name in names or list(self.machines):
            seconds = self.machines[name].wait_ready(READY_SECONDS[self.plan.machine])
            log.info(f"{name} was up after {seconds:.0f} s")

    def seen_by(self, name: str) -> list[Member]:
        """What one node's Patroni says of the cluster; nothing where it does not answer. Raises GuestError if lost."""
        command = self.plan.ask(self.nodes[name], "/cluster")
        return parse_members(self.machines[name].ssh(command, check=False, timeout=20).output)

    def members(self) -> list[Member]:
        """The cluster as the first machine that answers sees it; nothing where none does."""
        for name, machine in self.machines.items():
            if machine.dead() is None:
                try:
                    found = self.seen_by(name)
                except GuestError:
                    continue
                if found:
                    return found
        return []

    def leader(self) -> str | None:
        """The name of the member that leads, as far as anyone knows."""
        return next((m.name for m in self.members() if m.role == "leader"), None)

    def wait_formed(
        self,
        count: int,
        seconds: float | None = None,
        *,
        dead: Callable[[], str | None] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Member]:
        """Wait until there are count members, one of which leads while the others stream. Raises GuestError.

        dead: why waiting is pointless (default: every machine has died), or None. meanwhile: called between two looks.
        """

        def formed(found: list[Member]) -> bool:
            leaders = [m for m in found if m.role in ("leader", "standby_leader")]
            return len(found) == count and len(leaders) == 1 and all(m.healthy for m in found)

        limit = seconds or FORM_SECONDS[self.plan.machine]
        return self.wait_members(formed, f"a cluster of {count}", limit, dead=dead, meanwhile=meanwhile)

    def wait_members(
        self,
        good: Callable[[list[Member]], bool],
        what: str,
        seconds: float,
        *,
        dead: Callable[[], str | None] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Member]:
        """Wait until the members are as good says. dead, meanwhile: as for wait_formed. Raises GuestError."""

        def look() -> tuple[bool, object]:
            meanwhile()
            found = self.members()
            log.activity("  ".join(f"{m.name} {m.role} {m.state}" for m in found) or "no member yet")
            return good(found), found

        interval = LOOK_SECONDS[self.plan.machine]
        found = wait.until(look, what=what, timeout=seconds, dead=dead or self._all_dead, interval=interval)
        assert isinstance(found, list)
        return found

    def _first_dead(self) -> str | None:
        reasons = ((name, machine.dead()) for name, machine in self.machines.items())
        return next((f"{name}: {reason}" for name, reason in reasons if reason), None)

    def _all_dead(self) -> str | None:
        reasons = [machine.dead() for machine in self.machines.values()]
        return str(reasons[0]) if reasons and all(reasons) else None

    def patronictl_list(self) -> str:
        """The table that `patronictl list` prints, from the first node that answers. Raises FoundryError."""
        failures = []
        for name, machine in self.machines.items():
            why = machine.dead()
            if why is None:
                try:
                    answer = machine.ssh(LIST, check=False)
                except GuestError as error:
                    why = error.brief
                else:
                    if answer.returncode == 0:
                        return answer.output
                    why = answer.output
            failures.append(f"{name}: {why}")
        raise FoundryError("no node of the lab answers patronictl", details="\n".join(failures))

    def collect_logs(self, folder: Path) -> list[Path]:
        """Copy every machine's console, journal and cloud-init logs into folder."""
        return [path for machine in self.machines.values() for path in machine.collect_logs(folder)]


def parse_members(text: str) -> list[Member]:
    """The members in an answer of GET /cluster; nothing where it is no such answer."""
    try:
        found = [_member(entry) for entry in json.loads(text)["members"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted(found, key=lambda m: m.name)


def _member(entry: dict[str, Any]) -> Member:
    lag = entry.get("lag")
    return Member(
        name=entry["name"],
        host=str(entry.get("host", "")),
        role=entry.get("role", ""),
        state=entry.get("state", ""),
        timeline=entry.get("timeline"),
        lag=lag if isinstance(lag, int) else None,
        pending_restart=bool(entry.get("pending_restart")),
    )
