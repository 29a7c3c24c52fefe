from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from debian.deb822 import Deb822

from foundry import archive, gpg, run
from foundry.workspace import Workspace


def test_a_package_on_another_file_system_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def across(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", across)
    (tmp_path / "consul.deb").write_bytes(b"deb")
    archive._link(tmp_path / "consul.deb", tmp_path / "pool" / "consul.deb")
    assert (tmp_path / "pool" / "consul.deb").read_bytes() == b"deb"


def test_any_other_failure_to_link_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        archive._link(tmp_path / "none", tmp_path / "pool" / "none")


def test_a_base_has_all_that_the_node_needs() -> None:
    """Else the packages are installed into it without a network, and fail there after minutes."""
    text = (Path(__file__).parents[2] / "debian/control").read_text(encoding="utf-8")
    node = next(p for p in Deb822.iter_paragraphs(text) if p.get("Package") == "patroni-node")
    named = {word.split()[0] for word in node["Depends"].split(",") if word.strip() and "$" not in word}
    elsewhere = {"postgresql-15"}
    assert named >= {"nftables", "openssl"}
    assert named - {*archive.BASE_PACKAGES, *archive.NODE_DEPENDENCIES} == elsewhere


class NoKey:
    def clearsign(self, text: str, folder: Path) -> str:
        return f"signed {text}"

    def public(self, target: Path) -> None:
        target.write_text("key")


def test_metadata_come_from_the_packages_alone(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    rows = ["Package: b\nFilename: ./pool/b.deb", "Package: a\nFilename: ./pool/a.deb"]

    def capture(words: list[str], **options: object) -> str:
        asked.append(words)
        return "\n\n".join(rows) + "\n" if "packages" in words else "Suite: bookworm"

    monkeypatch.setattr(run, "capture", capture)
    monkeypatch.setattr(gpg, "throw_away", lambda *a: NoKey())
    head = b"!<arch>\ndebian-binary   "
    (tmp_path / "pool").mkdir()
    for name, made in (("a", b"1794824260  "), ("b", b"1700000000  ")):
        (tmp_path / f"pool/{name}.deb").write_bytes(head + made + bytes(40))
    archive.index_and_sign(workspace, tmp_path, "bookworm")
    assert (tmp_path / "Packages").read_text() == f"{rows[1]}\n\n{rows[0]}\n\n"
    assert "APT::FTPArchive::Release::Date=Mon, 16 Nov 2026 10:17:40 +0000" in asked[1]
