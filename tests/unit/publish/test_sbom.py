from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from foundry.errors import FoundryError
from foundry.publish import contents, sbom, sbom_check
from foundry.publish.contents import Contents
from tests.unit.publish.small_image import DISK, FREE, manifest, sha, tree

Tamper = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return contents.found(tree(tmp_path_factory.mktemp("image") / "root"), manifest())


@pytest.fixture(scope="module")
def texts(found: Contents) -> dict[str, str]:
    return {sbom.CYCLONEDX: sbom.cyclonedx_text(found), sbom.SPDX: sbom.spdx_text(found)}


@pytest.fixture
def written(texts: dict[str, str], tmp_path: Path) -> Path:
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def cdx(written: Path) -> dict[str, Any]:
    return dict(json.loads((written / sbom.CYCLONEDX).read_text(encoding="utf-8")))


def spdx(written: Path) -> dict[str, Any]:
    return dict(json.loads((written / sbom.SPDX).read_text(encoding="utf-8")))


def test_both_are_valid_and_the_same_each_time(found: Contents, texts: dict[str, str], tmp_path: Path) -> None:
    paths = sbom.write(found, tmp_path)
    assert [p.name for p in paths] == [sbom.CYCLONEDX, sbom.SPDX]
    assert {p.name: p.read_text(encoding="utf-8") for p in paths} == texts
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(texts[sbom.CYCLONEDX]) is None
    assert validate_full_spdx_document(parse_file(str(paths[1]))) == []


def test_the_order_in_which_components_are_found_does_not_matter(found: Contents, texts: dict[str, str]) -> None:
    other = replace(found, components=found.components[::-1])
    assert sbom.cyclonedx_text(other) == texts[sbom.CYCLONEDX]
    assert sbom.spdx_text(other) == texts[sbom.SPDX]


def test_the_image_is_what_they_describe(written: Path) -> None:
    digest = sha("the disk")
    image = cdx(written)["metadata"]["component"]
    assert (image["type"], image["name"], image["version"]) == ("operating-system", "debian-12", "20261124-b1ddda7d")
    assert image["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert {r["url"] for r in image["externalReferences"]} == {DISK, DISK.replace("qcow2", "raw")}
    assert cdx(written)["metadata"]["timestamp"] == "2026-11-24T14:49:18+00:00"
    document = spdx(written)
    assert document["creationInfo"]["created"] == "2026-11-24T14:49:18Z"
    (described,) = (r for r in document["relationships"] if r["relationshipType"] == "DESCRIBES")
    (package,) = (p for p in document["packages"] if p["SPDXID"] == described["relatedSpdxElement"])
    assert package["checksums"] == [{"algorithm": "SHA256", "checksumValue": digest}]
    assert package["packageFileName"] == DISK
    assert "primaryPackagePurpose" not in package


def test_another_image_has_other_numbers(found: Contents, written: Path) -> None:
    said = manifest()
    said["files"][0]["sha256"] = sha("another disk")
    other = replace(found, manifest=said)
    assert json.loads(sbom.cyclonedx_text(other))["serialNumber"] != cdx(written)["serialNumber"]
    assert json.loads(sbom.spdx_text(other))["documentNamespace"] != spdx(written)["documentNamespace"]


def test_modules_lie_inside_patroni_venv_in_both(written: Path) -> None:
    top = {row["name"]: row for row in cdx(written)["components"]}
    assert set(top) == {"bash", "consul", "libfoo1", "mawk", "patroni-venv"}
    inner = {row["name"]: row for row in top["patroni-venv"]["components"]}
    assert set(inner) == {"patroni", "requests", "Py_Socks", "python-etcd"}
    assert not any(row.get("components") for name, row in top.items() if name != "patroni-venv")
    document = spdx(written)
    names = {p["SPDXID"]: p["name"] for p in document["packages"]}
    held = {
        (names[r["spdxElementId"]], names[r["relatedSpdxElement"]])
        for r in document["relationships"]
        if r["relationshipType"] == "CONTAINS"
    }
    assert held == {("debian-12", name) for name in top} | {("patroni-venv", name) for name in inner}


def test_what_depends_on_what_in_both(written: Path) -> None:
    document = cdx(written)
    graph = {row["ref"]: set(row.get("dependsOn", [])) for row in document["dependencies"]}
    bash = next(ref for ref in graph if "/bash@" in ref)
    assert {ref.partition("@")[0] for ref in graph[bash]} == {"pkg:deb/debian/libfoo1", "pkg:deb/debian/mawk"}
    image = document["metadata"]["component"]["bom-ref"]
    assert graph[image] == {row["bom-ref"] for row in document["components"]}
    other = spdx(written)
    names = {p["SPDXID"]: p["name"] for p in other["packages"]}
    pairs = {
        (names[r["spdxElementId"]], names[r["relatedSpdxElement"]])
        for r in other["relationships"]
        if r["relationshipType"] == "DEPENDS_ON"
    }
    assert {b for a, b in pairs if a == "bash"} == {"libfoo1", "mawk"}
    assert ("patroni", "requests") in pairs


def test_licences_in_both(written: Path) -> None:
    top = {row["name"]: row.get("licenses") for row in cdx(written)["components"]}
    assert top["bash"] == [{"license": {"id": "GPL-3.0-or-later", "acknowledgement": "declared"}}]
    assert top["consul"] is None
    (mawk,) = top["mawk"] or []
    ref = mawk["expression"]
    packages = {p["name"]: p for p in spdx(written)["packages"]}
    assert packages["bash"]["licenseDeclared"] == "GPL-3.0-or-later"
    assert packages["consul"]["licenseDeclared"] == "NOASSERTION"
    assert packages["mawk"]["licenseDeclared"] == ref
    assert {p["licenseConcluded"] for p in packages.values()} == {"NOASSERTION"}
    infos = {row["licenseId"]: row["extractedText"] for row in spdx(written)["hasExtractedLicensingInfos"]}
    assert infos[ref] == FREE.strip("\n")


def test_suppliers_purls_and_hashes_in_both(written: Path) -> None:
    patroni = next(r for r in cdx(written)["components"] if r["name"] == "patroni-venv")["components"]
    patroni = next(r for r in patroni if r["name"] == "patroni")
    digest = sha("patroni-4.1.5-py3-none-any.whl")
    assert patroni["purl"] == "pkg:pypi/patroni@4.1.5"
    assert patroni["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert patroni["supplier"] == {"name": "Python Package Index"}
    package = next(p for p in spdx(written)["packages"] if p["name"] == "patroni")
    assert package["checksums"] == [{"algorithm": "SHA256", "checksumValue": digest}]
    assert [r["referenceLocator"] for r in package["externalRefs"]] == ["pkg:pypi/patroni@4.1.5"]
    assert package["supplier"] == "Organization: Python Package Index"


def test_an_invalid_document_is_never_written(found: Contents, tmp_path: Path) -> None:
    bad = replace(found.components[0], sha256="not a digest")
    broken = replace(found, components=(bad, *found.components[1:]))
    with pytest.raises(FoundryError, match=r"not valid CycloneDX 1\.6"):
        sbom.write(broken, tmp_path)
    with pytest.raises(FoundryError, match=r"not valid SPDX 2\.3"):
        sbom.spdx_text(broken)
    assert not list(tmp_path.iterdir())


def test_a_homepage_that_is_no_address_is_left_out(found: Contents) -> None:
    odd = tuple(replace(c, homepage="see the README") for c in found.components)
    assert "README" not in sbom.cyclonedx_text(replace(found, components=odd))
    assert "README" not in sbom.spdx_text(replace(found, components=odd))


# what a consumer checks


def wrong(written: Path, said: dict[str, Any] | None = None) -> list[str]:
    return sbom_check.wrong(written / sbom.CYCLONEDX, written / sbom.SPDX, said or manifest())


def tampered(written: Path, name: str, change: Tamper) -> list[str]:
    document = json.loads((written / name).read_text(encoding="utf-8"))
    change(document)
    (written / name).write_text(json.dumps(document), encoding="utf-8")
    return wrong(written)


def test_documents_and_manifest_agree(written: Path) -> None:
    assert wrong(written) == []


def test_documents_of_another_image(written: Path) -> None:
    said = manifest()
    said["files"][0]["sha256"] = sha("another disk")
    found = wrong(written, said)
    assert len(found) == 2 and all("is about another image" in sentence for sentence in found)


@pytest.mark.parametrize("rows", ["packages", "wheels"])
def test_a_manifest_that_has_more_or_less_than_they(written: Path, rows: str) -> None:
    less = manifest()
    removed = less[rows].pop(0)
    assert len(wrong(written, less)) == 2
    assert all("which the manifest has not" in sentence for sentence in wrong(written, less))
    more = manifest()
    name = "vim" if rows == "packages" else "vim-1-py3-none-any.whl"
    more[rows].append({**removed, "name": name})
    assert len(wrong(written, more)) == 2
    assert all("lacks vim" in sentence for sentence in wrong(written, more))


@pytest.mark.parametrize("field", ["version", "sha256"])
def test_one_package_that_differs(written: Path, field: str) -> None:
    said = manifest()
    said["packages"][0][field] = sha("other")
    found = wrong(written, said)
    assert len(found) == 4 and all("bash" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (sbom.CYCLONEDX, lambda d: d["components"].pop()),
        (sbom.CYCLONEDX, lambda d: d["components"][0].update(version="9")),
        (sbom.CYCLONEDX, lambda d: d["components"][0].update(purl="pkg:deb/debian/vim@9")),
        (sbom.CYCLONEDX, lambda d: d["components"][0].update(hashes=[])),
        (sbom.CYCLONEDX, lambda d: d["components"].append(d["components"][0])),
        (sbom.CYCLONEDX, lambda d: d["metadata"].pop("component")),
        (sbom.CYCLONEDX, lambda d: d.update(specVersion="1.4")),
        (sbom.SPDX, lambda d: d["packages"].pop()),
        (sbom.SPDX, lambda d: d["packages"][1].update(versionInfo="9")),
        (sbom.SPDX, lambda d: d["packages"][1]["checksums"][0].update(checksumValue="0" * 64)),
        (sbom.SPDX, lambda d: d["packages"][1].update(externalRefs=[])),
        (sbom.SPDX, lambda d: d.update(relationships=[])),
        (sbom.SPDX, lambda d: d.update(spdxVersion="SPDX-2.2")),
    ],
)
def test_a_document_that_was_changed(written: Path, name: str, change: Tamper) -> None:
    found = tampered(written, name, change)
    assert found and all(sentence.startswith(name) for sentence in found)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000])
def test_what_is_no_document_is_said_to_be_none(written: Path, text: str) -> None:
    (written / sbom.SPDX).write_text(text)
    (written / sbom.CYCLONEDX).unlink()
    assert [s.partition(" ")[0] for s in wrong(written)] == [sbom.CYCLONEDX, sbom.SPDX]
