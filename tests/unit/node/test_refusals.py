"""Bad node.yml files: one sentence each, with key and line, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bad_files import BAD
from conftest import KEY, MINIMAL, FakeAccounts, Node

from patroni_node import cli, notice, schema, secret
from patroni_node.configure import configure
from patroni_node.errors import EX_CONFIG, EX_SOFTWARE, NodeError


@pytest.mark.parametrize(("text", "said"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_node_file(node: Node, text: str | bytes, said: str) -> None:
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    before = node.paths.patroni_yml.read_bytes(), node.paths.consul_json.read_bytes()
    node.paths.node_file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(NodeError, match=said) as caught:
        configure(node.paths, node.machine)
    assert caught.value.exit_code == EX_CONFIG
    assert "\n" not in notice.lines(caught.value)[0]
    assert (node.paths.patroni_yml.read_bytes(), node.paths.consul_json.read_bytes()) == before
    assert not node.paths.ready.exists(), "Patroni must not start from what an earlier boot rendered"


def test_there_are_enough_of_them() -> None:
    assert len(BAD) >= 60


def test_all_problems_at_once_with_file_and_line(node: Node) -> None:
    node.write("cluster: A B\nname: x y\nsecrets:\n  key: short\nadress: 1\nnetworks: [nonsense]\n")
    node.write("dcs:\n  consul:\n    mode: leader\n", "10-dcs.yml")
    with pytest.raises(NodeError) as caught:
        configure(node.paths, node.machine)
    found = {(Path(p.file or "").name, p.line, p.key[-1]) for p in caught.value.problems}
    assert found == {
        ("node.yml", 1, "cluster"),
        ("node.yml", 2, "name"),
        ("node.yml", 4, "key"),
        ("node.yml", 5, "adress"),
        ("node.yml", 6, 0),
        ("10-dcs.yml", 3, "mode"),
    }


@pytest.mark.parametrize("text", [f"cluster: A B\nsecrets: {{key: {KEY}}}\n", "cluster: a\nsecrets: {key: hunter2}\n"])
def test_no_secret_is_ever_said(node: Node, capsys: pytest.CaptureFixture[str], text: str) -> None:
    node.write(text)
    assert cli.main(["configure", "--root", str(node.paths.root)]) == EX_CONFIG
    said = "".join(capsys.readouterr()) + node.paths.issue.read_text()
    assert KEY not in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "wrong",
    [
        f"secrets: {{key:{KEY}}}",
        f"secrets: {{{KEY}}}",
        f"secrets: {{key: {{{KEY}}}}}",
        f"secrets:\n  consul_token:{KEY}: x",
        f"secrets:\n  key:\n{KEY}:",
        f"tls: {{ca: a, key: {{{KEY}}}}}",
    ],
)
def test_a_secret_that_has_become_a_name_is_not_said(
    node: Node, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    """Console, journal and /etc/issue.d told everybody the cluster's key where one blank was missing."""
    node.write(f"cluster: a\n{wrong}\n")
    assert cli.main(["configure", "--root", str(node.paths.root)]) == EX_CONFIG
    said = "".join(capsys.readouterr()) + node.paths.issue.read_text()
    assert KEY not in said
    assert re.search(r"node\.yml:[234]: .*unknown key, not shown", said)


def test_as_long_as_a_secret_is_at_least() -> None:
    assert schema.LEAST_SECRET == secret.MIN_PASSWORD == min(secret.MIN_PASSWORD, secret.MIN_LENGTH)


def test_broken_yaml_is_not_quoted(node: Node) -> None:
    node.write('cluster: a\nsecrets:\n  key: "hunter2-hunter2-hunter2\n')
    with pytest.raises(NodeError) as caught:
        configure(node.paths, node.machine)
    assert "hunter2" not in str(caught.value)


def test_missing_file_says_what_to_write(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["configure", "--root", str(node.paths.root)]) == EX_CONFIG
    said = capsys.readouterr().err
    assert "node.yml: is missing: write `cluster:` and `secrets: {key: ...}` to it" in said
    assert said.endswith("then run `systemctl start patroni`\n")
    assert said.strip() == node.paths.issue.read_text().strip()


def test_the_issue_goes_when_healthy(node: Node) -> None:
    notice.show(node.paths, NodeError("x"))
    node.write(MINIMAL)
    configure(node.paths, node.machine)
    assert not node.paths.issue.exists()
    assert node.paths.ready.exists()


def test_the_issue_is_short_and_safe_for_a_terminal(node: Node) -> None:
    notice.show(node.paths, NodeError([*NodeError("evil \x1b[31m \\n").problems * 20]))
    text = node.paths.issue.read_text()
    assert "\x1b" not in text
    assert "\\\\n" in text
    assert len(text.splitlines()) == notice.MAX_LINES + 1


def test_a_file_of_mistakes_does_not_flood_the_console(node: Node) -> None:
    node.write("a: 1\n" * 9000)
    with pytest.raises(NodeError) as caught:
        configure(node.paths, node.machine)
    said = notice.lines(caught.value)
    assert len(said) == notice.MAX_SAID + 1
    assert said[-1] == "patroni-node: 8999 problems: mend them; then run `systemctl start patroni`"


def test_consul_that_is_not_installed(node: Node) -> None:
    node.write(MINIMAL)
    node.accounts = FakeAccounts(missing="consul")
    with pytest.raises(NodeError, match="Consul is not installed"):
        configure(node.paths, node.machine)
    assert not node.paths.patroni_yml.exists()


def test_what_is_no_file(node: Node) -> None:
    node.paths.node_file.mkdir()
    with pytest.raises(NodeError, match=r"cannot be read|not a regular file"):
        configure(node.paths, node.machine)


def test_an_unexpected_error_shows_its_place_and_not_its_text(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError(KEY)

    monkeypatch.setattr("patroni_node.configure.configure", explode)
    assert cli.main(["configure", "--root", str(node.paths.root)]) == EX_SOFTWARE
    said = capsys.readouterr().err
    assert "RuntimeError at test_refusals.py:" in said
    assert KEY not in said


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "n.yml"
    assert cli.main(["check", str(path)]) == EX_CONFIG
    path.write_text(MINIMAL)
    assert cli.main(["check", str(path)]) == 0
    assert "a node of cluster pg-15-cluster" in capsys.readouterr().out
    path.write_text("cluster: a\n")
    assert cli.main(["check", str(path)]) == EX_CONFIG
    assert capsys.readouterr().err == f"{path}: secrets: is missing: set it to a mapping with `key:`\n"
