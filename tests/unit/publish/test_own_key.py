"""What is noticed where the publisher's own key has signed files that do not belong together.

Whoever publishes by other means than this program may have signed what it would refuse. Each test changes one thing of
a version, and lets the key sign all that then has to be signed anew: so nothing but that one thing is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundry import files, gpg
from foundry.gpg import BadSignature
from foundry.publish import ledger, provenance
from tests.unit.publish.publishing import NAME, Project
from tests.unit.publish.signed_again import Change, edited, of_another, publisher, refused, sign, write_origin

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents", "no_views")]


@pytest.fixture
def project(two_published: Project, tmp_path: Path) -> Project:
    return two_published.copy(tmp_path / "copy")


@pytest.fixture
def folder(project: Project) -> Path:
    return project.store / "images" / NAME / "2"


def test_what_was_not_changed_is_accepted_when_it_is_signed_again(project: Project, folder: Path) -> None:
    sign(project, folder, origin=True)
    assert project.check()[1].startswith(f"version  {NAME} 2, ")


# lists of contents


def _first_deb(document: Any) -> Any:
    rows = document.get("components") or document["packages"]
    return next(row for row in rows if row["name"] == "bash")


def _without_bash(document: Any) -> None:
    rows = document.get("components") or document["packages"]
    rows.remove(_first_deb(document))


def _other_bash(document: Any) -> None:
    row = _first_deb(document)
    for key in ("version", "versionInfo"):
        if key in row:
            row[key] = "6"
    for place in (row, *row.get("externalRefs", [])):
        for key in ("purl", "referenceLocator"):
            if key in place:
                place[key] = place[key].replace("5.2-2%2Bb13", "6")


def _more(document: Any) -> None:
    rows = document.get("components") or document["packages"]
    row = json.loads(json.dumps(_first_deb(document)).replace("bash", "evil"))
    rows.append(row)


CONTENTS = [
    *((name, of_another(name), f"{name} is about another image") for name in ("sbom.cdx.json", "sbom.spdx.json")),
    ("sbom.cdx.json", edited("sbom.cdx.json", _without_bash), "sbom.cdx.json lacks bash 5.2-2+b13"),
    ("sbom.spdx.json", edited("sbom.spdx.json", _without_bash), "sbom.spdx.json lacks bash 5.2-2+b13"),
    ("sbom.cdx.json", edited("sbom.cdx.json", _other_bash), "sbom.cdx.json has bash 6"),
    ("sbom.spdx.json", edited("sbom.spdx.json", _other_bash), "sbom.spdx.json has bash 6"),
    ("sbom.cdx.json", edited("sbom.cdx.json", _more), "sbom.cdx.json has evil 5.2-2+b13"),
    ("sbom.spdx.json", edited("sbom.spdx.json", _more), "sbom.spdx.json has evil 5.2-2+b13"),
]


@pytest.mark.parametrize(("name", "change", "why"), CONTENTS)
def test_a_list_of_contents_that_is_not_this_images(
    project: Project, folder: Path, name: str, change: Change, why: str
) -> None:
    before = (folder / name).read_bytes()
    change(folder)
    assert (folder / name).read_bytes() != before
    sign(project, folder, origin=True)
    refused(project, why)


# the origin


def _wrong_subject(said: Any) -> None:
    next(row for row in said["subject"] if row["name"] == "boot.json")["digest"]["sha256"] = "0" * 64


def _missing_subject(said: Any) -> None:
    said["subject"] = [row for row in said["subject"] if row["name"] != "sbom.spdx.json"]


def _more_subjects(said: Any) -> None:
    said["subject"].append({"name": "other.raw", "digest": {"sha256": "0" * 64}})


def _other_sources(said: Any) -> None:
    said["predicate"]["buildDefinition"]["resolvedDependencies"].pop()


def _other_image(said: Any) -> None:
    said["predicate"]["buildDefinition"]["internalParameters"]["version"] = "1"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_wrong_subject, "provenance.json speaks of another boot.json (sha256 000000000000…)"),
        (_missing_subject, "provenance.json says nothing of sbom.spdx.json"),
        (_more_subjects, "provenance.json speaks of other.raw, which is not there"),
        (_other_sources, "provenance.json and the manifest differ in resolvedDependencies"),
        (_other_image, "provenance.json and the manifest differ in internalParameters"),
        (lambda said: said.pop("subject"), "provenance.json lacks a field that it must have: 'subject'"),
    ],
)
def test_an_origin_of_something_else(
    project: Project, folder: Path, change: Callable[[dict[str, Any]], object], why: str
) -> None:
    write_origin(folder, publisher(project), change)
    sign(project, folder, origin=False)
    refused(project, why)


def test_the_origin_of_another_version(project: Project, folder: Path) -> None:
    of_another(provenance.NAME)(folder)
    sign(project, folder, origin=False)
    refused(project, f"provenance.json says nothing of {NAME}-2.qcow2")


def test_an_origin_that_another_key_has_signed(project: Project, folder: Path) -> None:
    write_origin(folder, gpg.throw_away(project.workspace.build / "other", "Somebody else"))
    sign(project, folder, origin=False)
    refused(project, "provenance.json: its signature does not hold", BadSignature)


def test_an_origin_that_nobody_has_signed(project: Project, folder: Path) -> None:
    edited(provenance.NAME, lambda envelope: envelope.pop("signatures"))(folder)
    sign(project, folder, origin=False)
    refused(project, "provenance.json: it is not signed", BadSignature)


# the verdict and its evidence


def _outcome(what: str) -> Change:
    return edited("verdict.json", lambda facts: facts["outcomes"][0].update(outcome=what))


NOT_PASSED = "verdict.json does not say that every check has passed in a virtual machine"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (of_another("verdict.json"), "verdict.json is about another image"),
        (edited("verdict.json", lambda facts: facts.update(image="0" * 64)), "verdict.json is about another image"),
        (edited("verdict.json", lambda facts: facts.update(machine="container")), NOT_PASSED),
        *((_outcome(what), NOT_PASSED) for what in ("skipped", "failed", "error", "xfailed", "xpassed")),
        (edited("verdict.json", lambda facts: facts["outcomes"].pop()), NOT_PASSED),
        (edited("verdict.json", lambda facts: facts.update(outcomes=[])), NOT_PASSED),
        (of_another("boot.json"), "boot.json is not the one that verdict.json was made with"),
        (of_another("console.log"), "console.log is not the one that verdict.json was made with"),
        (edited("verdict.json", lambda facts: facts.pop("evidence")), "console.log is not the one that verdict.json"),
    ],
)
def test_a_verdict_that_proves_nothing(project: Project, folder: Path, change: Change, why: str) -> None:
    change(folder)
    sign(project, folder, origin=True)
    refused(project, why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (of_another("manifest.json"), f"manifest.json is about {NAME} 1"),
        (
            edited("manifest.json", lambda facts: facts["files"][0].update(sha256="0" * 64)),
            f"manifest.json has other digests of {NAME}-2.qcow2",
        ),
        (of_another(f"{NAME}-2.qcow2"), f"manifest.json has other digests of {NAME}-2.qcow2"),
    ],
)
def test_a_manifest_of_something_else(project: Project, folder: Path, change: Change, why: str) -> None:
    change(folder)
    sign(project, folder, origin=True)
    refused(project, why)


# the log


@pytest.mark.parametrize(
    ("number", "why"),
    [(2, "log/00000003.json.asc does not follow entry 2 of the log"), (3, "its index is not what its log leads to")],
)
def test_a_log_that_was_written_anew(project: Project, number: int, why: str) -> None:
    path = project.store / ledger.path_of(number)
    key, scratch = publisher(project), project.workspace.build
    said = json.loads(gpg.opened(path, project.key(), scratch))
    path.write_text(key.clearsign(files.canonical({**said, "who": "somebody else"}), scratch), encoding="utf-8")
    refused(project, why)
