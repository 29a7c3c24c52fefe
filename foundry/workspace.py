"""Where everything lies. The only room that spells paths."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

KVM_DEVICE = Path("/dev/kvm")
MOUNTS = Path("/proc/self/mountinfo")
MEMORY = Path("/proc/meminfo")
HOST_KERNELS = Path("/boot")
HOST_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HOST_CPUS = Path("/proc/cpuinfo")
CPU_TIMES = Path("/proc/stat")
PROCESSES = Path("/proc")
INOTIFY_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")
NAMESPACES = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
OVMF = Path("/usr/share/OVMF")
SHIPPED_TEMPLATES = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True)
class Workspace:
    """The paths of one project and of one run.

    root: the project's folder, with foundry.yml in it. build: all that the product makes, safe to delete.
    run_id: names this run's logs, e.g. "20261122-210102".
    """

    root: Path
    build: Path
    run_id: str

    @classmethod
    def at(cls, root: Path) -> Workspace:
        """The workspace of the project in root; the environment variable FOUNDRY_BUILD moves its build folder."""
        build = Path(os.environ.get("FOUNDRY_BUILD") or root / "build")
        return cls(root.resolve(), build.resolve(), datetime.now(UTC).strftime("%Y%m%d-%H%M%S"))

    @property
    def config(self) -> Path:
        return self.root / "foundry.yml"

    @property
    def logs(self) -> Path:
        return self.build / "logs" / self.run_id

    @property
    def lock(self) -> Path:
        """Held by the one run that may change the build folder."""
        return self.build / "lock"

    @property
    def failed(self) -> Path:
        return self.build / "failed"

    @property
    def work(self) -> Path:
        """Half-made things of runs under way; whatever is in it belongs to nobody once its run has ended."""
        return self.build / "work"

    @property
    def pool(self) -> Path:
        """Every .deb ever fetched, named as in the archive; kept across builds, so that old versions can be rebuilt."""
        return self.build / "pool"

    @property
    def wheels(self) -> Path:
        """Every wheel and sdist that a lock file names."""
        return self.build / "wheels"

    @property
    def resolver(self) -> Path:
        """A private apt root: its lists and configuration, apart from the host's."""
        return self.build / "resolver"

    @property
    def keyring(self) -> Path:
        """The throw-away key that signs the local repository."""
        return self.build / "keyring"

    @property
    def publisher(self) -> Path:
        """The throw-away key for trying out what publishes."""
        return self.build / "publisher"

    @property
    def seen(self) -> Path:
        """What stores have served before: it says whether one is put back, and nothing else does."""
        return self.build / "seen.json"

    @property
    def store(self) -> Path:
        """Where versions are published unless foundry.yml names another place; not in build/, which may be removed."""
        return self.root / "store"

    def stage(self, name: str) -> Path:
        """The folder of a stage's results, one sub-folder for each key."""
        return self.build / name

    @property
    def host_facts(self) -> Path:
        """What was found out about this host, and need not be found out again until it boots anew."""
        return self.build / "host"

    @property
    def images(self) -> Path:
        """Golden images, one folder for each version, with manifest, checksums and verdicts."""
        return self.build / "images"

    @property
    def labs(self) -> Path:
        """Clusters for trying things out, one folder each."""
        return self.build / "labs"

    # sources of the project itself

    @property
    def launching(self) -> Path:
        """How an image is launched, for people."""
        return self.root / "docs" / "launching.md"

    @property
    def debian(self) -> Path:
        return self.root / "debian"

    @property
    def node_program(self) -> Path:
        return self.root / "patroni_node"

    @property
    def files(self) -> Path:
        return self.root / "files"

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def packer(self) -> Path:
        return self.root / "packer"

    @property
    def requirements(self) -> Path:
        return self.root / "requirements"

    @property
    def image_suite(self) -> Path:
        return self.root / "tests" / "image"

    @property
    def unit_suite(self) -> Path:
        return self.root / "tests" / "unit"

    @property
    def pipeline_suite(self) -> Path:
        return self.root / "tests" / "pipeline"

    @property
    def cluster_suite(self) -> Path:
        return self.root / "tests" / "cluster"

    @property
    def host_packages(self) -> Path:
        """The Debian packages that the build host needs, and a command of each."""
        return self.requirements / "host.txt"
