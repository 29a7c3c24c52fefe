"""What someone who has only the public key can find out about a store, and take from it.

Nothing is believed before its signature holds, and each thing has to be what the signed thing above it says: the index
names the log's last entry and each version's checksums, these name every file, the verdict names the disk.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foundry import evidence, files, gpg, image, lock, log, verify
from foundry.config import Config
from foundry.errors import ConfigError
from foundry.publish import bundle, documents, formats, ledger, offline, signing, suite_check, trust
from foundry.publish.ledger import Broken, State
from foundry.publish.session import opened
from foundry.publish.stores import LARGEST, Missing, Store
from foundry.publish.version import Version
from foundry.workspace import Workspace


@dataclass(frozen=True)
class Consumer:
    """A store as it is seen with a public key. keys: as trust has found them. scratch: removed by the caller."""

    store: Store
    keys: Path
    scratch: Path

    def version(self, title: str, version: str, state: State, target: Path) -> dict[str, str]:
        """Bring a whole version to target, each file checked; returns name to sha256. Raises Broken, Missing."""
        folder = f"images/{title}/{version}"
        for name in (bundle.SUMS, bundle.SIGNATURE):
            # Nobody has said yet how large these are.
            (target / name).write_bytes(self.store.read(f"{folder}/{name}"))
        if files.sha256(target / bundle.SUMS) != state.versions[title][version]:
            raise Broken(f"{folder}/{bundle.SUMS} is not the one that the index names")
        # The log names these very bytes, and a key that holds vouches for it.
        gpg.check(target / bundle.SUMS, target / bundle.SIGNATURE, self.keys, once=True)
        try:
            sums = bundle.parse_sums((target / bundle.SUMS).read_text(encoding="utf-8"))
        except ValueError as error:
            raise Broken(f"{folder}/{bundle.SUMS}: {error}") from error
        lacking = documents.expected(version, sums) - sums.keys()
        if lacking:
            raise Broken(
                f"{folder}/{bundle.SUMS} names no {', '.join(sorted(lacking))}",
                hint="was it published by an older program, or by another one? its publisher can bring a new version",
            )
        # What these say of the others' sizes is signed.
        first = (image.MANIFEST, formats.INDEX)
        limits: dict[str, int] = {}
        for name, digest in sorted(sums.items(), key=lambda row: row[0] not in first):
            log.activity(f"fetching {name}")
            if name not in first and not limits:
                limits = _limits(version, target)
            self.store.download(f"{folder}/{name}", target / name, limits.get(name, LARGEST))
            if files.sha256(target / name) != digest:
                (target / name).unlink()
                raise Broken(f"{folder}/{name} is not what {bundle.SUMS} says")
        try:
            _proved(title, version, sums, target)
            wrong = documents.problems(target, self.keys, self.scratch)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            # All others are read by what says so itself where they make no sense.
            raise Broken(f"{folder}/{image.MANIFEST} is not as this program writes it: {error!r}") from error
        if wrong:
            raise Broken(f"what is said about {version} does not fit it", details="\n".join(wrong))
        return sums


def _limits(version: str, folder: Path) -> dict[str, int]:
    """The bytes that files of a version may have, by name: those that its manifest and its index of packages tell."""
    try:
        manifest = json.loads((folder / image.MANIFEST).read_text(encoding="utf-8"))
        found = {str(row["name"]): int(row["size"]) for row in manifest["files"]}
        found[offline.name(Version("", version, (), {}))] = offline.largest((folder / formats.INDEX).read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Broken(f"{image.MANIFEST} or {formats.INDEX} is not as this program writes it: {error!r}") from error
    return found


def _proved(title: str, version: str, sums: Mapping[str, str], folder: Path) -> None:
    """Raise Broken unless manifest, verdict and evidence are about this version's disk, and all checks have passed."""
    manifest = json.loads((folder / image.MANIFEST).read_text(encoding="utf-8"))
    if (manifest["name"], manifest["version"]) != (title, version):
        raise Broken(f"{image.MANIFEST} is about {manifest['name']} {manifest['version']}")
    wrong = [str(e["name"]) for e in manifest["files"] if sums.get(str(e["name"])) != e["sha256"]]
    if wrong:
        raise Broken(f"{image.MANIFEST} has other digests of {', '.join(wrong)}")
    verdict = verify.load(folder / bundle.VERDICT)
    disk = manifest["files"][0]
    if verdict is None:
        raise Broken(f"{bundle.VERDICT} is missing, or no verdict")
    if verdict.image != disk["sha256"]:
        raise Broken(f"{bundle.VERDICT} is about another image (sha256 {verdict.image[:12]}…) than {disk['name']}")
    if not verdict.passed or str(verdict.machine) != "vm":
        raise Broken(f"{bundle.VERDICT} does not say that every check has passed in a virtual machine")
    for kind in evidence.KINDS:
        if verdict.evidence.get(kind) != sums[kind]:
            raise Broken(f"{kind} is not the one that {bundle.VERDICT} was made with")


def chosen(state: State, wanted: str, title: str | None = None) -> tuple[str, str]:
    """The image and the version that a channel's or a version's name stands for. Raises ConfigError."""
    titles = [title] if title else list(state.versions)
    for name in titles:
        current = state.current(name, wanted)
        if current:
            return name, current
        if wanted in state.versions.get(name, {}):
            return name, wanted
    channels = sorted({c for name in titles for c in state.channels.get(name, {})})
    raise ConfigError(
        f"there is no channel and no version {wanted}", hint=f"channels: {', '.join(channels) or 'none yet'}"
    )


def verify_release(
    settings: Config,
    workspace: Workspace,
    url: str,
    public: Path | None,
    *,
    wanted: str,
    title: str | None,
    keep: Path | None = None,
    accept: str | None = None,
) -> list[str]:
    """Fetch a version, or what a channel points at, and check all that belongs to it; returns lines for a person.

    public: the publisher's public key, if not publish.public_key. keep: a folder for the version's files, which is made
    whole or not at all. accept: what is to be believed although it is not what was there before; see trust.
    Raises BadSignature, Broken, Stale, ConfigError, StoreError.
    """
    if keep and keep.exists():
        raise ConfigError(f"--keep: {keep} is there already", hint="name a folder that is to be made")
    public = public or settings.publish.public_key
    if public is None:
        raise ConfigError("whose signature shall hold?", hint="give --key FILE: the publisher's public key")
    with (
        lock.held(workspace, "wait until it has ended"),
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name,
        opened(settings, workspace, url, Path(name)) as store,
    ):
        scratch = Path(name)
        try:
            seen = trust.Reader(store, gpg.keyring(public, scratch), scratch, workspace.seen).take(accept)
        except Missing as error:
            raise ConfigError(
                f"{url} is no store: it has no {ledger.INDEX}", hint="`./inv publish` makes one"
            ) from error
        trust.warn_of_date(seen, store.url)
        state, consumer = seen.state, Consumer(store, seen.keys, scratch)
        found, version = chosen(state, wanted, title)
        target = keep or workspace.stage("fetched") / f"checked-{version}"
        with files.whole_folder(target) as folder:
            sums = consumer.version(found, version, state, folder)
        index = (target / formats.INDEX).read_bytes()
        suites = list(suite_check.lines(store, seen, found, version, index, scratch))
        manifest = json.loads((target / image.MANIFEST).read_text(encoding="utf-8"))
        verdict = verify.load(target / bundle.VERDICT)
        assert verdict is not None
        lines = [
            f"index    {_dated(seen)}, {state.sequence} entries in its log, each signed and following the one before",
            f"version  {found} {version}, built {manifest['built']}",
            f"files    {len(sums)}, each with the sha256 that {bundle.SUMS} (signed) has",
            "contents two lists (CycloneDX, SPDX) that agree with the manifest; origin signed, about these files",
            f"packages in {formats.INDEX}: only such as are in the image, by name, version and sha256",
            "tarball  these packages, the same index in each form, signed, and what this program writes; no more",
            *suites,
            f"verdict  {len(verdict.outcomes)} of {len(verdict.outcomes)} checks passed, {verdict.ended}",
            suite_check.UNSEEN,
        ]
        return lines + ([f"kept     {keep}"] if keep else _dropped(target))


def _dated(seen: trust.Found) -> str:
    until = f"good until {seen.expires.isoformat()}" if seen.expires else "without a date: it could be an old one"
    return f"signed, of the store {seen.state.store or 'without an id'}, {until}"


def _dropped(folder: Path) -> list[str]:
    shutil.rmtree(folder)
    return []


def published(settings: Config, workspace: Workspace, wanted: str) -> Path:
    """The disk that a channel or a version of one's own store stands for, fetched once and checked each time.

    Raises ConfigError where there is neither, nor an image of this name; else as verify_release does.
    """
    with (
        tempfile.TemporaryDirectory(prefix=files.own_prefix()) as name,
        opened(settings, workspace, None, Path(name)) as store,
    ):
        scratch = Path(name)
        if store.size(ledger.INDEX) is None:
            images = ", ".join(settings.images)
            raise ConfigError(
                f"there is no image {wanted} in foundry.yml, and nothing is published in {store.url}",
                hint=f"images: {images}; `./inv publish` makes channels",
            )
        keys = signing.trusted(settings, workspace, scratch)
        seen = trust.Reader(store, keys, scratch, workspace.seen).take()
        state, consumer = seen.state, Consumer(store, seen.keys, scratch)
        title, version = chosen(state, wanted)
        target = workspace.stage("fetched") / version
        sums = target / bundle.SUMS
        if not sums.is_file() or files.sha256(sums) != state.versions[title][version]:
            with (
                lock.held(workspace, "wait until it has ended"),
                log.stage("fetch", f"{title} {version} of {store.url}"),
                files.whole_folder(target) as folder,
            ):
                consumer.version(title, version, state, folder)
    release = image.load(target)
    if files.sha256(release.main) != release.digest:
        raise Broken(f"{release.main} was changed after it was fetched", hint=f"remove {target}")
    return release.main
