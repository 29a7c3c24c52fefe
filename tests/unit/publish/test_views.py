"""What apt, incus and browsers see of a store, and what goes of it with a version."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from foundry.publish import flow, retention
from foundry.publish.aptrepo import SameName
from foundry.publish.local import LocalStore
from foundry.publish.session import session
from foundry.publish.views import Views
from tests.unit.publish import small_image
from tests.unit.publish.publishing import NAME, Project

pytestmark = [pytest.mark.real_process, pytest.mark.usefixtures("small_contents")]

POOL = {
    "apt/pool/bash/bash_5.2-2+b13_amd64.deb",
    "apt/pool/consul/consul_1.8.7+dfsg1-2_amd64.deb",
    "apt/pool/patroni-venv/patroni-venv_0.1.0_amd64.deb",
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project.at(tmp_path, address="https://images.example.com/pg", valid_days=30)


def paths(project: Project, below: str) -> set[str]:
    found = (project.store / below).rglob("*")
    return {str(p.relative_to(project.store)) for p in found if p.is_file()}


def text(project: Project, path: str) -> str:
    return (project.store / path).read_text(encoding="utf-8")


def products(project: Project) -> dict[str, dict[str, object]]:
    index = json.loads(text(project, "streams/v1/index.json"))["index"]
    found = json.loads(text(project, index[f"com.example.images:{NAME}"]["path"]))
    return {name.split(":")[2]: product for name, product in found["products"].items()}


def test_one_publish_serves_apt_incus_and_browsers(project: Project) -> None:
    project.publish("1", "stable")
    assert paths(project, "apt/pool") >= POOL
    suite = f"apt/dists/{NAME}-stable"
    assert "Suite: debian-12-stable" in text(project, f"{suite}/InRelease")
    assert "Valid-Until: " in text(project, f"{suite}/InRelease")
    folder = f"images/{NAME}/1"
    assert text(project, f"{suite}/main/binary-amd64/Packages") == text(project, f"{folder}/Packages")
    sources = text(project, f"apt/{NAME}-stable.sources")
    assert "URIs: https://images.example.com/pg/apt\n" in sources
    assert "BEGIN PGP PUBLIC KEY BLOCK" in sources
    assert products(project)["stable"]["aliases"] == f"{NAME},{NAME}/stable"
    page = text(project, "index.html")
    assert f'href="./{folder}/index.html"' in page


def test_a_rollback_is_seen_everywhere(project: Project) -> None:
    project.publish("1", "stable")
    small = small_image.manifest()
    newer = [*small["packages"][1:], {**small["packages"][0], "version": "5.2-3"}]
    project.build_with("2", packages=newer)
    project.publish("2", "stable")
    suite = f"apt/dists/{NAME}-stable/main/binary-amd64"
    assert "Version: 5.2-3\n" in text(project, f"{suite}/Packages")
    flow.rollback(project.settings, project.workspace, "stable", name=None, to=None)
    assert text(project, f"{suite}/Packages") == text(project, f"images/{NAME}/1/Packages")
    names = [v["pubname"] for v in products(project)["stable"]["versions"].values()]  # type: ignore[attr-defined]
    assert names == [f"{NAME}-1"]


def test_without_an_address_readers_elsewhere_get_no_wrong_one(tmp_path: Path) -> None:
    project = Project.at(tmp_path)
    project.publish("1", "stable")
    assert f"URIs: file://{project.store}/apt\n" in text(project, f"apt/{NAME}-stable.sources")
    assert "local.patroni-foundry:" in text(project, "streams/v1/index.json")
    (project.store / f"apt/{NAME}-stable.sources").unlink()
    with session(project.settings, project.workspace, None) as open_:
        open_.store.url = "sftp://host/x"
        open_.show()
    assert not (project.store / f"apt/{NAME}-stable.sources").exists()


def test_a_namesake_with_other_bytes_is_refused_and_nothing_is_changed(project: Project) -> None:
    project.publish("1", "stable")
    before = paths(project, ".")
    small = small_image.manifest()
    other = [{**small["packages"][0], "sha256": "0" * 64}, *small["packages"][1:]]
    project.build_with("2", packages=other)
    with pytest.raises(SameName, match=r"published already as bash 5\.2-2\+b13 \(amd64\)"):
        project.publish("2", "stable")
    assert paths(project, ".") == before


def test_a_version_that_is_damaged_does_not_hold_the_others_up(project: Project, said: list[str]) -> None:
    project.publish("1", "stable")
    project.publish("2", "candidate")
    (project.store / f"images/{NAME}/1/Packages").write_text("x")
    suite = text(project, f"apt/dists/{NAME}-stable/InRelease")
    with session(project.settings, project.workspace, None) as open_:
        open_.show()
    damaged = f"images/{NAME}/1/Packages in {project.store.as_uri()} is not what was published"
    assert f"left out of what apt, incus and browsers see: {damaged}" in said
    assert list(products(project)) == ["candidate"]
    assert text(project, f"apt/dists/{NAME}-stable/InRelease") == suite


def test_what_only_a_retired_version_has_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.at(tmp_path, keep=1)
    project.publish("1")
    first = paths(project, "apt/dists")
    small = small_image.manifest()
    newer = [*small["packages"][1:], {**small["packages"][0], "version": "5.2-3"}]
    project.build_with("2", packages=newer)
    # Killed before it can remove anything; the next run finds what is left.
    with monkeypatch.context() as patch:
        patch.setattr(retention, "_remove", lambda *_: None)
        assert project.publish("2")[-1] == "retired  1"
    assert (project.store / f"images/{NAME}/1/Packages").exists()
    project.publish("2")
    assert not (project.store / f"images/{NAME}/1").exists()
    pool = paths(project, "apt/pool")
    assert "apt/pool/bash/bash_5.2-3_amd64.deb" in pool
    assert "apt/pool/bash/bash_5.2-2+b13_amd64.deb" not in pool
    assert POOL - pool == {"apt/pool/bash/bash_5.2-2+b13_amd64.deb"}
    gone = first - paths(project, "apt/dists")
    assert len(gone) == 2 and all(re.search(r"/by-hash/SHA256/[0-9a-f]{64}$", path) for path in gone)


def test_another_publisher_has_removed_it_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project.at(tmp_path, keep=1)
    project.publish("1")
    real = LocalStore.names

    def names(self: LocalStore, folder: str) -> list[str]:
        found = real(self, folder)
        if folder == f"images/{NAME}/1":
            shutil.rmtree(project.store / folder)
        return found

    monkeypatch.setattr(LocalStore, "names", names)
    assert project.publish("2")[-1] == "retired  1"


def test_packages_stay_while_it_is_not_known_who_needs_them(tmp_path: Path) -> None:
    project = Project.at(tmp_path, keep=2)
    project.publish("1")
    project.publish("2")
    (project.store / f"images/{NAME}/2/Packages").write_text("x")
    with session(project.settings, project.workspace, None) as open_:
        open_.append("retire", NAME, "1")
        assert retention.retire(open_, NAME) == []
    assert paths(project, "apt/pool") >= POOL
    assert {p.name for p in (project.store / f"images/{NAME}/1").iterdir()} == {"Packages"}


def test_of_two_who_write_at_once_the_last_one_shows_both(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.publish("1")
    real = Views.files
    with session(project.settings, project.workspace, None) as slow:

        def files(self: Views, *args: object) -> object:
            monkeypatch.setattr(Views, "files", real)
            flow.promote(project.settings, project.workspace, "1", channel="stable", to=None)
            return real(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Views, "files", files)
        slow.append("promote", NAME, "1", channel="beta")
        slow.show()
    assert set(products(project)) == {"beta", "candidate", "stable"}
