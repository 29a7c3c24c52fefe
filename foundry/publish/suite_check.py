"""What apt reads of a channel in a store, looked at with the public key: by whoever does not run apt itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from foundry import gpg
from foundry.publish import aptrepo, offline_check
from foundry.publish.ledger import Broken
from foundry.publish.offline_check import Unfit
from foundry.publish.stores import Missing, Store
from foundry.publish.trust import Found


def lines(store: Store, seen: Found, title: str, version: str, index: bytes, scratch: Path) -> Iterator[str]:
    """A line for a person about the suite of each channel that points at a version. index: the version's packages.

    apt begins with InRelease, and takes the indexes by the digests in it. Raises BadSignature, Broken.
    """
    state, keys, line = seen.state, seen.keys, seen.line
    channels = [c for c, stack in state.channels.get(title, {}).items() if stack and stack[-1] == version]
    for channel in channels:
        suite = aptrepo.suite_name(title, channel)
        root = f"{aptrepo.FOLDER}/dists/{suite}"
        try:
            signed = store.read(f"{root}/InRelease")
        except Missing:
            yield f"apt      {suite}: the store has none"
            continue
        path = scratch / "InRelease"
        path.write_bytes(signed)
        text, signatures = gpg.signed_once(path, keys, scratch, several=True)
        standings = [line.standing(signature, datetime.now(UTC)) for signature in signatures]
        if "good" not in standings:
            raise gpg.lapsed(f"{suite}: {path.name}", standings[0])
        try:
            area = {"InRelease": signed}
            for digest, _ in offline_check.listed(text, suite).values():
                area[f"{aptrepo.BY_HASH}/{digest}"] = store.read(f"{root}/{aptrepo.BY_HASH}/{digest}")
            plain = next(area[f"{aptrepo.BY_HASH}/{d}"] for d, _ in offline_check.listed(text, suite).values())
            offline_check.check_suite(area, plain, suite, keys, scratch, several=True)
        except (Unfit, Missing) as error:
            raise Broken(f"{store.url}: what apt reads of {channel} does not fit: {error}") from error
        if plain == index:
            yield f"apt      {suite} is signed, and has the packages of this version by name and sha256"
        else:
            # A publisher was killed before it wrote it, or somebody has put an older one back.
            yield (
                f"apt      {suite} is signed, but has the packages of another version: its publisher mends that by "
                f"`./inv promote {version} --channel {channel}`"
            )


UNSEEN = "unseen   packages in apt/pool (apt compares them), streams/ (for incus and LXD), pages and .sources files"
"""What a check of a version does not look at."""
