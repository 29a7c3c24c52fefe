"""`build-image --from`: what it takes of a manifest, and what it refuses before anything is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foundry import apt, archive, config, files, image, recorded
from foundry.errors import ConfigError
from foundry.workspace import Workspace
from tests.unit import rebuild_parts as parts


@pytest.fixture
def value(workspace: Workspace) -> dict[str, Any]:
    parts.project(workspace)
    return parts.manifest(workspace)


def load(value: Any, workspace: Workspace, *overrides: str, name: str = "") -> recorded.Recorded:
    return recorded.load(parts.written(value, workspace.root), name, config.settings_of(overrides), workspace)


def test_configuration_and_packages_are_the_recorded_ones(value: dict[str, Any], workspace: Workspace) -> None:
    found = load(value, workspace)
    assert found.config.images["debian-12"].disk_size == 8 * 1024**3
    assert found.config.consul.source == "none" and found.consul is None
    only = found.manifest.rebuild.base[0].package()
    assert (only.filename, only.version) == ("libc6_1%3a2.0-1_amd64.deb", "1:2.0-1")
    assert found.sources() == (apt.Source("http://m/debian", "bookworm", ("main",), apt.DEBIAN_KEYRING),)


def test_what_is_left_out_is_recorded_and_checked(value: dict[str, Any], workspace: Workspace) -> None:
    recorded_image = value["configuration"]["images"]["debian-12"]
    recorded_image["exclude"] = ["jit"]
    assert load(value, workspace).config.images["debian-12"].exclude == ("jit",)
    recorded_image["exclude"] = ["/usr/lib/systemd/*"]
    with pytest.raises(ConfigError, match=r"exclude\[0\]: must be a pattern that spares /usr/lib/systemd/systemd"):
        load(value, workspace)


def test_a_folder_stands_for_the_manifest_in_it(value: dict[str, Any], workspace: Workspace, tmp_path: Path) -> None:
    files.write_json(tmp_path / "image/manifest.json", value)
    assert recorded.load(tmp_path / "image", "", [], workspace).manifest.version == value["version"]


def test_what_a_build_writes_can_be_read(value: dict[str, Any], workspace: Workspace, tmp_path: Path) -> None:
    package = apt.Package("libc6", "1:2", "amd64", "libc6_1%3a2_amd64.deb", "http://m/libc6.deb", parts.A, 7)
    source = apt.Source("http://m/debian", "bookworm-updates", ("main",), apt.DEBIAN_KEYRING)
    files.write_json(tmp_path / "archive/stage.json", {"outputs": {"Release": {"sha256": parts.C}}})
    packages = archive.Archive(
        tmp_path / "archive", tmp_path, (package,), (package,), None, "key", (source,), (package,)
    )
    value["rebuild"] = json.loads(json.dumps(recorded.of(packages, image.program())))
    found = load(value, workspace)
    assert [row.package() for row in found.manifest.rebuild.base] == [
        apt.Package("libc6", "1:2", "amd64", "libc6_1%3a2_amd64.deb", "", parts.A, 7)
    ]
    assert found.sources() == (source,)
    assert "m/libc6.deb" not in json.dumps(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "no manifest of an image"),
        ('{"name": "x"}', "no manifest of an image"),
    ],
)
def test_what_is_no_manifest_is_refused(text: str, words: str, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text(text)
    with pytest.raises(ConfigError, match=words):
        recorded.load(tmp_path / "given.json", "", [], workspace)


def test_a_missing_manifest_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json: cannot be read: No such file"):
        recorded.load(tmp_path / "none.json", "", [], workspace)


def test_an_older_manifest_is_refused(value: dict[str, Any], workspace: Workspace) -> None:
    del value["rebuild"]
    with pytest.raises(ConfigError, match="before manifests recorded every package"):
        load(value, workspace)


def test_a_newer_format_is_refused(value: dict[str, Any], workspace: Workspace) -> None:
    value["rebuild"]["format"] = 3
    with pytest.raises(ConfigError, match="its format is 3"):
        load(value, workspace)


@pytest.mark.parametrize(
    ("part", "bad"),
    [
        ("name", "../../etc/passwd"),
        ("version", "1/../../x"),
        ("arch", "../x"),
        ("sha256", "A" * 64),
        ("size", "many"),
    ],
)
def test_nothing_of_a_package_s_name_leads_elsewhere(
    part: str, bad: str, value: dict[str, Any], workspace: Workspace
) -> None:
    value["rebuild"]["base"][0][part] = bad
    with pytest.raises(ConfigError, match="damaged") as caught:
        load(value, workspace)
    assert f"rebuild.base.0.{part}" in str(caught.value.details)


@pytest.mark.parametrize("name", ["../x.whl", ".hidden", "a/b.whl"])
def test_nothing_of_a_wheel_s_name_leads_elsewhere(name: str, value: dict[str, Any], workspace: Workspace) -> None:
    value["wheels"][0]["name"] = name
    with pytest.raises(ConfigError, match="damaged"):
        load(value, workspace)


def test_another_image_contradicts(value: dict[str, Any], workspace: Workspace) -> None:
    assert load(value, workspace, name="debian-12").manifest.name == "debian-12"
    with pytest.raises(ConfigError, match="--image other: the manifest of --from is of debian-12"):
        load(value, workspace, name="other")


@pytest.mark.parametrize("key", ["images.debian-12.packages=[vim]", "patroni.version=4.0.0", "consul.source=debian"])
def test_a_setting_that_would_change_the_image_contradicts(
    key: str, value: dict[str, Any], workspace: Workspace
) -> None:
    with pytest.raises(ConfigError, match="this would change it") as caught:
        load(value, workspace, key)
    assert "archive.…" in str(caught.value.hint)


def test_where_things_are_may_be_set(value: dict[str, Any], workspace: Workspace) -> None:
    found = load(value, workspace, "archive.mirror=http://s/d", "archive.security_mirror=http://s/s", "build.cpus=4")
    assert (found.config.archive.mirror, found.config.build.cpus) == ("http://s/d", 4)
    assert found.sources()[0].uri == "http://m/debian"


def test_a_bad_setting_is_named(value: dict[str, Any], workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"build\.cpus"):
        load(value, workspace, "build.cpus=many")


@pytest.mark.parametrize("section", ["postgresql", "consul"])
def test_no_file_of_this_host_becomes_part_of_an_image(
    section: str, value: dict[str, Any], workspace: Workspace, tmp_path: Path
) -> None:
    """A stranger's manifest named one as the key of an archive, and the image had it, for everybody to read."""
    secret = tmp_path / "id_ed25519"
    secret.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    source = {"postgresql": "pgdg", "consul": "hashicorp"}[section]
    value["configuration"][section] = {"source": source, "uri": "https://a/b", "signed_by": str(secret)}
    with pytest.raises(ConfigError, match="is no OpenPGP public key"):
        load(value, workspace)
    secret.write_bytes(b"\x98\x33")
    assert load(value, workspace).config.model_dump()[section]["signed_by"] == secret


def test_the_same_sources_are_taken(value: dict[str, Any], workspace: Workspace) -> None:
    recorded.check_sources(load(value, workspace), image.program(), workspace)


def test_other_sources_are_named_with_the_commit(value: dict[str, Any], workspace: Workspace) -> None:
    found = load(value, workspace)
    files.write(workspace.debian / "rules", "changed")
    files.write(workspace.debian / "new", "new")
    program = {**image.program(), "recipe base.py": "other"}
    with pytest.raises(ConfigError, match="is not what debian-12 20261124-da0f5f2a was built from") as caught:
        recorded.check_sources(found, program, workspace)
    assert str(caught.value.details).splitlines() == [
        "debian/new: is new here",
        "debian/rules: differs",
        "foundry/base.py: differs",
    ]
    assert caught.value.hint == f"git checkout {parts.COMMIT}"


@pytest.mark.parametrize(
    ("commit", "hint"),
    [(None, "names no commit"), (f"{parts.COMMIT}-dirty", f"git checkout {parts.COMMIT}   (it was built from that")],
)
def test_a_commit_that_is_not_the_whole_story_says_so(
    commit: str | None, hint: str, value: dict[str, Any], workspace: Workspace
) -> None:
    value["inputs"]["commit"] = commit
    found = load(value, workspace)
    (workspace.debian / "rules").unlink()
    with pytest.raises(ConfigError) as caught:
        recorded.check_sources(found, image.program(), workspace)
    assert hint in str(caught.value.hint)
    assert caught.value.details == "debian/rules: is missing here"
