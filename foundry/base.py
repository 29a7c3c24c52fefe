"""The base stage: a bootable disk with the slow-changing packages already installed, cached by its inputs.

mmdebstrap unpacks and configures the packages of the local repository in a folder; patroni-venv, which changes as
seldom and would take long to unpack in an emulated guest, goes on top; disk.py makes that a disk.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jinja2

from foundry import apt, archive, disk, exclusions, ext4, files, log, run, stages
from foundry import epoch as dates
from foundry.config import Config, Image
from foundry.workspace import Workspace

IMAGE = "base.qcow2"
DPKG = "etc/dpkg/dpkg.cfg.d"
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
    """A base disk (qcow2, not compressed), its kernel and initrd for a direct boot, and the date of all in it."""

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
    templates = workspace.templates / "base"
    epoch = archive.epoch(packages, workspace)
    inputs = {
        **{f"package {p.name}": f"{p.version} {p.sha256}" for p in packages.base},
        **files.tree_digests([templates], workspace.root),
        **stages.recipe(disk, exclusions, ext4, sys.modules[__name__]),
        "date": str(epoch),
        "consul": files.sha256(packages.consul) if packages.consul else "none",
        "patroni-venv": venv.key,
        "suite": image.suite,
        "disk size": str(image.disk_size),
        "exclude": ",".join(image.exclude),
        "sources": files.canonical([_source(s) for s in packages.sources]),
    }
    decision = stages.decide(workspace, "base", inputs)
    if decision.reuse and _installed_venv(decision.folder) != files.sha256(venv.wait()):
        # Built anew from the same inputs, not to the same bytes: the manifest would name a package that is not there.
        (decision.folder / stages.RECORD).unlink()
        decision = stages.decide(workspace, "base", inputs)
    identity = disk.Identity.of(decision.key)

    def act(scratch: Path) -> None:
        files.need_space(workspace.build, 4_000_000_000, "base")
        archive.intact(packages, workspace)
        root = scratch / "root"
        try:
            _Tree(config, image, packages, identity, templates, scratch, root, epoch).make(venv)
            raw = scratch / "base.raw"
            log.activity("base: writing the disk")
            disk.build(root, raw, image.disk_size, identity, epoch)
            shutil.copyfile(_boot_file(root, "vmlinuz"), scratch / "vmlinuz")
            shutil.copyfile(_boot_file(root, "initrd.img"), scratch / "initrd.img")
        finally:
            run.run(["rm", "-rf", "--one-file-system", root], name="rm")
        run.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, scratch / IMAGE])
        raw.unlink()

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

    config: Config
    image: Image
    packages: archive.Archive
    identity: disk.Identity
    templates: Path
    scratch: Path
    root: Path
    epoch: int

    def make(self, venv: Venv) -> None:
        before, after = self.scratch / "setup", self.scratch / "final"
        self._render("setup", before)
        self._render("final", after)
        names = [n for n in archive.base_names(self.config, self.image) if not n.startswith("?")]
        if self.packages.consul:
            names.append("consul")
        command = [
            *("mmdebstrap", "--mode=root", "--variant=required", "--format=directory"),
            f"--include={','.join(names)}",
            f"--setup-hook=sync-in {before} /",
            f"--customize-hook=sync-in {after} /",
            # Not for all of it: with this variable Python's byte code would be compared with its source at each import.
            f'--customize-hook=SOURCE_DATE_EPOCH={self.epoch} chroot "$1" update-initramfs -c -k all',
            f'--customize-hook=systemctl --root="$1" enable {" ".join(ENABLED)}',
            f'--customize-hook=systemctl --root="$1" disable {" ".join(DISABLED)}',
            f'--customize-hook=systemctl --root="$1" add-wants sysinit.target {" ".join(WANTED)}',
            # By command line too: the first packages are unpacked before the file is read.
            *(f"--dpkgopt={line}" for line in self._path_rules(before)),
            "--dpkgopt=force-unsafe-io",
            archive.READ_AS_ROOT,
            *(self.image.suite, str(self.root), self.packages.line()),
        ]
        # INITRD=No: the kernel's own hook would make a first, large initrd that nobody boots.
        run.run(
            run.contained(command),
            env={"INITRD": "No", "TMPDIR": str(self.scratch)},
            name="mmdebstrap",
            what="base: mmdebstrap",
        )
        self._link_initrd()
        log.activity("base: waiting for patroni-venv")
        self._install(venv.wait())
        if self.image.exclude:
            exclusions.account(self.root, self.image.exclude)
        self._forget()
        for folder in (before, after):
            shutil.rmtree(folder)

    def _render(self, part: str, target: Path) -> None:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(self.templates / part),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,
        )
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
        for name in environment.list_templates(extensions=["j2"]):
            text = environment.get_template(name).render(identity=self.identity, sources=rows)
            files.write(target / name.removesuffix(".j2"), text)
        if part == "setup" and self.image.exclude:
            text = f"# images.NAME.exclude of foundry.yml: {', '.join(self.image.exclude)}"
            files.write(
                target / DPKG / "patroni-foundry-exclude", "\n".join([text, *exclusions.rules(self.image.exclude), ""])
            )
        if part == "final":
            for source in self.packages.sources:
                if source.signed_by != apt.DEBIAN_KEYRING:
                    path = target / keyrings.lstrip("/") / Path(source.signed_by).name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source.signed_by, path)

    @staticmethod
    def _path_rules(before: Path) -> list[str]:
        """In the order in which dpkg reads them: the last rule that matches a path decides."""
        texts = [path.read_text(encoding="utf-8") for path in sorted((before / DPKG).iterdir())]
        return [line for text in texts for line in text.splitlines() if line.startswith("path-")]

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
            "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
            "etc/apt/apt.conf.d/99mmdebstrap",
            "etc/apt/sources.list",
            "etc/apt/sources.list.d/0*",
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
