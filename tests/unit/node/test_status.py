"""`patroni-node status`: what it finds, what it calls a problem, and what it leaves alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA, KEY, MINIMAL, Node
from day_two import CONSUL, REFUSED, URL, Live, cluster, patroni

from patroni_node import cli, effective, notice, problems, rest, status, status_text
from patroni_node.commands import Ended
from patroni_node.configure import configure
from patroni_node.errors import EX_NOPERM, EX_SOFTWARE, NodeError
from patroni_node.report import Report
from patroni_node.rest import Answer, Question, Trust


def gathered(live: Live) -> tuple[Report, list[str]]:
    report = status.gather(live.node.paths, live.node.machine, live.run, live.ask)
    return report, problems.sentences(report)


def only(live: Live, *words: str) -> str:
    """The one problem that there is, which has these words."""
    _, said = gathered(live)
    assert len(said) == 1, said
    assert [word for word in words if word not in said[0]] == []
    return said[0]


@pytest.fixture
def live(node: Node) -> Live:
    return Live(node)


def document(live: Live) -> dict[str, Any]:
    report, said = gathered(live)
    return json.loads(json.dumps(status_text.document(report, said)))  # type: ignore[no-any-return]


def test_a_node_that_is_well(live: Live) -> None:
    found = document(live)
    assert found["ok"] and found["problems"] == []
    assert found["node"] == {
        "cluster": "pg-15-cluster",
        "name": "pg-srv1",
        "name_from": "kept",
        "instance_id": "iid-1",
        "address": "10.129.0.21",
    }
    assert all(file["current"] for file in found["rendered"])
    names = {Path(file["path"]).name for file in found["rendered"]}
    assert names >= {"patroni.yml", "patroni-node.json", "identity.json", "security.json", "node.pem"}
    assert found["store"]["leader"] == "10.129.0.21:8300"
    assert found["member"]["postgresql"] == "15.20"
    assert found["cluster"]["members"][1]["lag"] == 0
    assert "problems  none" in status_text.text(*gathered(live))


def test_nothing_is_written(live: Live) -> None:
    live.node.write(MINIMAL + "tags: {clonefrom: true}\n")
    files = {path: path.stat().st_mtime_ns for path in live.node.paths.root.rglob("*")}
    gathered(live)
    assert {path: path.stat().st_mtime_ns for path in live.node.paths.root.rglob("*")} == files


def test_no_secret_is_told(node: Node) -> None:
    token = "9f0c3f6e-1a52-4be1-8a43-7a9f6f1f0f10"
    live = Live(node, MINIMAL + f"  consul_token: {token}\n")
    live.answers[CONSUL] = Answer(403)
    report, said = gathered(live)
    told = repr(report) + str(said) + status_text.text(report, said) + json.dumps(status_text.document(report, said))
    assert token not in told and KEY not in told
    assert next(q for q in live.asked if q.url == CONSUL).headers == {"X-Consul-Token": token}
    assert "HTTP 403" in told


def test_rendered_paths_are_all_that_configure_may_write(node: Node) -> None:
    from patroni_node.decide import decide

    node.write(MINIMAL)
    targets = decide(node.paths, node.machine).targets
    assert [target.path for target in targets] == list(node.paths.rendered)


def test_a_changed_node_yml_names_the_files_and_the_command(live: Live) -> None:
    live.node.write(MINIMAL + "restart: always\ndcs: {consul: {datacenter: dc2}}\n")
    said = only(live, "patroni-node.json", "50-patroni-node.conf", problems.APPLY, "systemctl restart consul")
    assert "patroni.yml" not in said
    live.units["patroni"] = ("inactive", "dead", "success")
    live.answers[f"{URL}/patroni"] = live.answers[f"{URL}/cluster"] = REFUSED
    live.does["show-config"] = lambda: Ended(0, "ttl: 30\n")
    _, both = gathered(live)
    assert all("`systemctl restart patroni-node && systemctl start patroni`" in sentence for sentence in both)


def test_a_file_that_somebody_has_removed(live: Live) -> None:
    live.node.paths.consul_json.unlink()
    only(live, str(live.node.paths.consul_json), problems.APPLY)
    assert "missing" in status_text.text(*gathered(live))


def test_a_bad_node_yml_is_told_with_its_line_and_what_was_rendered_stays_known(live: Live) -> None:
    live.node.write(MINIMAL + "adress: 10.129.0.21\n")
    only(live, "node.yml:4: adress: unknown key; did you mean address?", problems.APPLY)
    found = document(live)
    assert found["node"]["name"] == "pg-srv1" and found["node"]["name_from"] == "patroni.yml"
    assert found["rendered"][0]["current"] is None
    assert len(found["refusals"]) == 1


def test_without_any_file(node: Node) -> None:
    live = Live(node)
    for path in node.paths.rendered:
        path.unlink(missing_ok=True)
    node.paths.node_file.unlink()
    notice.show(node.paths, NodeError("is missing"))
    live.units = dict.fromkeys(live.units, ("failed", "failed", "exit-code"))
    live.units["patroni"] = ("inactive", "dead", "success")
    _, said = gathered(live)
    assert "node.yml: is missing" in said[0] and "then run `systemctl start patroni`" in said[0]
    assert "Patroni does not run" in said[1]
    found = document(live)
    assert found["store"] is None and found["cluster"]["paused"] is None
    assert found["last_refusal"] == ["is missing; then run `systemctl start patroni`"]


def test_a_run_that_failed_while_node_yml_is_right_now(live: Live) -> None:
    notice.show(live.node.paths, NodeError(r"C:\ has no room"))
    live.units["patroni-node"] = ("failed", "failed", "exit-code")
    only(live, "patroni-node.service has failed", r"C:\ has no room", problems.APPLY)


@pytest.mark.parametrize(
    ("text", "origin"),
    [(MINIMAL + "name: db.east\n", "node.yml:4"), (MINIMAL, "host name")],
)
def test_where_the_name_comes_from(node: Node, text: str, origin: str) -> None:
    live = Live(node, text)
    node.paths.identity.unlink()
    assert document(live)["node"]["name_from"].endswith(origin)


def test_consul_that_is_stopped(live: Live) -> None:
    live.units["consul"] = ("inactive", "dead", "success")
    live.answers[CONSUL] = REFUSED
    live.answers[f"{URL}/cluster"] = Answer(failure="timed out")
    only(live, "Consul does not run on this node", "inactive (dead)", "systemctl start consul")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(200, ""), "has no leader"),
        (Answer(500, None), "has no leader"),
        (REFUSED, "does not answer (connection refused)"),
        (Answer(403), "HTTP 403"),
    ],
)
def test_consul_that_is_of_no_use(live: Live, answer: Answer, words: str) -> None:
    live.answers[CONSUL] = answer
    only(live, "Consul at http://127.0.0.1:8500", words)


ETCD = MINIMAL + "networks: [10.129.0.0/24]\ndcs: {etcd3: {hosts: [10.0.0.1:2379, '[fd00::2]:2379']}}\n"


def test_etcd_needs_one_server_that_has_a_leader(node: Node) -> None:
    live = Live(node, ETCD)
    urls = ["http://10.0.0.1:2379/health", "http://[fd00::2]:2379/health"]
    only(live, "etcd at http://10.0.0.1:2379, http://[fd00::2]:2379 does not answer (connection refused)")
    live.answers[urls[0]] = Answer(503, {"health": "false"})
    only(live, "etcd", "has no leader")
    live.answers[urls[1]] = Answer(200, {"health": "true"})
    assert gathered(live)[1] == []
    assert list(document(live)["units"]) == ["patroni-node", "patroni"]


def test_stores_behind_tls_are_asked_as_patroni_does(node: Node) -> None:
    pem = json.dumps((DATA / "ca.pem").read_text())
    consul = f"{{mode: external, host: 'fd00::9', port: 8501, tls: {{ca: {pem}}}}}"
    text = f"networks: [10.0.0.0/8]\ndcs: {{consul: {consul}}}\n"
    live = Live(node, MINIMAL + text)
    now = effective.read(node.paths.patroni_yml)
    assert now is not None and now.store is not None
    assert now.store.servers[0].url == "https://[fd00::9]:8501"
    assert now.store.servers[0].trust == Trust(ca_file="/etc/patroni/tls/dcs-ca.pem")
    assert "see that it runs" in only(live, "https://[fd00::9]:8501")


@pytest.mark.parametrize(
    ("text", "kind", "urls"),
    [
        ("consul: {url: 'https://c.example:8501'}", "Consul", ["https://c.example:8501"]),
        ("consul: {host: c.example, port: 99, token: 5}", "Consul", ["http://c.example:99"]),
        ("consul:", "Consul", ["http://127.0.0.1:8500"]),
        ("etcd: {hosts: 'a:1, b'}", "etcd", ["http://a:1", "http://b:2379"]),
        ("etcd3: {host: '::1', protocol: https}", "etcd", ["https://[::1]:2379"]),
        ("etcd3: {srv: example.org}", "etcd", []),
        ("zookeeper: {hosts: [a]}", "zookeeper", []),
    ],
)
def test_hand_made_stores(tmp_path: Path, text: str, kind: str, urls: list[str]) -> None:
    path = tmp_path / "patroni.yml"
    path.write_text(f"scope: a\nname: b\n{text}\n")
    now = effective.read(path)
    assert now is not None and now.store is not None
    assert (now.store.kind, [server.url for server in now.store.servers]) == (kind, urls)


def test_the_rest_api_behind_tls(tmp_path: Path) -> None:
    path = tmp_path / "patroni.yml"
    api = "restapi: {connect_address: '[fd00::1]:8008', certfile: c, keyfile: k, cafile: a}"
    path.write_text(f"scope: a\nname: b\n{api}\nctl: {{cacert: x, certfile: y}}\n")
    now = effective.read(path)
    assert now is not None
    assert (now.patroni.url, now.address) == ("https://[fd00::1]:8008", "fd00::1")
    assert now.patroni.trust == Trust(ca_file="x", certificate="y")


def say(live: Live, **more: Any) -> None:
    code = 200 if more.get("state", "running") == "running" else 503
    live.answers[f"{URL}/patroni"] = Answer(code, patroni(**more))


REPLICA = {"role": "replica", "replication_state": "streaming"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"pause": True}, "MAINTENANCE MODE: cluster pg-15-cluster is paused"),
        ({"state": "starting"}, "PostgreSQL does not run on this member (its state: starting)"),
        ({"role": "replica"}, "does not stream (no connection to its source)"),
        ({"role": "replica", "replication_state": "in archive recovery"}, "does not stream (in archive recovery)"),
        ({"failsafe_mode_is_active": True}, "failsafe mode"),
        ({"watchdog_failed": True}, "watchdog"),
        (
            {"pending_restart": True, "pending_restart_reason": {"max_connections": {}, "a": {}}},
            "takes over a, max_conn",
        ),
        ({"pending_restart": True}, "restart pg-15-cluster pg-srv1"),
    ],
)
def test_members_that_are_not_well(live: Live, more: dict[str, Any], words: str) -> None:
    say(live, **more)
    only(live, words)


@pytest.mark.parametrize(
    "more", [REPLICA, {**REPLICA, "replication_state": "in archive recovery", "tags": {"nostream": True}}]
)
def test_replicas_that_are_well(live: Live, more: dict[str, Any]) -> None:
    say(live, **more)
    assert gathered(live)[1] == []


def test_a_cluster_without_a_leader(live: Live) -> None:
    say(live, **REPLICA)
    live.answers[f"{URL}/cluster"] = Answer(200, cluster(leader=None))
    only(live, "the cluster has no leader")


def down(live: Live, *unit: str) -> None:
    live.units["patroni"] = unit  # type: ignore[assignment]
    live.answers[f"{URL}/patroni"] = live.answers[f"{URL}/cluster"] = REFUSED
    live.does["show-config"] = lambda: Ended(0, "loop_wait: 10\n")


def test_patroni_that_does_not_answer(live: Live) -> None:
    down(live, "active", "running", "success")
    only(live, f"Patroni does not answer at {URL} (connection refused), though it runs")
    down(live, "activating", "auto-restart", "exit-code")
    only(live, "Patroni is not up yet (patroni.service is activating (auto-restart))")
    down(live, "failed", "failed", "exit-code")
    only(live, "failed (exit-code)", "`systemctl start patroni`")


def test_a_paused_cluster_is_seen_without_patroni_and_postgresql_alone_too(live: Live) -> None:
    down(live, "failed", "failed", "exit-code")
    live.does["show-config"] = lambda: Ended(0, "loop_wait: 10\npause: true\n")
    root = live.node.paths.root
    for name, text in (("var/lib/postgresql/15/main/postmaster.pid", "77\n/x\n"), ("proc/77/comm", "postgres\n")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    report, said = gathered(live)
    assert report.alone and report.paused
    assert "when Patroni runs here again, run" in said[0]
    assert "PostgreSQL runs on this node without Patroni" in said[2]
    live.answers[CONSUL] = REFUSED
    live.ran.clear()
    assert gathered(live)[0].paused is None
    assert live.ran == []


@pytest.mark.parametrize("kind", ["FIFO", "zero", "folder"])
def test_what_postgres_puts_in_place_of_its_number_holds_up_nobody(live: Live, kind: str) -> None:
    """The data directory is not root's: a FIFO kept root waiting, and a link to /dev/zero took the memory."""
    down(live, "failed", "failed", "exit-code")
    path = live.node.paths.root / "var/lib/postgresql/15/main/postmaster.pid"
    path.parent.mkdir(parents=True)
    makers = {"FIFO": os.mkfifo, "zero": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}
    makers[kind](path)
    assert not gathered(live)[0].alone


def test_names_from_elsewhere_cannot_write_to_the_terminal(live: Live) -> None:
    found = cluster()
    found["members"][1]["name"] = "a\x1b[2J\nb"
    live.answers[f"{URL}/cluster"] = Answer(200, found)
    assert "a?[2J?b" in status_text.text(*gathered(live))


@pytest.mark.parametrize("body", [None, [], "x", {"members": 3}, {"members": [1, {"name": 5, "lag": "unknown"}]}])
def test_answers_of_something_else_are_survived(live: Live, body: Any) -> None:
    for path in ("/patroni", "/cluster"):
        live.answers[URL + path] = Answer(200, body)
    live.does["show-config"] = lambda: Ended(1, "Error")
    report, said = gathered(live)
    assert said and status_text.text(report, said)


def test_only_root_may_ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("status", "restart"):
        assert cli.main([command]) == EX_NOPERM
        assert "run it as root" in capsys.readouterr().err


def test_the_command(live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report, _ = gathered(live)
    say(live, pause=True)
    paused, _ = gathered(live)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(status, "gather", lambda paths: report)
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    monkeypatch.setattr(status, "gather", lambda paths: paused)
    assert cli.main(["status"]) == 1
    assert "MAINTENANCE MODE" in capsys.readouterr().out
    monkeypatch.setattr(status, "gather", lambda paths: {}["a secret"])
    assert cli.main(["status"]) == EX_SOFTWARE
    assert "a secret" not in capsys.readouterr().err


def test_who_does_not_answer_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(rest, "LIMIT_SECONDS", 0.05)
    never = threading.Event()

    def slow(question: Question) -> Answer:
        never.wait(5)
        return Answer(200)

    assert rest.ask_all([Question("http://a"), Question("http://b")], slow)() == [Answer(failure="timed out")] * 2
    never.set()


def test_configure_and_status_agree(live: Live) -> None:
    live.node.write(MINIMAL + "restart: always\n")
    report, _ = gathered(live)
    assert report.configured.outdated == configure(live.node.paths, live.node.machine).changed
