"""Packages of a few hundred bytes, by Debian's own dpkg-deb."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from foundry import files
from foundry.publish.aptrepo import Deb


def deb(folder: Path, name: str, version: str = "1.0", *, note: str = "", **fields: str) -> Deb:
    """Build a package that holds nothing but a note. fields: of its control file, e.g. depends="libc6"."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    given = {"Package": name, "Version": version, "Architecture": "all", "Maintainer": "a <a@example.org>"}
    given |= {key.capitalize(): value for key, value in fields.items()} | {"Description": note or "a"}
    control = "".join(f"{key}: {value}\n" for key, value in given.items())
    (tree / "DEBIAN/control").write_text(control, encoding="utf-8")
    target = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(target)], check=True, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(tree)
    return Deb(target, files.sha256(target))
