"""The rules of dpkg that a base is made with, and that it keeps."""

from __future__ import annotations

from pathlib import Path

from foundry import archive, base, disk
from foundry.config import Config, Image
from foundry.exclusions import rules

TEMPLATES = Path(__file__).parents[2] / "templates/base"


def setup(scratch: Path, image: Image) -> tuple[Path, list[str]]:
    config = Config(images={"debian-12": image})
    packages = archive.Archive(scratch, scratch / "key.gpg", (), (), None, "key", ())
    tree = base._Tree(config, image, packages, disk.Identity.of("x"), TEMPLATES, scratch, scratch / "root", 0)
    tree._render("setup", scratch / "setup")
    return scratch / "setup/etc/dpkg/dpkg.cfg.d", tree._path_rules(scratch / "setup")


def test_the_users_rules_come_after_the_projects_own(tmp_path: Path) -> None:
    folder, own = setup(tmp_path / "a", Image())
    assert [p.name for p in folder.iterdir()] == ["patroni-foundry"]
    wanted = rules(["jit", "/usr/share/nano/*"])
    folder, both = setup(tmp_path / "b", Image(exclude=("jit", "/usr/share/nano/*")))
    assert both == [*own, *wanted]
    lines = (folder / "patroni-foundry-exclude").read_text(encoding="utf-8").splitlines()
    assert lines == ["# images.NAME.exclude of foundry.yml: jit, /usr/share/nano/*", *wanted]
