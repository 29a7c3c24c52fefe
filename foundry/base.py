"""The base stage: a bootable disk with the slow-changing packages already installed, cached by its inputs.

A copy of what bootstrap.py has installed gets the image's further packages, its settings, and patroni-venv, which would
take long to unpack in an emulated guest; disk.py makes that a disk.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from foundry import apt, archive, bootstrap, disk, exclusions, ext4, files, log, run, stages
from foundry import epoch as dates
from foundry.config import Config, Image
from foundry.workspace import Workspace

IMAGE = "base.raw"
VENV_DIGEST = "patroni-venv.sha256"
# Debian ships both disabled; the second lets a kernel command line configure the network, as the Packer step does.
ENABLED = ("systemd-networkd.service", "systemd-network-generator.service")


# For ext4 on LVM, which no image has; looking for it takes seconds of each boot.
DISABLED = ("e2scrub_reap.service", "e2scrub_all.timer")
# Has no [Install]: Debian starts it in an initrd with systemd in it, which this image has not.
WANTED = ("systemd-repart.service",)


@dataclass(frozen=True)
class Venv:
    """The package patroni-venv, which may still be under way: its stage's key, and what waits for its .deb."""

    key: str
    wait: Callable[[], Path]


@dataclass(frozen=True)
class Base:
    """A base disk (raw, sparse), its kernel and initrd for a direct boot, and the date of all in it."""

    folder: Path
    key: str
    root_fs: str
    epoch: int

    @property
    def image(self) -> Path:
        return self.folder / IMAGE

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def digest(self) -> str:
        return stages.output_digest(self.folder, IMAGE)


def build(config: Config, image: Image, packages: archive.Archive, venv: Venv, workspace: Workspace) -> Base:
    """Make the base of an image, or find it made. Raises CommandFailed, FoundryError, and what venv.wait does."""
    templates = workspace.templates / "base" / "final"
    epoch = archive.epoch(packages, workspace)
    ground = bootstrap.decide(config, image, packages, workspace)
    inputs = {
        **{f"package {p.name}": f"{p.version} {p.sha256}" for p in packages.base},
        "bootstrap": ground.key,
        **files.tree_digests([templates], workspace.root),
        **stages.recipe(disk, exclusions, ext4, sys.modules[__name__]),
        "date": str(epoch),
        "patroni-venv": venv.key,
        "packages": " ".join(image.packages),
        "disk size": str(image.disk_size),
        "sources": files.canonical([_source(s) for s in packages.sources]),
    }
    decision = stages.decide(workspace, "base", inputs)
    if decision.reuse and _installed_venv(decision.folder) != files.sha256(venv.wait()):
        # Built anew from the same inputs, not to the same bytes: the manifest would name a package that is not there.
        (decision.folder / stages.RECORD).unlink()
        decision = stages.decide(workspace, "base", inputs)
    identity = disk.Identity.of(decision.key)
    under = None if decision.reuse else bootstrap.build(config, image, packages, workspace)
    if decision.reuse and ground.reuse:
        log.reused(ground.name, ground.reason)

    def act(scratch: Path) -> None:
        assert under
        files.need_space(workspace.build, 4_000_000_000, "base")
        archive.intact(packages, workspace)
        root = scratch / "root"
        try:
            _Tree(image, packages, identity, templates, scratch, root, epoch).make(under, venv)
            log.activity("base: writing the disk")
            disk.build(root, scratch / IMAGE, image.disk_size, identity, epoch)
            shutil.copyfile(_boot_file(root, "vmlinuz"), scratch / "vmlinuz")
            shutil.copyfile(_boot_file(root, "initrd.img"), scratch / "initrd.img")
        finally:
            run.run(["rm", "-rf", "--one-file-system", root], name="rm", cleaning=True)

    return Base(stages.perform(workspace, decision, act), decision.key, identity.root_fs, epoch)


def _source(source: apt.Source) -> str:
    """What an image shows of one of its archives: not where on this host its key lies."""
    own = source.signed_by != apt.DEBIAN_KEYRING
    key = f"{Path(source.signed_by).name} {files.sha256(Path(source.signed_by))}" if own else source.signed_by
    return f"{source.uri} {source.suite} {' '.join(source.components)} {key}"


def _installed_venv(folder: Path) -> str:
    return (folder / VENV_DIGEST).read_text(encoding="ascii").strip()


def _date_passwords(shadow: Path, epoch: int) -> None:
    """Let no day of the build show in a shadow(5) file. Owner and mode are kept."""
    rows = [line.split(":") for line in shadow.read_text(encoding="ascii").splitlines()]
    text = "".join(":".join([*row[:2], str(dates.day(epoch)), *row[3:]]) + "\n" for row in rows)
    shadow.write_text(text, encoding="ascii")


def _boot_file(root: Path, name: str) -> Path:
    found = sorted((root / "boot").glob(f"{name}-*"))
    return found[-1]


@dataclass
class _Tree:
    """The root file system in the making."""

    image: Image
    packages: archive.Archive
    identity: disk.Identity
    templates: Path
    scratch: Path
    root: Path
    epoch: int

    def make(self, under: Path, venv: Venv) -> None:
        after = self.scratch / "final"
        self._render(after)
        hooks = (
            f"sync-in {shlex.quote(str(after))} /",
            # Not for all of it: with this variable Python's byte code would be compared with its source at each import.
            f'SOURCE_DATE_EPOCH={self.epoch} chroot "$1" update-initramfs -c -k all',
            f'systemctl --root="$1" enable {" ".join(ENABLED)}',
            f'systemctl --root="$1" disable {" ".join(DISABLED)}',
            f'systemctl --root="$1" add-wants sysinit.target {" ".join(WANTED)}',
        )
        extra = bootstrap.extra_names(self.image, self.packages)
        tree = bootstrap.Tree(self.image.suite, extra, self.packages.base, under=under, hooks=hooks)
        bootstrap.make(tree, self.root, self.packages, what="base")
        self._link_initrd()
        log.activity("base: waiting for patroni-venv")
        self._install(venv.wait())
        if self.image.exclude:
            exclusions.account(self.root, self.image.exclude)
        self._forget()
        shutil.rmtree(after)

    def _render(self, target: Path) -> None:
        keyrings = "/etc/apt/keyrings"
        rows = [
            {
                "uri": s.uri,
                "suite": s.suite,
                "components": s.components,
                "target_keyring": s.signed_by
                if s.signed_by == apt.DEBIAN_KEYRING
                else f"{keyrings}/{Path(s.signed_by).name}",
            }
            for s in self.packages.sources
        ]
        bootstrap.render(self.templates, target, identity=self.identity, sources=rows)
        for source in self.packages.sources:
            if source.signed_by != apt.DEBIAN_KEYRING:
                path = target / keyrings.lstrip("/") / Path(source.signed_by).name
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.signed_by, path)

    def _install(self, deb: Path) -> None:
        inside = self.root / deb.name
        shutil.copyfile(deb, inside)
        words = ["chroot", str(self.root), "dpkg", "--force-unsafe-io", "--install", f"/{deb.name}"]
        run.run(run.contained(words, network=False), name="dpkg", what=f"base: dpkg --install {deb.name}")
        inside.unlink()
        files.write(self.scratch / VENV_DIGEST, f"{files.sha256(deb)}\n")

    def _link_initrd(self) -> None:
        """What the kernel's package does itself, unless INITRD=No."""
        initrd = _boot_file(self.root, "initrd.img").name
        for name in ("initrd.img", "initrd.img.old"):
            (self.root / name).unlink(missing_ok=True)
            (self.root / name).symlink_to(f"boot/{initrd}")

    def _forget(self) -> None:
        """Remove what the build host and the packages' scripts left of this one machine (traps.md row 18)."""
        root = self.root
        for pattern in (
            "etc/ssh/ssh_host_*",
            "etc/ssl/private/ssl-cert-snakeoil.key",
            "etc/ssl/certs/ssl-cert-snakeoil.pem",
            "etc/postgresql-common/root.crt",
            "etc/hostname",
            # systemd-resolved's copy of the build host's own.
            "etc/.resolv.conf.systemd-resolved.bak",
            "var/lib/dbus/machine-id",
            "var/lib/systemd/random-seed",
            "var/log/**/*.log",
            "var/cache/ldconfig/*",
            "var/cache/debconf/*-old",
            "var/lib/dpkg/*-old",
            "run/*",
        ):
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        (root / "etc/machine-id").write_text("", encoding="utf-8")
        for name in ("etc/shadow", "etc/shadow-"):
            _date_passwords(root / name, self.epoch)
        resolver = root / "etc/resolv.conf"
        resolver.unlink(missing_ok=True)
        resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")
