"""The bootstrap stage: a folder of the packages that every image has, installed by mmdebstrap, cached by its inputs.

A base is a copy of it with what images.NAME.packages adds. All packages come out of the local repository.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from foundry import apt, archive, exclusions, files, run, stages
from foundry.config import Config, Image
from foundry.workspace import Workspace

TREE = "root"
"""The folder of packages in a stage's result."""
DPKG = "etc/dpkg/dpkg.cfg.d"
"""Where dpkg reads its own settings, path-exclude and path-include among them."""
_MMDEBSTRAPS = (
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/0*",
    f"{DPKG}/99mmdebstrap",
)
"""What it leaves of the repository and of its options, and what a copy would bring in place of its next run's."""
_PINS = "etc/apt/preferences.d/patroni-foundry-bootstrap"


@dataclass(frozen=True)
class Tree:
    """What a folder of packages is made from.

    names: of packages to install. visible: all that apt may choose from for what they depend on, so that what else the
    repository has plays no part. before: a folder whose files are there first; the rules of dpkg in it hold for every
    package. under: a folder of installed packages to begin with. hooks: of mmdebstrap(1), once all are installed.
    """

    suite: str
    names: Sequence[str]
    visible: Iterable[apt.Package]
    before: Path | None = None
    under: Path | None = None
    hooks: Sequence[str] = ()


def extra_names(image: Image, packages: archive.Archive) -> tuple[str, ...]:
    """The packages of an image that are installed over the common ones."""
    return image.packages if len(packages.base) > len(packages.common) else ()


def decide(config: Config, image: Image, packages: archive.Archive, workspace: Workspace) -> stages.Decision:
    """Whether what an image begins with is there."""
    inputs = {
        **{f"package {p.name}": f"{p.version} {p.sha256}" for p in packages.common},
        **files.tree_digests([_templates(workspace)], workspace.root),
        **stages.recipe(exclusions, sys.modules[__name__]),
        "consul": files.sha256(packages.consul) if packages.consul else "none",
        "names": " ".join(_names(config, image, packages)),
        "suite": image.suite,
        "exclude": ",".join(image.exclude),
    }
    return stages.decide(workspace, "bootstrap", inputs, trees=[TREE])


def build(config: Config, image: Image, packages: archive.Archive, workspace: Workspace) -> Path:
    """Install the packages that all images have, or find them installed; returns the folder.

    Raises CommandFailed, and CorruptArtifact for a folder that is not what it was any more.
    """

    def act(scratch: Path) -> None:
        files.need_space(workspace.build, 2_000_000_000, "bootstrap")
        archive.intact(packages, workspace)
        before = scratch / "before"
        _prepare(image, workspace, before)
        tree = Tree(image.suite, _names(config, image, packages), packages.common, before)
        make(tree, scratch / TREE, packages, what="bootstrap")
        shutil.rmtree(before)

    decision = decide(config, image, packages, workspace)
    folder = stages.perform(workspace, decision, act)
    return stages.checked_tree(folder, TREE) if decision.reuse else folder / TREE


def _templates(workspace: Workspace) -> Path:
    return workspace.templates / "base" / "setup"


def _names(config: Config, image: Image, packages: archive.Archive) -> list[str]:
    names = archive.common_names(config) if extra_names(image, packages) else archive.base_names(config, image)
    return [*(n for n in names if not n.startswith("?")), *(["consul"] if packages.consul else [])]


def _prepare(image: Image, workspace: Workspace, before: Path) -> None:
    render(_templates(workspace), before)
    if image.exclude:
        text = f"# images.NAME.exclude of foundry.yml: {', '.join(image.exclude)}"
        lines = [text, *exclusions.rules(image.exclude), ""]
        files.write(before / DPKG / "patroni-foundry-exclude", "\n".join(lines))


def render(templates: Path, target: Path, **values: object) -> None:
    """Fill in the templates of a folder, into the folder target. Raises a jinja2.TemplateError."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    for name in environment.list_templates(extensions=["j2"]):
        files.write(target / name.removesuffix(".j2"), environment.get_template(name).render(values))


def make(tree: Tree, root: Path, packages: archive.Archive, *, what: str) -> None:
    """Install the packages of a tree in the folder root, which must not exist. what: the stage. Raises CommandFailed.

    Files of its own lie beside root meanwhile.
    """
    variant = "custom" if tree.under else "required"
    command = ["mmdebstrap", "--mode=root", f"--variant={variant}", "--format=directory", "--dpkgopt=force-unsafe-io"]
    if tree.under:
        command.append(f'--setup-hook=cp -a --reflink=auto {shlex.quote(str(tree.under))}/. "$1"')
    if tree.before:
        command += [f"--setup-hook=sync-in {shlex.quote(str(tree.before))} /", *_leave_out(_rules(tree.before))]
    pins = root.with_name("pins")
    files.write(pins, _hidden(tree, packages))
    command.append(f'--setup-hook=mkdir -p "$1/{Path(_PINS).parent}" && cp {shlex.quote(str(pins))} "$1/{_PINS}"')
    if tree.names and tree.under:
        install = 'apt-get --yes --no-install-recommends -o DPkg::Chroot-Directory="$1" install'
        command.append(f"--customize-hook=APT_CONFIG=$MMDEBSTRAP_APT_CONFIG {install} {shlex.join(tree.names)}")
    elif tree.names:
        command.append(f"--include={','.join(tree.names)}")
    command += [f"--customize-hook={hook}" for hook in (f'rm "$1/{_PINS}"', *tree.hooks)]
    command += [archive.READ_AS_ROOT, tree.suite, str(root), packages.line()]
    # INITRD=No: the kernel's own hook would make a first, large initrd that nobody boots. What a killed mmdebstrap has
    # in TMPDIR, nobody would remove from elsewhere.
    env = {"INITRD": "No", "TMPDIR": str(root.parent)}
    run.run(run.contained(command), env=env, name="mmdebstrap", what=f"{what}: mmdebstrap")
    pins.unlink()
    for path in (p for pattern in _MMDEBSTRAPS for p in root.glob(pattern)):
        path.unlink()


def _hidden(tree: Tree, packages: archive.Archive) -> str:
    """What apt has to be told (apt_preferences(5)) to take nothing that is not visible."""
    names = {p.name for p in (*packages.base, *packages.buildd)} - {p.name for p in tree.visible}
    return "".join(f"Package: {name}\nPin: release *\nPin-Priority: -1\n\n" for name in sorted(names))


def _rules(before: Path) -> list[str]:
    """In the order in which dpkg reads them: the last one that matches a path decides."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((before / DPKG).glob("*"))]
    return [line for text in texts for line in text.splitlines() if line.startswith("path-")]


def _leave_out(rules: Sequence[str]) -> list[str]:
    """Take out what the first packages have of excluded paths: tar unpacks them, before there is a dpkg to ask.

    Told by --dpkgopt, mmdebstrap sends each of them through a program in Python, and the sixty take twelve seconds.
    """
    if not rules:
        return []
    words = ["find", ".", "-xdev", "-depth", "-mindepth", "1", *_excluded(rules)]
    return [f'--extract-hook=cd "$1" && {shlex.join([*words, "(", "!", "-type", "d", "-o", "-empty", ")", "-delete"])}']


def _excluded(rules: Iterable[str]) -> list[str]:
    """What find(1) has to be told to find what dpkg's rules exclude (dpkg(1), --path-exclude)."""
    found = ["-false"]
    for rule in rules:
        kind, _, pattern = rule.partition("=")
        path = ["-path", f".{pattern}"]
        found = ["(", *path, "-o", *found, ")"] if kind == "path-exclude" else ["(", "!", *path, *found, ")"]
    return found
