"""The supply chain's documents, made from the bytes of the image that was built, and read as an outsider would."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from foundry import config, files, gpg, image
from foundry.publish import contents, provenance, sbom, sbom_check
from foundry.publish.version import File
from foundry.workspace import Workspace
from tests.pipeline.harness import ROOT


@dataclass(frozen=True)
class Published:
    """The documents about one image, in a folder."""

    folder: Path
    found: contents.Contents

    @property
    def manifest(self) -> Any:
        return self.found.manifest

    def document(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def published(built: Path, playground: Path) -> Published:
    workspace = Workspace(ROOT, built, "supply")
    release = image.newest(workspace, config.pick_image(config.load(workspace.config), None))
    folder = playground / "supply"
    folder.mkdir()
    found = contents.read(release.main, release.manifest, folder)
    sbom.write(found, folder)
    return Published(folder, found)


@pytest.fixture(scope="module")
def key(playground: Path) -> gpg.Key:
    return gpg.throw_away(playground / "supply-key", "test")


@pytest.fixture
def keys(key: gpg.Key, tmp_path: Path) -> Path:
    return key.public(tmp_path / "keys.gpg")


@pytest.fixture
def subjects(published: Published) -> list[File]:
    paths = [published.folder / name for name in (sbom.CYCLONEDX, sbom.SPDX)]
    disk = published.manifest["files"][0]
    return [
        File(disk["name"], disk["size"], disk["sha256"]),
        *(File(p.name, p.stat().st_size, files.sha256(p)) for p in paths),
    ]


@pytest.fixture
def envelope(published: Published, subjects: list[File], key: gpg.Key, tmp_path: Path) -> Path:
    said = provenance.statement(published.manifest, subjects, "https://ci.example.org", "2026-01-01T00:00:00+00:00")
    return provenance.write(said, key, tmp_path / provenance.NAME, tmp_path)


def test_their_own_projects_validators_accept_them(published: Published) -> None:
    text = (published.folder / sbom.CYCLONEDX).read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.loads(text)["specVersion"] == "1.6"
    document = parse_file(str(published.folder / sbom.SPDX))
    assert document.creation_info.spdx_version == "SPDX-2.3"
    assert [message.validation_message for message in validate_full_spdx_document(document)] == []


def test_they_are_about_this_image_and_agree_with_its_manifest(published: Published) -> None:
    paths = published.folder / sbom.CYCLONEDX, published.folder / sbom.SPDX
    assert sbom_check.wrong(*paths, published.manifest) == []
    image_digest = published.document(sbom.CYCLONEDX)["metadata"]["component"]["hashes"][0]["content"]
    assert image_digest == published.manifest["files"][0]["sha256"]


def test_postgresql_patroni_and_consul_are_where_they_should_be(published: Published) -> None:
    versions = {row["name"]: row["version"] for row in published.manifest["packages"]}
    settings = published.manifest["configuration"]
    top = {row["name"]: row for row in published.document(sbom.CYCLONEDX)["components"]}
    assert top.keys() == versions.keys()
    postgresql = f"postgresql-{settings['postgresql']['version']}"
    assert top[postgresql]["version"] == versions[postgresql]
    assert top["consul"]["version"] == settings["consul"]["version"]
    modules = {row["name"]: row for row in top["patroni-venv"]["components"]}
    assert modules["patroni"]["version"] == settings["patroni"]["version"]
    assert modules["patroni"]["purl"] == f"pkg:pypi/patroni@{settings['patroni']['version']}"
    shipped = [contents.released(row["name"])[0] for row in published.manifest["wheels"] if row["shipped"]]
    assert sorted(map(canonicalize_name, modules)) == sorted(shipped)
    # What only built them is an input of the build, and in no image.
    assert "setuptools" not in shipped
    packages = [(p["name"], p["versionInfo"]) for p in published.document(sbom.SPDX)["packages"]]
    assert (postgresql, versions[postgresql]) in packages
    assert len(packages) == 1 + len(versions) + len(shipped)


def test_licences_are_what_debian_and_the_projects_say(published: Published) -> None:
    said = {p["name"]: p["licenseDeclared"] for p in published.document(sbom.SPDX)["packages"]}
    assert said["bash"].startswith("GPL-3.0-or-later AND ")
    assert said["postgresql-15"].startswith("PostgreSQL AND ")
    assert (said["patroni"], said["zlib1g"]) == ("MIT", "Zlib")
    # The patch of Patroni, which is in the same source package, has Patroni's terms.
    assert said["patroni-node"] == "Apache-2.0 AND MIT"
    assert said["consul"].startswith("MPL-2.0 AND ")
    # A copyright file that only people can read, and one that another package's folder holds.
    assert said["libc6"].startswith("LicenseRef-copyright-glibc-")
    assert said["openssh-server"] == said["openssh-client"]
    everything = published.found.components
    assert [c.name for c in everything if c.licence.expression is None] == []
    listed = sum(c.licence.listed for c in everything)
    assert listed > len(everything) / 3, f"{listed} of {len(everything)}"
    texts = published.document(sbom.SPDX)["hasExtractedLicensingInfos"]
    assert {row["licenseId"] for row in texts} == {ref for c in everything for ref, _ in c.licence.texts}


def test_dependencies_are_dpkgs(published: Published) -> None:
    graph = {row["ref"]: set(row.get("dependsOn", [])) for row in published.document(sbom.CYCLONEDX)["dependencies"]}
    purls = {c.name: c.purl for c in published.found.components}
    assert purls["libpq5"] in graph[purls["patroni-venv"]]
    assert purls["patroni"] in graph[purls["patroni-venv"]]
    assert purls["urllib3"] in graph[purls["patroni"]]
    assert purls["patroni-venv"] in graph[purls["patroni-node"]]


def test_made_again_they_are_the_same(published: Published, tmp_path: Path) -> None:
    for path in sbom.write(published.found, tmp_path):
        assert files.sha256(path) == files.sha256(published.folder / path.name)


def test_the_provenance_is_about_these_files(
    published: Published, subjects: list[File], envelope: Path, keys: Path, tmp_path: Path
) -> None:
    said = provenance.opened(envelope, keys, tmp_path)
    assert provenance.wrong(said, subjects, published.manifest) == []
    dependencies = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    digests = {row["digest"].get("sha256") for row in dependencies}
    own = {"patroni-venv", "patroni-node"}
    assert {row["sha256"] for row in published.manifest["packages"] if row["name"] not in own} <= digests
    assert {row["sha256"] for row in published.manifest["wheels"]} <= digests
    assert files.sha256(ROOT / "debian/control") in digests
    byproducts = {row["name"].partition("_")[0] for row in said["predicate"]["runDetails"]["byproducts"]}
    assert byproducts == own


def test_a_flipped_bit_in_what_is_said_is_refused(envelope: Path, keys: Path, tmp_path: Path) -> None:
    value = json.loads(envelope.read_text(encoding="utf-8"))
    payload = base64.b64decode(value["payload"])
    for place in range(0, len(payload), len(payload) // 24):
        with pytest.raises(gpg.BadSignature):
            provenance.opened(changed(value, tmp_path, payload=flipped(payload, place)), keys, tmp_path)


def test_a_flipped_bit_in_its_signature_is_refused_or_changes_nothing(
    envelope: Path, keys: Path, tmp_path: Path
) -> None:
    value, said = json.loads(envelope.read_text(encoding="utf-8")), provenance.opened(envelope, keys, tmp_path)
    signature = base64.b64decode(value["signatures"][0]["sig"])
    refused = 0
    for place in range(len(signature)):
        path = changed(value, tmp_path, signatures=[{"sig": flipped(signature, place)}])
        try:
            assert provenance.opened(path, keys, tmp_path) == said
        except gpg.BadSignature:
            refused += 1
    # RFC 9580, section 5.2.3: some subpackets of a signature (here the key's number) are not signed themselves.
    assert refused > len(signature) * 0.8


def flipped(data: bytes, at: int) -> str:
    return base64.b64encode(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]).decode()


def changed(envelope: dict[str, Any], folder: Path, **fields: object) -> Path:
    path = folder / "changed.json"
    files.write_json(path, {**envelope, **fields})
    return path


def test_another_key_is_refused(envelope: Path, playground: Path, tmp_path: Path) -> None:
    stranger = gpg.throw_away(playground / "supply-stranger", "somebody else")
    with pytest.raises(gpg.BadSignature):
        provenance.opened(envelope, stranger.public(tmp_path / "stranger.gpg"), tmp_path)


def test_an_image_that_was_changed_is_not_described(published: Published, tmp_path: Path) -> None:
    said = json.loads(json.dumps(published.manifest))
    row = next(row for row in said["packages"] if row["name"] == "bash")
    row["version"] = "6.0-1"
    paths = published.folder / sbom.CYCLONEDX, published.folder / sbom.SPDX
    found = sbom_check.wrong(*paths, said)
    assert len(found) == 4 and all("bash" in sentence for sentence in found)
