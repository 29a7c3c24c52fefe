"""What every peer makes its image from: one signed repository of .debs and a folder of wheels, by http on the loopback.

The repository has the very packages of our archive stage, and those that peers need besides, in the layout that
debootstrap wants. The sdists are built before: no peer has to compile, while our own build does.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from packaging.utils import parse_wheel_filename

from foundry import apt, archive, deb, files, gpg, run, wheels
from foundry.config import Config, Image
from foundry.peers import room
from foundry.workspace import Workspace

# What peers install on top of what an image of ours has. Each row is resolved by itself: dracut and initramfs-tools are
# not installed together.
EXTRAS = (
    ("python3-venv", "grub-pc", "eatmydata", "ifupdown", "isc-dhcp-client"),
    ("dracut", "systemd-boot", "dosfstools"),
    # debootstrap wants it.
    ("usr-is-merged",),
    # Of the initrd that mkosi makes.
    ("lvm2", "p11-kit", "dmsetup", "btrfs-progs", "dosfstools", "erofs-utils", "libfido2-1", "libcryptsetup12"),
    ("libtss2-esys-3.0.2-0", "libtss2-mu0", "libtss2-rc0", "libtss2-tcti-device0"),
    # Of diskimage-builder's elements.
    ("busybox", "cloud-initramfs-growroot", "gnupg2", "locales", "lsb-release", "tzdata"),
)
COMPILERS = ("build-essential", "libpq-dev", "libsystemd-dev", "pkg-config", "python3-dev", "python3-pip")
REQUIREMENTS = "requirements.txt"
_WHEELS = """
set -eu
python3 -m pip --isolated install $OPTIONS --target /tools --requirement /work/patroni-build.txt
PYTHONPATH=/tools python3 -m pip --isolated wheel $OPTIONS --no-build-isolation --wheel-dir /work/out \\
    --requirement /work/patroni.txt
"""


@dataclass(frozen=True)
class Supply:
    """folder: what is served. packages: of Debian, by name, that every image gets. archive: our own repository."""

    folder: Path
    suite: str
    packages: tuple[str, ...]
    archive: archive.Archive

    @property
    def key(self) -> Path:
        return self.folder / "key.gpg"


def make(settings: Config, image: Image, workspace: Workspace, folder: Path) -> Supply:
    """Fetch all that is needed into workspace's pool and wheels, and lay it out in folder. Raises what builds do.

    Afterwards workspace holds our own archive stage for the image, and a build in it asks nobody (offline).
    """
    own = archive.build(settings, image, workspace)
    resolver = apt.Resolver(workspace, own.sources)
    more: set[apt.Package] = set()
    for row in EXTRAS:
        found = resolver.resolve([*archive.ESSENTIAL, *row], name="peers")
        resolver.fetch(found)
        more |= set(found)
    locks = [workspace.requirements / name for name in deb.LOCKS]
    wheels.fetch(locks, deb.TARGET_PYTHON, workspace)
    names = [n for n in archive.base_names(settings, image) if not n.startswith("?")]
    supply = Supply(folder, image.suite, (*names, *(["consul"] if own.consul else [])), own)
    _repository([workspace.pool / p.filename for p in more], supply, workspace)
    _wheels(own, supply, workspace)
    return supply


def _repository(more: Iterable[Path], supply: Supply, workspace: Workspace) -> None:
    """The .debs of our flat repository, and more, under dists/ and pool/."""
    root = supply.folder / "debian"
    index = root / "dists" / supply.suite / "main/binary-amd64/Packages"
    index.parent.mkdir(parents=True)
    (root / "pool").mkdir()
    for path in [*(supply.archive.folder / "pool").iterdir(), *more]:
        # As in Debian's own archive, an epoch is no part of a file's name.
        target = root / "pool" / re.sub(r"_\d+%3a", "_", path.name)
        if not target.exists():
            os.link(path, target)
    files.write(index, run.capture(["apt-ftparchive", "packages", "pool"], cwd=root, name="packages") + "\n")
    options = {"Suite": supply.suite, "Codename": supply.suite, "Components": "main", "Architectures": "amd64"}
    words = ["apt-ftparchive"]
    for name, value in options.items():
        words += ["-o", f"APT::FTPArchive::Release::{name}={value}"]
    top = root / "dists" / supply.suite
    release = run.capture([*words, "release", "."], cwd=top, name="release")
    files.write(top / "Release", release + "\n")
    key = gpg.throw_away(workspace.keyring, archive.KEY_NAME)
    files.write(top / "InRelease", key.clearsign(release + "\n", supply.folder))
    key.public(supply.key)


def _wheels(packages: archive.Archive, supply: Supply, workspace: Workspace) -> None:
    """Wheels of all that the lock names, and a lock of these very files."""
    place = room.make(supply.folder.with_name("wheels"), supply.suite, COMPILERS, [packages.line()])
    shutil.copytree(workspace.wheels, place.work / "wheels", copy_function=os.link)
    for name in deb.LOCKS:
        shutil.copyfile(workspace.requirements / name, place.work / name)
    options = "--no-index --find-links /work/wheels --require-hashes --no-deps --quiet"
    place.run(["sh", "-c", _WHEELS], {"OPTIONS": options}, name="wheels", seconds=None)
    shutil.move(place.work / "out", supply.folder / "wheels")
    rows = []
    for path in sorted((supply.folder / "wheels").iterdir()):
        name, version, _, _ = parse_wheel_filename(path.name)
        rows.append(f"{name}=={version} --hash=sha256:{files.sha256(path)}\n")
    files.write(supply.folder / "wheels" / REQUIREMENTS, "".join(rows))
    shutil.rmtree(place.root.parent)


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Say nothing: the tools say what they fetch."""


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve a folder by http on the loopback, to whoever asks; yields the port. It has nothing that is not public."""

    def handler(*args: object) -> _Quiet:
        return _Quiet(*args, directory=str(folder))  # type: ignore[arg-type]

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
