"""Plans: what a node of them is told, what options make one, and how they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from foundry.errors import ConfigError, FoundryError
from foundry.lab import plan as plans
from foundry.lab.plan import PROFILES, Plan, check, load, node
from foundry.machine import MAKERS
from patroni_node import settings
from patroni_node.paths import Paths

# patroni/config.py, Config.__DEFAULT_CONFIG.
DEFAULTS = {"ttl": 30, "loop_wait": 10, "retry_timeout": 10}


def settings_of(text: str, root: Path) -> settings.Settings:
    paths = Paths(root=root)
    paths.node_file.parent.mkdir(parents=True)
    paths.node_file.write_text(text, encoding="utf-8")
    paths.node_file.chmod(0o600)
    return settings.load(paths)


@pytest.mark.parametrize("dcs", ["consul", "etcd3"])
@pytest.mark.parametrize("count", [1, 3, plans.MOST_NODES])
def test_each_node_yml_is_one_that_a_node_takes(count: int, dcs: plans.Dcs, tmp_path: Path) -> None:
    plan = Plan("lab", "/x.qcow2", nodes=count, dcs=dcs, profile="fast", dcs_settings={"synchronous_mode": True})
    for member in plan.members:
        found = settings_of(plan.node_yml(member), tmp_path / member.name)
        assert (found.name, str(found.address.literal)) == (member.name, member.address)


def test_nodes_are_those_of_the_tutorial() -> None:
    names = [(n.name, n.address) for n in Plan("lab", "/x").members]
    assert names == [("pg-srv1", "10.129.0.21"), ("pg-srv2", "10.129.0.22"), ("pg-srv3", "10.129.0.23")]
    assert len({node(n).mac for n in range(1, plans.MOST_NODES + 1)}) == plans.MOST_NODES


def test_a_node_joins_the_servers_that_it_is_given() -> None:
    told = yaml.safe_load(Plan("lab", "/x").node_yml(node(4), [node(1), node(2)]))
    assert told["dcs"] == {"consul": {"join": ["10.129.0.21", "10.129.0.22"]}}
    assert "patroni" not in told


def test_what_is_wished_of_a_cluster_beats_its_profile() -> None:
    plan = Plan("lab", "/x", profile="fast", dcs_settings={"ttl": 40})
    told = yaml.safe_load(plan.node_yml(node(1)))["patroni"]["bootstrap"]["dcs"]
    assert told == {**PROFILES["fast"], "ttl": 40}
    assert plan.ttl == 40
    assert [Plan("lab", "/x", profile=profile).ttl for profile in ("default", "fast")] == [30, 20]


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_are_ones_that_patroni_does_not_change(profile: plans.Profile) -> None:
    """patroni/config.py, _validate_and_adjust_timeouts: it raises or lowers what breaks these rules."""
    found = {**DEFAULTS, **PROFILES[profile]}
    assert found["ttl"] >= 20
    assert found["loop_wait"] >= 1
    assert found["retry_timeout"] >= 3
    assert found["loop_wait"] + 2 * found["retry_timeout"] <= found["ttl"]


def test_a_plan_comes_back_as_it_was_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    plan = Plan("lab", "/x.qcow2", 2, dcs="etcd3", dcs_settings={"ttl": 40})
    plan.save(tmp_path / "plan.json")
    assert load(tmp_path / "plan.json") == plan
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600
    assert plan.key not in repr(plan)


@pytest.mark.parametrize("text", [None, "", "[]", "null", '{"name": "lab"}', '{"colour": "red"}'])
def test_what_is_no_plan_is_refused(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(FoundryError, match="not a lab's plan"):
        load(path)


def test_each_plan_has_a_key_of_its_own() -> None:
    assert Plan("lab", "/x").key != Plan("lab", "/x").key


def test_all_wrong_options_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check("A/..", "10", "x", "y", "z", list(MAKERS))
    lines = (caught.value.details or "").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["--name", "--nodes", "--machine", "--dcs", "--profile"]
    check("a", "9", "vm", "etcd3", "fast", list(MAKERS))


@pytest.mark.parametrize("nodes", ["0", "-1", "three", "", "2.5"])
def test_a_number_of_nodes_is_one(nodes: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check("a", nodes, "vm", "consul", "fast", list(MAKERS))
    assert caught.value.details == f"--nodes: {nodes} is not a number from 1 to 9"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "A", "a" * 32, "a\n", ".a"])
def test_a_name_is_one_plain_word(name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        plans.check_name(name)
