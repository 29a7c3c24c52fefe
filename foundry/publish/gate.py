"""What may be published: an image whose very bytes have passed, by all that is known of them here and now."""

from __future__ import annotations

from foundry import files, image, verify
from foundry.config import Config
from foundry.errors import FoundryError
from foundry.verify import Verdict
from foundry.workspace import Workspace


class Refused(FoundryError):
    """An image may not be published."""

    code = 11


def admit(release: image.Release, settings: Config, workspace: Workspace) -> Verdict:
    """The verdict that lets an image be published. Raises Refused, with all that is missing and what makes it.

    Every file is read anew: a record of what it once was proves nothing.
    """
    changed = [
        f"{entry['name']} is not the file that its manifest describes"
        for entry in release.manifest["files"]
        if _digest(release, str(entry["name"])) != entry["sha256"]
    ]
    if changed:
        raise Refused(
            f"publish: {release.folder} was changed after it was built",
            details="\n".join(changed),
            hint="`./inv build-image` makes it anew",
        )
    path = verify.verdict_path(release.main)
    why = verify.refusal(path, release.digest, workspace, settings.verify.max_age_days)
    verdict = verify.load(path)
    if why is None and verdict is not None and str(verdict.machine) != "vm":
        why = f"{path.name} was made on a {verdict.machine}, and only a virtual machine boots what people will boot"
    if why is not None or verdict is None:
        raise Refused(
            f"publish: {release.main.name} is not proved: {why}",
            hint=f"`./inv verify-image --manifest {release.folder / image.MANIFEST}` boots and checks it",
        )
    return verdict


def _digest(release: image.Release, name: str) -> str | None:
    path = release.folder / name
    return files.sha256(path) if path.is_file() else None
