"""What differs between two versions, and how it is told to people and programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry.publish import diff
from foundry.publish.diff import Change, Diff
from tests.unit.publish.made_versions import NASTY, manifest, version

Edit = Callable[[dict[str, Any]], object]


def between(*edits: Edit) -> Diff:
    """From the version that nobody built to the same one, changed."""
    old, new = manifest(), manifest()
    new |= {"version": "20261125-bbbbbbbb"}
    new["files"][0]["name"] = "debian-12-20261125-bbbbbbbb.qcow2"
    for edit in edits:
        edit(new)
    return diff.between(version(old), version(new))


def package(name: str, number: str, digest: str = "f", arch: str = "amd64") -> dict[str, str]:
    return {"name": name, "version": number, "arch": arch, "sha256": digest * 64}


def now(name: str, number: str) -> Edit:
    """That package has another version."""

    def edit(values: dict[str, Any]) -> None:
        rest = [p for p in values["packages"] if p["name"] != name]
        values["packages"] = [*rest, package(name, number)]

    return edit


def test_equal_versions_differ_in_nothing() -> None:
    same = version(manifest())
    found = diff.between(same, same)
    assert found.nothing and found.as_json()["nothing"] is True
    assert found.summary() == ["no difference"]
    assert found.lines() == ["debian-12: 20261124-aaaaaaaa -> 20261124-aaaaaaaa", "no difference"]
    assert diff.changelog(same, found).splitlines()[-1] == "Compared with `20261124-aaaaaaaa`: no difference."
    # Built again of the same, with the same bytes.
    assert between().nothing


# deb-version(7): an epoch comes first, "~" sorts before the end, letters before other signs.
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ("15.10-0+deb12u1", "upgraded"),
        ("15.9-0+deb12u1+b1", "upgraded"),
        ("1:15.1-1", "upgraded"),
        ("15.9-0+deb12u1~bpo11+1", "downgraded"),
        ("15.9~rc1-1", "downgraded"),
        ("15.9-0+deb12u1", "rebuilt"),
        ("15.09-0+deb12u1", "changed"),
        ("no version at all", "changed"),
    ],
)
def test_versions_are_compared_as_dpkg_does(number: str, kind: str) -> None:
    found = between(now("postgresql-15", number))
    assert found.packages == (Change("postgresql-15", kind, "15.9-0+deb12u1", number),)  # type: ignore[arg-type]
    assert not found.nothing


def test_packages_come_and_go() -> None:
    found = between(
        lambda m: m["packages"].append(package("zstd", "1.5.4", "e")),
        lambda m: m["packages"].pop(0),
    )
    assert found.packages == (Change("bash", "removed", "5.2.15-2+b13", None), Change("zstd", "added", None, "1.5.4"))
    assert found.summary() == ["2 Debian packages: 1 added, 1 removed"]


def test_a_package_of_two_architectures_is_told_apart() -> None:
    found = between(lambda m: m["packages"].append(package("bash", "5.2.15-2+b13", "f", arch="i386")))
    assert [(c.name, c.kind) for c in found.packages] == [
        ("bash", "removed"),
        ("bash:amd64", "added"),
        ("bash:i386", "added"),
    ]


@pytest.mark.parametrize(
    ("file", "kind", "number"),
    [
        ("patroni-4.10.0-py3-none-any.whl", "upgraded", "4.10.0"),
        ("patroni-4.1.5rc1-py3-none-any.whl", "downgraded", "4.1.5rc1"),
        ("Patroni-4.2.0.tar.gz", "upgraded", "4.2.0"),
        ("patroni-4.1.5-cp311-cp311-linux_x86_64.whl", "rebuilt", "4.1.5"),
    ],
)
def test_wheels_by_their_own_rules(file: str, kind: str, number: str) -> None:
    found = between(lambda m: m["wheels"].__setitem__(0, {"name": file, "sha256": "e" * 64}))
    assert found.wheels == (Change("patroni", kind, "4.1.5", number),)  # type: ignore[arg-type]


def test_a_wheel_of_two_versions_and_a_strange_name() -> None:
    found = between(
        lambda m: m["wheels"].append({"name": "patroni-4.1.10-py3-none-any.whl", "sha256": "e" * 64}),
        lambda m: m["wheels"].append({"name": "what is this", "sha256": "e" * 64}),
    )
    assert found.wheels == (
        Change("patroni", "changed", "4.1.5", "4.1.5, 4.1.10"),
        Change("what is this", "added", None, ""),
    )


def test_settings_are_keys_with_values_old_and_new() -> None:
    def edit(values: dict[str, Any]) -> None:
        settings = values["configuration"]
        settings["archive"]["mirror"] = "https://deb.example.org"
        settings["images"]["debian-12"]["packages"] = ["htop"]
        settings["images"]["debian-12"]["disk_size"] = 1
        settings["postgresql"] = {"edition": None}
        values["disk_size"] = 1

    found = between(edit)
    assert found.configuration == (
        Change("archive.mirror", "changed", None, "https://deb.example.org"),
        Change("disk_size", "changed", 8_589_934_592, 1),
        Change("images.debian-12.disk_size", "changed", 8_589_934_592, 1),
        Change("images.debian-12.packages", "changed", [], ["htop"]),
        Change("postgresql.edition", "added", None, None),
        Change("postgresql.version", "removed", 15, None),
    )
    told = [diff.told("configuration", change) for change in found.configuration]
    assert told[0] == "null -> https://deb.example.org"
    assert told[3:] == ['[] -> ["htop"]', "added, null", "removed (was 15)"]


def test_an_empty_part_is_a_value() -> None:
    found = between(lambda m: m["configuration"].__setitem__("consul", {}))
    assert found.configuration == (Change("consul", "added", None, {}),)


def test_numbers_that_are_equal_and_written_differently() -> None:
    found = between(lambda m: m["configuration"]["postgresql"].__setitem__("version", 15.0))
    assert [c.name for c in found.configuration] == ["postgresql.version"]


def test_sources_and_tools() -> None:
    def edit(values: dict[str, Any]) -> None:
        values["inputs"]["sources"] |= {"debian/control": f"x {'b' * 64}", "templates/new.j2": f"- {'e' * 64}"}
        values["tools"]["python"] = "3.11.3"

    found = between(edit)
    assert [(c.name, c.kind) for c in found.sources] == [("debian/control", "changed"), ("templates/new.j2", "added")]
    assert found.tools == (Change("python", "changed", "3.11.2", "3.11.3"),)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (278_134_784, "278.3 MB -> 278.1 MB (-131.1 kB)"),
        (300_000_000, "278.3 MB -> 300.0 MB (+21.7 MB)"),
        (278_265_856, "278.3 MB as before, with other bytes"),
    ],
)
def test_sizes_are_for_people(size: int, words: str) -> None:
    found = between(lambda m: m["files"][0].update(size=size, sha256="e" * 64))
    assert [diff.told("disks", c) for c in found.disks] == [words]
    assert [c.kind for c in found.disks] == ["rebuilt" if size == 278_265_856 else "changed"]
    assert found.lines()[-1] == f"qcow2: {words}"


def test_formats_come_and_go() -> None:
    raw = {"name": "debian-12-20261125-bbbbbbbb.raw", "size": 1_000_000, "sha256": "e" * 64}
    assert between(lambda m: m["files"].append(raw)).summary() == ["raw: added, 1.0 MB"]
    assert between(lambda m: m["files"].clear()).summary() == ["qcow2: removed (was 278.3 MB)"]


@pytest.fixture
def busy() -> Diff:
    return between(
        now("postgresql-15", "15.10-0+deb12u1"),
        now("bash", "1"),
        lambda m: m["wheels"].pop(),
        lambda m: m["configuration"]["postgresql"].__setitem__("version", 16),
        lambda m: m["inputs"]["sources"].pop("debian/control"),
    )


def test_the_text(busy: Diff) -> None:
    assert busy.lines() == [
        "debian-12: 20261124-aaaaaaaa -> 20261125-bbbbbbbb",
        "",
        "2 Debian packages: 1 upgraded, 1 downgraded",
        "  downgraded  bash           5.2.15-2+b13 -> 1, a downgrade",
        "  upgraded    postgresql-15  15.9-0+deb12u1 -> 15.10-0+deb12u1",
        "",
        "1 Python package removed",
        "  removed     psycopg2  removed (was 2.9.13)",
        "",
        "1 setting changed",
        "  changed     postgresql.version  15 -> 16",
        "",
        "1 source file removed",
        "  removed     debian/control",
    ]


def test_the_changelog(busy: Diff) -> None:
    new = version(manifest() | {"version": "20261125-bbbbbbbb"})
    text = diff.changelog(new, busy)
    assert text.startswith(
        "# `debian-12` `20261125-bbbbbbbb`\n\nWhat changed since `20261124-aaaaaaaa`:\n\n- 2 Debian "
    )
    assert "\n## Debian packages\n\n- `bash`: `5.2.15-2+b13` -> `1`, a downgrade\n" in text
    assert "\n## Settings\n\n- `postgresql.version`: `15` -> `16`\n" in text
    assert text.endswith("\n- `debian/control`: removed\n")
    assert diff.changelog(new, None).splitlines()[2] == "The first version: there is none before it."


def test_json_is_plain(busy: Diff) -> None:
    value = json.loads(json.dumps(busy.as_json()))
    assert (value["old"], value["new"]) == ("20261124-aaaaaaaa", "20261125-bbbbbbbb")
    assert value["wheels"] == [{"name": "psycopg2", "kind": "removed", "old": "2.9.13", "new": None}]
    assert value["nothing"] is False
    assert set(value) == {"image", "old", "new", "nothing", *diff.SECTIONS}


def test_nothing_of_a_manifest_moves_the_cursor() -> None:
    red = "\x1b[31mred\x07"
    found = between(now(red, red), lambda m: m["configuration"].__setitem__(red, red))
    text = "\n".join([*found.lines(), diff.changelog(version(manifest()), found)])
    assert "red" in text
    assert [c for c in text if c != "\n" and not c.isprintable()] == []


SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")


@given(st.one_of(st.sampled_from(NASTY), st.text(min_size=1, max_size=30)))
def test_no_name_becomes_markup_in_the_changelog(text: str) -> None:
    """All that comes from a manifest is in code spans: what is left when they are cut out never changes."""

    def rest(name: str) -> str:
        found = between(lambda m: m["packages"].append(package(name, "1")))
        page = diff.changelog(version(manifest()), found)
        # An unclosed span would leave its backticks, or run on into the next one.
        left = SPAN.sub("", page)
        assert "`" not in left, page
        return left

    assert rest(f"{text} of {text}") == rest("zz")
