"""The apt repository of one version as one file, for machines that reach no network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jinja2

from foundry import files, gpg, run
from foundry.publish import aptrepo
from foundry.publish.version import Version

# Where README tells to unpack it; add-source writes the place where it really is.
DEFAULT_PLACE = "/srv"
SOURCES, ADD_SOURCE, README = "offline.sources", "add-source", "README"
# Where add-source puts it.
INSTALLED = "/etc/apt/sources.list.d/patroni-node-offline.sources"


def name(version: Version) -> str:
    """The name of the tarball of a version."""
    return f"{_top(version)}.tar"


def _top(version: Version) -> str:
    return f"patroni-node-{version.version}-offline"


def largest(index: bytes) -> int:
    """The bytes that a tarball of an index's packages has at most: tar's blocks and long names, and what is signed."""
    packages = aptrepo.entries(index)
    return sum(p.size for p in packages) + 8192 * (len(packages) + 50) + 4 * len(index) + (1 << 20)


def tarball(version: Version, repository: Path, key: gpg.Key, texts: Path, target: Path) -> Path:
    """Write the tarball of a version to target; returns target.

    version: only its image, name and manifest are used. repository: as aptrepo.lay_out() made it, on the file system
    of target. texts: templates/offline. Two tarballs of a version differ in nothing but the time of their signatures.
    Not compressed: .debs are.
    """
    index = (repository / "Packages").read_bytes()
    packages = aptrepo.entries(index)
    files.need_space(target.parent, 2 * sum(p.size for p in packages), "publish")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".offline.") as scratch:
        folder = Path(scratch) / _top(version)
        shutil.copytree(repository / "pool", folder / "pool", copy_function=aptrepo.link)
        suite = aptrepo.suite_name(version.image, "offline")
        for path, data in aptrepo.dists(index, suite, key, Path(scratch), date=version.built).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        for path, data in written(version, packages, key.armored(), key.fingerprint, texts).items():
            (folder / path).write_bytes(data)
        (folder / ADD_SOURCE).chmod(0o755)
        whole = Path(scratch) / "whole.tar"
        run.run(_tar(folder, whole, version), name="tar", what="publish: the offline tarball")
        whole.rename(target)
    return target


def written(
    version: Version, packages: Sequence[aptrepo.Entry], armored: str, fingerprint: str, texts: Path
) -> dict[str, bytes]:
    """What is written for people and for apt's settings, by name. armored, fingerprint: the key's. See tarball()."""
    facts = {
        "top": _top(version),
        "image": version.image,
        "version": version.version,
        "built": f"{version.built:%Y-%m-%d}",
        "source": INSTALLED,
        "fingerprint": fingerprint,
        "count": len(packages),
        "size": files.human(sum(p.size for p in packages)),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(texts), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    suite = aptrepo.suite_name(version.image, "offline")
    return {
        SOURCES: aptrepo.sources(f"file:{DEFAULT_PLACE}/{_top(version)}", suite, armored).encode(),
        ADD_SOURCE: (texts / ADD_SOURCE).read_bytes(),
        README: environment.get_template("README.j2").render(facts).encode(),
    }


def _tar(folder: Path, target: Path, version: Version) -> list[str | Path]:
    # https://reproducible-builds.org/docs/archives/; gnu: neither access times nor process numbers are in it.
    return [
        *("tar", "--create", "--format=gnu", "--sort=name", f"--mtime=@{int(version.built.timestamp())}"),
        *("--owner=root:0", "--group=root:0", "--numeric-owner", "--mode=u=rwX,go=rX", "--hard-dereference"),
        *("--directory", folder.parent, "--file", target, folder.name),
    ]
