from __future__ import annotations

from foundry import deb, files, image
from foundry.workspace import Workspace


def test_the_manifest_tells_what_is_shipped_from_what_only_builds(workspace: Workspace) -> None:
    digests = {}
    for name in ("both.whl", "old.whl", "setuptools.whl", "patroni.whl"):
        files.write(workspace.wheels / name, name)
        digests[name] = files.sha256_text(name)
    files.write_json(workspace.wheels / "known.json", {str(n): name for n, name in enumerate(digests)})
    locked = {"patroni-build.txt": ("both.whl", "setuptools.whl"), "patroni.txt": ("both.whl", "patroni.whl")}
    assert set(locked) == set(deb.LOCKS)
    for lock, names in locked.items():
        lines = [f"{name.partition('.')[0]}==1 --hash=sha256:{digests[name]}" for name in names]
        files.write(workspace.requirements / lock, "\n".join(lines))
    assert image._wheels(workspace) == [
        {"name": "both.whl", "sha256": digests["both.whl"], "shipped": True},
        {"name": "patroni.whl", "sha256": digests["patroni.whl"], "shipped": True},
        {"name": "setuptools.whl", "sha256": digests["setuptools.whl"], "shipped": False},
    ]
