"""A hand-made patroni.yml is read as Patroni reads it, and nothing in it is quoted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from patroni_node import patroni_yml
from patroni_node.errors import NodeError

ALIASES = """\
scope: a
base: &base
  ttl: 30
  list: [1, 2]
more: &more {ttl: 40, loop_wait: 5}
bootstrap:
  dcs:
    <<: [*base, *more]
    loop_wait: 10
again: *base
"""


@pytest.mark.parametrize(
    "text",
    [
        ALIASES,
        "a: [on, off, yes, 1:30, 2026-01-01, 0o7, 017, ~, 1.5e3, '1', 0x1F]\n",
        "a: {b: {c: [1, {d: e}]}}\n'<<': {f: g}\n",
        "a: !!str 5\nb: |\n  x\n  y\nc: !!int '7'\n",
    ],
)
def test_values_are_those_of_safe_load(text: str) -> None:
    assert patroni_yml.parse(text, "f").document.data == yaml.safe_load(text)


def test_a_value_that_safe_load_chokes_on() -> None:
    assert patroni_yml.parse("a: 2026-02-30\nb: !!bool perhaps\n", "f").document.data == {
        "a": "2026-02-30",
        "b": "perhaps",
    }


def test_merged_keys_have_the_line_in_which_they_are_written() -> None:
    marks = patroni_yml.parse(ALIASES, "f").document.marks
    lines = {name: marks["bootstrap", "dcs", name].line for name in ("ttl", "list", "loop_wait")}
    assert lines == {"ttl": 3, "list": 4, "loop_wait": 9}


def test_of_a_key_that_is_given_twice_the_last_counts() -> None:
    read = patroni_yml.parse("a: {x: 1}\nb: 2\na: {y: 2}\n", "f")
    assert read.document.data == {"a": {"y": 2}, "b": 2}
    assert [str(problem) for problem in read.repeated] == [
        "f:3: a: is given twice (first in line 1), and Patroni takes the last: keep one"
    ]


BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: [1\n", 2, "is not valid YAML"),
        ("a: b: c\n", 1, "mapping values are not allowed here"),
        ("- a\n", None, "must be a mapping"),
        ("", None, "must be a mapping"),
        ("a: \x01\n", None, "characters that YAML does not allow"),
        (BOMB, 1, "by its aliases"),
        (MERGES, 1, "by its aliases"),
        ("a: &a {b: *a}\n", 1, "by its aliases"),
        ("a: " + "[" * 3000 + "]" * 3000, 1, "nested deeper than 24 levels"),
        ("scope: a\npassword: !Xy7kQ2\n", 2, "a value that begins with ! must be quoted"),
    ],
)
def test_what_cannot_be_read(text: str, line: int | None, says: str) -> None:
    with pytest.raises(NodeError) as caught:
        patroni_yml.parse(text, "f")
    [problem] = caught.value.problems
    assert says in problem.message
    assert problem.line == line


@pytest.mark.parametrize(
    "password",
    [
        "!Xy7kQ2",
        "!Xy7!kQ2",
        "*Xy7kQ2",
        "&Xy7kQ2 &Xy7kQ2 b",
        "%Xy7kQ2",
        "@Xy7kQ2",
        '"\\Xy7kQ2"',
        "'Xy7kQ2",
        "{Xy7kQ2",
        "`Xy7kQ2",
    ],
)
def test_a_password_without_its_quotes_is_not_shown(password: str) -> None:
    with pytest.raises(NodeError) as caught:
        patroni_yml.parse(f"restapi:\n  authentication:\n    password: {password}\n", "patroni.yml")
    assert str(caught.value).startswith("patroni.yml:")
    assert "Xy7" not in str(caught.value) and "kQ2" not in str(caught.value)


def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path) -> None:
    good = (Path(__file__).with_name("data") / "tutorial.yml").read_bytes()
    dice = random.Random(7)
    path = tmp_path / "patroni.yml"
    refused = 0
    for _ in range(150):
        damaged = bytearray(good)
        for _ in range(dice.randint(1, 3)):
            damaged[dice.randrange(len(damaged))] = dice.choice(b"&*!|>{}[]'\"%@`:-?#,\n\t\xff\x00 a")
        path.write_bytes(bytes(damaged))
        try:
            said = [str(problem) for problem in patroni_yml.read(path).repeated]
        except NodeError as error:
            refused += 1
            said = [str(error)]
        assert [text for text in said if not text.startswith(f"{path}")] == []
    assert 20 < refused < 150


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"scope: a\n\xff\xfe\n", "f.yml:2: is not UTF-8 text"),
        (b"a: b\n" * 60_000, "f.yml: is larger than 256 KiB"),
    ],
)
def test_what_is_no_small_text(tmp_path: Path, raw: bytes, says: str) -> None:
    (tmp_path / "f.yml").write_bytes(raw)
    with pytest.raises(NodeError) as caught:
        patroni_yml.read(tmp_path / "f.yml")
    assert says in str(caught.value)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="is a folder: check the files in it one by one"):
        patroni_yml.read(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.yml"
    path.touch()

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(NodeError, match=r"cannot be read \(Permission denied\)"):
        patroni_yml.read(path)
