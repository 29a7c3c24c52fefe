"""What is said of a node.yml that leaves something open, and of one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MINIMAL, Node
from day_two import Live

from patroni_node import cli, exposure, problems, settings, status, status_text
from patroni_node.document import parse

OWN = "tls: {ca: a, certificate: b, key: c}\n"
CLIENT = "networks: [10.129.0.0/24]\ndcs: {consul: {mode: client, join: [10.129.0.11]}}\n"
SERVERS_TLS = "dcs: {consul: {tls: {ca: a, certificate: b, key: c}}}\n"
ETCD = "networks: [10.129.0.0/24]\ndcs: {etcd3: {hosts: ['10.129.0.31:2379']}}\n"


@pytest.mark.parametrize(
    ("text", "version", "words"),
    [
        ("", 2, []),
        ("tls: auto\n", 2, []),
        (OWN, 2, []),
        (ETCD, 2, []),
        ("tls: off\n", 2, ["clear", "8300 from `networks`"]),
        ("tls: off\n" + CLIENT, 2, ["clear"]),
        ("tls: off\n" + ETCD, 2, ["clear"]),
        ("tls: off\n" + SERVERS_TLS, 2, ["clear"]),
        ("", 1, ["clear", "an account on a node"]),
        (OWN, 1, ["an account on a node"]),
        (OWN + SERVERS_TLS.replace("ca: a", "ca: z"), 1, []),
        (OWN + SERVERS_TLS.replace("ca: a", "ca: z"), 2, []),
        (OWN + SERVERS_TLS, 1, ["a CA of their own"]),
        (OWN + SERVERS_TLS, 2, ["a CA of their own"]),
    ],
)
def test_what_is_open_is_said_and_nothing_else(text: str, version: int, words: list[str]) -> None:
    said = exposure.sentences(settings.build(parse(MINIMAL + text, "node.yml")), version)
    assert len(said) == len(words)
    assert all(word in sentence for word, sentence in zip(words, said, strict=True))


def pem(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("second", "count"), [(pem("QUJD") + "\n", 1), (pem("WFla") + pem("QU\nJD"), 1), (pem("WFla"), 0)]
)
def test_one_authority_in_two_files_is_one(second: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "one").write_text(pem("QUJD"))
    (tmp_path / "other").write_text(second)
    text = OWN.replace("ca: a", f"ca: {{file: {tmp_path}/one}}")
    text += SERVERS_TLS.replace("ca: a", f"ca: {{file: {tmp_path}/other}}")
    said = exposure.sentences(settings.build(parse(MINIMAL + text, "node.yml")), 2)
    assert [sentence for sentence in said if "a CA of their own" in sentence] == list(said)
    assert len(said) == count


def test_check_says_it_and_takes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "n.yml"
    for text, count in (("", 0), ("tls: off\n", 2), ("compatibility: 1\n", 2)):
        path.write_text(MINIMAL + text)
        assert cli.main(["check", str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{path}: a node of cluster pg-15-cluster"
        assert len(lines) == 1 + count and all(line.startswith(f"{path}: open: ") for line in lines[1:])


def test_status_says_it_and_calls_it_no_problem(node: Node) -> None:
    live = Live(node, MINIMAL + "tls: off\n")
    live.answers |= {url.replace("https://", "http://"): answer for url, answer in live.answers.items()}
    report = status.gather(node.paths, node.machine, live.run, live.ask)
    said = problems.sentences(report)
    assert said == []
    assert "open      tls: off: passwords" in status_text.text(report, said)
    assert len(json.loads(json.dumps(status_text.document(report, said)))["open"]) == 2
